"""`teacher_outputs`: what the teacher said about inputs it never saw, each answer with its call."""

from __future__ import annotations

from typing import Any

from distill_dagster.config.models import identity
from distill_dagster.knowledge.base import Material, Question, load_kind
from distill_dagster.lineage import laws
from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.records import tables
from distill_dagster.stages import egress, teaching
from distill_dagster.stages.context import PipelineContext, prompts_by
from distill_dagster.teachers.base import Response
from distill_dagster.teachers.egress import status

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
            **egress.identity(pipeline),
        },
        make=lambda job: make(job, pipeline),
        title="The teacher's answers on D_U, with every call",
    )


def make(job: Job, pipeline: PipelineContext) -> None:
    """Ask the teacher through the journal, kind by kind, and write candidates, calls and what each call read."""
    place = f"{pipeline.key}/teacher_outputs"
    seeds = job.inputs["seeds"].table("seed", filters=[("part", "==", "unlabeled")])
    material = Material(
        tasks=pipeline.tasks,
        seeds=[row for row in seeds.to_pylist() if row["task"] in pipeline.tasks],
        prompts=prompts_by(job.inputs["prompts"]),
        teacher=pipeline.teacher,
    )
    teacher = teaching.open_teacher(pipeline, job.inputs["teacher"])
    by_number = {row["seed_no"]: row for row in material.seeds}
    candidates: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    inputs: list[dict[str, Any]] = []
    paid = 0
    for block in pipeline.config.knowledge:
        kind = load_kind(block)
        questions = kind.requests(material)
        requests = [question.request for question in questions]
        responses, infos, spent = teaching.ask(
            job, pipeline, teacher, requests, f"teacher: {block.name}", egress.origins(questions, by_number, inputs)
        )
        first, paid = len(calls), paid + spent
        candidates += kind.candidates(material, questions, responses, first)
        for number, (question, response, info) in enumerate(zip(questions, responses, infos, strict=True), first):
            calls.append(call_row(number, pipeline, teacher.revision, question, response, info))
            inputs += [{"call_no": number, "kind": kind_of, "ref_no": ref} for kind_of, ref in question.refs]
    egress.mark(candidates)
    candidate_table = tables.build("candidate", candidates)
    call_table, input_table = tables.build("call", calls), tables.build("call_input", inputs)
    laws.no_orphan(place, candidate_table["call_no"], call_table["call_no"], "candidates")
    laws.no_orphan(place, candidate_table["seed_no"], seeds["seed_no"], "candidates")
    laws.no_orphan(place, input_table["call_no"], call_table["call_no"], "call inputs")
    laws.spend(place, call_table, paid)
    egress.write(job, place, call_table)
    job.draft.write_table("candidate", candidate_table, by="task")
    job.draft.write_table("call", call_table, side=True)
    job.draft.write_table("call_input", input_table, side=True)
    job.notes["counts"] = {
        "candidates": len(candidates),
        "status": laws.counts(row["status"] for row in candidates),
        "tasks": laws.counts(row["task"] for row in candidates),
    }
    job.notes["calls"] = call_summary(calls)


def call_row(
    number: int, pipeline: PipelineContext, revision: str, question: Question, response: Response, info: Any
) -> dict[str, Any]:
    """A question, its answer and the journal's account of it as a CALL row."""
    return {
        "call_no": number,
        "request_key": info.key or None,
        "teacher": pipeline.teacher.name,
        "revision": revision,
        "served_model": response.served_model,
        "prompt": question.prompt,
        "status": status(response.failure),
        "finish_reason": response.finish_reason,
        "input_tokens": response.input_tokens,
        "output_tokens": response.output_tokens,
        "cost_micros": info.cost_micros,
        "reused": info.reused,
        "sent_at": info.sent_at or None,
        "received_at": info.received_at or None,
    }


def call_summary(calls: list[dict[str, Any]]) -> dict[str, int]:
    """Asked and reused calls, tokens and money of this run."""
    asked = [call for call in calls if not call["reused"] and call["status"] != "refused"]
    return {
        "asked": len(asked),
        "reused": sum(call["reused"] for call in calls),
        "refused": sum(call["status"] == "refused" for call in calls),
        "failed": sum(call["status"] == "failed" for call in calls),
        "input_tokens": sum(call["input_tokens"] or 0 for call in asked),
        "output_tokens": sum(call["output_tokens"] or 0 for call in asked),
        "cost_micros": sum(call["cost_micros"] for call in asked),
    }
