"""Tracing a record both ways: seed, calls, candidates with their decisions, examples, students; from any of them.

Answered from the sealed tables alone, so neither configuration nor Dagster is needed. Record text stands in a trace
only where its reader says that the source's records may be shown; a rule's evidence may quote a record, and counts as
text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from distill_dagster.errors import StoreError
from distill_dagster.lineage.descent import Readers, first_paid
from distill_dagster.lineage.threads import At, Thread, every, newest
from distill_dagster.records.messages import text_of
from distill_dagster.storage.store import Store

#: Whether the records of a source, by its name, may be shown.
Shows = Callable[[str], bool]

#: A shorter prefix is more likely a slip than a question.
SHORTEST = 4
#: Where records are looked for, in this order: what a record is, the table, and whose.
_PLACES = (
    ("seed", "seed", "seeds"),
    ("seed", "seed", "asked"),
    ("candidate", "candidate", "outputs"),
    ("example", "example", "data"),
)
_SEED = ("record_id", "task", "part", "source_id", "source_revision", "source_row", "licence", "language")
_CALL = (
    "request_key", "teacher", "revision", "served_model", "prompt", "status", "finish_reason", "input_tokens",
    "output_tokens", "cost_micros", "reused", "sent_at", "received_at",
)  # fmt: skip
_CANDIDATE = ("record_id", "seed_record_id", "kind", "task", "sample", "status", "failure", "finish_reason", "teacher")
_EXAMPLE = ("record_id", "seed_record_id", "origin", "task", "split", "weight", "licence", "source_id")


@dataclass
class Trace:
    """One record and all that hangs on it.

    Attributes:
        kind: seed, candidate or example: what was asked for.
        record_id: Which one.
        versions: The versions whose tables answered, by role: data, outputs, seeds.
        shown: True where record text is included.
        seeds: Seed rows it came from, each with file, row and licence; `dropped` says why one never entered.
        calls: Teacher calls, with teacher, revision, tokens and cost; `paid_in` names the run that paid a reused one.
        candidates: What the teacher's answers became, each with its decision.
        examples: What a student reads.
        students: Models that trained on one of the examples, or on the seed, with the aliases they held.
    """

    kind: str
    record_id: str
    versions: dict[str, str]
    shown: bool
    seeds: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    candidates: list[dict[str, Any]] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)
    students: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The trace as JSON values."""
        return asdict(self)


def trace(store: Store, record: str, pipeline: str | None = None, shows: Shows = lambda source: False) -> list[Trace]:
    """Everything that hangs on one record; a trace for each pipeline that read it.

    The newest versions are asked first; a record that none of them holds is looked for in every version.

    Args:
        store: Where the versions lie.
        record: A record id of a seed, a candidate or an example, or the beginning of one.
        pipeline: Look in this pipeline only.
        shows: Whether the records of a source may be shown.

    Raises:
        StoreError: No such record, several with this beginning, or no such pipeline.
    """
    wanted = record.strip().lower()
    if len(wanted) < SHORTEST or set(wanted) - set("0123456789abcdef"):
        raise StoreError(
            f"record {record!r}",
            "not the beginning of a record id.",
            f"Give {SHORTEST} or more of its hex digits, as the column `record_id` has them.",
        )
    for threads in (newest, every):
        known = threads(store, pipeline)
        hits = [(thread, kind, found) for thread in known for kind, found in sorted(_find(thread, wanted))]
        names = sorted({found for _, _, found in hits})
        if len(names) > 1 and wanted not in names:
            more = ", …" if len(names) > 8 else ""
            raise StoreError(
                f"record {record}", f"{len(names)} records begin so: {', '.join(names[:8])}{more}", "Give more of it."
            )
        if hits:
            readers = Readers(store)
            chosen = wanted if wanted in names else names[0]
            made = [_trace(thread, kind, chosen, shows, readers) for thread, kind, found in hits if found == chosen]
            return made if threads is newest else made[:1]
    place = f"of pipeline {pipeline}" if pipeline else "in the store"
    raise StoreError(
        f"record {record}",
        f"no seed, candidate or example {place} has this id.",
        "Ids stand in the column `record_id` of each table, and in `distill-dagster export`.",
    )


def _find(thread: Thread, wanted: str) -> set[tuple[str, str]]:
    """Kind and id of the records of a thread that begin so; the first place that has an id says what it is."""
    found: dict[str, str] = {}
    for kind, table, role in _PLACES:
        at: At | None = getattr(thread, role)
        for identity in _beginning(at and at.table(table, columns=["record_id"]), wanted):
            found.setdefault(identity, kind)
    if thread.seeds is not None:
        for identity in _beginning(thread.seeds.table("decision", columns=["record_id"]), wanted):
            found.setdefault(identity, "seed")
    for identity in _decided_on(thread, wanted):
        found.setdefault(identity, "candidate")
    return {(kind, identity) for identity, kind in found.items()}


def _decided_on(thread: Thread, wanted: str) -> list[str]:
    """Candidates whose decision has an id that begins so: it is the id that a reader of the table `decision` has."""
    if thread.data is None or thread.outputs is None:
        return []
    decisions = thread.data.table("decision", columns=["record_id", "candidate_no"])
    if not (known := _beginning(decisions, wanted)):
        return []
    rows = thread.data.rows("decision", [("record_id", "in", known)])
    wanted_rows = thread.outputs.rows("candidate", [("candidate_no", "in", [row["candidate_no"] for row in rows])])
    return [row["record_id"] for row in wanted_rows]


def _beginning(table: pa.Table | None, wanted: str) -> list[str]:
    if table is None or not table.num_rows:
        return []
    column = table["record_id"]
    return pc.unique(column.filter(pc.starts_with(column, wanted))).to_pylist()  # pyright: ignore[reportAttributeAccessIssue]


def _trace(thread: Thread, kind: str, record: str, shows: Shows, readers: Readers) -> Trace:
    roles = {"data": thread.data, "outputs": thread.outputs, "seeds": thread.seeds or thread.asked}
    shown = bool(thread.source) and shows(thread.source)
    made = Trace(kind, record, {role: str(at.version) for role, at in roles.items() if at is not None}, shown)
    candidates = _candidates(thread, kind, record)
    votes = _votes(thread, candidates)
    numbers = [row["call_no"] for row in [*candidates, *votes] if row["call_no"] is not None]
    examples = _examples(thread, kind, record, candidates)
    if kind == "example":
        numbers += [row["call_no"] for row in examples if row["call_no"] is not None]
    inputs, calls = _calls(thread, numbers)
    seeds = _seeds(thread, kind, record, candidates, examples, inputs)
    made.seeds = [_seed(row, shown) for row in seeds]
    made.calls = [_call(thread, row, readers) for row in calls]
    made.candidates = _decided(thread, candidates, shown)
    for entry, row in zip(made.candidates, candidates, strict=True):
        entry["votes"] = [
            {name: vote[name] for name in ("teacher", "agrees", "failure", *(("answer",) if shown else ()))}
            for vote in votes
            if (vote["seed_record_id"], vote["sample"]) == (row["seed_record_id"], row["sample"])
        ]
    made.examples = [_example(row, shown) for row in examples]
    made.students = readers.students(thread, examples, seeds)
    return made


def _candidates(thread: Thread, kind: str, record: str) -> list[dict[str, Any]]:
    """The candidates that a record is, was made from, or led to."""
    outputs = thread.outputs
    if outputs is None:
        return []
    if kind == "candidate":
        return outputs.rows("candidate", [("record_id", "==", record)])
    if kind == "example":
        examples = thread.data.rows("example", [("record_id", "==", record)]) if thread.data else []
        calls = [row["call_no"] for row in examples if row["call_no"] is not None]
        found = outputs.rows("candidate", [("call_no", "in", calls)]) if calls else []
        return _same(found, {(row["call_no"], _key(row)) for row in examples})
    found = outputs.rows("candidate", [("seed_record_id", "==", record)])
    # A seed that was an exemplar, or one of several that a call read, is named by the call's inputs alone.
    asked = thread.asked.rows("seed", [("record_id", "==", record)]) if thread.asked else []
    numbers = [row["seed_no"] for row in asked]
    inputs = outputs.rows("call_input", [("kind", "in", ["seed", "exemplar"]), ("ref_no", "in", numbers)])
    calls = {row["call_no"] for row in inputs} - {row["call_no"] for row in found}
    return [*found, *outputs.rows("candidate", [("call_no", "in", sorted(calls))])] if calls else found


def _votes(thread: Thread, candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each of several teachers said, where candidates are what most of them said."""
    seeds = sorted({row["seed_record_id"] for row in candidates if row.get("teacher") and row["seed_record_id"]})
    if not seeds or thread.outputs is None:
        return []
    return thread.outputs.rows("vote", [("seed_record_id", "in", seeds)])


def _examples(thread: Thread, kind: str, record: str, candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if thread.data is None:
        return []
    if kind == "example":
        return thread.data.rows("example", [("record_id", "==", record)])
    gold = thread.data.rows("example", [("seed_record_id", "==", record), ("origin", "==", "gold")])
    calls = sorted({row["call_no"] for row in candidates if row["call_no"] is not None})
    found = thread.data.rows("example", [("call_no", "in", calls)]) if calls else []
    return [*gold, *_same(found, {(row["call_no"], _key(row)) for row in candidates})]


def _same(rows: list[dict[str, Any]], wanted: set[tuple[int | None, str]]) -> list[dict[str, Any]]:
    """Rows of the wanted calls that say the same; of a call none of whose rows does (a rule rewrote it), all."""
    exact = [row for row in rows if (row["call_no"], _key(row)) in wanted]
    met = {row["call_no"] for row in exact}
    return [*exact, *(row for row in rows if row["call_no"] not in met)]


def _key(row: Mapping[str, Any]) -> str:
    return text_of(row["messages"] or ())


def _calls(thread: Thread, numbers: list[int]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What some calls read, and these calls with those that they read (drafts) and those that judged them."""
    outputs = thread.outputs
    if outputs is None or not numbers:
        return [], []
    judges = outputs.rows("call_input", [("kind", "==", "judged"), ("ref_no", "in", sorted(set(numbers)))])
    known, wanted, inputs = {row["call_no"] for row in judges}, set(numbers), list[dict[str, Any]]()
    while wanted:
        new = outputs.rows("call_input", [("call_no", "in", sorted(wanted))])
        inputs += new
        known |= wanted
        wanted = {row["ref_no"] for row in new if row["kind"] == "call"} - known
    return inputs, outputs.rows("call", [("call_no", "in", sorted(known))])


def _seeds(
    thread: Thread,
    kind: str,
    record: str,
    candidates: list[dict[str, Any]],
    examples: list[dict[str, Any]],
    inputs: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    at = thread.seeds or thread.asked
    if at is None:
        return []
    ids = {row["seed_record_id"] for row in [*candidates, *examples]} - {None}
    if kind == "seed":
        ids = {record}
    elif thread.asked is not None:
        numbers = sorted({row["ref_no"] for row in inputs if row["kind"] in ("seed", "exemplar")})
        read = thread.asked.rows("seed", [("seed_no", "in", numbers)]) if numbers else []
        ids |= {row["record_id"] for row in read}
    rows = at.rows("seed", [("record_id", "in", sorted(ids))]) if ids else []
    if not rows and thread.asked is not None and ids:
        rows = thread.asked.rows("seed", [("record_id", "in", sorted(ids))])
    left_out = at.rows("decision", [("record_id", "in", sorted(ids))]) if ids else []
    return [*rows, *({**row, "dropped": row["reason"]} for row in left_out)]


def _seed(row: Mapping[str, Any], shown: bool) -> dict[str, Any]:
    told = {name: row.get(name) for name in _SEED} | {"dropped": row.get("dropped")}
    if shown and row.get("messages") is not None:
        told |= {name: row.get(name) for name in ("answer", "subject_key", "annotator")}
        told["text"] = text_of(row["messages"])
    return told


def _call(thread: Thread, row: Mapping[str, Any], readers: Readers) -> dict[str, Any]:
    told = {name: row.get(name) for name in _CALL}
    if row.get("reused"):
        told["paid_in"] = first_paid(readers, row["request_key"])
    return told


def _decided(thread: Thread, candidates: list[dict[str, Any]], shown: bool) -> list[dict[str, Any]]:
    numbers = [row["candidate_no"] for row in candidates]
    decisions: dict[int, dict[str, Any]] = {}
    twins: dict[int, dict[str, Any]] = {}
    if thread.data is not None and numbers:
        wanted = [("candidate_no", "in", numbers)]
        decisions = {row["candidate_no"]: row for row in thread.data.rows("decision", wanted)}
        twins = {row["dropped_no"]: row for row in thread.data.rows("duplicate", [("dropped_no", "in", numbers)])}
    stand_ins: dict[int, str] = {}
    if twins and thread.outputs is not None:
        kept = sorted({row["kept_no"] for row in twins.values()})
        rows = thread.outputs.rows("candidate", [("candidate_no", "in", kept)])
        stand_ins = {row["candidate_no"]: row["record_id"] for row in rows}
    told = []
    for row in candidates:
        decision = decisions.get(row["candidate_no"], {})
        twin = twins.get(row["candidate_no"])
        entry = {name: row.get(name) for name in _CANDIDATE}
        entry |= {"verdict": decision.get("verdict"), "reason": decision.get("reason")}
        entry["looks"] = [
            {name: value for name, value in look.items() if shown or name != "detail"}
            for look in decision.get("looks") or ()
        ]
        entry["twin"] = twin and {
            "record_id": stand_ins.get(twin["kept_no"]), "similarity": twin["similarity"], "rule": twin["rule"]
        }  # fmt: skip
        if shown:
            entry |= {"text": text_of(row["messages"] or ()), "answer": row["answer"]}
        told.append(entry)
    return told


def _example(row: Mapping[str, Any], shown: bool) -> dict[str, Any]:
    told = {name: row.get(name) for name in _EXAMPLE}
    return {**told, "text": text_of(row["messages"])} if shown else told
