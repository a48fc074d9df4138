"""Conservation laws: they hold when a version is sealed, or it is not sealed."""

# pyarrow.compute makes its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sized

import pyarrow as pa
import pyarrow.compute as pc

from distill_dagster.errors import LawError
from distill_dagster.records.messages import joined, rest_of, text_of


def conserved(
    place: str, candidates: int, kept: int, dropped: Mapping[str, int], failed: int, refused: int = 0
) -> None:
    """Candidates = kept + dropped for each reason + failed + refused: every candidate has exactly one fate.

    Raises:
        LawError: They differ, or a count is below 0.
    """
    for name, count in {"kept": kept, "failed": failed, "refused": refused, **dropped}.items():
        if count < 0:
            raise LawError(place, f"{name} is {count}.", "A filter rule miscounts; nothing was sealed.")
    total = kept + sum(dropped.values()) + failed + refused
    if total != candidates:
        raise LawError(
            place,
            f"{candidates} candidates, but {kept} kept + {sum(dropped.values())} dropped + {failed} failed + "
            f"{refused} refused = {total}.",
            "A filter rule lost or doubled a record; nothing was sealed.",
        )


def grounded(place: str, examples: pa.Table) -> None:
    """Every example has a call, or is gold and has none."""
    for origin, call in zip(examples["origin"].to_pylist(), examples["call_no"].to_pylist(), strict=True):
        if (origin == "gold") != (call is None):
            raise LawError(place, f"an example of origin {origin!r} has call {call!r}.", "Nothing was sealed.")


def no_orphan(place: str, column: pa.ChunkedArray, known: pa.ChunkedArray | pa.Array, what: str) -> None:
    """Every reference in `column` points at a row of `known`; nulls refer to nothing."""
    values = pc.drop_null(column)
    value_set = known.combine_chunks() if isinstance(known, pa.ChunkedArray) else known
    missing = pc.invert(pc.is_in(values, value_set=value_set))
    count = pc.sum(missing).as_py() or 0
    if count:
        example = values.filter(missing)[0].as_py()
        raise LawError(place, f"{count} {what} refer to rows that do not exist, for example {example}.", "")


def spend(place: str, calls: pa.Table, paid_here: int) -> None:
    """Spend = sum of the cost of calls first paid here; reused ones are listed at 0."""
    costs = pc.fill_null(calls["cost_micros"], 0)
    if pc.any(pc.less(costs, 0)).as_py():
        raise LawError(place, "a call has a cost below 0.", "Nothing was sealed.")
    if pc.any(pc.and_(calls["reused"], pc.not_equal(costs, 0))).as_py():
        raise LawError(place, "a reused call carries a cost.", "Nothing was sealed.")
    total = pc.sum(costs).as_py() or 0
    if total != paid_here:
        raise LawError(place, f"calls cost {total} micro-units, the journal says {paid_here}.", "Nothing was sealed.")


def looked(place: str, looks: pa.Table, calls: pa.Table) -> None:
    """Looks of the egress gate = questions: each call that was sent has its look, each refused one a refusal.

    Raises:
        LawError: A question was asked that the gate did not pass, or one that it refused has no account.
    """
    refused = calls.filter(pc.equal(calls["status"], "refused"))["request_key"]
    refusals = looks.filter(pc.equal(looks["verdict"], "refuse"))["request_key"]
    sent = Counter(calls.filter(pc.not_equal(calls["status"], "refused"))["request_key"].to_pylist())
    passed = Counter(looks.filter(pc.not_equal(looks["verdict"], "refuse"))["request_key"].to_pylist())
    if sent != passed or None in sent:
        raise LawError(
            place,
            f"{sum((sent - passed).values())} calls were sent without a look of the egress gate, and "
            f"{sum((passed - sent).values())} looks let pass what was not sent.",
            "Ask through stages.teaching.ask; nothing was sealed.",
        )
    if len(refused) != len(refusals) or refused.null_count + refusals.null_count != 2 * len(refused):
        raise LawError(
            place,
            f"{len(refused)} calls are refused, but the egress gate refused {len(refusals)} questions.",
            "A refused question has one row and no call's key; nothing was sealed.",
        )


def accounted(place: str, looks: Sized) -> None:
    """No look of the egress gate is left over when a version is sealed."""
    if len(looks):
        raise LawError(
            place,
            f"{len(looks)} questions were asked whose looks the stage did not seal.",
            "Call stages.egress.write with the calls; nothing was sealed.",
        )


def disjoint(place: str, table: pa.Table, columns: Iterable[str], by: str = "part") -> None:
    """No value of any of `columns` stands in two parts of one task; `messages` are compared by their text,
    with context and choices where a row has them."""
    parts, tasks = table[by].to_pylist(), table["task"].to_pylist()
    for column in columns:
        owner: dict[tuple[str, str], str] = {}
        values = table[column].to_pylist()
        if column == "messages":
            beside = table.select([name for name in ("context", "choices") if name in table.column_names]).to_pylist()
            values = [joined(text_of(text), rest_of(row)) for text, row in zip(values, beside, strict=True)]
        for part, task, value in zip(parts, tasks, values, strict=True):
            if value is None:
                continue
            first = owner.setdefault((task, value), part)
            if first != part:
                raise LawError(
                    place,
                    f"{column} {value!r} of task {task!r} stands in both {first!r} and {part!r}.",
                    "Split by subject and skeleton; nothing was sealed.",
                )


def counts(values: Iterable[str | None]) -> dict[str, int]:
    """How often each value occurs, sorted by name; a null counts as `unknown`."""
    return dict(sorted(Counter("unknown" if value is None else value for value in values).items()))
