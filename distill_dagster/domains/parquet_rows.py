"""Rows of a parquet file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_dagster.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa


def parquet(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """Rows of a parquet file; only the columns that are mapped are read.

    Raises:
        SourceError: The file is damaged or none, lacks a column or has it twice, or holds a value that is no value.
    """
    import pyarrow as pa
    from pyarrow import parquet as pq

    try:
        file = pq.ParquetFile(path)
    except UnicodeDecodeError as error:
        raise SourceError(str(path), f"a column's name is not UTF-8 ({error}).", "Rename the column.") from None
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            str(path), f"not a parquet file ({str(error).splitlines()[0]}).", "Is it whole? Does `format` say so?"
        ) from None
    with file:
        known = file.schema_arrow.names
        doubled = next((name for name in known if known.count(name) > 1), None)
        if doubled is not None:
            raise SourceError(str(path), f"the file names column {doubled!r} twice.", "Name the columns apart.")
        wanted = []
        for column in columns:
            top = column if column in known else column.split(".")[0]
            if top not in known:
                raise SourceError(str(path), f"the file has no column {column!r}.", f"It has: {', '.join(known)}.")
            wanted.append(top)
        number = 0
        try:
            for batch in file.iter_batches(batch_size=1024, columns=list(dict.fromkeys(wanted))):
                for row in _rows(batch, path, number):
                    number += 1
                    yield number, f"{path}:row {number}", row
        except (pa.ArrowException, OSError) as error:
            reason = f"damaged after row {number} ({str(error).splitlines()[0]})."
            raise SourceError(str(path), reason, "Fetch the file again.") from None


#: What pyarrow raises for a value that Python cannot hold: text that is not UTF-8, a date after the year 9999, an
#: object with a key twice, an unknown time zone.
_NO_VALUE = (ValueError, OverflowError, LookupError)


def _rows(batch: pa.RecordBatch, path: Path, before: int) -> list[dict[str, Any]]:
    """The rows of a batch; where one cannot be read, it is looked for, so that the message names it."""
    try:
        return batch.to_pylist()
    except _NO_VALUE:
        for number in range(batch.num_rows):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                try:
                    column[number].as_py()
                except _NO_VALUE as error:
                    place = f"{path}:row {before + number + 1}"
                    raise SourceError(place, *_no_value(name, str(column.type), error)) from None
        raise  # no single value was at fault, so nothing better can be said


def _no_value(name: str, of: str, error: Exception) -> tuple[str, str]:
    """Reason and next step."""
    if isinstance(error, UnicodeDecodeError):
        byte = error.object[error.start]
        reason = f"column {name!r} holds text that is not UTF-8: byte 0x{byte:02x} at position {error.start}."
        return reason, "Write the file anew from the original, read in its own encoding."
    reason = f"column {name!r} ({of}) holds a value that cannot be read: {str(error) or type(error).__name__}."
    return reason, "Write this column as text."
