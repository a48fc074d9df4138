"""Several teachers in one pipeline: who is asked about what, and what a vote comes to.

By weight, a seed goes to the teacher that wins an exponential race whose times are hashes of record and teacher, at
the speed of the teacher's weight (weighted rendezvous hashing). So a seed that comes or goes moves no other, and a
teacher that is added takes seeds to itself and moves none between the others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from distill_dagster.config.models import TeachersOptions, identity
from distill_dagster.domains.base import Task
from distill_dagster.evaluation.metrics import match_label, normalise
from distill_dagster.knowledge._near import point
from distill_dagster.knowledge.base import Material
from distill_dagster.stages.context import PipelineContext

#: Failures of candidates that a vote came to.
TIE, MINORITY = "vote.tie", "vote.minority"

Row = dict[str, Any]


def teacher_of(options: TeachersOptions, task: str, record: str) -> str:
    """The one teacher that a record goes to, by weight or task.

    Raises:
        ValueError: All of them are asked: it is a vote.
    """
    if options.by_task is not None:
        # A pipeline that reads another's data may be examined on a task that nobody taught: the first teacher's.
        return options.by_task.get(task) or options.names()[0]
    if options.weights is None:
        raise ValueError("a vote asks every teacher")

    def arrives(name: str, weight: float) -> float:
        return -math.log((point(record, f"teacher {options.seed} {name}") + 1) / (2**64 + 1)) / weight

    return min(options.weights, key=lambda one: arrives(one.teacher, one.weight)).teacher


def seats(pipeline: PipelineContext, material: Material) -> list[tuple[PipelineContext, Material]]:
    """Each teacher of a pipeline with what it is to work on."""
    options = pipeline.teachers
    if options is None:
        return [(pipeline, material)]
    found = []
    for member in pipeline.panel:
        mine = replace(material, teacher=member.teacher)
        name = member.teacher.name
        if options.by_task is not None:
            tasks = {task: spec for task, spec in material.tasks.items() if options.by_task.get(task) == name}
            gold = [seed for seed in material.gold if seed["task"] in tasks]
            mine = replace(mine, tasks=tasks, gold=gold)
        if options.vote is None:
            seeds = [s for s in material.seeds if teacher_of(options, s["task"], s["record_id"]) == name]
            mine = replace(mine, seeds=seeds)
        found.append((member, mine))
    return found


def described(pipeline: PipelineContext, each: Mapping[str, Any]) -> dict[str, Any]:
    """Identity config of a stage that asks several teachers; empty where there is one.

    Args:
        pipeline: Whose teachers.
        each: What of each teacher is identity there, by its name.
    """
    if pipeline.teachers is None:
        return {}
    return {"teachers": {"how": identity(pipeline.teachers), "each": dict(each)}}


def canonical(task: Task, choices: Sequence[str] | None, answer: str) -> str:
    """An answer as it is compared with others: a label in its own writing, or the text as metrics compare it."""
    labels = choices or task.labels
    return (match_label(answer, labels) if labels else None) or normalise(answer).replace("_", " ")


@dataclass(frozen=True)
class Elected:
    """What a vote came to.

    Attributes:
        winner: Place of the first teacher that gave the answer; None without a majority.
        agree: Places of those that gave it.
        failure: Why there is no winner; None where there is one, or where nobody answered.
        share: Share of all teachers that were asked which gave the answer that most gave.
    """

    winner: int | None
    agree: tuple[int, ...]
    failure: str | None
    share: float


def elect(options: TeachersOptions, answers: Sequence[str | None]) -> Elected:
    """The answer that most teachers gave.

    Args:
        options: What becomes of ties, and how many must agree.
        answers: In the order of the file, as they are compared; None or nothing of a teacher that did not answer.
    """
    counts = Counter(answer for answer in answers if answer)
    if not counts:
        return Elected(None, (), None, 0.0)
    most = max(counts.values())
    leading = [answer for answer in counts if counts[answer] == most]  # in the order of their first teacher
    agree = tuple(at for at, answer in enumerate(answers) if answer == leading[0])
    share = most / len(answers)
    if share < options.agreement:
        return Elected(None, agree, MINORITY, share)
    if len(leading) > 1 and options.ties == "drop":
        return Elected(None, agree, TIE, share)
    return Elected(agree[0], agree, None, share)


@dataclass
class Votes:
    """Elections so far.

    Attributes:
        rows: VOTE rows.
        shares: Share of agreement of each election in which somebody answered.
        failures: Elections without a winner, by why.
    """

    rows: list[Row] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def note(self) -> dict[str, Any]:
        """What a run record says."""
        count = len(self.shares)
        return {
            "elections": count,
            "agreement": sum(self.shares) / count if count else None,
            "unanimous": sum(share == 1 for share in self.shares),
            **dict(sorted(self.failures.items())),
        }


def elected(options: TeachersOptions, ballots: Sequence[Sequence[Row]], material: Material, votes: Votes) -> list[Row]:
    """One candidate for each question from those of all teachers.

    Args:
        options: How the vote goes.
        ballots: CANDIDATE rows, one list a teacher, all about the same seeds and samples in the same order.
        material: Tasks and seeds.
        votes: Gathers VOTE rows and counts.
    """
    choices = {seed["seed_no"]: seed.get("choices") for seed in material.seeds}
    chosen = []
    for rows in zip(*ballots, strict=True):
        task = material.tasks[rows[0]["task"]]
        said = [
            canonical(task, choices[row["seed_no"]], row["answer"]) if row["status"] == "ok" else None for row in rows
        ]
        result = elect(options, said)
        votes.rows += [
            {
                **{name: row[name] for name in ("seed_no", "seed_record_id", "task", "sample", "teacher", "call_no")},
                "answer": row["answer"] if row["status"] == "ok" else None,
                "failure": row.get("failure"),
                "agrees": at in result.agree,
            }
            for at, row in enumerate(rows)
        ]
        if any(answer is not None for answer in said):
            votes.shares.append(result.share)
        if result.winner is not None:
            chosen.append(rows[result.winner])
            continue
        row = rows[result.agree[0]] if result.agree else rows[0]
        if result.failure is not None:
            votes.failures[result.failure] += 1
            shown = [message for message in row["messages"] if message["role"] != "assistant"]
            row = {**row, "status": "failed", "failure": result.failure, "messages": shown, "answer": None}
            row["rationale"] = None
        chosen.append(row)
    return chosen
