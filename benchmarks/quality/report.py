"""Tables, lines and pictures of what was measured; what is not measured yet is left out, or said to be missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import banking
import writers
from questions import GOLD, Questions
from study import TRIALS, TUNING, Study, line, name_of

ARMS = {
    "teacher": "Teacher, fitted on D_T",
    "linear_teacher": "Linear model on D_T",
    "linear_gold": "Linear model on D_G",
    "control_1": "Control: D_G alone",
    "control_2": "Control, 2× budget",
    "control_4": "Control, 4× budget",
    "early_stop": "D_G alone, early stop",
    "self_training": "Self-training on D_U",
    "smoothed": "Label smoothing at the teacher's entropy",
    "permuted": "Teacher's distributions permuted in class",
    "labels": "Teacher's labels",
    "student": "Student: soft labels and labels",
    "all_gold": "All of D_U with gold (a ceiling)",
    "control_1_2layers": "Two layers: control",
    "student_2layers": "Two layers: student",
}


class Scores:
    """Item scores of one part, by arm and size."""

    def __init__(self, study: Study, part: str) -> None:
        self.study, self.part = study, part

    def seeds(self, arms: Sequence[str], size: int) -> list[int]:
        """Seeds of which every one of these arms is measured: the paired ones."""
        count = int(self.study.options["seeds"])
        return [
            seed for seed in range(count) if all(self.study.has(name_of(self.part, arm, size, seed)) for arm in arms)
        ]

    def of(self, arm: str, size: int, seeds: Sequence[int], what: str = "scores") -> list[list[int]]:
        """Item scores, a row a seed."""
        return [self.study.read(name_of(self.part, arm, size, seed))[what] for seed in seeds]

    def rate(self, arm: str, size: int) -> float | None:
        """The learning rate that the trials chose."""
        names = [name_of(self.part, arm, size, TUNING, trial) for trial in range(TRIALS)]
        if not all(map(self.study.has, names)):
            return None
        tried = [(self.study.read(name)["validation"], self.study.read(name)["rate"]) for name in names]
        return min(tried, key=lambda pair: (-pair[0], pair[1]))[1]


def shown(estimate: Any, digits: int = 3) -> str:
    """`0.912 [0.902, 0.922]`, of an interval or of its mapping; a dash where there is none."""
    if estimate is None:
        return "–"
    found = estimate if isinstance(estimate, dict) else vars(estimate)
    return f"{found['value']:.{digits}f} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


def examined(study: Study, size: int) -> tuple[dict[str, Any], list[int]] | None:
    """The protocol's report of banking77 at one size of D_G, with the seeds it is over; None before one is whole."""
    from distill_dagster.domains.base import Task
    from distill_dagster.evaluation.protocol import Options, examine

    scores = Scores(study, banking.PART)
    seeds = scores.seeds(banking.BOTH, size)
    if not seeds or not study.has(name_of(banking.PART, "linear", size)):
        return None
    arms: dict[str, Any] = {arm: scores.of(arm, size, seeds) for arm in banking.BOTH}
    for arm in banking.FURTHER if size == GOLD else ():
        if scores.seeds([arm], size)[: len(seeds)] == seeds:
            arms[arm] = scores.of(arm, size, seeds)
    arms["teacher"] = study.read(banking.best_teacher(study))["scores"]
    arms["linear_teacher"] = study.read(name_of(banking.PART, "linear", 0))["scores"]
    arms["linear_gold"] = study.read(name_of(banking.PART, "linear", size))["scores"]
    questions = Questions(study)
    items = [{"task": "intent", "record_id": row.record_id, "answer": row.label} for row in questions.test]
    task = Task("intent", "label", "intent of a bank customer's question", "", tuple(questions.labels))
    return examine(items, arms, Options([task])).content["tasks"][0], seeds


def banking_table(study: Study) -> str:
    """Scores, what is kept of the teacher, gaps, and further differences."""
    parts = []
    for size in study.options["sizes"]:
        found = examined(study, size)
        if found is None:
            parts.append(f"D_G of {size}: no seed is measured whole yet.")
            continue
        task, seeds = found
        teacher = task["arms"]["teacher"]["value"]
        lines = [
            f"**D_G of {size:,} records**, {len(seeds)} paired seed{'s' * (len(seeds) > 1)}, {task['n']:,} test items:",
            "",
            "| arm | score | of the teacher | less the control | learning rate |",
            "|---|---:|---:|---:|---:|",
        ]
        for arm, title in ARMS.items():
            if arm not in task["arms"]:
                continue
            own = task["arms"][arm]
            kept = f"{own['value'] / teacher:.3f}" if arm != "teacher" else ""
            less = shown(_less(study, size, seeds, arm, "control_1"), 3) if _trained(arm) else ""
            rate = Scores(study, banking.PART).rate(arm, 0 if arm == "teacher" else GOLD)
            lines.append(f"| {title} | {shown(own)} | {kept} | {less} | {'' if rate is None else f'{rate:g}'} |")
        for times, gap in task["gap"].items():
            against = "the control" if times == "1" else f"the control at {times}× budget"
            lines.append(f"| **Gap closed**, by {against} | **{shown(gap, 2)}** | | | |")
        lines += ["", task["sentence"], *task["notes"]]
        parts.append("\n".join(lines))
    parts.append(_sweep(study))
    return "\n\n".join(part for part in parts if part)


def _trained(arm: str) -> bool:
    return arm not in ("teacher", "control_1") and not arm.startswith("linear")


def _less(study: Study, size: int, seeds: Sequence[int], arm: str, other: str) -> Any:
    from distill_dagster.evaluation.intervals import difference_interval

    scores = Scores(study, banking.PART)
    return difference_interval(scores.of(arm, size, seeds), scores.of(other, size, seeds))


def _sweep(study: Study) -> str:
    """Scores on D_val by temperature."""
    from distill_dagster.evaluation.intervals import mean_interval

    scores, rows = Scores(study, banking.PART), []
    arms = {1: "student_T1", 2: "student", 4: "student_T4", 8: "student_T8"}
    seeds = scores.seeds(list(arms.values()), GOLD)
    for hot, arm in arms.items() if seeds else ():
        own = mean_interval(scores.of(arm, GOLD, seeds, "chosen"))
        rows.append(f"| {hot} | {shown(own)} |")
    if not rows:
        return ""
    head = [f"Temperature of the student, on D_val ({len(seeds)} seeds; T = 2 was set beforehand, not by this):", ""]
    return "\n".join([*head, "| T | score on D_val |", "|---:|---:|", *rows])


def writers_table(study: Study) -> str:
    """Encoder beside causal students."""
    from distill_dagster.evaluation.intervals import difference_interval, mean_interval

    scores = Scores(study, writers.PART)
    seeds = scores.seeds(writers.ARMS, GOLD)
    if not seeds:
        return ""
    lines = [f"{len(seeds)} paired seeds, from nothing, D_G of {GOLD:,}:", ""]
    lines += ["| arm | parameters | score | less its control | learning rate |", "|---|---:|---:|---:|---:|"]
    for arm in writers.ARMS:
        own = scores.of(arm, GOLD, seeds)
        size = study.read(name_of(writers.PART, arm, GOLD, seeds[0]))["run"]["parameters"]
        less = ""
        if not arm.endswith("control"):
            less = shown(difference_interval(own, scores.of(f"{arm}_control", GOLD, seeds)))
        row = (
            arm.replace("_", ", "),
            f"{size / 1e6:.2f} M",
            shown(mean_interval(own)),
            less,
            f"{scores.rate(arm, GOLD):g}",
        )
        lines.append(f"| {' | '.join(row)} |")
    both = difference_interval(scores.of("encoder", GOLD, seeds), scores.of("causal", GOLD, seeds))
    return "\n".join([*lines, "", f"Encoder less causal student: {shown(both)}."])


def cost_table(study: Study) -> str:
    """What serving takes."""
    import cost

    names = {arm: name_of(cost.PART, arm) for arm in cost.MODELS}
    if not all(map(study.has, names.values())):
        return ""
    lines = [
        "| model | parameters | bytes, fp32 | ms a question, alone | ms a question, of 64 |",
        "|---|---:|---:|---:|---:|",
    ]
    for arm, name in names.items():
        own = study.read(name)
        size = f"{own['parameters'] / 1e6:.1f} M | {own['bytes'] / 1e6:.0f} MB"
        lines.append(
            f"| {ARMS.get(arm, arm).split(':')[0].split(',')[0]} | {size} | {own['ms_1']:.1f} | {own['ms_64']:.1f} |"
        )
    return "\n".join(lines)


def banking_lines(study: Study) -> list[dict[str, Any]]:
    """One JSON object a measure: the student beside its control."""
    found = []
    for size in study.options["sizes"]:
        done = examined(study, size)
        if done is None:
            continue
        arms = done[0]["arms"]
        ours, peer = arms["student"]["value"], arms["control_1"]["value"]
        found.append(line(f"banking77 D_G {size}", ours, peer, "equal-budget control"))
    return found


def curve(study: Study, path: Path) -> None:
    """The data-efficiency curve as a picture: score by the size of D_G."""
    import matplotlib
    from matplotlib.figure import Figure

    from distill_dagster.evaluation import style
    from distill_dagster.evaluation.canvas import bare, png, settings

    done = {size: found[0]["arms"] for size in study.options["sizes"] if (found := examined(study, size))}
    if not done:
        return
    series = {
        "student": ("Student: soft labels", style.colour("student")),
        "labels": ("Teacher's labels", "#2a8c6e"),
        "control_4": ("Control, 4× budget", style.colour("control_4")),
        "control_1": ("Control", style.colour("control_1")),
        "linear_gold": ("Linear model on D_G", style.colour("linear_gold")),
    }
    with matplotlib.rc_context(settings()):  # pyright: ignore
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        axes = figure.subplots()
        bare(axes)
        axes.grid(True, axis="y")
        axes.set_xscale("log")
        sizes = sorted(done)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.set_xlim(sizes[0] / 1.15, sizes[-1] * 1.9)
        axes.set_xlabel("records with gold answers (D_G)")
        axes.set_ylabel("share of test questions right")
        teacher = next(iter(done.values()))["teacher"]["value"]
        axes.plot([sizes[0], sizes[-1]], [teacher, teacher], color=style.colour("teacher"), linewidth=1.4)
        ends = [(teacher, "Teacher", style.colour("teacher"))]
        for number, (arm, (title, shade)) in enumerate(series.items()):
            there = [size for size in sizes if arm in done[size]]
            if not there:
                continue
            # A little apart, so that no interval hides another.
            places = [size * 1.015 ** (number - len(series) // 2) for size in there]
            points = [done[size][arm] for size in there]
            low = [point["value"] - point["low"] for point in points]
            high = [point["high"] - point["value"] for point in points]
            values = [point["value"] for point in points]
            axes.errorbar(
                places, values, yerr=[low, high], color=shade, marker="o", markersize=4.5, linewidth=1.8, capsize=2
            )
            ends.append((values[-1], title, shade))
        low, high = axes.get_ylim()
        heights = _apart([end[0] for end in ends], 0.05 * (high - low))
        for height, (_, title, shade) in zip(heights, ends, strict=True):
            axes.annotate(
                title, (sizes[-1], height), xytext=(12, 0), textcoords="offset points", va="center", color=shade
            )
        path.write_bytes(png(figure))


def _apart(heights: list[float], least: float) -> list[float]:
    """Heights of labels, moved so that no two stand on each other."""
    order, placed = sorted(range(len(heights)), key=lambda at: -heights[at]), dict(enumerate(heights))
    for above, below in zip(order, order[1:], strict=False):
        placed[below] = min(placed[below], placed[above] - least)
    return [placed[at] for at in range(len(heights))]
