"""`teacher_outputs`: what the teacher said about inputs it never saw, each answer with its call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from distill_dagster.config.models import TaskSpec, identity
from distill_dagster.config.styles import ALWAYS
from distill_dagster.knowledge._passages import Passages
from distill_dagster.knowledge.base import Answer, Harvest, KindBase, Material, Question, load_kind
from distill_dagster.lineage import laws
from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.records import tables
from distill_dagster.stages import egress, leakage, panel, ratings, teaching
from distill_dagster.stages.context import PipelineContext, prompts_by
from distill_dagster.storage.store import Version
from distill_dagster.teachers import recorded
from distill_dagster.teachers.base import Response, Teacher
from distill_dagster.teachers.egress import status

VERSION = "4"
#: What a pipeline's student before training is called where it answers.
STUDENT = "initial_student"


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
            **_tasks(pipeline),
            **retrieval,
            **pipeline.source.verifier(any(kind.verifies() for kind in kinds)),
            **egress.identity(pipeline),
            **panel.described(pipeline, {member.teacher.name: _manner(member) for member in pipeline.panel}),
            **ratings.identity(pipeline),
        },
        outside=lambda: egress.outside(pipeline),
        make=lambda job: make(job, pipeline),
        title="The teacher's answers on D_U, with every call",
    )


def _tasks(pipeline: PipelineContext) -> dict[str, Any]:
    """What of the tasks beside their names decides an answer, where it is not what it is by default.

    The room for an answer counts where a teacher that is asked leaves it to the task. A domain's own tasks change with
    their version.
    """
    names = set(pipeline.known_tasks)
    usual = TaskSpec.model_fields["max_new_tokens"].default
    asked = [member.teacher for member in pipeline.asked if member.teacher.recorded is None]
    own = [task for task in pipeline.source.config.define if task.name in names]
    room = {}
    if any(teacher.sampling.max_new_tokens is None for teacher in asked):
        room = {task.name: task.max_new_tokens for task in own if task.max_new_tokens != usual}
    shipped = [task for task in pipeline.source.domain.tasks if task.name in names - {task.name for task in own}]
    versions = {task.name: task.version for task in shipped if task.version != "1"}
    return {**({"room": room} if room else {}), **({"task_versions": versions} if versions else {})}


def _manner(member: PipelineContext) -> dict[str, Any]:
    """How one of several teachers is asked."""
    teacher = member.teacher
    return {
        "prompt_style": teacher.prompt_style,
        "template": teacher.template,
        "sampling": identity(teacher.sampling),
    }


@dataclass
class _Book:
    """What was asked so far: CALL and CALL_INPUT rows, who answered each, and what the journal says was paid."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    who: list[str] = field(default_factory=list)
    paid: int = 0


def make(job: Job, pipeline: PipelineContext) -> None:
    """Ask the teacher through the journal, kind by kind and round by round; write what came of it and every call."""
    place = f"{pipeline.key}/teacher_outputs"
    kinds = [load_kind(block) for block in pipeline.config.knowledge]
    leakage.before_asking(pipeline.source, job.store, job.inputs["seeds"], job.input_runs["seeds"])
    seeds = job.inputs["seeds"].table("seed", filters=[("part", "in", ["unlabeled", "gold"])])
    given = material(pipeline, job.inputs["seeds"], job.inputs["prompts"])
    shared: dict[str, Teacher] = {}
    if "student" in job.inputs:
        student = job.inputs["student"]
        shared["student"] = teaching.open_student(student.local("model"), STUDENT, pipeline)
        shared["student"].revision = student.version
    seats = [
        (member, {"teacher": teaching.open_teacher(member, job.inputs["teacher"]), **shared}, mine)
        for member, mine in panel.seats(pipeline, given)
    ]
    book, votes = _Book(), panel.Votes()
    harvest = Harvest()
    for block, kind in zip(pipeline.config.knowledge, kinds, strict=True):
        ballots = []
        for member, models, mine in seats:
            found = _gather(job, member, models, kind, block.name, mine, book)
            ballots.append(found.candidates)
            harvest.judgements += found.judgements
            harvest.comparisons += found.comparisons
            harvest.ratings += found.ratings
            harvest.features += found.features
        if pipeline.teachers is not None:
            for row in (row for rows in ballots for row in rows):
                row["teacher"] = book.who[row["call_no"]]
        if pipeline.teachers is not None and pipeline.teachers.vote is not None:
            ballots = [panel.elected(pipeline.teachers, ballots, given, votes)]
        harvest.candidates += [row for rows in ballots for row in rows]
    egress.mark(harvest.candidates)
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
    egress.write(job, place, call_table)
    job.draft.write_table("candidate", candidates, by="task")
    job.draft.write_table("call", call_table, side=True)
    job.draft.write_table("call_input", input_table, side=True)
    if any(kind.compares() for kind in kinds):
        comparisons = tables.build("comparison", harvest.comparisons)
        laws.no_orphan(place, comparisons["first_call_no"], call_table["call_no"], "comparisons")
        laws.no_orphan(place, comparisons["second_call_no"], call_table["call_no"], "comparisons")
        job.draft.write_table("comparison", comparisons, by="task")
    passages = tables.build("passage", given.passages.rows())
    if passages.num_rows:
        rows = [row for row in book.inputs if row["kind"] == "passage"]
        laws.no_orphan(
            place, tables.build("call_input", rows)["ref_no"], passages["passage_no"], "passages that calls read"
        )
        job.draft.write_table("passage", passages, side=True)
    if any(kind.captures() for kind in kinds):
        features = tables.build("feature", harvest.features)
        laws.no_orphan(place, features["call_no"], call_table["call_no"], "features")
        job.draft.write_table("feature", features)
    if votes.rows:
        ballot_table = tables.build("vote", votes.rows)
        laws.no_orphan(place, ballot_table["call_no"], call_table["call_no"], "votes")
        job.draft.write_table("vote", ballot_table, side=True)
        job.notes["vote"] = votes.note()
    if ratings.wanted(pipeline):
        job.draft.write_table("rating", ratings.table(harvest))
    if harvest.judgements:
        job.draft.write_table("judgement", tables.build("judgement", harvest.judgements), side=True)
    job.notes["counts"] = {
        "candidates": len(harvest.candidates),
        "status": laws.counts(row["status"] for row in harvest.candidates),
        "tasks": laws.counts(row["task"] for row in harvest.candidates),
        **_more_counts(harvest, kinds),
    }
    job.notes["calls"] = call_summary(book.calls)
    job.incomplete = teaching.unanswered(job.notes)
    if pipeline.teachers is not None:
        job.notes["teachers"] = {
            name: call_summary([call for call, who in zip(book.calls, book.who, strict=True) if who == name])
            for name in dict.fromkeys([*pipeline.teachers.names(), *book.who])
        }


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
            questions = addressed(pipeline, material, kind, questions)
            answers = _ask(job, pipeline, models, questions, f"{name}, round {number}", material, book)
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
    material: Material,
    book: _Book,
) -> list[Answer]:
    """Ask one round; calls are numbered in the order of the questions, whoever answers them."""
    answered: dict[int, tuple[Response, Any]] = {}
    seeds = {row["seed_no"]: row for row in (*material.seeds, *material.gold)}
    shown = {row["passage_no"]: row for row in material.passages.rows()}
    # The licence of a passage counts at the gate as a seed's does.
    origins = [
        [*origin, *(shown[ref] for kind, ref in question.refs if kind == "passage")]
        for origin, question in zip(egress.origins(questions, seeds, book.inputs), questions, strict=True)
    ]
    for who, model in models.items():
        mine = [at for at, question in enumerate(questions) if question.who == who]
        if not mine:
            continue
        requests = [questions[at].request for at in mine]
        behind = [origins[at] for at in mine]
        responses, infos, spent = teaching.ask(
            job, pipeline, model, requests, f"{who}: {note}", behind, student=who == "student"
        )
        book.paid += spent
        answered.update(zip(mine, zip(responses, infos, strict=True), strict=True))
    answers = []
    for at, question in enumerate(questions):
        response, info = answered[at]
        number, model = len(book.calls), models[question.who]
        row = call_row(number, pipeline, model.revision, question, response, info)
        book.calls.append({**row, "teacher": model.identity})
        book.who.append(STUDENT if question.who == "student" else pipeline.teacher.name)
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


def material(pipeline: PipelineContext, seeds: Version, prompts: Version) -> Material:
    """What the kinds of knowledge of a pipeline may read: the templates, D_U, and D_G where a kind asks for it."""
    parts = {"unlabeled"}.union(*(load_kind(block).parts() for block in pipeline.config.knowledge))
    rows = seeds.table("seed", filters=[("part", "in", sorted(parts))]).to_pylist()
    known = [row for row in rows if row["task"] in pipeline.tasks]
    return Material(
        tasks=pipeline.tasks,
        seeds=[row for row in known if row["part"] == "unlabeled"],
        prompts=prompts_by(prompts),
        teacher=pipeline.teacher,
        gold=[row for row in known if row["part"] == "gold"],
        passages=Passages(pipeline.source.domain.passages, pipeline.source.domain.name),
        verify=pipeline.source.domain.verify,
    )


def addressed(
    pipeline: PipelineContext, material: Material, kind: KindBase, questions: Sequence[Question]
) -> list[Question]:
    """Questions that, where the teacher is a file of answers, say which record they are about."""
    options = pipeline.teacher.recorded
    if options is None:
        return list(questions)
    seeds = {seed["seed_no"]: seed for seed in (*material.seeds, *material.gold)}
    about = []
    for question in questions:
        named = [number for kind_of, number in question.refs if kind_of == "seed"]
        about.append(seeds[named[0]] if len(named) == 1 and question.who == "teacher" else None)
    worked = bool(getattr(kind.params, "rationale", False))
    requests = recorded.addressed(options, [question.request for question in questions], about, worked)
    return [replace(question, request=request) for question, request in zip(questions, requests, strict=True)]


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
