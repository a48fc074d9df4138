"""Inline SVG of a task's arms, for the page: text stays text, colours follow the page's light or dark style."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from distill_dagster.evaluation import style, wording

WIDTH, LEFT, RIGHT, ROW = 760, 190, 160, 26


def _x(value: float) -> float:
    return round(LEFT + value * (WIDTH - LEFT - RIGHT), 1)


def _dot(arm: str, x: float, y: float) -> str:
    shade = style.colour(arm)
    fill = 'class="ring"' if style.hollow(arm) else f'fill="{shade}"'
    return f'<circle cx="{x}" cy="{y}" r="4.5" {fill} stroke="{shade}" stroke-width="1.6"/>'


def score_chart(task: Mapping[str, Any]) -> str:
    """Dots with intervals, one row an arm, chance as a dashed line, the numbers at the right."""
    arms = wording.arm_order(task["arms"])
    bottom = ROW * len(arms) + 8
    name = escape(task["title"], quote=True)
    parts = [f'<svg viewBox="0 0 {WIDTH} {bottom + 36}" role="img" aria-label="Scores of {name}">']
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<line class="grid" x1="{_x(tick)}" x2="{_x(tick)}" y1="4" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{_x(tick)}" y="{bottom + 15}" text-anchor="middle">{tick:g}</text>')
    chance = _x(task["chance"]["uniform"])
    parts.append(f'<line class="chance" x1="{chance}" x2="{chance}" y1="4" y2="{bottom}"/>')
    parts.append(f'<text class="tick" x="{chance}" y="{bottom + 30}" text-anchor="middle">chance</text>')
    for row, arm in enumerate(arms):
        y = ROW * row + 18
        estimate = task["arms"][arm]
        weight = ' class="strong"' if arm in ("student", "teacher") else ""
        parts.append(
            f'<text x="{LEFT - 14}" y="{y + 4}" text-anchor="end"{weight}>{escape(wording.arm_title(arm))}</text>'
        )
        if estimate["low"] is not None:
            parts.append(
                f'<line x1="{_x(estimate["low"])}" x2="{_x(estimate["high"])}" y1="{y}" y2="{y}" '
                f'stroke="{style.colour(arm)}" stroke-width="2.6" stroke-linecap="round"/>'
            )
        parts.append(_dot(arm, _x(estimate["value"]), y))
        parts.append(f'<text class="value" x="{WIDTH - RIGHT + 14}" y="{y + 4}">{wording.interval(estimate)}</text>')
    return "".join([*parts, "</svg>"])


def gap_chart(task: Mapping[str, Any]) -> str:
    """How far from each control (left) to the teacher (right) the student came; empty where nothing may be said."""
    gaps = {int(times): gap for times, gap in task["gap"].items() if gap is not None}
    if not gaps:
        return ""
    low = max(-1.0, min([0.0, *(gap["low"] for gap in gaps.values())]))
    high = min(2.0, max([1.0, *(gap["high"] for gap in gaps.values())]))

    def place(value: float) -> float:
        return _x((min(max(value, low), high) - low) / (high - low))

    bottom = ROW * len(gaps) + 8
    name = escape(task["title"], quote=True)
    parts = [f'<svg viewBox="0 0 {WIDTH} {bottom + 22}" role="img" aria-label="Gap closed in {name}">']
    for value, words in ((0, "control"), (0.5, "half the gap"), (1, "teacher")):
        kind = "grid" if value == 0.5 else "edge"
        parts.append(f'<line class="{kind}" x1="{place(value)}" x2="{place(value)}" y1="4" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{place(value)}" y="{bottom + 15}" text-anchor="middle">{words}</text>')
    for row, times in enumerate(sorted(gaps)):
        y, gap = ROW * row + 18, gaps[times]
        words = "Gap closed" if times == 1 else f"against {times}× budget"
        shade = style.colour("student") if times == 1 else style.colour(f"control_{times}")
        parts.append(f'<text x="{LEFT - 14}" y="{y + 4}" text-anchor="end">{words}</text>')
        parts.append(
            f'<line x1="{place(gap["low"])}" x2="{place(gap["high"])}" y1="{y}" y2="{y}" '
            f'stroke="{shade}" stroke-width="2.6" stroke-linecap="round"/>'
        )
        parts.append(f'<circle cx="{place(gap["value"])}" cy="{y}" r="4.5" fill="{shade}"/>')
        parts.append(f'<text class="value" x="{WIDTH - RIGHT + 14}" y="{y + 4}">{wording.ratio_interval(gap)}</text>')
    return "".join([*parts, "</svg>"])
