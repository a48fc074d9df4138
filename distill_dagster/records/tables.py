"""Building record tables: rows in, a typed Arrow table with identities out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from numbers import Integral
from typing import Any

import pyarrow as pa

from distill_dagster.errors import DistillError
from distill_dagster.records.identity import record_id, record_root
from distill_dagster.records.schemas import TABLES

#: Rows that are Python objects at one time; a table of millions never is.
CHUNK = 8192
#: What Arrow raises for a value that does not fit, depending on the value.
MISFITS = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError, TypeError, OverflowError)
#: Types that Arrow bends values to: 1.5 becomes the integer 1, and a text the list of its letters.
_STRICT: dict[Callable[[pa.DataType], bool], type | tuple[type, ...]] = {
    pa.types.is_integer: Integral,
    pa.types.is_list: (list, tuple),
}


def build(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as the named record table; the leading number column and `record_id` are filled in where they are missing.

    Ids are taken of the typed values, as a reader of the table gets them: 1 in a column of floats is 1.0, and a field
    that a message part leaves out is null.

    Raises:
        DistillError: A row has a column the schema does not know, or a value of another type.
    """
    schema = TABLES[name]
    number = schema.field(0).name if schema.field(0).name.endswith("_no") else None
    strict = [(field.name, _STRICT[kind]) for field in schema for kind in _STRICT if kind(field.type)]
    pieces: list[pa.Table] = []
    start = 0
    source = iter(rows)
    while chunk := list(islice(source, CHUNK)):
        full = [_full(name, schema, number, strict, start + index, row) for index, row in enumerate(chunk)]
        pieces.append(_with_ids(_typed(name, schema, full, start)))
        start += len(chunk)
    return pa.concat_tables(pieces).combine_chunks() if pieces else schema.empty_table()


def _full(
    name: str,
    schema: pa.Schema,
    number: str | None,
    strict: list[tuple[str, type | tuple[type, ...]]],
    index: int,
    row: Mapping[str, Any],
) -> dict[str, Any]:
    """The row with every column of the schema."""
    unknown = row.keys() - set(schema.names)
    if unknown:
        raise DistillError(f"table {name}, row {index}", f"unknown column {sorted(unknown)[0]!r}.")
    full = {column: row.get(column) for column in schema.names}
    for column, wanted in strict:
        value = full[column]
        if value is not None and (not isinstance(value, wanted) or isinstance(value, bool)):
            place = f"table {name}, row {index}, column {column}"
            raise DistillError(place, f"the value is not {schema.field(column).type} ({value!r}).")
    if number and full[number] is None:
        full[number] = index
    return full


def _typed(name: str, schema: pa.Schema, rows: list[dict[str, Any]], start: int) -> pa.Table:
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except MISFITS as error:
        for index, row in enumerate(rows, start):
            for field in schema:
                try:
                    pa.array([row[field.name]], field.type)
                except MISFITS as misfit:
                    place = f"table {name}, row {index}, column {field.name}"
                    raise DistillError(place, f"the value is not {field.type} ({misfit}).") from misfit
        raise DistillError(f"table {name}", f"a value does not fit the schema ({error}).") from error


def _with_ids(table: pa.Table) -> pa.Table:
    if "record_id" not in table.column_names or not table["record_id"].null_count:
        return table
    ids = [row["record_id"] or record_id(row) for row in table.to_pylist()]
    return table.set_column(table.column_names.index("record_id"), "record_id", pa.array(ids, pa.string()))


def record_ids(table: pa.Table) -> Iterator[str]:
    """Ids of the rows as their content gives them, whatever the column `record_id` says."""
    for batch in table.to_batches(max_chunksize=CHUNK):
        yield from map(record_id, batch.to_pylist())


def roots(table: pa.Table, by: str | None = None) -> dict[str, str]:
    """Record roots of the whole table under the key `all`, and of each value of column `by` where one is given.

    A table without record ids (a join table) is hashed row by row, numbers included. A value called `all` has no root
    of its own: who reads it reads the table.
    """
    if "record_id" in table.column_names:
        ids = table.column("record_id").to_pylist()
    else:
        renamed = table.rename_columns([f"c_{column}" for column in table.column_names])
        ids = list(record_ids(renamed))
    groups: dict[str, list[str]] = {}
    if by is not None:
        for value, entry in zip(table.column(by).to_pylist(), ids, strict=True):
            groups.setdefault(str(value), []).append(entry)
    return {value: record_root(entries) for value, entries in sorted(groups.items())} | {"all": record_root(ids)}
