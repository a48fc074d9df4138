"""What several kinds share: a question that is to be answered like a seed, and the candidate that comes of it."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill_dagster.errors import ConfigError
from distill_dagster.knowledge._labels import to_label
from distill_dagster.knowledge.base import Answer, Material, Question, Row, Who
from distill_dagster.knowledge.prompts import conversation, put, render
from distill_dagster.records.messages import from_chat, message
from distill_dagster.teachers.base import Request, Response

STUDENT_STYLE = "short"

Seed = Mapping[str, Any]
Refs = tuple[tuple[str, int], ...]
#: Asks once on behalf of a kind, and returns rows.
Asking = Generator[list[Question], list[Answer], list[Row]]


@dataclass(frozen=True)
class NewInput:
    """An input that a teacher wrote.

    Attributes:
        text: The input.
        task: Its task.
        call_no: The call that wrote it.
        seed: The seed it was written after, if there is one: its context is kept.
        origins: Record ids of all seeds that its writer saw, directly or through earlier calls.
    """

    text: str
    task: str
    call_no: int
    seed: Seed | None = None
    origins: tuple[str, ...] = ()

    def as_seed(self) -> Seed:
        """What templates read."""
        context = self.seed["context"] if self.seed is not None else None
        return {"messages": [message("user", self.text)], "context": context, "choices": None}


def prompt(material: Material, task: str, style: str) -> Mapping[str, Any]:
    """The PROMPT row of a task and style.

    Raises:
        ConfigError: The prompt set has none.
    """
    if (task, style) not in material.prompts:
        raise ConfigError(
            f"prompt_set, task {task}", f"there is no {style!r} template.", "Add one under `prompts` of the source."
        )
    return material.prompts[task, style]


def answering(
    material: Material,
    task: str,
    seed: Seed,
    refs: Refs,
    *,
    sample: int = 0,
    who: Who = "teacher",
    temperature: float | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Question:
    """A question that is answered as a seed of the task would be; a student is shown its own template."""
    template = prompt(material, task, STUDENT_STYLE if who == "student" else material.teacher.prompt_style)
    settings = material.teacher.sampling.model_dump()
    settings["max_new_tokens"] = settings["max_new_tokens"] or material.tasks[task].max_new_tokens
    if temperature is not None:
        settings["temperature"] = temperature
    request = Request(tuple(render(template, seed)), settings, sample)
    return Question(request, task, template["record_id"], refs, notes or {}, who)


def working(
    material: Material,
    task: str,
    style: str,
    fixed: Mapping[str, Any],
    given: Mapping[str, Any],
    refs: Refs,
    *,
    room: int,
    temperature: float | None = None,
    sample: int = 0,
    notes: Mapping[str, Any] | None = None,
) -> Question:
    """A question of a style that works on texts; `notes["mark"]` is the mark of its fences."""
    template = prompt(material, task, style)
    chat, mark = put(template, fixed, given)
    settings = {**material.teacher.sampling.model_dump(), "max_new_tokens": room, "stop": []}
    if temperature is not None:
        settings["temperature"] = temperature
    request = Request(tuple(chat), settings, sample)
    return Question(request, task, template["record_id"], refs, {**(notes or {}), "mark": mark})


def about(seed: Seed) -> dict[str, str]:
    """The texts of a seed that a judge or a reviser reads."""
    choices = "\n".join(f"- {choice}" for choice in seed.get("choices") or ())
    return {"input": conversation(seed), "context": seed.get("context") or "", "choices": choices}


def student_reads(material: Material, task: str, seed: Seed) -> list[dict[str, Any]]:
    """The messages a student is shown."""
    return from_chat(render(prompt(material, task, STUDENT_STYLE), seed))


def labelled(material: Material, task: str, seed: Seed, response: Response) -> str:
    """The answer of a response, as a label where it is one."""
    return to_label(response.text, seed.get("choices") or material.tasks[task].labels)


def candidate(kind: str, answer: Answer, seed: Seed | None) -> Row:
    """The columns of a CANDIDATE row that every answer has."""
    return {
        "seed_no": None if seed is None else seed["seed_no"],
        "seed_record_id": None if seed is None else seed["record_id"],
        "call_no": answer.call_no,
        "kind": kind,
        "task": answer.question.task,
        "sample": answer.question.request.sample,
        "status": "ok",
        "finish_reason": answer.response.finish_reason,
    }


def failed(
    kind: str, answer: Answer, failure: str, seed: Seed | None, origins: Sequence[str] = (), text: str | None = None
) -> Row:
    """A CANDIDATE row of a call that gave nothing to train on, with the class of why."""
    row = candidate(kind, answer, seed)
    return {**row, "status": "failed", "failure": failure, "messages": [], "input": text, "origins": [*origins] or None}


def answered(kind: str, material: Material, answer: Answer, seed: Seed, messages: list[dict[str, Any]]) -> Row:
    """A CANDIDATE row of an answer to a seed's own input."""
    row = {**candidate(kind, answer, seed), "messages": messages}
    if answer.response.failure is not None:
        return {**row, "status": "failed", "failure": answer.response.failure}
    said = labelled(material, answer.question.task, seed, answer.response)
    return {**row, "messages": [*messages, message("assistant", said)], "answer": said}


def answer_all(kind: str, material: Material, inputs: Sequence[NewInput]) -> Asking:
    """One round: every written input is answered like a seed. Returns CANDIDATE rows."""
    questions = []
    for written in inputs:
        refs: Refs = (("call", written.call_no),)
        if written.seed is not None and written.seed.get("context"):
            refs = (*refs, ("seed", written.seed["seed_no"]))
        questions.append(answering(material, written.task, written.as_seed(), refs))
    answers = yield questions
    rows = []
    for written, answer in zip(inputs, answers, strict=True):
        seed = written.as_seed()
        row = {
            **candidate(kind, answer, written.seed),
            "messages": student_reads(material, written.task, seed),
            "input": written.text,
            "origins": [*written.origins] or None,
        }
        if answer.response.failure is not None:
            rows.append({**row, "status": "failed", "failure": answer.response.failure})
            continue
        said = labelled(material, written.task, seed, answer.response)
        rows.append({**row, "messages": [*row["messages"], message("assistant", said)], "answer": said})
    return rows
