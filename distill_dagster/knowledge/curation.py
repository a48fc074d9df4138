"""Curation: inputs built from topics and meta-information, with nothing to copy from (Xu et al. 2024, section 3.1.3).

Topic → subtopics → inputs → answers, as textbooks (Gunasekar et al. 2023) and UltraChat (Ding et al. 2023) were made.
No seed is read: topics come from YAML, or from the labels, title and description of the task.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from distill_dagster.config.models import Strict
from distill_dagster.domains.base import Task
from distill_dagster.knowledge import _answers, _replies
from distill_dagster.knowledge._answers import NewInput
from distill_dagster.knowledge._labels import bare
from distill_dagster.knowledge.base import Answer, Harvest, KindBase, Material, Rounds


class _Subtopics(_replies.Reply):
    subtopics: list[str]


class _Inputs(_replies.Reply):
    inputs: list[str]


class Kind(KindBase):
    """Inputs from topics."""

    version = "1"

    class Params(Strict):
        topics: dict[str, list[str]] = Field(
            default_factory=dict, description="Topics of a task; its labels, or its title, where left out"
        )
        subtopics: int = Field(3, ge=1, le=50, description="Subtopics asked for, a topic")
        inputs: int = Field(2, ge=1, le=50, description="Inputs asked for, a subtopic")
        temperature: Annotated[float, Field(ge=0)] | None = Field(
            None, description="Of the writing; the teacher's by default"
        )
        max_new_tokens: int = Field(512, ge=8, description="Room for what is written in one prompt")

    params: Params

    def styles(self) -> frozenset[str]:
        """Subtopics, then inputs."""
        return frozenset({"subtopics", "curate"})

    def parts(self) -> frozenset[str]:
        """None: no seed is read."""
        return frozenset()

    def rounds(self, material: Material) -> Rounds:
        """Subtopics of each topic, inputs of each subtopic, then answers."""
        harvest = Harvest()
        room, temperature = self.params.max_new_tokens, self.params.temperature
        wanted = [(name, topic) for name, task in material.tasks.items() for topic in self._topics(task)]
        answers = yield [
            _answers.working(
                material,
                task,
                "subtopics",
                {"count": self.params.subtopics},
                {"topic": topic},
                (),
                room=room,
                temperature=temperature,
            )
            for task, topic in wanted
        ]
        found: list[tuple[str, str, str, Answer]] = []
        for (task, topic), answer in zip(wanted, answers, strict=True):
            reply, failure = _replies.read(answer.response, _Subtopics)
            texts = _distinct(reply.subtopics, self.params.subtopics) if reply else []
            if not texts:
                harvest.candidates.append(_answers.failed("curation", answer, failure or "empty", None))
            found += [(task, topic, text, answer) for text in texts]
        answers = yield [
            _answers.working(
                material,
                task,
                "curate",
                {"count": self.params.inputs},
                {"topic": topic, "subtopic": subtopic},
                (("call", origin.call_no),),
                room=room,
                temperature=temperature,
            )
            for task, topic, subtopic, origin in found
        ]
        written: list[NewInput] = []
        for answer in answers:
            reply, failure = _replies.read(answer.response, _Inputs)
            texts = _distinct(reply.inputs, self.params.inputs) if reply else []
            if not texts:
                harvest.candidates.append(_answers.failed("curation", answer, failure or "empty", None))
            written += [NewInput(text, answer.question.task, answer.call_no) for text in texts]
        harvest.candidates += yield from _answers.answer_all("curation", material, written)
        return harvest

    def _topics(self, task: Task) -> list[str]:
        """What a task is about: as YAML says, else one topic a label, else the task itself."""
        if task.name in self.params.topics:
            return list(self.params.topics[task.name])
        title = task.title or task.name
        return [f"{title}: {label}" for label in task.labels] or [f"{title}. {task.description}".strip()]


def _distinct(texts: list[str], most: int) -> list[str]:
    """The first texts that say something, each once."""
    found: dict[str, str] = {}
    for text in texts:
        if bare(text):
            found.setdefault(bare(text), text.strip())
    return list(found.values())[:most]
