"""`preference_pairs`: a better and a worse answer to the same question, for training on preferences.

The artifact exists where a kind of knowledge compares answers. A comparison without a winner is dropped with its
verdict as the reason. The chosen answer has to pass every filter rule of the pipeline; the rejected one may be wrong,
cut off or evasive, and has to pass the others. Rules on duplicates do not apply: several pairs of one question are
meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from distill_dagster.config.models import Block, identity
from distill_dagster.filtering import engine
from distill_dagster.filtering.base import Context, EvalText
from distill_dagster.knowledge.base import load_kind
from distill_dagster.lineage import laws
from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.records import tables
from distill_dagster.records.messages import message, rest_of, text_of
from distill_dagster.stages import leakage, ratings
from distill_dagster.stages.context import PipelineContext
from distill_dagster.stages.filtered_dataset import renumbered
from distill_dagster.stages.inheritance import Inheritance

VERSION = "3"

ARTIFACT = "preference_pairs"

#: Rules on how good an answer is, which a rejected answer need not pass. A rule that is not listed applies to both.
QUALITY = ("schema", "length", "truncation", "refusal", "verifier", "judge", "judge_score", "length_bias")
#: Rules on copies: a question stands in every pair that is made of its answers.
COPIES = ("exact_duplicate", "near_duplicate", "semantic_duplicate", "cap", "caps", "source_cap")
#: People read candidates, not pairs.
READ = ("human_review",)

Rows = list[dict[str, Any]]


def where_used(pipeline: PipelineContext) -> tuple[str, ...]:
    """The artifact's name, where a kind of the pipeline compares answers."""
    return (ARTIFACT,) if any(load_kind(block).compares() for block in pipeline.config.knowledge) else ()


def node(pipeline: PipelineContext) -> Node:
    """The node `<pipeline>/preference_pairs`."""
    source = pipeline.source.key
    return Node(
        key=(pipeline.key, ARTIFACT),
        version=VERSION,
        parents=(
            Parent("outputs", (pipeline.key, "teacher_outputs"), {"comparison": ("all",), **ratings.parts(pipeline)}),
            Parent("seeds", (source, "seed_set")),
            Parent("evals", (source, "eval_set")),
        ),
        config={
            "rules": [identity(block) for block in pipeline.config.filtering],
            "versions": engine.versions(pipeline.config.filtering),
            "mode": pipeline.config.filtering_mode,
            "tasks": pipeline.known_tasks,
            **pipeline.source.compared(),
            **pipeline.source.verifier(any(block.name == "verifier" for block in pipeline.config.filtering)),
        },
        outside=lambda: engine.outside(_rules(pipeline), pipeline.folder),
        make=lambda job: make(job, pipeline),
        title="Pairs of a better and a worse answer, with a decision for every comparison",
    )


def _rules(pipeline: PipelineContext) -> list[Block]:
    """The pipeline's rules that look at pairs."""
    return [block for block in pipeline.config.filtering if block.name not in (*COPIES, *READ)]


def make(job: Job, pipeline: PipelineContext) -> None:
    """Filter both sides of every comparison that has a winner."""
    place = f"{pipeline.key}/{ARTIFACT}"
    seeds, evals = job.inputs["seeds"].table("seed"), job.inputs["evals"].table("seed")
    leakage.require_none(pipeline.source, seeds, evals)
    rows = renumbered(job.inputs["outputs"].table("comparison"), seeds).to_pylist()
    context = Context(
        tasks=pipeline.tasks,
        seeds={row["seed_no"]: row for row in seeds.to_pylist()},
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
        folder=pipeline.folder,
        ratings=ratings.read(job.inputs["outputs"]),
    )
    won = [row for row in rows if row["verdict"] == "ok"]
    rules = _rules(pipeline)
    chosen = _looks(won, True, rules, pipeline, context)
    rejected = _looks(won, False, [block for block in rules if block.name not in QUALITY], pipeline, context)
    inheritance = Inheritance(context.seeds.values())
    decisions, pairs = _decided(rows, chosen, rejected, inheritance)
    table = tables.build("preference", pairs)
    reasons = laws.counts(row["reason"] for row in decisions if row["verdict"] == "drop")
    failed = sum(row["verdict"] == "failed" for row in decisions)
    laws.conserved(place, len(rows), len(pairs), reasons, failed)
    laws.no_orphan(place, table["seed_no"], seeds["seed_no"], "preferences")
    job.draft.write_table("preference", table, by="task")
    job.draft.write_table("decision", tables.build("decision", decisions), side=True)
    job.notes["funnel"] = {
        "comparisons": len(rows),
        **{f"dropped: {reason}": count for reason, count in reasons.items()},
        "failed": failed,
        "kept": len(pairs),
    }
    job.notes["counts"] = {"pairs": len(pairs), "tasks": laws.counts(row["task"] for row in pairs)}


def _sides(row: dict[str, Any], better: bool) -> tuple[str, str]:
    """The column names of the better or the worse side and what they are called there: first or second."""
    side = row["winner"] if better else {"first": "second", "second": "first"}[row["winner"]]
    return side, row[side]


class _Side(NamedTuple):
    """One side of a comparison: its decision, and what is read and said, masked where a rule masks."""

    decision: dict[str, Any]
    text: dict[str, Any]


def _looks(
    won: Rows, better: bool, rules: Sequence[Block], pipeline: PipelineContext, context: Context
) -> dict[int, _Side]:
    """The decision on one side of each comparison, by its number, and the side as the rules rewrote it."""
    candidates = []
    for row in won:
        side, text = _sides(row, better)
        candidates.append(
            {
                "candidate_no": row["comparison_no"],
                "seed_no": row["seed_no"],
                "seed_record_id": row["seed_record_id"],
                "call_no": row[f"{side}_call_no"],
                "kind": "feedback",
                "task": row["task"],
                "messages": [*row["messages"], message("assistant", text)],
                "answer": text,
                "status": "ok",
                "finish_reason": row[f"{side}_finish_reason"],
            }
        )
    outcome = engine.run(tables.build("candidate", candidates), rules, pipeline.config.filtering_mode, context)
    asked = {row["candidate_no"]: outcome.rewritten.get(row["candidate_no"], row) for row in candidates}
    return {row["candidate_no"]: _Side(row, asked[row["candidate_no"]]) for row in outcome.decisions.to_pylist()}


def _decided(
    rows: Rows,
    chosen: dict[int, _Side],
    rejected: dict[int, _Side],
    inheritance: Inheritance,
) -> tuple[Rows, Rows]:
    """A DECISION row for each comparison (`candidate_no` is its number), and a PREFERENCE row for each kept one.

    Where several ways of judging saw the same two answers, the first one counts; the later row is a `duplicate`, or
    `contradicts` it.
    """
    decisions, pairs = [], []
    known: set[tuple[str, str, str]] = set()
    for row in rows:
        number = row["comparison_no"]
        body: dict[str, Any] = {"candidate_no": number, "seed_no": row["seed_no"], "task": row["task"]}
        if row["verdict"] == "failed":
            decisions.append({**body, "verdict": "failed", "reason": row["failure"], "looks": []})
            continue
        if row["verdict"] != "ok":
            decisions.append({**body, "verdict": "drop", "reason": row["verdict"], "looks": []})
            continue
        best, worst = chosen[number].decision, rejected[number].decision
        looks = [*best["looks"], *worst["looks"]]
        reason = f"chosen: {best['reason']}" if best["verdict"] != "keep" else None
        if reason is None and worst["verdict"] != "keep":
            reason = f"rejected: {worst['reason']}"
        sides = _sides(row, True)[1], _sides(row, False)[1]
        if reason is None and (row["seed_record_id"], *sides) in known:
            reason = "duplicate"
        if reason is None and (row["seed_record_id"], *reversed(sides)) in known:
            reason = "contradicts"
        decisions.append({**body, "verdict": "drop" if reason else "keep", "reason": reason, "looks": looks})
        if reason is None:
            known.add((row["seed_record_id"], *sides))
            pairs.append(_pair(row, chosen[number].text, rejected[number].text, inheritance))
    return decisions, pairs


def _pair(row: dict[str, Any], best: dict[str, Any], worst: dict[str, Any], inheritance: Inheritance) -> dict[str, Any]:
    better, worse = _sides(row, True)[0], _sides(row, False)[0]
    return {
        "seed_no": row["seed_no"],
        "seed_record_id": row["seed_record_id"],
        "task": row["task"],
        "split": "train",
        "messages": best["messages"][:-1],
        "chosen": best["answer"],
        "rejected": worst["answer"],
        "chosen_call_no": row[f"{better}_call_no"],
        "rejected_call_no": row[f"{worse}_call_no"],
        "chosen_score": row[f"{better}_score"],
        "rejected_score": row[f"{worse}_score"],
        **inheritance.of(row),
    }
