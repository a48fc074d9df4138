"""Prompt styles: what each is for, and what its templates may read.

`full` and `short` put a task to a model. The others belong to one kind of knowledge each, and stand in a prompt set
only where a pipeline of the source lists that kind. A system template reads what a person wrote in YAML and nothing
else; text of a record or of a model is given to user templates alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

StyleName = Literal[
    "full",
    "short",
    "rationale",
    "expand",
    "evolve",
    "subtopics",
    "curate",
    "compare",
    "rate",
    "critique",
    "revise",
]


@dataclass(frozen=True)
class Style:
    """Variables of a user template and of a system template."""

    user: tuple[str, ...]
    system: tuple[str, ...] = ("labels",)


_TASK = Style(("input", "labels", "context", "choices", "rationale"), ("labels", "rationale"))
_ABOUT = ("input", "context", "choices", "labels", "mark")

#: Styles that every task has.
ALWAYS: tuple[StyleName, ...] = ("full", "short")

STYLES: dict[StyleName, Style] = {
    "full": _TASK,
    "short": _TASK,
    "rationale": _TASK,
    "expand": Style(("exemplars", "context", "labels", "count"), ("labels", "count")),
    "evolve": Style(("input", "context", "labels", "operation"), ("labels", "operation")),
    "subtopics": Style(("topic", "labels", "count"), ("labels", "count")),
    "curate": Style(("topic", "subtopic", "labels", "count"), ("labels", "count")),
    "compare": Style((*_ABOUT, "first", "second")),
    "rate": Style((*_ABOUT, "answer", "criteria", "low", "high"), ("labels", "criteria", "low", "high")),
    "critique": Style((*_ABOUT, "answer")),
    "revise": Style((*_ABOUT, "answer", "critique")),
}
