"""People's verdicts: a sample of the newest data set for them to read, what they said as a version of its own, and the
gate on critical errors.

The verdicts of a pipeline are the artifact `<pipeline>/review`. It is made by an import and by no run, so it is no
node of the graph; `filtered_dataset` reads its newest version as an optional input. So a new verdict makes the data set
stale, and with it all that is made of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from distill_dagster.config.models import Block, PipelineConfig, ReviewOptions, identity
from distill_dagster.deployment import gate
from distill_dagster.errors import ConfigError, GateError, StoreError
from distill_dagster.evaluation import review as evaluation
from distill_dagster.filtering._review import rulings
from distill_dagster.lineage.graph import Parent, anything
from distill_dagster.lineage.threads import At, newest
from distill_dagster.records.messages import text_of
from distill_dagster.stages.context import PipelineContext
from distill_dagster.storage.store import Store, Version

ARTIFACT = "review"
RULE = "human_review"
#: Dropped by these, a record is shown to nobody: the text is what was found in it.
PRIVATE = ("pii", "secrets")


def options_of(config: PipelineConfig) -> ReviewOptions | None:
    """How verdicts count; None where people's verdicts are not used."""
    listed = any(block.name == RULE for block in config.filtering)
    return config.review or (ReviewOptions() if listed else None)


def rules_of(config: PipelineConfig) -> list[Block]:
    """The filter rules in order; `human_review` follows the others unless the list names its place."""
    options = config.review
    if options is None or any(block.name == RULE for block in config.filtering):
        return list(config.filtering)
    return [*config.filtering, Block(name=RULE)]


def parents(pipeline: PipelineContext) -> tuple[Parent, ...]:
    """The input of the verdicts, where they are used."""
    if options_of(pipeline.config) is None:
        return ()
    key = (pipeline.key, ARTIFACT)
    return (Parent(ARTIFACT, key, {"verdict": ("all",)}, resolve=lambda store: store.head(key), optional=True),)


def context_of(pipeline: PipelineContext, verdicts: Version | None) -> dict[str, Any]:
    """What the rule may know: a ruling for each record that was judged, and what becomes of the others."""
    options = options_of(pipeline.config)
    if options is None:
        return {}
    rows = [] if verdicts is None else verdicts.table("verdict").to_pylist()
    return {"reviews": rulings(rows, options.adjudication), "unreviewed": options.unreviewed}


def notes_of(
    pipeline: PipelineContext, verdicts: Version | None, decisions: pa.Table, candidates: pa.Table
) -> dict[str, Any]:
    """What a run of the data set keeps of its review: the figures, and what the gate finds."""
    options = options_of(pipeline.config)
    if options is None:
        return {}
    rows = [] if verdicts is None else verdicts.table("verdict").to_pylist()
    found = figures(options, rows, decisions, _ids(candidates))
    judged = gate.critical_errors(found["critical"], options)
    return {ARTIFACT: {**found, "gate": {"passed": judged.passed, "reason": judged.reason, **judged.evidence}}}


def _ids(candidates: pa.Table) -> dict[int, str]:
    return dict(zip(candidates["candidate_no"].to_pylist(), candidates["record_id"].to_pylist(), strict=True))


def figures(
    options: ReviewOptions, verdicts: Sequence[Mapping[str, Any]], decisions: pa.Table, ids: Mapping[int, str]
) -> dict[str, Any]:
    """What the verdicts on one data set amount to (evaluation/review.py).

    Args:
        options: How verdicts count.
        verdicts: VERDICT rows.
        decisions: The DECISION table.
        ids: Record id of each candidate, by number.
    """
    reasons: dict[str, str | None] = {}
    for number, verdict, reason in zip(
        *(decisions[name].to_pylist() for name in ("candidate_no", "verdict", "reason")), strict=True
    ):
        # Of equal records the one that was kept stands for all: the others are its copies.
        if verdict in ("keep", "drop") and (ids[number] not in reasons or reason is None):
            reasons[ids[number]] = reason
    return evaluation.figures(verdicts, rulings(verdicts, options.adjudication), reasons, options.critical_errors)


# --- the gate -------------------------------------------------------------------------------------------------------


def finding(data: Version, run: str) -> gate.Finding | None:
    """The gate on critical errors, judged again for one run of a data set; None where its pipeline has none.

    It is judged by the options that the data set was made with, on the verdicts that it was made with.
    """
    record = data.run(run)
    said = record["config"].get(ARTIFACT)
    if said is None or said["max_upper_bound"] is None:
        return None
    options = ReviewOptions.model_validate(said)
    found = At(data, run)
    verdicts = found.parent(ARTIFACT)
    rows = [] if verdicts is None else verdicts.rows("verdict")
    outputs = found.parent("outputs")
    candidates = None if outputs is None else outputs.table("candidate", columns=["candidate_no", "record_id"])
    if candidates is None:
        raise StoreError(str(data), "the answers that it was made of are gone.", "Materialize it again.")
    decisions = data.side_table(run, "decision", ["candidate_no", "verdict", "reason"])
    return gate.critical_errors(figures(options, rows, decisions, _ids(candidates))["critical"], options)


def require_released(data: Version, run: str) -> None:
    """Refuse a data set whose review does not bound its critical errors.

    Raises:
        GateError: Names the bound and what was found.
    """
    found = finding(data, run)
    if found is not None and not found.passed:
        raise GateError(
            f"{data.key[0]}/filtered_dataset",
            f"gate {found.gate!r} has not passed: {found.reason}.",
            f"Have a sample read: distill-dagster review export {data.key[0]} --out FILE (docs/review.md).",
        )


def admits(pipeline: PipelineContext, role: str) -> Callable[[Mapping[str, Version], Mapping[str, str]], None]:
    """What a node asks of its data before it consumes it: that its review has passed. A pilot asks nothing."""

    def admit(inputs: Mapping[str, Version], runs: Mapping[str, str]) -> None:
        require_released(inputs[role], runs[role])

    return admit if pipeline.source.limit is None else anything


# --- the sample -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """A record that people may be shown.

    Attributes:
        record_id: Id of its candidate.
        task: Its task.
        source: Where its seed is from.
        reason: Why it was dropped; None where it was kept.
        question: What the student would read.
        answer: What the teacher said, as it was kept.
        rationale: The teacher's explanation, or empty.
    """

    record_id: str
    task: str
    source: str
    reason: str | None
    question: str
    answer: str
    rationale: str

    @property
    def shown(self) -> str:
        """Digest of what a reviewer sees, which a verdict is bound to."""
        return digest_of(self.record_id, self.task, self.question, self.answer, self.rationale)

    def cells(self) -> dict[str, str]:
        """The columns that a reviewer reads."""
        names = ("record_id", "task", "question", "answer", "rationale", "shown")
        return {name: getattr(self, name) for name in names}


def digest_of(*texts: str) -> str:
    """16 hex digits over some texts; how a program writes line breaks and the space around a text do not count."""
    plain = ("\n".join(text.split("\r\n")).replace("\r", "\n").strip() for text in texts)
    return hashlib.sha256("\0".join(plain).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def population(store: Store, pipeline: str) -> list[Item]:
    """Every answered candidate of the newest data set that people may be shown, in its order.

    Raises:
        StoreError: There is no data set, or what it was made of is gone.
    """
    data = next((thread for thread in newest(store, pipeline) if thread.data is not None), None)
    if data is None or data.data is None:
        reason = "it was never materialized."
        raise StoreError(f"{pipeline}/filtered_dataset", reason, f"Run `distill-dagster run {pipeline}`.")
    if data.outputs is None or data.seeds is None:
        raise StoreError(str(data.data.version), "the answers it was made of are gone.", "Materialize it again.")
    sources = {row["record_id"]: row["source_id"] for row in data.seeds.rows("seed")}
    taught = iter([row for row in data.data.rows("example") if row["origin"] != "gold"])
    candidates = {row["candidate_no"]: row for row in data.outputs.rows("candidate")}
    items = []
    for decision in data.data.rows("decision"):
        row = candidates[decision["candidate_no"]]
        if decision["verdict"] not in ("keep", "drop"):
            continue
        # Examples stand in the order of the candidates they were made of, as the rules left them.
        shown = next(taught) if decision["verdict"] == "keep" else row
        if decision["reason"] is not None and decision["reason"].partition(".")[0] in PRIVATE:
            continue
        items.append(
            Item(
                record_id=row["record_id"],
                task=row["task"],
                source=sources.get(row["seed_record_id"]) or "unknown",
                reason=decision["reason"],
                question=_asked(shown["messages"][:-1]),
                answer=text_of(shown["messages"][-1:]),
                rationale=shown["rationale"] or "",
            )
        )
    return items


def _asked(messages: Sequence[Mapping[str, Any]]) -> str:
    if len(messages) == 1:
        return text_of(messages)
    return "\n\n".join(f"{entry['role']}: {text_of([entry])}" for entry in messages)


def drawn(items: Iterable[Item], count: int, seed: int = 0) -> list[Item]:
    """A sample stratified by task and source, in proportion (largest remainders), the same for the same seed.

    Which of a stratum are drawn depends on hashes of their ids alone, so a record that is added displaces one other at
    most. Equal records count once. The order is that of the hashes too: who reads half of it reads a sample.
    """

    def place(item: Item) -> bytes:
        return hashlib.sha256(f"{seed}\0{item.record_id}".encode()).digest()

    strata: dict[tuple[str, str], list[Item]] = {}
    for item in {item.record_id: item for item in items}.values():
        strata.setdefault((item.task, item.source), []).append(item)
    total = sum(map(len, strata.values()))
    count = min(count, total)
    shares = {key: count * len(found) / total for key, found in strata.items()}
    sizes = {key: int(share) for key, share in shares.items()}
    left = sorted(shares, key=lambda key: (sizes[key] - shares[key], key))
    for key in left[: count - sum(sizes.values())]:
        sizes[key] += 1
    chosen = [item for key, found in strata.items() for item in sorted(found, key=place)[: sizes[key]]]
    return sorted(chosen, key=place)


def options_for(pipeline: PipelineContext) -> ReviewOptions:
    """How verdicts of a pipeline count.

    Raises:
        ConfigError: They do not: the pipeline's file has no `review`.
    """
    options = options_of(pipeline.config)
    if options is None:
        raise ConfigError(
            f"pipeline {pipeline.key}",
            "its file says nothing about review, so verdicts would change nothing.",
            "Add `review: {}` to it, or a list of critical errors (docs/review.md).",
        )
    return options


def config_of(pipeline: PipelineContext) -> dict[str, Any]:
    """What the data set's action key holds of the review; nothing where there is none."""
    options = options_of(pipeline.config)
    return {} if options is None else {ARTIFACT: identity(options)}
