"""Pictures for Dagster and MLflow, as PNG bytes that are the same for the same report.

They show counts and scores only, never record text. matplotlib is imported when a picture is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from distill_dagster.evaluation import style, wording
from distill_dagster.evaluation.canvas import DPI, bare, png, settings, title, wrapped
from distill_dagster.evaluation.protocol import Report


def score_figure(report: Report) -> bytes:
    """Every arm of every task as a dot with its interval; chance is a dashed line."""
    import matplotlib
    from matplotlib.figure import Figure

    tasks = report.content["tasks"]
    arms = wording.arm_order({arm for task in tasks for arm in task["arms"]})
    columns = min(3, len(tasks))
    lines = math.ceil(len(tasks) / columns)
    with matplotlib.rc_context(settings()):  # pyright: ignore[reportCallIssue, reportArgumentType]
        figure = Figure(figsize=(2.1 + 2.45 * columns, lines * (1.15 + 0.3 * max(len(arms), 2))), layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False)
        for index, axes in enumerate(panels.flat):
            if index >= len(tasks):
                axes.set_axis_off()
                continue
            task = tasks[index]
            bare(axes)
            title(axes, task["title"], 30)
            axes.set_xlim(-0.02, 1.04)
            axes.set_ylim(len(arms) - 0.4, -0.6)
            axes.set_yticks(range(len(arms)), [wording.arm_title(arm) for arm in arms] if index % columns == 0 else [])
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
            axes.axvline(task["chance"]["uniform"], color=style.MUTED, linestyle=(0, (3, 3)), linewidth=1)
            for row, arm in enumerate(arms):
                estimate = task["arms"].get(arm)
                if estimate is None:
                    axes.text(0.5, row, "not measured", color=style.MUTED, ha="center", va="center", fontsize=8)
                    continue
                shade = style.colour(arm)
                ends = [estimate["value"] if estimate[end] is None else estimate[end] for end in ("low", "high")]
                axes.plot(ends, [row, row], color=shade, linewidth=2.2)
                face = "white" if style.hollow(arm) else shade
                axes.plot(estimate["value"], row, "o", color=shade, markerfacecolor=face, markersize=5.5)
                right = ends[1] < 0.8
                axes.annotate(
                    wording.number(estimate["value"], 2),
                    (ends[1] if right else ends[0], row),
                    xytext=(6 if right else -6, 0),
                    textcoords="offset points",
                    ha="left" if right else "right",
                    va="center",
                    fontsize=8,
                    color=shade if arm in ("student", "teacher") else style.MUTED,
                    fontweight="bold" if arm == "student" else "normal",
                )
        level = f"{report.content['level']:.0%}"
        figure.supxlabel(
            f"Score, {level} interval over {report.content['interval_over']}; dashed: chance",
            fontsize=8,
            color=style.MUTED,
        )
        return png(figure, DPI if lines == 1 else 85)


def gap_figure(report: Report) -> bytes:
    """How much of the way from control (0) to teacher (1) the student went, a row a task and a mark a budget."""
    import matplotlib
    from matplotlib.figure import Figure

    tasks = report.content["tasks"]
    shown = [gap for task in tasks for gap in task["gap"].values() if gap is not None]
    low = max(-1.0, min([-0.05, *(gap["low"] for gap in shown)]) - 0.05)
    high = min(2.0, max([1.05, *(gap["high"] for gap in shown)]) + 0.05)
    with matplotlib.rc_context(settings()):  # pyright: ignore[reportCallIssue, reportArgumentType]
        figure = Figure(figsize=(8, 1.25 + 0.62 * len(tasks)), layout="constrained")
        axes = figure.subplots()
        bare(axes)
        axes.set_xlim(low, high)
        axes.set_ylim(len(tasks) - 0.45, -0.55)
        axes.set_yticks(range(len(tasks)), [wrapped(task["title"], 30) for task in tasks])
        axes.axvline(0, color=style.colour("control_1"), linewidth=1.4)
        axes.axvline(1, color=style.colour("teacher"), linewidth=1.4)
        ticks = {0: "control", 0.25: "¼", 0.5: "½", 0.75: "¾", 1: "teacher"}
        if high - low > 1.6:
            ticks = {0: "control", 0.5: "½", 1: "teacher"}
        axes.set_xticks(list(ticks), list(ticks.values()))
        multiples = sorted({int(times) for task in tasks for times, gap in task["gap"].items() if gap is not None})
        labelled: set[int] = set()
        for row, task in enumerate(tasks):
            gaps = {int(times): gap for times, gap in task["gap"].items() if gap is not None}
            if not gaps:
                words = wording.VERDICTS[task["verdict"]].lower()
                axes.text(
                    0.5,
                    row,
                    words,
                    color=style.MUTED,
                    ha="center",
                    va="center",
                    style="italic",
                    backgroundcolor="white",
                )
            for place, times in enumerate(multiples):
                if times not in gaps:
                    continue
                gap = gaps[times]
                height = row + (place - (len(multiples) - 1) / 2) * 0.2
                shade = style.colour("student") if times == 1 else style.colour(f"control_{times}")
                axes.plot([gap["low"], gap["high"]], [height, height], color=shade, linewidth=2.2)
                name = None if times in labelled else f"against {wording.arm_title(f'control_{times}').lower()}"
                labelled.add(times)
                mark = "<" if gap["value"] < low else ">" if gap["value"] > high else "o"
                axes.plot(min(max(gap["value"], low), high), height, mark, color=shade, markersize=5.5, label=name)
        if labelled:
            figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8, handletextpad=0.2)
        title(axes, "Share of the gap between control and teacher that the student closed", 90)
        return png(figure)


def loss_figure(curves: Mapping[str, Sequence[tuple[float, float]]], what: str = "loss") -> bytes:
    """Training losses by step, one line a name; steps whose loss is not finite leave a hole. Or other numbers, `what`.

    Names that are arms (`student`, `control_1`, …) keep their colours. Curves over 400 points are averaged in bins.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(settings()):  # pyright: ignore[reportCallIssue, reportArgumentType]
        figure = Figure(figsize=(7.2, 3.4), layout="constrained")
        axes = figure.subplots()
        bare(axes)
        axes.grid(True, axis="both")
        for name in wording.arm_order(curves):
            points = thin(curves[name])
            if points:
                steps, losses = zip(*points, strict=True)
                width = 2.0 if name == "student" else 1.5
                axes.plot(steps, losses, color=style.colour(name), linewidth=width, label=wording.arm_title(name))
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(what)
        title(axes, f"Training {what}", 60)
        if axes.has_data():
            axes.margins(x=0.01)
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
            axes.legend(frameon=False, fontsize=8)
        else:
            axes.text(0.5, 0.5, f"no {what} was recorded", transform=axes.transAxes, ha="center", color=style.MUTED)
        return png(figure)


def thin(points: Sequence[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    """At most `most` points, each the mean of a run of neighbours; NaN where none of them is finite."""
    run = max(1, math.ceil(len(points) / most))
    means = []
    for start in range(0, len(points), run):
        part = points[start : start + run]
        finite = [loss for _, loss in part if math.isfinite(loss)]
        means.append((part[len(part) // 2][0], sum(finite) / len(finite) if finite else math.nan))
    return means
