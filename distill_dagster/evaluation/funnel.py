"""Pictures of what filtering did: the funnel, and lengths and labels before and after. Counts only, no record text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distill_dagster.evaluation import style
from distill_dagster.evaluation.canvas import bare, png, settings, title, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOST, KEPT, ALL = "#b5452c", "#2a8c6e", "#9aa5ae"
#: Rows that a picture shows; the smallest of more are one row.
MOST = 14
#: Tasks that the label picture shows.
TASKS = 6


def funnel_figure(funnel: Mapping[str, int]) -> bytes:
    """Candidates at the top, what each reason took away, and what was kept: bars of a waterfall.

    Args:
        funnel: `candidates`, `kept`, and everything else by its name: what was lost, in order.
    """
    import matplotlib
    from matplotlib.figure import Figure

    total, kept = funnel.get("candidates", 0), funnel.get("kept", 0)
    losses = [(name.removeprefix("dropped: "), count) for name, count in funnel.items() if name not in _ENDS and count]
    losses = _largest(losses, MOST - 2)
    left, rows = total, [("candidates", 0, total, ALL)]
    for name, count in losses:
        rows.append((name, left - count, count, LOST))
        left -= count
    rows.append(("kept", 0, kept, KEPT))
    with matplotlib.rc_context(settings()):  # pyright: ignore[reportCallIssue, reportArgumentType]
        figure = Figure(figsize=(8.2, 0.9 + 0.34 * len(rows)), layout="constrained")
        axes = figure.subplots()
        bare(axes)
        axes.set_xlim(0, max(total, 1) * 1.24)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), [_short(name) for name, *_ in rows])
        _counts(axes, 6)
        for at, (_, start, count, shade) in enumerate(rows):
            axes.barh(at, count, left=start, height=0.66, color=shade, edgecolor=shade, linewidth=0.8)
            if 0 < at < len(rows) - 1:
                axes.plot([start + (count if shade == LOST else 0)] * 2, [at - 1 + 0.33, at - 0.33], color=ALL, lw=0.8)
            share = f"  {count / total:.1%}" if total and at > 0 else ""
            sign = "−" if shade == LOST else ""
            axes.annotate(
                f"{sign}{count:,}{share}", (start + count, at), xytext=(5, 0), textcoords="offset points", va="center",
                fontsize=8, color=style.INK, bbox=_CLEAR,
            )  # fmt: skip
        title(axes, "What became of the teacher's answers", 90)
        return png(figure)


_ENDS = ("candidates", "kept")


def length_figure(lengths: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Lengths in words before and after, a panel for prompts and one for answers, as shares of their totals.

    Args:
        lengths: By name: `edges` of the bins, counts `before` and `after`, and the medians of both.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    with matplotlib.rc_context(settings()):  # pyright: ignore[reportCallIssue, reportArgumentType]
        figure = Figure(figsize=(9.2, 2.9), layout="constrained")
        for axes, (name, found) in zip(
            figure.subplots(1, len(lengths), squeeze=False).flat, lengths.items(), strict=True
        ):
            bare(axes)
            axes.grid(False, axis="x")
            axes.grid(True, axis="y")
            edges = found["edges"]
            for key, shade in (("before", ALL), ("after", KEPT)):
                total = sum(found[key]) or 1
                shares = [count / total for count in found[key]]
                label = f"{key}: {sum(found[key]):,}, median {found[f'median_{key}']:g}"
                axes.stairs(
                    shares,
                    edges,
                    color=shade,
                    linewidth=1.8,
                    fill=key == "before",
                    alpha=0.45 if key == "before" else 1,
                    label=label,
                )
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.set_ylim(0, axes.get_ylim()[1] * 1.3)
            _counts(axes, 7)
            axes.set_xlabel(f"words in the {name}", fontsize=8)
            axes.legend(frameon=False, fontsize=8, loc="upper right")
            title(axes, f"Length of the {name}", 40)
        return png(figure)


def label_figure(labels: Mapping[str, Mapping[str, Sequence[int]]]) -> bytes | None:
    """Counts of each label before and after, a panel a task; None where no task has labels.

    Args:
        labels: By task, by label: counts before and after. Labels of a task beyond the largest ones are one row.
    """
    import matplotlib
    from matplotlib.figure import Figure

    shown = [
        (task, _largest([(name, *counts) for name, counts in found.items()], MOST))
        for task, found in labels.items()
        if found
    ]
    shown = shown[:TASKS]
    if not shown:
        return None
    columns = min(2, len(shown))
    lines = math.ceil(len(shown) / columns)
    depth = [max(2, *(len(rows) for _, rows in shown[at * columns :][:columns])) for at in range(lines)]
    with matplotlib.rc_context(settings()):  # pyright: ignore[reportCallIssue, reportArgumentType]
        size = (9.2 if columns == 2 else 6.5, 0.3 + sum(0.7 + 0.25 * rows for rows in depth))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False, height_ratios=depth)
        for at, axes in enumerate(panels.flat):
            if at >= len(shown):
                axes.set_axis_off()
                continue
            task, rows = shown[at]
            bare(axes)
            axes.set_yticks(range(len(rows)), [_short(name, 26) for name, *_ in rows])
            axes.set_ylim(depth[at // columns] - 0.4, -0.6)
            most = max(before for _, before, _ in rows)
            axes.set_xlim(0, max(most, 1) * 1.3)
            _counts(axes, 4)
            for row, (_, before, after) in enumerate(rows):
                axes.barh(row, before, height=0.72, color=ALL, alpha=0.45)
                axes.barh(row, after, height=0.36, color=KEPT)
                axes.annotate(
                    f"{after:,} of {before:,}", (before, row), xytext=(5, 0), textcoords="offset points", va="center",
                    fontsize=7.5, color=style.MUTED, bbox=_CLEAR,
                )  # fmt: skip
            title(axes, f"Labels of {task}", 34)
        figure.supxlabel("wide bar: answered; narrow bar: kept", fontsize=8, color=style.MUTED)
        return png(figure)


#: Behind numbers, so that no grid line runs through them.
_CLEAR = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}


def _counts(axes: Axes, ticks: int) -> None:
    """Whole numbers along x."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _largest(rows: list[Any], most: int) -> list[Any]:
    """Rows in their order; of more than `most`, the smallest are added up in a last one."""
    if len(rows) <= most:
        return rows
    keep = sorted(range(len(rows)), key=lambda at: -rows[at][1])[: most - 1]
    rest = [row for at, row in enumerate(rows) if at not in keep]
    added = tuple(sum(row[column] for row in rest) for column in range(1, len(rest[0])))
    return [*(rows[at] for at in sorted(keep)), (f"{len(rest)} more", *added)]


def _short(name: str, most: int = 34) -> str:
    return wrapped(name if len(name) <= most else name[: most - 1] + "…", most).replace("$", r"\$")
