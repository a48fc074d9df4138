"""Training in a process of its own, as the stages start it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_dagster.config.models import Recipe
from distill_dagster.errors import TrainingError
from distill_dagster.lineage.engine import Job
from distill_dagster.records.tables import build
from distill_dagster.stages import seeds
from distill_dagster.stages.models import ModelReference
from distill_dagster.storage.store import Version


def run(
    job: Job,
    *,
    examples: Sequence[dict[str, Any]] = (),
    start: ModelReference | Path,
    recipe: Recipe,
    out: Path,
    tokenizer_texts: Sequence[str] = (),
    vocabulary: int = 2048,
    name: str = "train",
    teaching: Mapping[str, Any] | None = None,
    pairs: Sequence[dict[str, Any]] | None = None,
    validation: Sequence[dict[str, Any]] = (),
    labels: Sequence[str] = (),
) -> dict[str, Any]:
    """Train a model on EXAMPLE rows, or on PREFERENCE rows in `pairs`, and put its folder at `out`.

    The work folder outlives a crash, so the same action resumes from its last checkpoint. `teaching` names what a
    teacher says beyond text, as `distill_dagster.training.process` takes it: `signals`, `teacher`. `validation` are
    EXAMPLE rows whose loss is measured, and by which `early_stop` stops. `labels` are those of the head that an encoder
    without one gets.

    Returns:
        The trainer's summary: steps, tokens, last loss, seconds.
    """
    import pyarrow.parquet as pq

    from distill_dagster.training import adapters, launch, rationale
    from distill_dagster.training.trl import library as trl_library

    if not examples and not pairs:
        left, funnel = ("example", "filtered_dataset") if pairs is None else ("preference pair", "preference_pairs")
        raise TrainingError(
            f"{job.node.key[0]}/{job.node.key[1]}",
            f"there is nothing to train on: no {left} was left.",
            f"See the funnel of {funnel}, or raise the number of seed records.",
        )
    adapters.require(recipe, f"{job.node.key[0]}/{job.node.key[1]}")
    trl_library.require(recipe, f"{job.node.key[0]}/{job.node.key[1]}")
    work = job.work / name
    work.mkdir(parents=True, exist_ok=True)
    kind = "examples" if pairs is None else "pairs"
    data = work / f"{kind}.parquet"
    taught = rationale.rows(examples, recipe.rationale)
    pq.write_table(build("example", taught) if pairs is None else build("preference", pairs), data)
    model_out = work / "model"
    task = {
        kind: str(data),
        "base": _base(start, work, tokenizer_texts, vocabulary, labels),
        "recipe": recipe.model_dump(),
        "out": str(model_out),
        "work": str(work),
        "name": f"{job.node.key[0]}/{job.node.key[1]}",
        **(teaching or {}),
    }
    if validation:
        pq.write_table(build("example", validation), work / "validation.parquet")
        task["validation"] = str(work / "validation.parquet")
    with job.services.training_session() as env:
        summary = launch.launch(
            task,
            work,
            env=env,
            start=job.services.start,
            progress=lambda step, total, loss: job.progress(step, total, f"loss {loss:.3f}"),
        )
    shutil.copytree(model_out, out)
    metrics = work / "metrics.jsonl"
    if metrics.exists():
        shutil.copyfile(metrics, job.draft.side / f"{name}_metrics.jsonl")
    return summary


def base_reference(job: Job, recipe: Recipe, index: int = 0) -> dict[str, Any]:
    """What a training task of seed `index` is told of `start`, for an adapter to be sealed with a reference to it.

    Versions of one owner's artifacts lie side by side, so the path holds from student_checkpoint and control_checkpoint
    and, being as deep, from deployed_student.
    """
    if recipe.adapter is None:
        return {}
    base = job.inputs["start"]
    path = f"../../../{base.key[1]}/{base.version}/{seeds.start(base, index).name}"
    return {"base_reference": {"artifact": "/".join(base.key), "version": base.version, "path": path}}


def weights(version: Version, name: str = "model") -> Path:
    """Local folder of a trained model; where that is an adapter, its base lies fetched where the adapter expects it."""
    from distill_dagster.models import adapter

    folder = version.local(name)
    if adapter.is_adapter(folder):
        said = adapter.reference(folder)
        owner, _, artifact = str(said.get("artifact") or "").partition("/")
        if artifact:
            version.store.open((owner, artifact), said["version"]).local(Path(said["path"]).name)
    return folder


def _base(
    start: ModelReference | Path, work: Path, texts: Sequence[str], vocabulary: int, labels: Sequence[str]
) -> Any:
    if isinstance(start, Path):
        return str(start)
    head = {"labels": list(labels)} if labels else {}
    if start.kind != "preset":
        folder = start.fetched()
        return {"encoder": str(folder), **head} if start.sort() == "encoder" else str(folder)
    from distill_dagster.training import tokenizer

    folder = work / "tokenizer"
    if not (folder / "tokenizer_config.json").exists():
        tokenizer.fit(texts, vocabulary, folder, encoder=bool(labels))
    return {"preset": start.preset, "tokenizer": str(folder), **head}


def curve(path: Path, name: str = "loss") -> list[tuple[int, float]]:
    """`(step, loss)` of a metrics file, or another number of it where it was logged."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]
    return [(row["step"], row[name]) for row in rows if name in row]
