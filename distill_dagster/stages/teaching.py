"""Opening a pipeline's teacher, and asking it through the journal, so that no answer is paid twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_dagster.config import registry
from distill_dagster.config.egress import endpoint_class
from distill_dagster.config.models import TeacherConfig
from distill_dagster.domains.base import Task
from distill_dagster.errors import StoreError
from distill_dagster.lineage.engine import Job
from distill_dagster.stages import egress, metering, teacher_model
from distill_dagster.stages.context import PipelineContext
from distill_dagster.storage.store import Version
from distill_dagster.teachers.base import Request, Response, Teacher
from distill_dagster.teachers.journal import CallInfo
from distill_dagster.teachers.stores import open_journal

#: Registry of teacher backends: one file each.
BACKENDS = "distill_dagster.teachers"
#: Failures that asking again cannot mend: the file of answers, and the room for one, are part of what was asked.
FINAL = frozenset({"not_recorded", "ambiguous_answer", "used_up"})
#: Failures by which a server refuses a question itself; they last until somebody sets up the server otherwise.
REFUSED = frozenset({"bad_request", "context_exceeded", "content_filter"})


def open_teacher(pipeline: PipelineContext, version: Version) -> Teacher:
    """The backend bound to the teacher of one `teacher_model` version."""
    teacher = pipeline.teacher
    if teacher.recorded is not None:
        return _recorded(pipeline, version)
    backend = registry.load(BACKENDS, teacher.backend, "Backend", f"teacher {teacher.name}: backend")
    if teacher.endpoint is not None:
        return backend(
            teacher.model,
            endpoint=teacher.endpoint,
            identity=teacher_model.declared(teacher),
            revision=teacher_model.revision(pipeline, version),
            egress_class=endpoint_class(teacher),
        )
    return backend(
        teacher_model.weights(pipeline, version),
        identity=teacher.name,
        revision=teacher_model.revision(pipeline, version),
        template=teacher.template,
        batch_size=teacher.batch_size,
        threads=teacher.threads,
        dtype=teacher.dtype,
    )


def _recorded(pipeline: PipelineContext, version: Version) -> Teacher:
    """The file of answers, if it is still the one that `teacher_model` recorded."""
    backend = teacher_model.answers(pipeline)
    known = json.loads(version.local(teacher_model.record_file(pipeline)).read_text("utf-8"))["revision"]
    if backend.revision != known:
        raise StoreError(
            f"teacher {pipeline.teacher.name}",
            "its recorded answers are not those that teacher_model was made from.",
            f"Materialize {pipeline.data}/teacher_model first.",
        )
    return backend


def open_student(folder: Path, name: str, pipeline: PipelineContext) -> Teacher:
    """A student's weights as something that answers, through the same code as a local teacher."""
    from distill_dagster.teachers.transformers import Backend

    options = pipeline.config.evaluation
    return Backend(
        folder, identity=name, revision="", template="chat", batch_size=options.batch_size, threads=options.threads
    )


def sampling(teacher: TeacherConfig, task: Task) -> dict[str, Any]:
    """How a question of a task is answered: the teacher's settings, with the task's room for an answer."""
    settings = teacher.sampling.model_dump()
    settings["max_new_tokens"] = teacher.sampling.max_new_tokens or task.max_new_tokens
    return settings


def ask(
    job: Job,
    pipeline: PipelineContext,
    teacher: Teacher,
    requests: Sequence[Request],
    note: str,
    origins: Sequence[egress.Origin] | None = None,
    student: bool = False,
) -> tuple[list[Response], list[CallInfo], int]:
    """Ask through the egress gate and the namespace's journal; known answers cost nothing.

    `origins` are the seed records that each question was made of. With `student` the questions are put to the
    pipeline's student: its weights are here, and it has no price. The stage seals the gate's looks: `egress.write`.

    Returns:
        Responses and infos in the order of the requests, and the micro-units that the journal says were paid here.
    """
    passed = egress.look(pipeline, requests, origins, student)
    with open_journal(job.services.state) as journal:
        earlier = journal.served(teacher.identity)
        if not student:
            teacher = _in_batches(job, pipeline, teacher, note)
        metered = teacher if student else metering.metered(pipeline, teacher, journal.store, passed.requests)
        tally = metering.Tally(None if student else metering.tariff_of(pipeline))
        responses, infos = journal.ask(
            metered,
            passed.requests,
            pipeline.namespace,
            progress=lambda done, total: job.progress(done, total, tally.note(note)),
            watch=tally.add,
        )
        if not student:
            metering.note_paid(job.notes, pipeline, metered, journal.store, passed.requests)
        _note_failures(job, responses)
        if teacher_is_remote(teacher):
            note_served(job, earlier, responses, pipeline.teacher.name if pipeline.teachers is not None else None)
        return *passed.answers(job, responses, infos), journal.spent()


def _in_batches(job: Job, pipeline: PipelineContext, teacher: Teacher, note: str) -> Teacher:
    """The teacher, asked by batch jobs where its endpoint says so; the jobs are kept beside the journal."""
    endpoint = pipeline.teacher.endpoint
    if endpoint is None or endpoint.mode != "batch":
        return teacher
    from distill_dagster.teachers._openai_batch import Batched

    def report(said: str) -> None:
        job.progress(0, None, f"{note}: {said}")

    backend: Any = teacher
    return Batched(backend, endpoint, job.services.state / "batches", pipeline.namespace, report)


def teacher_is_remote(teacher: Teacher) -> bool:
    """Does a server say which model answered?"""
    return hasattr(teacher, "remember")


def note_served(
    job: Job, earlier: Mapping[str, int], responses: Sequence[Response], teacher: str | None = None
) -> None:
    """Note which model strings this run's answers came from, and which earlier ones: the check `served_model` reads it.

    Args:
        job: The stage at work.
        earlier: Answers of this teacher by model string, before this run.
        responses: All responses of this run, reused ones included.
        teacher: Which of several teachers it is: each has an account of its own.
    """
    said = job.notes.setdefault("served_model", {"earlier": dict(earlier), "here": {}} if teacher is None else {})
    if teacher is not None:
        said = said.setdefault(teacher, {"earlier": dict(earlier), "here": {}})
    for name, count in Counter(r.served_model for r in responses if r.failure is None).items():
        said["here"][name] = said["here"].get(name, 0) + count


def _note_failures(job: Job, responses: Sequence[Response]) -> None:
    """Count the questions without an answer by class; the command line, the status and the checks read it."""
    failed = Counter(r.failure for r in responses if r.failure is not None)
    if failed:
        classes = job.notes.setdefault("failures", {})
        for name, count in failed.items():
            classes[name] = classes.get(name, 0) + count


def unanswered(notes: Mapping[str, Any], final: Collection[str] = FINAL) -> str:
    """What is missing of a stage's answers that its next run asks for again; empty where nothing is.

    Args:
        notes: The stage's notes, with `calls` and `failures`.
        final: Classes of failures that are not worth another run.
    """
    again = {name: count for name, count in sorted(notes.get("failures", {}).items()) if name not in final}
    if not again:
        return ""
    asked = notes["calls"]["asked"] + notes["calls"]["reused"]
    classes = ", ".join(f"{name} {count:,}" for name, count in again.items())
    return f"{sum(again.values()):,} of {asked:,} questions have no answer: {classes}"
