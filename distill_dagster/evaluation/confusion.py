"""Which labels are taken for which: counts for the report, and their table on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from distill_dagster.evaluation.metrics import match_label, normalise

#: A matrix of more classes is no longer read; its commonest mistakes are listed instead.
LARGEST, LISTED = 14, 12


def confusion(labels: Sequence[str], golds: Sequence[str | None], outputs: Sequence[str | None]) -> dict[str, Any]:
    """Counts of gold label (rows) by answered label (columns; the last one is for what is no label)."""
    names = list(labels) or sorted({normalise(gold) for gold in golds})
    place = {label: index for index, label in enumerate(names)}
    counts = [[0] * (len(names) + 1) for _ in names]
    for gold, output in zip(golds, outputs, strict=True):
        row = match_label(gold, names)
        if row is not None:
            said = match_label(output, names)
            counts[place[row]][len(names) if said is None else place[said]] += 1
    return {"labels": names, "counts": counts}


def _shade(count: int, total: int) -> str:
    if count == 0:
        return "heat0"
    share = count / max(total, 1)
    return "heat1" if share < 0.1 else "heat2" if share < 0.3 else "heat3" if share < 0.6 else "heat4"


def confusion_table(matrix: Mapping[str, Any]) -> str:
    """HTML of the counts: a matrix, or the commonest mistakes where there are many classes."""
    labels, counts = matrix["labels"], matrix["counts"]
    said = [*labels, "no label"]
    if len(labels) > LARGEST:
        wrong = [
            (counts[row][column], labels[row], said[column])
            for row in range(len(labels))
            for column in range(len(said))
            if row != column and counts[row][column]
        ]
        wrong.sort(key=lambda entry: (-entry[0], entry[1], entry[2]))
        lines = "".join(
            f'<tr><td class="text">{escape(true)}</td><td class="text">{escape(answer)}</td><td>{count}</td></tr>'
            for count, true, answer in wrong[:LISTED]
        )
        head = '<th scope="col">Right label</th><th scope="col">Student said</th><th scope="col">Items</th>'
        return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
    head = "".join(f'<th scope="col">{escape(label)}</th>' for label in said)
    lines = []
    for row, label in enumerate(labels):
        total = sum(counts[row])
        cells = "".join(
            f'<td class="{_shade(count, total)}{" hit" if row == column else ""}">{count}</td>'
            for column, count in enumerate(counts[row])
        )
        lines.append(f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>')
    return (
        '<p class="soft small">Rows: the right label. Columns: what the student said. Darker means a larger share of '
        "the row; the outlined diagonal is right.</p>"
        f'<div class="wide"><table class="confusion"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
