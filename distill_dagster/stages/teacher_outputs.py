"""`teacher_outputs`: what the teacher said about inputs it never saw, each answer with its call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distill_dagster.config.models import identity
from distill_dagster.knowledge.base import KindBase, Material, Question, load_kind
from distill_dagster.lineage import laws
from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.records import tables
from distill_dagster.stages import teaching
from distill_dagster.stages.context import PipelineContext, prompts_by
from distill_dagster.storage.store import Version
from distill_dagster.teachers import recorded
from distill_dagster.teachers.base import Request, Response

VERSION = "1"


def node(pipeline: PipelineContext) -> Node:
    """The node `<pipeline>/teacher_outputs`."""
    teacher, source = pipeline.teacher, pipeline.source.key
    blocks = [identity(block) for block in pipeline.config.knowledge]
    return Node(
        key=(pipeline.key, "teacher_outputs"),
        version=VERSION,
        parents=(
            Parent("seeds", (source, "seed_set"), {"seed": ("unlabeled",)}),
            Parent("prompts", (source, "prompt_set")),
            Parent("teacher", (pipeline.key, "teacher_model")),
        ),
        config={
            "tasks": pipeline.known_tasks,
            "knowledge": blocks,
            "kinds": {block.name: load_kind(block).version for block in pipeline.config.knowledge},
            "prompt_style": teacher.prompt_style,
            "template": teacher.template,
            "sampling": identity(teacher.sampling),
        },
        make=lambda job: make(job, pipeline),
        title="The teacher's answers on D_U, with every call",
    )


def make(job: Job, pipeline: PipelineContext) -> None:
    """Ask the teacher through the journal, kind by kind, and write candidates, calls and what each call read."""
    place = f"{pipeline.key}/teacher_outputs"
    given = material(pipeline, job.inputs["seeds"], job.inputs["prompts"])
    seeds = job.inputs["seeds"].table("seed", filters=[("part", "==", "unlabeled")])
    teacher = teaching.open_teacher(pipeline, job.inputs["teacher"])
    candidates: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    inputs: list[dict[str, Any]] = []
    paid = 0
    for block in pipeline.config.knowledge:
        kind = load_kind(block)
        questions = kind.requests(given)
        requests = addressed(pipeline, given, kind, questions)
        responses, infos, spent = teaching.ask(job, pipeline, teacher, requests, f"teacher: {block.name}")
        first, paid = len(calls), paid + spent
        candidates += kind.candidates(given, questions, responses, first)
        for number, (question, response, info) in enumerate(zip(questions, responses, infos, strict=True), first):
            calls.append(call_row(number, pipeline, teacher.revision, question, response, info))
            inputs += [{"call_no": number, "kind": kind_of, "ref_no": ref} for kind_of, ref in question.refs]
    candidate_table = tables.build("candidate", candidates)
    call_table, input_table = tables.build("call", calls), tables.build("call_input", inputs)
    laws.no_orphan(place, candidate_table["call_no"], call_table["call_no"], "candidates")
    laws.no_orphan(place, candidate_table["seed_no"], seeds["seed_no"], "candidates")
    laws.no_orphan(place, input_table["call_no"], call_table["call_no"], "call inputs")
    laws.spend(place, call_table, paid)
    job.draft.write_table("candidate", candidate_table, by="task")
    job.draft.write_table("call", call_table, side=True)
    job.draft.write_table("call_input", input_table, side=True)
    job.notes["counts"] = {
        "candidates": len(candidates),
        "status": laws.counts(row["status"] for row in candidates),
        "tasks": laws.counts(row["task"] for row in candidates),
    }
    job.notes["calls"] = call_summary(calls)


def material(pipeline: PipelineContext, seeds: Version, prompts: Version) -> Material:
    """What the kinds of knowledge work on: D_U and the templates."""
    rows = seeds.table("seed", filters=[("part", "==", "unlabeled")]).to_pylist()
    return Material(
        tasks=pipeline.tasks,
        seeds=[row for row in rows if row["task"] in pipeline.tasks],
        prompts=prompts_by(prompts),
        teacher=pipeline.teacher,
    )


def addressed(
    pipeline: PipelineContext, material: Material, kind: KindBase, questions: Sequence[Question]
) -> list[Request]:
    """The requests of questions; those to a recorded teacher say which record they are about."""
    seeds = {seed["seed_no"]: seed for seed in material.seeds}
    about = []
    for question in questions:
        named = [number for kind_of, number in question.refs if kind_of == "seed"]
        about.append(seeds[named[0]] if len(named) == 1 else None)
    worked = bool(getattr(kind.params, "rationale", False))
    return recorded.addressed(pipeline.teacher.recorded, [q.request for q in questions], about, worked)


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
