"""A training run as one picture: loss terms, learning rate, gradient norm, tokens a second."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distill_dagster.config.registry import names
from distill_dagster.evaluation import style, wording
from distill_dagster.evaluation.canvas import bare, png, settings, title
from distill_dagster.evaluation.figures import thin

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Terms that are no objective: explanations as a second task.
OTHERS = frozenset({"rationale"})
#: Strokes of the terms, in the order of their names.
STROKES = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))

Rows = Sequence[Mapping[str, Any]]


def run_figure(runs: Mapping[str, Rows]) -> bytes:
    """Four panels over the optimizer steps, a colour a run, as PNG bytes.

    Args:
        runs: Lines of `metrics.jsonl` by the run's name; names that are arms keep their colours.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(settings()):  # pyright: ignore[reportCallIssue, reportArgumentType]
        figure = Figure(figsize=(9.2, 5.6), layout="constrained")
        panels = figure.subplots(2, 2)
        order = wording.arm_order(runs)
        _terms(panels[0, 0], {name: runs[name] for name in order})
        for axes, key, words, logarithmic in (
            (panels[0, 1], "lr", "Learning rate", False),
            (panels[1, 0], "grad_norm", "Gradient norm, before clipping", True),
            (panels[1, 1], "tokens_per_second", "Tokens a second", False),
        ):
            for name in order:
                _line(axes, runs[name], key, style.colour(name), "-", wording.arm_title(name))
            _finish(axes, words, logarithmic)
        if len(order) > 1:
            panels[0, 1].legend(frameon=False, fontsize=8)
        for axes in panels[1]:
            axes.set_xlabel("optimizer step")
        return png(figure, 100)


def _terms(axes: Axes, runs: Mapping[str, Rows]) -> None:
    """The loss of every run; of a single one its terms as well, where there are several; validation as dots."""
    for name, rows in runs.items():
        shade, whose = style.colour(name), f"{wording.arm_title(name)}: " if len(runs) > 1 else ""
        _line(axes, rows, "loss", shade, "-", f"{whose}loss")
        # Beside its terms a line holds rates, norms, counts and what terms measured.
        known = OTHERS.union(names("distill_dagster.training.objectives"))
        terms = sorted({key for row in rows for key in row} & known) if len(runs) == 1 else []
        if len(terms) > 1:
            for term, stroke in zip(terms, STROKES * (1 + len(terms) // len(STROKES)), strict=False):
                _line(axes, rows, term, style.MUTED, stroke, term)
        looks = [(row["step"], row["validation_loss"]) for row in rows if "validation_loss" in row]
        if looks:
            axes.plot(*zip(*looks, strict=True), "o", color=shade, markersize=4, markerfacecolor="white")
            axes.plot([], [], "o", color=shade, markersize=4, markerfacecolor="white", label=f"{whose}validation")
    _finish(axes, "Loss, in nats a token", False)
    if axes.has_data():
        axes.legend(frameon=False, fontsize=8)


def _line(axes: Axes, rows: Rows, key: str, shade: str, stroke: Any, label: str) -> None:
    points = thin([(row["step"], row[key]) for row in rows if isinstance(row.get(key), (int, float))])
    if points:
        steps, values = zip(*points, strict=True)
        mark = "o" if len(points) == 1 else ""
        axes.plot(steps, values, color=shade, linestyle=stroke, marker=mark, linewidth=1.6, label=label)


def _finish(axes: Axes, words: str, logarithmic: bool) -> None:
    bare(axes)
    axes.grid(True, axis="both")
    title(axes, words, 60)
    if not axes.has_data():
        axes.text(0.5, 0.5, "nothing was recorded", transform=axes.transAxes, ha="center", color=style.MUTED)
        return
    axes.margins(x=0.01)
    values = [value for drawn in axes.get_lines() for value in drawn.get_ydata() if math.isfinite(value)]  # pyright: ignore
    if logarithmic and values and min(values) > 0:
        from matplotlib.ticker import LogLocator, NullFormatter

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
