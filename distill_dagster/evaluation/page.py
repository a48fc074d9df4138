"""The report as one page for people who did not train the model: self-contained, without scripts, safe to mail.

Its content security policy allows the one style sheet inside it, by hash, and nothing else. Everything that is not
ours is escaped. Record text stands on it only where the caller says that the source shows its records.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from distill_dagster.evaluation import wording
from distill_dagster.evaluation.chart import gap_chart, score_chart
from distill_dagster.evaluation.confusion import confusion_table
from distill_dagster.evaluation.protocol import Report
from distill_dagster.evaluation.table import footnote, rows

#: Sample items shown of each task, and characters of each text.
SAMPLES, LONGEST = 4, 1200

_KINDS = {
    "label": "one of {classes} labels; right only if it is the very label",
    "text": "a short text; right only if it equals the expected one, upper and lower case and spaces aside",
    "verified": "a result that can be worked out; a verifier works it out again and compares",
}
_UNITS = {
    "parameters": "Parameters",
    "bytes": "Size on disk",
    "seconds_per_item": "Time an item",
    "peak_memory_bytes": "Peak memory",
    "cost_micros": "Cost, millionths",
}


@cache
def _style() -> str:
    return files("distill_dagster.evaluation").joinpath("page.css").read_text(encoding="utf-8")


def _policy(css: str) -> str:
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _table(head: Sequence[str], body: Sequence[tuple[str, Sequence[str]]], strong: Sequence[str] = ()) -> str:
    cells = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    lines = []
    for title, values in body:
        mark = ' class="strong"' if title in strong else ""
        row = "".join(f"<td>{escape(value)}</td>" for value in values)
        lines.append(f'<tr{mark}><th scope="row">{escape(title)}</th>{row}</tr>')
    return f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def quantity(name: str, value: Any) -> str:
    """A resource as people read it: bytes in MB, seconds in ms, large counts in millions."""
    if value is None:
        return "–"
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return str(value)
    if name.endswith("bytes"):
        return f"{value / 1e6:,.1f} MB"
    if "seconds" in name:
        return f"{value * 1e3:,.1f} ms" if value < 1 else f"{value:,.1f} s"
    if value >= 1e6:
        return f"{value / 1e6:,.2f} M"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _summary(tasks: Sequence[Mapping[str, Any]]) -> str:
    cards = []
    for task in tasks:
        verdict = task["verdict"]
        notes = "".join(f'<p class="small soft">{escape(note)}</p>' for note in task["notes"])
        cards.append(
            f'<div class="card"><p><strong>{escape(task["title"])}</strong>'
            f'<span class="chip {verdict}">{escape(wording.VERDICTS[verdict])}</span></p>'
            f"<p>{escape(task['sentence'])}</p>{notes}</div>"
        )
    return "".join(cards)


def _asked(tasks: Sequence[Mapping[str, Any]]) -> str:
    entries = []
    for task in tasks:
        kind = _KINDS[task["kind"]].format(classes=round(1 / (task["chance"]["uniform"] or 1)))
        about = f"{task['description']} " if task["description"] else ""
        subjects = f", about {task['subjects']:,} subjects" if task["subjects"] != task["n"] else ""
        entries.append(
            f"<dt>{escape(task['title'])}</dt><dd>{escape(about)}The answer is {escape(kind)}. "
            f"<span class='soft'>{task['n']:,} items{subjects}.</span></dd>"
        )
    return f"<dl>{''.join(entries)}</dl>"


def _arms(tasks: Sequence[Mapping[str, Any]]) -> str:
    arms = wording.arm_order({arm for task in tasks for arm in task["arms"]})
    return "".join(
        f"<dt>{escape(wording.arm_title(arm))}</dt><dd>{escape(wording.arm_meaning(arm))}</dd>" for arm in arms
    )


def _limits(content: Mapping[str, Any]) -> str:
    lines = []
    if content["seeds"] == 1:
        lines.append(
            "Each model was trained once. The intervals say how much the scores would move with other test items, "
            "not how much they would move with another training run."
        )
    for task in content["tasks"]:
        if task["verdict"] in ("not_informative", "not_measured"):
            lines.append(f"{task['title']}: {task['sentence']}")
        elif task["verdict"] == "helped" and not task["claim"]:
            lines.append(f"{task['title']}: larger budgets of the control are missing, so nothing is claimed.")
    lines.append(
        "The scores hold for items like the examined ones; other wording, other documents or other people may differ."
    )
    if content["notice"]:
        lines.append(content["notice"])
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _resources(resources: Mapping[str, Mapping[str, Any]]) -> str:
    names = [name for name in _UNITS if any(name in known for known in resources.values())]
    names += sorted({name for known in resources.values() for name in known} - set(_UNITS))
    body = [
        (wording.arm_title(arm), [quantity(name, resources[arm].get(name)) for name in names])
        for arm in wording.arm_order(resources)
    ]
    head = ["", *(_UNITS.get(name, name.replace("_", " ").capitalize()) for name in names)]
    return _table(head, body, strong=("Student",))


def _samples(samples: Sequence[Mapping[str, Any]], tasks: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for task in tasks:
        chosen = [sample for sample in samples if sample.get("task") == task["name"]][:SAMPLES]
        if not chosen:
            continue
        arms = wording.arm_order({arm for sample in chosen for arm in sample.get("outputs", {})})
        head = ["Item", "Expected", *(wording.arm_title(arm) for arm in arms)]
        lines = []
        for sample in chosen:
            texts = [sample.get("text"), sample.get("answer"), *(sample.get("outputs", {}).get(arm) for arm in arms)]
            cells = "".join(f'<td class="text">{escape(_cut(text))}</td>' for text in texts)
            lines.append(f"<tr>{cells}</tr>")
        titles = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
        parts.append(
            f"<h3>{escape(task['title'])}</h3>"
            f'<div class="wide"><table class="samples"><thead><tr>{titles}</tr></thead>'
            f"<tbody>{''.join(lines)}</tbody></table></div>"
        )
    return "".join(parts)


def _cut(text: Any) -> str:
    words = "–" if text is None else str(text)
    return words if len(words) <= LONGEST else words[:LONGEST] + " …"


def page(report: Report, samples: Sequence[Mapping[str, Any]] = (), show_records: bool = False) -> str:
    """The page as a string.

    Args:
        report: What `examine` returned.
        samples: `{task, text, answer, outputs: {arm: answer}}`; the first few of each task are shown.
        show_records: Whether record text may stand on the page at all; `samples` is ignored without it.
    """
    content, css = report.content, _style()
    tasks = content["tasks"]
    notice = f'<p class="notice">{escape(content["notice"])}</p>' if content["notice"] else ""
    charts = "".join(
        f"<h3>{escape(task['title'])}</h3>{score_chart(task)}{gap_chart(task)}"
        + ("" if task["informative"] else f'<p class="soft">{escape(task["sentence"])}</p>')
        for task in tasks
    )
    table = rows(tasks)
    strong = ["Student", *(title for title, _ in table if title.startswith("Gap closed"))]
    parts = [
        f"<h1>{escape(content['title'])}: evaluation</h1>",
        f'<p class="lead">{escape(content["overall"]["sentence"])}</p>',
        notice,
        _summary(tasks),
        "<h2>What was asked</h2>",
        "<p>A small model, the student, was taught with the answers of a larger one, the teacher. The question is what "
        "that teaching added. So the student stands beside a control: the same model, trained just as long on the "
        "correct answers that both may see, without the teacher.</p>",
        _asked(tasks),
        "<h2>Scores</h2>",
        '<p class="soft small">Share of items answered correctly. The bar is the interval; rings are baselines that '
        "need no neural network; the dashed line is guessing.</p>",
        charts,
        "<h3>All numbers</h3>",
        _table(["", *(task["title"] for task in tasks)], table, strong),
        f'<p class="soft small">{escape(footnote(content))}</p>',
        f"<h3>Who was examined</h3><dl>{_arms(tasks)}</dl>",
        "<h2>What this does not show</h2>",
        _limits(content),
    ]
    if report.resources:
        parts += ["<h2>What it takes</h2>", _resources(report.resources)]
    confusions = [task for task in tasks if task.get("confusion")]
    if confusions:
        parts.append("<h2>Where the student errs</h2>")
        parts += [f"<h3>{escape(task['title'])}</h3>{confusion_table(task['confusion'])}" for task in confusions]
    shown = _samples(samples, tasks) if show_records else ""
    if shown:
        parts += ["<h2>Some items</h2>", shown]
    parts.append(
        f"<footer><p>{content['n']:,} items; {content['resamples']:,} bootstrap resamples of whole subjects, the same "
        "for every model. A task is informative only where the teacher beats its control and the baseline on its own "
        "data, the interval of each difference lying above 0.</p></footer>"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(css)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{escape(content['title'])}: evaluation</title><style>{css}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def to_html(
    report: Report, path: str | Path, samples: Sequence[Mapping[str, Any]] = (), show_records: bool = False
) -> Path:
    """Write `page` to a file and return its path."""
    target = Path(path)
    target.write_text(page(report, samples, show_records), encoding="utf-8")
    return target
