"""The score table as text cells, the same in Markdown, terminal and page: arms are rows, tasks are columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distill_dagster.evaluation import wording


def rows(tasks: Sequence[Mapping[str, Any]], digits: int = 3) -> list[tuple[str, list[str]]]:
    """The score table of some tasks: (row title, one cell a task)."""
    table = [
        ("Items", [f"{task['n']:,}" for task in tasks]),
        ("Chance", [wording.number(task["chance"]["uniform"], digits) for task in tasks]),
    ]
    for arm in wording.arm_order({arm for task in tasks for arm in task["arms"]}):
        table.append((wording.arm_title(arm), [wording.interval(task["arms"].get(arm), digits) for task in tasks]))
    multiples = sorted({int(times) for task in tasks for times in task["gap"]})
    for times in multiples:
        cells = []
        for task in tasks:
            gap = task["gap"].get(str(times))
            cells.append(wording.VERDICTS[task["verdict"]].lower() if gap is None else wording.ratio_interval(gap))
        table.append(("Gap closed" if times == 1 else f"Gap closed, {times}× control", cells))
    if not multiples:
        table.append(("Gap closed", ["not measured"] * len(tasks)))
    return table


def footnote(content: Mapping[str, Any]) -> str:
    """How the numbers are to be read, in one line."""
    seeds = "1 seed" if content["seeds"] == 1 else f"{content['seeds']} paired seeds"
    return (
        f"{content['level']:.0%} intervals over {content['interval_over']} ({seeds}), by subject; "
        "gap closed = (student − control) / (teacher − control)."
    )
