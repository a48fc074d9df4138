"""`filtered_dataset`: gold and the teacher's kept answers, with a decision for every candidate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from distill_dagster.config.models import identity
from distill_dagster.errors import StoreError
from distill_dagster.filtering import engine
from distill_dagster.filtering._health import by_task
from distill_dagster.filtering._profile import profile
from distill_dagster.filtering.base import Context, EvalText, make_batch
from distill_dagster.lineage import laws
from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.records import tables
from distill_dagster.records.messages import rest_of, text_of
from distill_dagster.stages import leakage, metering, ratings, review, teacher_model
from distill_dagster.stages.context import PipelineContext
from distill_dagster.stages.inheritance import Inheritance
from distill_dagster.storage.store import Version

VERSION = "4"


def node(pipeline: PipelineContext) -> Node:
    """The node `<pipeline>/filtered_dataset`."""
    source = pipeline.source.key
    rules = review.rules_of(pipeline.config)
    return Node(
        key=(pipeline.key, "filtered_dataset"),
        version=VERSION,
        parents=(
            Parent("outputs", (pipeline.key, "teacher_outputs")),
            Parent("seeds", (source, "seed_set")),
            Parent("evals", (source, "eval_set")),
            Parent("prompts", (source, "prompt_set"), {"prompt": ("short",)}),
            *review.parents(pipeline),
        ),
        config={
            "rules": [identity(block) for block in rules],
            "versions": engine.versions(rules),
            "mode": pipeline.config.filtering_mode,
            "tasks": pipeline.known_tasks,
            **pipeline.source.compared(),
            **pipeline.source.verifier(any(block.name == "verifier" for block in rules)),
            **review.config_of(pipeline),
        },
        outside=lambda: engine.outside(rules, pipeline.folder),
        make=lambda job: make(job, pipeline),
        title="What the student trains on: gold, and teacher answers that passed every rule",
    )


def make(job: Job, pipeline: PipelineContext) -> None:
    """Refuse leaking seeds, filter the candidates, and join the kept ones with gold."""
    place = f"{pipeline.key}/filtered_dataset"
    seeds, evals = job.inputs["seeds"].table("seed"), job.inputs["evals"].table("seed")
    job.progress(0, None, "leakage between seeds and evaluation")
    leakage.require_none(pipeline.source, seeds, evals)
    rows = {row["seed_no"]: row for row in seeds.to_pylist()}
    candidates = renumbered(job.inputs["outputs"].table("candidate"), seeds)
    job.progress(0, candidates.num_rows, "filtering")
    context = Context(
        tasks=pipeline.tasks,
        seeds=rows,
        evaluation=[
            EvalText(
                row["record_id"],
                row["task"],
                text_of(row["messages"]),
                f"{pipeline.source.key}/eval_set",
                rest_of(row),
            )
            for row in evals.select(["record_id", "task", "messages", "context", "choices"]).to_pylist()
        ],
        verify=pipeline.source.domain.verify,
        inputs={row["candidate_no"]: row["input"] for row in candidates.to_pylist() if row.get("input") is not None},
        folder=pipeline.folder,
        **review.context_of(pipeline, job.inputs.get(review.ARTIFACT)),
        ratings=ratings.read(job.inputs["outputs"]),
    )
    outcome = engine.run(candidates, review.rules_of(pipeline.config), pipeline.config.filtering_mode, context)
    kept = set(outcome.kept)
    inheritance = Inheritance(rows.values())
    gold = [
        row
        for row in teacher_model.gold_examples(
            job.inputs["seeds"], job.inputs["prompts"], "gold", pipeline.source.domain
        )
        if row["task"] in pipeline.tasks
    ]
    taught = [
        _example(outcome.rewritten.get(row["candidate_no"], row), inheritance)
        for row in candidates.to_pylist()
        if row["candidate_no"] in kept
    ]
    fresh: list[dict[str, Any]] = [{**row, "example_no": None} for row in [*gold, *taught]]
    examples = tables.build("example", fresh)
    laws.conserved(place, candidates.num_rows, len(taught), outcome.funnel, outcome.failed, outcome.refused)
    laws.grounded(place, examples)
    laws.no_orphan(place, examples["call_no"], candidates["call_no"], "examples")
    laws.no_orphan(place, examples["seed_no"], seeds["seed_no"], "examples")
    job.draft.write_table("example", examples, by="origin")
    job.draft.write_table("decision", outcome.decisions, side=True)
    job.draft.write_table("duplicate", outcome.duplicates, side=True)
    job.notes["funnel"] = {
        "candidates": candidates.num_rows,
        **{f"dropped: {reason}": count for reason, count in outcome.funnel.items()},
        "failed": outcome.failed,
        **({"refused": outcome.refused} if outcome.refused else {}),
        "kept": len(taught),
    }
    asked = job.inputs["outputs"].run(job.input_runs["outputs"])["notes"]
    if pipeline.teachers is not None:
        job.notes["teachers"] = _by_teacher(candidates, outcome, asked.get("teachers", {}))
    paid = asked.get("paid")
    if paid is not None:
        job.notes["cost"] = metering.per_kept(paid, len(taught))
    job.notes |= review.notes_of(pipeline, job.inputs.get(review.ARTIFACT), outcome.decisions, candidates)
    job.notes["profile"] = profile(candidates, kept, pipeline.tasks)
    job.notes["diversity"] = _diversity(job.inputs["seeds"], candidates, context, kept)
    job.notes["counts"] = {
        "examples": examples.num_rows,
        "origins": laws.counts(examples["origin"].to_pylist()),
        "tasks": laws.counts(examples["task"].to_pylist()),
        "licences": laws.counts(examples["licence"].to_pylist()),
    }


def _by_teacher(candidates: pa.Table, outcome: engine.Outcome, calls: Mapping[str, Any]) -> dict[str, Any]:
    """The funnel of each of several teachers, and what its calls of the run behind took."""
    decisions = dict(zip(*(outcome.decisions[name].to_pylist() for name in ("candidate_no", "verdict")), strict=True))
    found: dict[str, Any] = {
        name: {"candidates": 0, "kept": 0, "dropped": 0, "failed": 0, "refused": 0} for name in calls
    }
    verdicts = {"keep": "kept", "drop": "dropped"}
    for number, name in zip(*(candidates[name].to_pylist() for name in ("candidate_no", "teacher")), strict=True):
        entry = found[name]
        entry["candidates"] += 1
        entry[verdicts.get(decisions[number], decisions[number])] += 1
    return {name: {**entry, "calls": calls[name]} for name, entry in found.items()}


def _diversity(seeds: Version, candidates: pa.Table, context: Context, kept: set[int]) -> dict[str, Any]:
    """Diversity of the seeds' inputs, of those that were kept, and of the kept answers, by task."""
    given = seeds.table("seed", ["task", "messages"], [("part", "==", "unlabeled")]).to_pylist()
    rows = [row for row, number in enumerate(candidates["candidate_no"].to_pylist()) if number in kept]
    batch = make_batch(candidates.take(pa.array(rows, pa.int64())), context)
    return {
        "seeds": by_task([row["task"] for row in given], [text_of(row["messages"]) for row in given]),
        "inputs": by_task(batch.column("task"), batch.inputs),
        "answers": by_task(batch.column("task"), [answer or "" for answer in batch.column("answer")]),
    }


def renumbered(answers: pa.Table, seeds: pa.Table) -> pa.Table:
    """Candidates, or comparisons, with the seed numbers of this seed set.

    Row numbers join tables of one version. The answers may have been made from an earlier seed set whose parts that a
    teacher works on were the same; the record id says which seed is meant. A row without a seed keeps none.
    """
    asked = seeds.filter(pc.field("part").isin(["unlabeled", "gold"]))
    numbers: dict[str, list[int]] = {}
    for record, number in zip(asked["record_id"].to_pylist(), asked["seed_no"].to_pylist(), strict=True):
        numbers.setdefault(record, []).append(number)
    # Equal records are told apart by their order, which is the same in both versions.
    known = list(zip(answers["seed_record_id"].to_pylist(), answers["seed_no"].to_pylist(), strict=True))
    places: dict[str, dict[int, int]] = {}
    for record, old in known:
        if record is not None:
            places.setdefault(record, {}).setdefault(old, len(places[record]))
    strangers = [record for record in places if len(places[record]) > len(numbers.get(record, ()))]
    if strangers:
        raise StoreError(
            "teacher_outputs",
            f"{len(strangers)} of its answers are about seeds that this seed set does not have.",
            "Materialize teacher_outputs first.",
        )
    mapped = [None if record is None else numbers[record][places[record][old]] for record, old in known]
    column = answers.column_names.index("seed_no")
    return answers.set_column(column, "seed_no", pa.array(mapped, pa.int64()))


def _example(candidate: dict[str, Any], inheritance: Inheritance) -> dict[str, Any]:
    return {
        "origin": "teacher",
        "seed_no": candidate["seed_no"],
        "seed_record_id": candidate["seed_record_id"],
        "call_no": candidate["call_no"],
        "task": candidate["task"],
        "split": "train",
        "messages": candidate["messages"],
        "weight": 1.0,
        "rationale": candidate["rationale"],
        "origins": candidate.get("origins"),
        **inheritance.of(candidate),
    }
