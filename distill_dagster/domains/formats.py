"""Raw rows of local files: JSONL, CSV and parquet, each a function `(path, columns) -> (number, place, row)`.

`number` counts from 1: the line of a JSONL file, the record of a CSV file, the row of a parquet file. `place` is the
path with the line or row, for messages. Only parquet looks at `columns`, to read no others.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from distill_dagster.errors import SourceError

Rows = Iterator[tuple[int, str, Mapping[str, Any]]]

#: Characters in one CSV field. More means an unclosed quote that swallowed the rest of the file.
MAX_FIELD = 8 * 2**20

_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x1f\x8b": "gzip", b"PAR1": "parquet"}


def guess(path: Path, declared: str | None) -> str:
    """The declared format, or the one that the file name says."""
    if declared is not None:
        return declared
    if path.suffix.lower() not in _SUFFIXES:
        raise SourceError(str(path), f"the name {path.name!r} does not tell the format.", "Give `format`.")
    return _SUFFIXES[path.suffix.lower()]


def lines(path: Path) -> Generator[tuple[int, str], None, None]:
    """Decoded lines with their numbers from 1, line ends kept; a byte order mark is dropped.

    Raises:
        SourceError: A byte that is not UTF-8, with its line and offset in the file.
    """
    offset = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if number == 1:
                for mark, kind in _MARKS.items():
                    if raw.startswith(mark):
                        raise SourceError(str(path), f"the file is {kind}, not text in UTF-8.", "Convert it first.")
            if number == 1 and raw.startswith(codecs.BOM_UTF8):
                raw = raw.removeprefix(codecs.BOM_UTF8)
                offset = len(codecs.BOM_UTF8)
            try:
                yield number, raw.decode()
            except UnicodeDecodeError as error:
                reason = f"not UTF-8: byte 0x{raw[error.start]:02x} at offset {offset + error.start}."
                raise SourceError(f"{path}:{number}", reason, "Save the file as UTF-8.") from None
            offset += len(raw)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def jsonl(path: Path, columns: Sequence[str]) -> Rows:
    """One JSON object a line; blank lines are skipped."""
    with closing(lines(path)) as found:  # an error below must not leave the file to the garbage collector
        for number, text in found:
            if not text.strip():
                continue
            place = f"{path}:{number}"
            try:
                row = json.loads(text, parse_constant=_no_constant)
            except json.JSONDecodeError as error:
                hint = (
                    "The file is one JSON document, not a JSON object a line."
                    if number == 1 and text.strip() in "[{"
                    else ""
                )
                raise SourceError(place, f"not JSON: {error.msg} at column {error.colno}.", hint) from None
            except (ValueError, RecursionError) as error:
                raise SourceError(place, f"not JSON: {error}.") from None
            if not isinstance(row, dict):
                raise SourceError(place, f"a line must hold a JSON object, not {type(row).__name__}.")
            yield number, place, row


def delimited(path: Path, columns: Sequence[str]) -> Rows:
    """CSV with a header line (RFC 4180), or tab-separated where the name ends in .tsv."""
    if csv.field_size_limit() < MAX_FIELD:
        csv.field_size_limit(MAX_FIELD)
    with closing(lines(path)) as found:
        reader = csv.reader((text for _, text in found), delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        header: list[str] | None = None
        number = 0
        while True:
            start = reader.line_num + 1
            place = f"{path}:{start}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "field limit" in str(error):
                    reason = f"a field is longer than {MAX_FIELD} characters."
                    raise SourceError(place, reason, "A quote that is never closed looks like this.") from None
                raise SourceError(place, f"not CSV: {error}.", "Check the quotes of this record.") from None
            if not cells:
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                doubled = [cell for cell in header if header.count(cell) > 1]
                if doubled:
                    raise SourceError(place, f"the header names column {doubled[0]!r} twice.")
                continue
            number += 1
            if len(cells) != len(header):
                reason = f"the record has {len(cells)} fields, the header {len(header)}."
                raise SourceError(place, reason, "Put fields that hold a separator or a line break in quotes.")
            yield number, place, dict(zip(header, (cell or None for cell in cells), strict=True))


def parquet(path: Path, columns: Sequence[str]) -> Rows:
    """Rows of a parquet file; only the columns that are mapped are read."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(str(path), f"not a parquet file ({str(error).splitlines()[0]}).") from None
    with file:
        known = file.schema_arrow.names
        wanted = []
        for column in columns:
            top = column if column in known else column.split(".")[0]
            if top not in known:
                raise SourceError(str(path), f"the file has no column {column!r}.", f"It has: {', '.join(known)}.")
            wanted.append(top)
        number = 0
        try:
            for batch in file.iter_batches(batch_size=1024, columns=list(dict.fromkeys(wanted))):
                for row in batch.to_pylist():
                    number += 1
                    yield number, f"{path}:row {number}", row
        except (pa.ArrowException, OSError) as error:
            reason = f"damaged after row {number} ({str(error).splitlines()[0]})."
            raise SourceError(str(path), reason, "Fetch the file again.") from None


READERS: dict[str, Callable[[Path, Sequence[str]], Rows]] = {"jsonl": jsonl, "csv": delimited, "parquet": parquet}
