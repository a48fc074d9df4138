"""Runs filter rules over candidates and accounts for every one of them.

candidates = kept + dropped per reason + failed + refused. In mode `first` a dropped candidate is looked at no more; in
mode `all` every rule looks at every answered candidate. Both modes keep the same candidates for the same reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from distill_dagster.config.models import Block
from distill_dagster.config.registry import load, nearest
from distill_dagster.errors import ConfigError, DistillError, LawError
from distill_dagster.filtering.base import DROPPED, FAILED, KEPT, REFUSED, Batch, Context, Look, RuleBase, make_batch
from distill_dagster.records.identity import record_id
from distill_dagster.records.tables import build

PACKAGE = "distill_dagster.filtering"


@dataclass(frozen=True)
class Outcome:
    """What filtering decided.

    Attributes:
        decisions: DECISION table, one row a candidate, in the order of the candidates.
        duplicates: DUPLICATE table: every candidate that a duplicate rule dropped, and what stands in for it.
        kept: Numbers of the kept candidates, in order.
        funnel: Dropped candidates by reason (`rule` or `rule.code`), in the order of the rules.
        candidates: How many there were.
        failed: How many the teacher did not answer.
        refused: How many the egress gate did not let it be asked.
        rewritten: CANDIDATE rows, by number, of those kept in another form than they came in.
    """

    decisions: pa.Table
    duplicates: pa.Table
    kept: list[int]
    funnel: dict[str, int]
    candidates: int
    failed: int
    refused: int = 0
    rewritten: Mapping[int, dict[str, Any]] = field(default_factory=dict)

    def check(self) -> None:
        """Raise LawError unless every candidate is accounted for exactly once."""
        dropped = sum(self.funnel.values())
        if self.candidates != len(self.kept) + dropped + self.failed + self.refused or len(self.kept) != len(
            set(self.kept)
        ):
            raise LawError(
                "filtering",
                f"{self.candidates} candidates, but {len(self.kept)} kept, {dropped} dropped, {self.failed} failed, "
                f"{self.refused} refused.",
            )


def load_rules(blocks: Sequence[Block], place: str = "filtering") -> list[tuple[str, RuleBase]]:
    """Rules with their parameters, in order.

    Raises:
        ConfigError: An unknown rule, an unknown parameter or a value it may not have.
    """
    rules = []
    for index, block in enumerate(blocks):
        here = f"{place}[{index}] {block.name}"
        try:
            rule = load(PACKAGE, block.name, "Rule", place)
        except AttributeError as error:
            raise ConfigError(here, "this is not a rule.", "A rule's file defines `class Rule`.") from error
        try:
            rules.append((block.name, rule(rule.Params(**block.params))))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(step) for step in first["loc"])
            hint = nearest(name, rule.Params.model_fields) if first["type"] == "extra_forbidden" else ""
            raise ConfigError(f"{here}.{name}", f"{first['msg']} (value {first['input']!r}).", hint) from error
    return rules


def versions(blocks: Sequence[Block]) -> dict[str, str]:
    """Version of each rule by name: part of the stage's action key."""
    return {name: rule.version for name, rule in load_rules(blocks)}


def outside(blocks: Sequence[Block], folder: Path | None = None) -> dict[str, Any]:
    """Identity of what the rules read beside the records, by rule; nothing for most. A second of a name is numbered."""
    found: dict[str, Any] = {}
    for name, rule in load_rules(blocks):
        entry = dict(rule.outside(folder))
        if entry:
            more = sum(known.partition("#")[0] == name for known in found)
            found[f"{name}#{more + 1}" if more else name] = entry
    return found


def run(candidates: pa.Table, rules: Sequence[Block], mode: Literal["first", "all"], context: Context) -> Outcome:
    """Filter a CANDIDATE table.

    Raises:
        ConfigError: A rule block cannot be loaded.
        DistillError: A rule failed on the data; the error names the rule.
        LawError: The accounts do not close.
    """
    loaded = load_rules(rules)
    number = candidates.column("candidate_no").to_pylist()
    if len(set(number)) != len(number):
        raise LawError("filtering", "two candidates have the same candidate_no.")
    rows = np.array([row for row, status in enumerate(candidates["status"].to_pylist()) if status == "ok"], np.int64)
    refused = candidates["status"].to_pylist().count(REFUSED)
    batch = make_batch(candidates.take(pa.array(rows, pa.int64())), context)
    looks: list[list[dict[str, Any]]] = [[] for _ in rows]
    reasons: list[str | None] = [None] * len(rows)
    funnel: dict[str, int] = {}
    twins: list[dict[str, Any]] = []
    changes: dict[int, list[RuleBase]] = {}
    for name, rule in loaded:
        seen = np.flatnonzero(~batch.dropped) if mode == "first" else np.arange(len(rows))
        part = batch.take(seen)
        given = _look(name, rule, part, context)
        found: dict[str, int] = {}
        for position, look in zip(seen.tolist(), given, strict=True):
            looks[position].append(_look_row(name, rule, look))
            if look.rewrite:
                changes.setdefault(position, []).append(rule)
            if look.verdict == KEPT or batch.dropped[position]:
                continue
            reason = f"{name}.{look.reason}" if look.reason else name
            reasons[position] = reason
            found[reason] = found.get(reason, 0) + 1
            if look.twin is not None:
                twins.append(
                    {
                        "kept_no": look.twin,
                        "dropped_no": number[rows[position]],
                        "similarity": look.score,
                        "rule": name,
                    }
                )
        for position, reason in enumerate(reasons):
            batch.dropped[position] = reason is not None
        for reason in sorted(found):
            funnel[reason] = funnel.get(reason, 0) + found[reason]
    outcome = Outcome(
        decisions=_decisions(candidates, rows, looks, reasons),
        duplicates=build("duplicate", _clusters(twins)),
        kept=[number[row] for row, reason in zip(rows.tolist(), reasons, strict=True) if reason is None],
        funnel=funnel,
        candidates=len(number),
        failed=len(number) - len(rows) - refused,
        refused=refused,
        rewritten=_rewritten(batch, {at: rules for at, rules in changes.items() if reasons[at] is None}),
    )
    outcome.check()
    return outcome


def _look(name: str, rule: RuleBase, part: Batch, context: Context) -> list[Look]:
    place = f"filtering rule {name}"
    try:
        given = rule.look(part, context)
    except DistillError:
        raise
    except Exception as error:
        raise DistillError(place, f"it failed ({type(error).__name__}: {error}).") from error
    if len(given) != len(part):
        raise LawError(place, f"it gave {len(given)} looks for {len(part)} candidates.")
    alive = {number for number, dropped in zip(part.numbers, part.dropped, strict=True) if not dropped}
    for number, look in zip(part.numbers, given, strict=True):
        if look.verdict not in (KEPT, DROPPED):
            raise LawError(place, f"candidate {number} got the verdict {look.verdict!r}, not keep or drop.")
        if look.verdict == DROPPED and look.twin is not None and (look.twin not in alive or look.twin == number):
            raise LawError(place, f"candidate {number} was dropped for {look.twin}, which cannot stand in for it.")
    return given


def _rewritten(batch: Batch, changes: Mapping[int, Sequence[RuleBase]]) -> dict[int, dict[str, Any]]:
    """Kept candidates as their rules rewrite them, rule after rule."""
    found = {}
    for position, rules in sorted(changes.items()):
        row = batch.table.slice(position, 1).to_pylist()[0]
        for rule in rules:
            row = rule.rewrite(row)
        found[row["candidate_no"]] = row
    return found


def _look_row(name: str, rule: RuleBase, look: Look) -> dict[str, Any]:
    return {
        "rule": name,
        "version": rule.version,
        "verdict": look.verdict,
        "reason": look.reason or None,
        "score": None if look.score is None else float(look.score),
        "threshold": None if look.threshold is None else float(look.threshold),
        "detail": look.detail,
    }


def _decisions(
    candidates: pa.Table, rows: np.ndarray, looks: Sequence[list[dict[str, Any]]], reasons: Sequence[str | None]
) -> pa.Table:
    """One row a candidate; its identity binds the candidate's, so that two equal verdicts are two records."""
    at = {int(row): position for position, row in enumerate(rows)}
    table: list[Mapping[str, Any]] = []
    columns = ("candidate_no", "record_id", "seed_no", "task", "status", "failure")
    for row, values in enumerate(candidates.select(columns).to_pylist()):
        position = at.get(row)
        if position is None:
            verdict = REFUSED if values["status"] == REFUSED else FAILED
            reason, seen = values["failure"] or "unknown", []
        else:
            reason, seen = reasons[position], looks[position]
            verdict = KEPT if reason is None else DROPPED
        body = {"task": values["task"], "verdict": verdict, "reason": reason, "looks": seen}
        identity = record_id({**body, "candidate": values["record_id"]})
        table.append(
            {"candidate_no": values["candidate_no"], "record_id": identity, "seed_no": values["seed_no"], **body}
        )
    return build("decision", table)


def _clusters(twins: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Twins with a cluster number: one for all that lead, twin by twin, to the same last one standing."""
    stands = {entry["dropped_no"]: entry["kept_no"] for entry in twins}
    numbers: dict[int, int] = {}
    rows = []
    for entry in sorted(twins, key=lambda one: one["dropped_no"]):
        last = entry["kept_no"]
        while last in stands:
            last = stands[last]
        rows.append({"cluster": numbers.setdefault(last, len(numbers)), **entry})
    return rows
