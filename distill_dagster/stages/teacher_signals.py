"""`teacher_signals`: the teacher's probabilities on what the student trains on, captured once for every student.

There is such a node only where a recipe asks for stored signals: of the pipeline itself, or of one that reads its
data. It keeps what all of them need together, so a second student with the same needs asks the teacher nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_dagster.config.models import Recipe
from distill_dagster.errors import TrainingError
from distill_dagster.knowledge.base import load_kind
from distill_dagster.lineage.engine import Job, head_version
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.records.messages import text_of
from distill_dagster.stages import teacher_model
from distill_dagster.stages.context import PipelineContext
from distill_dagster.storage.store import Version
from distill_dagster.training.objectives.base import needs

VERSION = "1"
ARTIFACT = "teacher_signals"


@dataclass(frozen=True)
class Wanted:
    """What the readers of one store of signals need together."""

    k: int
    temperatures: tuple[float, ...]
    max_length: int


def wanted(recipes: Iterable[Recipe]) -> Wanted | None:
    """What some recipes need stored, or None where none does."""
    asking = [(recipe, need) for recipe in recipes for need in needs(recipe) if need.source == "stored"]
    if not asking:
        return None
    return Wanted(
        k=max(need.k for _, need in asking),
        temperatures=tuple(sorted({1.0, *(need.temperature for _, need in asking)})),
        max_length=max(recipe.max_length for recipe, _ in asking),
    )


def node(pipeline: PipelineContext, want: Wanted) -> Node:
    """The node `<pipeline>/teacher_signals`."""
    if with_calls(pipeline):
        return Node(
            key=(pipeline.key, ARTIFACT),
            version=VERSION,
            parents=(
                Parent("data", (pipeline.key, "filtered_dataset")),
                Parent("teacher", (pipeline.key, "teacher_model")),
                Parent("outputs", (pipeline.key, "teacher_outputs"), {"feature": ("all",)}),
                Parent("student", (pipeline.key, "initial_student")),
            ),
            config={"k": want.k, "temperatures": list(want.temperatures), "max_length": want.max_length, "of": "calls"},
            make=lambda job: make_of_calls(job, pipeline, want),
            title="The teacher's likeliest next tokens as captured with its answers, with the mass of the rest",
        )
    return Node(
        key=(pipeline.key, ARTIFACT),
        version=VERSION,
        parents=(
            Parent("data", (pipeline.key, "filtered_dataset")),
            Parent("teacher", (pipeline.key, "teacher_model")),
        ),
        config={
            "k": want.k,
            "temperatures": list(want.temperatures),
            "max_length": want.max_length,
            "dtype": pipeline.teacher.dtype,
        },
        make=lambda job: make(job, pipeline, want),
        title="The teacher's likeliest next tokens on the student's data, with the mass of the rest",
    )


def with_calls(pipeline: PipelineContext) -> bool:
    """Does a kind of knowledge capture probabilities with the calls?"""
    return any(load_kind(block).captures() for block in pipeline.config.knowledge)


def weights(pipeline: PipelineContext, version: Version) -> Path:
    """Folder of the teacher's weights.

    Raises:
        TrainingError: The teacher is behind an API, which gives no probabilities of all tokens.
    """
    if pipeline.teachers is not None:
        raise TrainingError(
            f"{pipeline.data}/teacher_model",
            f"the objective needs the probabilities of one teacher, not of {len(pipeline.panel)}.",
            "Use one teacher, or the objective `sft`.",
        )
    if pipeline.teacher.backend not in ("transformers", "vllm"):
        raise TrainingError(
            f"{pipeline.data}/teacher_model",
            f"the objective needs the teacher's own weights, and backend {pipeline.teacher.backend!r} has none here.",
            "Use a local teacher, or the objective `sft`.",
        )
    return teacher_model.weights(pipeline, version)


def make(job: Job, pipeline: PipelineContext, want: Wanted) -> None:
    """Score the records that no earlier version of these signals knows."""
    import torch

    from distill_dagster.models import classifier, folder
    from distill_dagster.training import classify, data, world
    from distill_dagster.training.signals import capture, store

    place = f"{pipeline.key}/{ARTIFACT}"
    path = weights(pipeline, job.inputs["teacher"])
    tokenizer = folder.load_tokenizer(path)
    rows = job.inputs["data"].table("example").to_pylist()
    if classifier.kind(path) == "classifier":
        meta = _of_labels(job, path, want)
        context = folder.context_length(folder.load_model(path))  # The student's max_length counts other tokens.
        examples = classify.encode(tokenizer, data.chats(rows), None, context).examples
    else:
        meta = _of_tokens(job, tokenizer, want, place)
        examples = data.encode(tokenizer, data.chats(rows), want.max_length).examples
    threads = torch.get_num_threads()
    torch.set_num_threads(pipeline.teacher.threads)
    try:
        scorer = capture.Scorer(path, meta, pipeline.teacher.dtype, world.device(pipeline.config.training.device))
        captured = capture.capture(
            examples,
            meta,
            scorer,
            job.work / "signals",
            known=_known(job, meta),
            progress=lambda done, total: job.progress(done, total, "asking the teacher for probabilities"),
        )
    finally:
        torch.set_num_threads(threads)
    file = job.draft.content / store.FILE
    store.write(file, captured.rows, meta)
    job.draft.write_json("signals.json", store.any_of(meta), attach=True)
    positions = sum(row.positions for row in captured.rows)
    job.notes["counts"] = {
        "records": len(captured.rows),
        "positions": positions,
        "scored": captured.scored,
        "reused": captured.reused,
        "resumed": captured.resumed,
    }
    job.notes["signals"] = {
        "bytes": file.stat().st_size,
        "bytes_a_token": file.stat().st_size / max(1, positions),
        "seconds": captured.seconds,
        **break_even(captured.tokens, captured.seconds, sum(len(e.ids) for e in examples), pipeline.config.training),
    }


def _of_tokens(job: Job, tokenizer: Any, want: Wanted, place: str) -> Any:
    """How the signals of a language model are written."""
    from distill_dagster.training.signals import store

    if want.k >= len(tokenizer):
        raise TrainingError(
            place, f"k {want.k} is not below the teacher's vocabulary of {len(tokenizer):,}.", "Lower `k`."
        )
    return store.Meta(
        teacher=job.inputs["teacher"].version,
        tokenizer=store.tokenizer_digest(tokenizer),
        template=store.template_digest(tokenizer, "chat"),
        vocabulary=len(tokenizer),
        k=want.k,
        temperatures=want.temperatures,
    )


def _of_labels(job: Job, path: Path, want: Wanted) -> Any:
    """How the signals of a classifier are written: all its labels but one at most, the rest being that one."""
    from distill_dagster.models import classifier
    from distill_dagster.training.signals import store

    labels = tuple(classifier.folder_labels(path))
    return store.Meta(
        teacher=job.inputs["teacher"].version,
        tokenizer="",
        template="",
        vocabulary=len(labels),
        k=min(want.k, len(labels) - 1),
        temperatures=want.temperatures,
        labels=labels,
    )


def make_of_calls(job: Job, pipeline: PipelineContext, want: Wanted) -> None:
    """Take what the teacher said of its answers over to the student's tokens.

    Raises:
        TrainingError: A recipe wants more than was captured, or the student's tokens are not the same strings.
    """
    from distill_dagster.models import folder
    from distill_dagster.training import data
    from distill_dagster.training.signals import answers, store

    place = f"{pipeline.key}/{ARTIFACT}"
    kinds = [load_kind(block) for block in pipeline.config.knowledge]
    top = max(kind.params.top for kind in kinds if kind.captures())
    if want.k > top:
        raise TrainingError(place, f"k is {want.k}, and the calls kept {top}.", f"Set `k` to {top}, or raise `top`.")
    if want.temperatures != (1.0,):
        raise TrainingError(
            place, "what lies beyond the likeliest tokens is known at temperature 1 alone.", "Set `temperature: 1`."
        )
    if pipeline.teachers is not None:
        raise TrainingError(place, "signals come from one teacher, and there are several.", "Use one, or `sft`.")
    tokenizer = folder.load_tokenizer(job.inputs["student"].local("model"))
    meta = _of_tokens(job, tokenizer, want, place)
    rows = job.inputs["data"].table("example").to_pylist()
    given = {(row["seed_record_id"], row["answer"]): row["tokens"] for row in _features(job)}
    said = {
        row["record_id"]: given.get((row["seed_record_id"], text_of(row["messages"], "assistant")))
        for row in rows
        if row["origin"] != "gold"
    }
    strangers = [record for record, tokens in said.items() if tokens is None]
    if strangers:
        raise TrainingError(
            f"record {strangers[0]}",
            f"no call kept probabilities of its answer; nor of {len(strangers) - 1} others.",
            "Ask with `feature` alone, and use no filter that rewrites answers.",
        )
    examples = data.encode(tokenizer, data.chats(rows), want.max_length).examples
    known = {record: tokens for record, tokens in said.items() if tokens is not None}
    signals, counts = answers.captured(examples, known, tokenizer, meta)
    file = job.draft.content / store.FILE
    store.write(file, signals, meta)
    job.draft.write_json("signals.json", store.any_of(meta), attach=True)
    job.notes["counts"] = {"records": len(signals), **vars(counts)}


def _features(job: Job) -> list[dict[str, Any]]:
    return job.inputs["outputs"].table("feature", columns=["seed_record_id", "answer", "tokens"]).to_pylist()


def break_even(tokens: int, seconds: float, all_tokens: int, recipe: Recipe) -> dict[str, Any]:
    """Stored against live: what each costs the teacher, in seconds at the speed just measured.

    A live teacher reads every batch of every run; a stored one read each record once. Batches make a live teacher
    faster a token than a capture is, so this favours neither by much where records are long.
    """
    if not tokens or not all_tokens:
        return {"break_even": "nothing was asked: stored signals cost this run no teacher work"}
    a_token = seconds / tokens
    epochs = recipe.steps * recipe.step_tokens / all_tokens
    live = a_token * recipe.steps * recipe.step_tokens
    text = (
        f"capture: {seconds:.1f} s once; a live teacher: about {a_token * all_tokens:.1f} s an epoch, "
        f"{live:.1f} s for a student of {epochs:.1f} epochs; stored signals pay from epoch "
        f"{max(1.0, tokens / all_tokens):.1f} on, over all students together"
    )
    return {"capture_seconds": seconds, "live_seconds": live, "epochs": epochs, "break_even": text}


def _known(job: Job, meta: Any) -> list[Any]:
    """Rows of the artifact's own newest version, where teacher, tokenizer, template and layout are the same.

    A record's signals depend on nothing else, so the version is the one that scoring everything would give.
    """
    from distill_dagster.training.signals import store

    head = head_version(job.store, job.node.key)
    if head is None:
        return []
    path = head[0].local(store.FILE)
    return store.read(path) if store.read_meta(path) == meta else []
