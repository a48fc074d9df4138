"""CSV and tab-separated files with a header line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from distill_dagster.domains.text_lines import lines
from distill_dagster.errors import SourceError

#: Characters in one CSV field. More means an unclosed quote that swallowed the rest of the file.
MAX_FIELD = 8 * 2**20

_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}


def delimited(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """CSV with a header line (RFC 4180), or tab-separated where the name ends in .tsv; an empty cell is None.

    Raises:
        SourceError: The header is none, or a record does not fit it.
    """
    if csv.field_size_limit() < MAX_FIELD:
        csv.field_size_limit(MAX_FIELD)
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    header: list[str] | None = None
    number = 0
    with closing(lines(path)) as found:
        reader = csv.reader((text for _, text in found), delimiter=separator, strict=True)
        while True:
            place = f"{path}:{reader.line_num + 1}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise SourceError(place, *_broken(str(error))) from None
            if not cells:
                continue
            if header is None:
                header = _header([cell.strip() for cell in cells], place, separator, columns)
                continue
            number += 1
            if len(cells) != len(header):
                reason = f"the record has {len(cells)} fields, the header {len(header)}."
                raise SourceError(place, reason, "Put fields that hold a separator or a line break in quotes.")
            if [cell.strip("\ufeff ") for cell in cells] == header:
                reason = "the header stands here a second time."
                raise SourceError(place, reason, "Where files were joined, delete the headers of all but the first.")
            yield number, place, dict(zip(header, (cell or None for cell in cells), strict=True))


def _broken(error: str) -> tuple[str, str]:
    """Reason and next step for what the CSV reader says."""
    if "field limit" in error:
        return f"a field is longer than {MAX_FIELD} characters.", "A quote that is never closed looks like this."
    if "new-line character" in error:
        return (
            "not CSV: a line end that is CR alone, as old programs for the Mac write it.",
            "Save the file with LF or CR LF as line ends.",
        )
    if "unexpected end of data" in error:
        return "not CSV: the file ends inside quotes.", "A quote in this record is never closed."
    return f"not CSV: {error}.", "Check the quotes of this record: inside quotes a quote is written twice."


def _header(header: list[str], place: str, separator: str, columns: Sequence[str]) -> list[str]:
    """The names of the columns.

    Raises:
        SourceError: Two are the same, several have none, or the line is no header of this separator.
    """
    if header[0].lower().startswith("sep="):
        raise SourceError(place, f"the first line is {header[0]!r}, not the header.", "Delete this line.")
    doubled = [cell for cell in header if header.count(cell) > 1]
    if doubled and not doubled[0]:
        blank = ", ".join(str(at) for at, cell in enumerate(header, start=1) if not cell)
        raise SourceError(place, f"columns {blank} of the header have no name.", "Name them, or delete these columns.")
    if doubled:
        raise SourceError(place, f"the header names column {doubled[0]!r} twice.", "Name the columns apart.")
    others = [mark for mark in _NAMES if mark != separator and mark in header[0]]
    if len(header) == 1 and others and header[0] not in columns:
        reason = f"the columns are separated by {_NAMES[others[0]]}, not by {_NAMES[separator]}: {header[0][:80]!r}."
        step = "Tabs belong into a file whose name ends in .tsv, commas into any other."
        if others[0] == ";":
            step = "Excel writes them where the comma is the decimal sign: save with commas, or with tabs as a .tsv."
        raise SourceError(place, reason, step)
    return header
