"""`teacher_model`: who teaches. A fitted teacher holds weights; any other is an identity record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill_dagster.config.models import TeacherConfig, identity
from distill_dagster.domains.base import Domain
from distill_dagster.errors import ModelError
from distill_dagster.knowledge import prompts as prompting
from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.records.identity import digest
from distill_dagster.records.messages import as_chat, message, text_of
from distill_dagster.records.tables import build
from distill_dagster.stages import classes, models, training
from distill_dagster.stages.context import PipelineContext, Row, prompts_by
from distill_dagster.storage.store import Version
from distill_dagster.teachers import recorded

VERSION = "3"

#: Size of the tokenizer that is fitted for a preset.
VOCABULARY = 2048


def node(pipeline: PipelineContext) -> Node:
    """The node `<pipeline>/teacher_model`."""
    teacher, source = pipeline.teacher, pipeline.source
    parents: tuple[Parent, ...] = ()
    if teacher.fit is not None:
        parents = (
            Parent("seeds", (source.key, "seed_set"), {"seed": ("teacher",)}),
            Parent("prompts", (source.key, "prompt_set"), {"prompt": ("short",)}),
        )
    config = _described(pipeline)
    if pipeline.panel:
        config = {"teachers": {member.teacher.name: _described(member) for member in pipeline.panel}}
    return Node(
        key=(pipeline.key, "teacher_model"),
        version=VERSION,
        parents=parents,
        config=config,
        outside=lambda: _outside(pipeline),
        make=lambda job: make(job, pipeline),
        title="The teacher: its declared identity, and its weights where it is fitted here",
    )


def _described(pipeline: PipelineContext) -> dict[str, Any]:
    """Identity config of one teacher."""
    teacher = pipeline.teacher
    config: dict[str, Any] = {
        "name": teacher.name,
        "backend": teacher.backend,
        "model": teacher.model,
        "revision": teacher.revision,
        "dtype": teacher.dtype,
        "fit": identity(teacher.fit) if teacher.fit else None,
    }
    if teacher.recorded is not None:
        config = {"name": teacher.name, "backend": teacher.backend, "recorded": recorded.mapping(teacher.recorded)}
    if teacher.endpoint is not None:
        config["endpoint"] = endpoint_identity(teacher)
    return config


def _outside(pipeline: PipelineContext) -> dict[str, Any]:
    if pipeline.panel:
        return {member.teacher.name: _outside(member) for member in pipeline.panel}
    if pipeline.teacher.recorded is not None:
        return {"files": answers(pipeline).files}
    if not is_local(pipeline):
        return {}
    start = reference(pipeline)
    labels = classes.head_labels(pipeline, start, _place(pipeline))
    return {**start.outside(), "labels": list(labels)} if labels else dict(start.outside())


def answers(pipeline: PipelineContext) -> recorded.Backend:
    """The file of answers that backend `recorded` reads."""
    teacher = pipeline.teacher
    assert teacher.recorded is not None
    return recorded.Backend(teacher.recorded, pipeline.teacher_folder, identity=teacher.name)


def endpoint_identity(teacher: TeacherConfig) -> dict[str, Any]:
    """What of an endpoint makes its answers what they are; the address only where no revision is declared."""
    assert teacher.endpoint is not None
    kept = identity(teacher.endpoint)
    return kept if teacher.revision is not None else {**kept, "url": teacher.endpoint.url}


def declared(teacher: TeacherConfig) -> str:
    """The declared name of an API teacher, as the journal lists it: name, model, revision."""
    return f"{teacher.name} {teacher.model}" + (f"@{teacher.revision}" if teacher.revision is not None else "")


def is_local(pipeline: PipelineContext) -> bool:
    """Does the teacher run on this machine, from a model folder?"""
    return pipeline.teacher.backend in ("transformers", "vllm")


def reference(pipeline: PipelineContext) -> models.ModelReference:
    """The model that a local teacher is, or is fitted from."""
    teacher = pipeline.teacher
    text = (teacher.fit.base if teacher.fit and teacher.fit.base else None) or teacher.model
    return models.resolve(text, teacher.revision, pipeline.source, pipeline.teacher_folder, _place(pipeline))


def _place(pipeline: PipelineContext) -> str:
    return f"teacher {pipeline.teacher.name}"


def record_file(pipeline: PipelineContext) -> str:
    """Where a teacher's record lies in its version; of several teachers each has one."""
    return "teacher.json" if pipeline.teachers is None else f"teachers/{pipeline.teacher.name}.json"


def revision(pipeline: PipelineContext, version: Version) -> str:
    """What a teacher's answers are kept under: the version that its record alone makes.

    So the same teacher is asked nothing twice, whether it teaches alone or beside others.
    """
    if pipeline.teachers is None:
        return version.version
    facts = version.manifest["files"][record_file(pipeline)]
    return digest({"tables": {}, "files": {"teacher.json": facts["sha256"]}})[:32]


def make(job: Job, pipeline: PipelineContext) -> None:
    """Fit the teacher on D_T, or record who it is; of several teachers, who each of them is."""
    if pipeline.panel:
        for member in pipeline.panel:
            _make(job, member)
        job.notes["counts"] = {"teachers": len(pipeline.panel)}
        return
    _make(job, pipeline)


def _make(job: Job, pipeline: PipelineContext) -> None:
    teacher = pipeline.teacher
    record: dict[str, Any] = {
        "name": teacher.name,
        "backend": teacher.backend,
        "model": teacher.model,
        "dtype": teacher.dtype,
        "fitted": False,
    }
    if teacher.fit is not None:
        examples = gold_examples(job.inputs["seeds"], job.inputs["prompts"], "teacher", pipeline.source.domain)
        start = reference(pipeline)
        labels = classes.head_labels(pipeline, start, _place(pipeline))
        if labels:
            examples = [row for row in examples if row["task"] in pipeline.known_tasks]
            record["labels"] = list(labels)
        if start.sort() == "classifier":
            classes.require_labels(start.fetched(), labels, _place(pipeline))
        summary = training.run(
            job,
            examples=examples,
            start=start,
            recipe=teacher.fit.recipe,
            out=job.draft.content / "model",
            tokenizer_texts=[text_of(row["messages"]) for row in examples],
            vocabulary=VOCABULARY,
            labels=labels,
        )
        record |= {"fitted": True, "records": len(examples), "steps": teacher.fit.recipe.steps}
        job.notes["training"] = summary
    elif is_local(pipeline):
        from distill_dagster.models import folder

        path = reference(pipeline).fetched()
        record["revision"] = folder.digest(path)[:32]
        record["parameters"] = folder.parameters(path)
        record |= _classifier(pipeline, path)
    elif teacher.recorded is not None:
        file = answers(pipeline)
        record = {"name": teacher.name, "backend": teacher.backend, "fitted": False, "files": file.files}
        record |= {"mapping": recorded.mapping(teacher.recorded), "revision": file.revision}
    else:
        record["revision"] = teacher.revision
        if teacher.endpoint is not None:
            record["endpoint"] = endpoint_identity(teacher)
    job.draft.write_json(record_file(pipeline), record)
    fitted = job.notes.get("training", {})
    job.notes["counts"] = {"parameters": record.get("parameters", fitted.get("parameters"))}


def _classifier(pipeline: PipelineContext, path: Path) -> dict[str, Any]:
    """What there is to say of a teacher that is a classifier: its labels, and those that the task does not have."""
    sort = reference(pipeline).sort()
    if sort == "encoder":
        raise ModelError(
            _place(pipeline),
            f"{path} is an encoder without a classification head: it answers nothing.",
            "Give `fit`, which trains one on D_T, or name a folder with a classifier.",
        )
    if sort == "causal":
        return {}
    beyond = classes.beyond_task(pipeline, path, _place(pipeline))
    return {"labels": classes.folder_labels(path), "labels_beyond_task": beyond}


def weights(pipeline: PipelineContext, version: Version) -> Path:
    """Folder of a local teacher's weights: inside its version where it was fitted, else where config says."""
    if "model/config.json" in version.manifest["files"]:
        return version.local("model")
    return reference(pipeline).fetched()


def gold_examples(seeds: Version, prompts: Version, part: str, domain: Domain) -> list[dict[str, Any]]:
    """Gold records of one part as EXAMPLE rows: the short prompt and the gold answer.

    The system role comes from the template alone; record text stays in the user role.
    """
    styles = prompts_by(prompts)
    rows = [
        example_row(seed, styles[seed["task"], "short"], seed["answer"])
        for seed in seeds.table("seed", filters=[("part", "==", part)]).to_pylist()
        if seed["answer"] is not None
    ]
    return build("example", rows).to_pylist()


def example_row(seed: Row, prompt: Row, answer: str, origin: str = "gold") -> dict[str, Any]:
    """A seed record with an answer to train on, as an EXAMPLE row without its identity."""
    chat = prompting.render(prompt, seed)
    return {
        "origin": origin,
        "seed_no": seed["seed_no"],
        "seed_record_id": seed["record_id"],
        "call_no": None,
        "task": seed["task"],
        "split": "train",
        "messages": [*(message(m["role"], m["content"]) for m in chat), message("assistant", answer)],
        "weight": 1.0,
        "licence": seed["licence"],
        "source_id": seed["source_id"],
        "subject_key": seed["subject_key"],
    }


def chats(examples: list[dict[str, Any]]) -> list[list[dict[str, str]]]:
    """The conversations of EXAMPLE rows."""
    return [as_chat(row["messages"]) for row in examples]
