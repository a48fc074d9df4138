"""Driving a kind of knowledge by hand, and the least material to drive it with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from distill_dagster.config.models import Block, Sampling, TeacherConfig
from distill_dagster.config.styles import STYLES
from distill_dagster.domains.base import Task
from distill_dagster.domains.generic.domain import templates
from distill_dagster.knowledge._templates import generic
from distill_dagster.knowledge.base import Answer, Harvest, Material, Question, load_kind
from distill_dagster.records.messages import message
from distill_dagster.records.tables import build
from distill_dagster.teachers.base import Request, Response

TASK = Task("colour", "label", "Colour of a parcel", "The colour that the text names.", labels=("red", "green"))


@dataclass
class Driven:
    """What came of a kind, with every call in the order of its number."""

    harvest: Harvest
    rounds: list[list[Answer]]

    @property
    def calls(self) -> list[Answer]:
        return [answer for one in self.rounds for answer in one]

    @property
    def questions(self) -> list[Question]:
        return [answer.question for answer in self.calls]


def kind_of(name: str, **params: Any):
    return load_kind(Block.model_validate({"name": name, **params}))


def seed_rows(
    texts: Sequence[Any], part: str = "unlabeled", first: int = 0, task: str = "colour"
) -> list[dict[str, Any]]:
    rows = [
        {
            "seed_no": number,
            "task": task,
            "part": part,
            "messages": [message("user", text)] if isinstance(text, str) else text,
            "licence": "CC0-1.0",
        }
        for number, text in enumerate(texts, first)
    ]
    return build("seed", rows).to_pylist()


def material_of(
    seeds: Sequence[dict[str, Any]], gold: Sequence[dict[str, Any]] = (), task: Task = TASK, **sampling: Any
) -> Material:
    found = [*templates(task), *(generic(task, style) for style in STYLES)]
    rows = [
        {
            "task": one.task,
            "style": one.style,
            "system": one.system,
            "user": one.user,
            "version": one.version,
            "labels": list(task.labels),
        }
        for one in found
        if one is not None
    ]
    prompts = {(row["task"], row["style"]): row for row in build("prompt", rows).to_pylist()}
    teacher = TeacherConfig(kind="teacher", name="t", sampling=Sampling(**sampling))
    return Material({task.name: task}, seeds, prompts, teacher, gold)


def drive(kind: Any, material: Material, rule: Callable[[Request], str | Response], first: int = 0) -> Driven:
    rounds = kind.rounds(material)
    seen: list[list[Answer]] = []
    number = first
    try:
        questions = next(rounds)
        while True:
            answers = []
            for question in questions:
                said = rule(question.request)
                said = Response(said, "stop", "m", 1, 1) if isinstance(said, str) else said
                answers.append(Answer(question, said, number))
                number += 1
            seen.append(answers)
            questions = rounds.send(answers)
    except StopIteration as end:
        return Driven(end.value, seen)
