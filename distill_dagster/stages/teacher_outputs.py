"""`teacher_outputs`: what the teacher said about inputs it never saw, each answer with its call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from distill_dagster.config.models import identity
from distill_dagster.config.styles import ALWAYS
from distill_dagster.knowledge._passages import Passages
from distill_dagster.knowledge.base import Answer, Harvest, KindBase, Material, Question, load_kind
from distill_dagster.lineage import laws
from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.records import tables
from distill_dagster.stages import teaching
from distill_dagster.stages.context import PipelineContext, prompts_by
from distill_dagster.teachers.base import Response, Teacher

VERSION = "2"


def node(pipeline: PipelineContext) -> Node:
    """The node `<pipeline>/teacher_outputs`."""
    teacher, source = pipeline.teacher, pipeline.source.key
    kinds = [load_kind(block) for block in pipeline.config.knowledge]
    parts = {"unlabeled"}.union(*(kind.parts() for kind in kinds))
    styles = set(ALWAYS).union(*(kind.styles() for kind in kinds))
    parents = [
        Parent("seeds", (source, "seed_set"), {"seed": tuple(sorted(parts, reverse=True))}),
        Parent("prompts", (source, "prompt_set"), {"prompt": tuple(sorted(styles))}),
        Parent("teacher", (pipeline.key, "teacher_model")),
    ]
    if any("student" in kind.asks() for kind in kinds):
        parents.append(Parent("student", (pipeline.key, "initial_student")))
    retrieval = {}
    if any(kind.retrieves() for kind in kinds):
        retrieval = {"passages": pipeline.source.domain.passages_version}
    return Node(
        key=(pipeline.key, "teacher_outputs"),
        version=VERSION,
        parents=tuple(parents),
        config={
            "tasks": pipeline.known_tasks,
            "knowledge": [identity(block) for block in pipeline.config.knowledge],
            "kinds": {block.name: kind.version for block, kind in zip(pipeline.config.knowledge, kinds, strict=True)},
            "prompt_style": teacher.prompt_style,
            "template": teacher.template,
            "sampling": identity(teacher.sampling),
            **retrieval,
        },
        make=lambda job: make(job, pipeline),
        title="The teacher's answers on D_U, with every call",
    )


@dataclass
class _Book:
    """What was asked so far: CALL and CALL_INPUT rows, and what the journal says was paid."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    paid: int = 0


def make(job: Job, pipeline: PipelineContext) -> None:
    """Ask the teacher through the journal, kind by kind and round by round; write what came of it and every call."""
    place = f"{pipeline.key}/teacher_outputs"
    kinds = [load_kind(block) for block in pipeline.config.knowledge]
    seeds = job.inputs["seeds"].table("seed", filters=[("part", "in", ["unlabeled", "gold"])])
    material = _material(job, pipeline, seeds.to_pylist())
    models: dict[str, Teacher] = {"teacher": teaching.open_teacher(pipeline, job.inputs["teacher"])}
    if "student" in job.inputs:
        student = job.inputs["student"]
        models["student"] = teaching.open_student(student.local("model"), "initial_student", pipeline)
        models["student"].revision = student.version
    book = _Book()
    harvest = Harvest()
    for block, kind in zip(pipeline.config.knowledge, kinds, strict=True):
        found = _gather(job, pipeline, models, kind, block.name, material, book)
        harvest.candidates += found.candidates
        harvest.judgements += found.judgements
        harvest.comparisons += found.comparisons
    candidates = tables.build("candidate", harvest.candidates)
    call_table, input_table = tables.build("call", book.calls), tables.build("call_input", book.inputs)
    laws.no_orphan(place, candidates["call_no"], call_table["call_no"], "candidates")
    laws.no_orphan(place, candidates["seed_no"], seeds["seed_no"], "candidates")
    laws.no_orphan(place, input_table["call_no"], call_table["call_no"], "call inputs")
    for kind_of, known in (("seed", seeds["seed_no"]), ("call", call_table["call_no"])):
        twin = {"seed": "exemplar", "call": "judged"}[kind_of]
        rows = [row for row in book.inputs if row["kind"] in (kind_of, twin)]
        laws.no_orphan(place, tables.build("call_input", rows)["ref_no"], known, f"{kind_of}s that calls read")
    laws.spend(place, call_table, book.paid)
    job.draft.write_table("candidate", candidates, by="task")
    job.draft.write_table("call", call_table, side=True)
    job.draft.write_table("call_input", input_table, side=True)
    if any(kind.compares() for kind in kinds):
        comparisons = tables.build("comparison", harvest.comparisons)
        laws.no_orphan(place, comparisons["first_call_no"], call_table["call_no"], "comparisons")
        laws.no_orphan(place, comparisons["second_call_no"], call_table["call_no"], "comparisons")
        job.draft.write_table("comparison", comparisons, by="task")
    passages = tables.build("passage", material.passages.rows())
    if passages.num_rows:
        rows = [row for row in book.inputs if row["kind"] == "passage"]
        laws.no_orphan(
            place, tables.build("call_input", rows)["ref_no"], passages["passage_no"], "passages that calls read"
        )
        job.draft.write_table("passage", passages, side=True)
    if harvest.judgements:
        job.draft.write_table("judgement", tables.build("judgement", harvest.judgements), side=True)
    job.notes["counts"] = {
        "candidates": len(harvest.candidates),
        "status": laws.counts(row["status"] for row in harvest.candidates),
        "tasks": laws.counts(row["task"] for row in harvest.candidates),
        **_more_counts(harvest, kinds),
    }
    job.notes["calls"] = call_summary(book.calls)


def _material(job: Job, pipeline: PipelineContext, seeds: list[dict[str, Any]]) -> Material:
    """What kinds may read: seeds of the parts that the node says it reads, and nothing of the other part."""
    known = [row for row in seeds if row["task"] in pipeline.tasks]
    reads = next(parent for parent in job.node.parents if parent.role == "seeds").parts or {}
    return Material(
        tasks=pipeline.tasks,
        seeds=[row for row in known if row["part"] == "unlabeled"],
        prompts=prompts_by(job.inputs["prompts"]),
        teacher=pipeline.teacher,
        gold=[row for row in known if row["part"] == "gold"] if "gold" in reads["seed"] else [],
        passages=Passages(pipeline.source.domain.passages, pipeline.source.domain.name),
    )


def _gather(
    job: Job,
    pipeline: PipelineContext,
    models: dict[str, Teacher],
    kind: KindBase,
    name: str,
    material: Material,
    book: _Book,
) -> Harvest:
    """Carry a kind's questions to whoever answers them, and the answers back, until it has no more."""
    rounds = kind.rounds(material)
    number = 1
    try:
        questions = next(rounds)
        while True:
            answers = _ask(job, pipeline, models, questions, f"{name}, round {number}", book)
            questions = rounds.send(answers)
            number += 1
    except StopIteration as end:
        return end.value


def _ask(
    job: Job,
    pipeline: PipelineContext,
    models: dict[str, Teacher],
    questions: Sequence[Question],
    note: str,
    book: _Book,
) -> list[Answer]:
    """Ask one round; calls are numbered in the order of the questions, whoever answers them."""
    answered: dict[int, tuple[Response, Any]] = {}
    for who, model in models.items():
        mine = [at for at, question in enumerate(questions) if question.who == who]
        if not mine:
            continue
        requests = [questions[at].request for at in mine]
        responses, infos, spent = teaching.ask(job, pipeline, model, requests, f"{who}: {note}")
        book.paid += spent
        answered.update(zip(mine, zip(responses, infos, strict=True), strict=True))
    answers = []
    for at, question in enumerate(questions):
        response, info = answered[at]
        number, model = len(book.calls), models[question.who]
        row = call_row(number, pipeline, model.revision, question, response, info)
        book.calls.append({**row, "teacher": model.identity})
        book.inputs += [{"call_no": number, "kind": kind_of, "ref_no": ref} for kind_of, ref in question.refs]
        answers.append(Answer(question, response, number))
    return answers


def _more_counts(harvest: Harvest, kinds: Sequence[KindBase]) -> dict[str, Any]:
    """Counts that only some pipelines have: by kind, failures by class, comparisons by verdict."""
    more: dict[str, Any] = {}
    if len(kinds) > 1:
        more["kinds"] = laws.counts(row["kind"] for row in harvest.candidates)
    failures = [row["failure"] for row in harvest.candidates if row["status"] == "failed"]
    if failures:
        more["failures"] = laws.counts(failures)
    if harvest.comparisons:
        more["comparisons"] = laws.counts(row["verdict"] for row in harvest.comparisons)
    return more


def call_row(
    number: int, pipeline: PipelineContext, revision: str, question: Question, response: Response, info: Any
) -> dict[str, Any]:
    """A question, its answer and the journal's account of it as a CALL row."""
    return {
        "call_no": number,
        "request_key": info.key,
        "teacher": pipeline.teacher.name,
        "revision": revision,
        "served_model": response.served_model,
        "prompt": question.prompt,
        "status": "ok" if response.failure is None else "failed",
        "finish_reason": response.finish_reason,
        "input_tokens": response.input_tokens,
        "output_tokens": response.output_tokens,
        "cost_micros": info.cost_micros,
        "reused": info.reused,
        "sent_at": info.sent_at,
        "received_at": info.received_at,
    }


def call_summary(calls: list[dict[str, Any]]) -> dict[str, int]:
    """Asked and reused calls, tokens and money of this run."""
    asked = [call for call in calls if not call["reused"]]
    return {
        "asked": len(asked),
        "reused": len(calls) - len(asked),
        "failed": sum(call["status"] == "failed" for call in calls),
        "input_tokens": sum(call["input_tokens"] or 0 for call in asked),
        "output_tokens": sum(call["output_tokens"] or 0 for call in asked),
        "cost_micros": sum(call["cost_micros"] for call in asked),
    }
