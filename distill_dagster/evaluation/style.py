"""Colours and marks of the arms, the same in every picture, and legible to colour-blind readers (Okabe & Ito)."""

from __future__ import annotations

from distill_dagster.evaluation.wording import multiple

INK = "#1f2933"
MUTED = "#6b7780"
GRID = "#e4e7eb"

_COLOURS = {"student": "#c8501e", "teacher": "#0b5c8f", "linear_teacher": "#7fa9c4", "linear_gold": "#b8a07a"}
_CONTROLS = {1: "#4f5b66", 2: "#7d8892", 4: "#a5aeb6"}
_FURTHER = ("#2a8c6e", "#8a5a96", "#a8892b", "#5b6fae")


def colour(arm: str) -> str:
    """Fill colour of an arm."""
    times = multiple(arm)
    if times is not None:
        return _CONTROLS.get(times, "#a5aeb6")
    return _COLOURS.get(arm) or _FURTHER[sum(arm.encode()) % len(_FURTHER)]


def hollow(arm: str) -> bool:
    """Whether an arm is drawn as a ring: the baselines, which are no networks."""
    return arm.startswith("linear_")
