"""Real sources: rows of a JSONL, CSV or parquet file, or of a hub data set, through a column mapping.

A value is missing where it is null, NaN, or text that is empty or white space alone,
in every format alike.

Every fault is a `SourceError` that names the file and the line (JSONL, CSV) or row (parquet, hub).
"""

from __future__ import annotations

import datetime
import decimal
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_dagster.config import paths
from distill_dagster.config.models import Columns, DataFile
from distill_dagster.config.registry import nearest
from distill_dagster.domains import formats, hub
from distill_dagster.domains.json_lines import kind
from distill_dagster.errors import SourceError

#: Who may speak in a conversation. Whoever is no assistant speaks as a user to a model: see knowledge/prompts.py.
ROLES = ("user", "assistant", "system", "tool")
_REQUIRED = ("input", "answer", "id")
_OPTIONAL = ("context", "choices", "rationale", "subject_key", "annotator", "language")
#: What `find` gives where a row lacks the column.
MISSING: Any = object()


def read(datafile: DataFile, base_dir: Path) -> Iterator[dict[str, Any]]:
    """Rows of a file or hub data set, in order.

    Each row has the keys of `Columns` (text, None where the data has none; `choices` is a list) and `row`, its number
    in the source from 1: the line of a JSONL file, the record of a CSV file, the row of the others. An input that is a
    conversation has its `turns` besides: role and text of each.

    Raises:
        SourceError: The file is missing, empty, not what its format says, or lacks a mapped field; an id stands twice;
            the row count is not the declared one; no row is left by `where`.
    """
    name, rows = _origin(datafile, base_dir)
    opening = _Opening(datafile, base_dir, name) if datafile.opening is not None else None
    seen_ids: dict[str, str] = {}
    present: set[str] = set()
    columns: set[str] = set()
    total = kept = 0
    for number, place, row in rows:
        total += 1
        columns.update(row)
        full = datafile.limit is not None and kept >= datafile.limit
        if full and datafile.rows is None:
            break
        present.update(column for column in datafile.where if find(row, column) is not MISSING)
        if full or any(not equals(find(row, column), wanted) for column, wanted in datafile.where.items()):
            continue
        entry = _mapped(datafile.columns, row, place, present, opening)
        if entry["id"] is not None:
            if entry["id"] in seen_ids:
                reason = f"id {entry['id']!r} stands twice, first at {seen_ids[entry['id']]}."
                raise SourceError(place, reason, "Ids must be unique; map another column, or drop `columns.id`.")
            seen_ids[entry["id"]] = place.rpartition(":")[2]
        kept += 1
        yield {**entry, "row": number}
    if total == 0:
        raise SourceError(name, "the file holds no records.", "Check that it was written to the end.")
    if datafile.rows is not None and total != datafile.rows:
        reason = f"{total} rows, but the YAML file declares {datafile.rows}."
        raise SourceError(name, reason, "Is it the same release? If so, mend `rows`.")
    for column in [*datafile.where, *filter(None, (getattr(datafile.columns, field) for field in _OPTIONAL))]:
        if column not in present and (kept or column in datafile.where):
            raise SourceError(name, f"no row has the column {column!r}.", nearest(column, columns))
    if kept == 0:
        raise SourceError(name, f"no row has {dict(datafile.where)!r}.", "Check `where` against the data.")


def _origin(datafile: DataFile, base_dir: Path) -> tuple[str, Iterable[tuple[int, str, Mapping[str, Any]]]]:
    """Name for messages, and `(number, place, row)` of the raw rows."""
    if datafile.hub is not None:
        return hub.label(datafile), hub.rows(datafile)
    path = locate(datafile, base_dir)
    wanted = [datafile.columns.input] if isinstance(datafile.columns.input, str) else list(datafile.columns.input)
    wanted += [name for name in (getattr(datafile.columns, field) for field in (*_REQUIRED[1:], *_OPTIONAL)) if name]
    return str(path), formats.READERS[formats.guess(path, datafile.format)](path, [*wanted, *datafile.where])


def locate(datafile: DataFile, base_dir: Path) -> Path:
    """The file on this machine.

    Raises:
        SourceError: No file lies there, or it may not be read.
    """
    return formats.locate(str(datafile.path), base_dir)


def digests(datafiles: Sequence[DataFile], base_dir: Path) -> dict[str, str]:
    """What the content of each file is pinned by: SHA-256 of a local file and its tokenizer, or the hub revision."""
    found: dict[str, str] = {}
    for datafile in datafiles:
        if datafile.hub is not None:
            found[hub.label(datafile)] = str(datafile.revision)
        else:
            found[f"file:{datafile.path}"] = formats.sha256(locate(datafile, base_dir))
        if datafile.opening is not None:
            folder = paths.resolve(datafile.opening.tokenizer, base_dir, "opening.tokenizer")
            found[f"tokenizer:{datafile.opening.tokenizer}"] = formats.sha256(_tokenizer_file(folder))
    return found


def unchanged(datafiles: Sequence[DataFile], base_dir: Path, before: Mapping[str, str]) -> None:
    """Refuse files that are not those whose `digests` were taken before they were read.

    Raises:
        SourceError: Another program wrote to one meanwhile.
    """
    for datafile in datafiles:
        if datafile.hub is None:
            formats.unchanged(locate(datafile, base_dir), before[f"file:{datafile.path}"])


def source_id(datafile: DataFile) -> str:
    """Name of the origin without a machine's folders: `file:NAME` or `hub:owner/name/subset:split`."""
    if datafile.hub is not None:
        return hub.label(datafile)
    return f"file:{Path(str(datafile.path)).name}"


def place_of(datafile: DataFile, number: int) -> str:
    """Where the row of that number stands, in the words of the reader's own messages where they need no other count.

    A record of a CSV file may be several lines, so it is called a record.
    """
    if datafile.hub is not None:
        return f"{hub.label(datafile)}:row {number}"
    named = formats.guess(Path(str(datafile.path)), datafile.format)
    counted = {"jsonl": "", "csv": "record "}.get(named, "row ")
    return f"{datafile.path}:{counted}{number}"


def find(row: Mapping[str, Any], column: str) -> Any:
    """Value of a column, a dotted name walking into objects and an integer step into lists; `MISSING` where absent."""
    if column in row:
        return row[column]
    value: Any = row
    for step in column.split("."):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and re.fullmatch(r"-?[0-9]+", step) and -len(value) <= int(step) < len(value):
            value = value[int(step)]
        else:
            return MISSING
    return value


def equals(value: Any, wanted: str | int | bool) -> bool:
    """Is it the wanted value? Text compares with a number by its writing, since CSV holds text alone."""
    if isinstance(value, str) and not isinstance(wanted, str):
        return value.lower() == str(wanted).lower() if isinstance(wanted, bool) else value == str(wanted)
    if type(wanted) is int and isinstance(value, (float, decimal.Decimal)):
        return value == wanted  # a column of whole numbers with a gap is one of floats in pandas
    return type(value) is type(wanted) and value == wanted


def _mapped(
    columns: Columns, row: Mapping[str, Any], place: str, present: set[str], opening: _Opening | None
) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    inputs = [columns.input] if isinstance(columns.input, str) else columns.input
    parts = []
    for column in inputs:
        value = _required(row, column, place)
        if opening is not None:
            parts.append(opening.of(value, place, column))
            continue
        if len(inputs) == 1 and isinstance(value, list):
            entry["turns"] = _turns(value, place, column)
            parts.append("\n".join(text for _, text in entry["turns"]))
            continue
        text = as_text(value, place, column)
        if text is None:
            raise SourceError(place, f"the input column {column!r} is empty.", "Leave such rows out of the file.")
        parts.append(text)
    entry["input"] = "\n\n".join(parts)
    for field in _REQUIRED[1:]:
        required: str | None = getattr(columns, field)
        entry[field] = None if required is None else as_text(_required(row, required, place), place, required)
    for field in _OPTIONAL:
        column: str = getattr(columns, field) or ""
        value = find(row, column) if column else MISSING
        if value is not MISSING:
            present.add(column)
        if value is MISSING or value is None:
            entry[field] = None
        elif field == "choices":
            if not isinstance(value, list):
                step = "JSONL and parquet hold lists; CSV cannot."
                raise SourceError(place, f"column {column!r} holds {kind(value)}, not a list of choices.", step)
            entry[field] = [_choice(choice, place, f"{column}.{at}") for at, choice in enumerate(value)]
        else:
            entry[field] = as_text(value, place, column)
    return entry


def _turns(value: list[Any], place: str, column: str) -> list[tuple[str, str]]:
    """Role and text of each turn of a conversation, whose last turn asks."""
    turns = []
    for number, turn in enumerate(value):
        here = f"{column}.{number}"
        if not isinstance(turn, Mapping) or not {"role", "content"} <= set(turn):
            reason = f"column {column!r} holds a list, and its entry {number} is no turn with `role` and `content`."
            raise SourceError(place, reason, "A conversation is a list of {role: user or assistant, content: text}.")
        role, text = turn["role"], as_text(turn["content"], place, f"{here}.content")
        if role not in ROLES:
            raise SourceError(place, f"{here}.role is {role!r}.", f"It is one of {', '.join(ROLES)}.")
        if text is None:
            raise SourceError(place, f"the turn {here!r} is empty.", "Leave such rows out of the file.")
        turns.append((role, text))
    if not turns or turns[-1][0] == "assistant":
        raise SourceError(
            place, f"the conversation {column!r} does not end with a question.", "Cut its last answer off."
        )
    return turns


def _required(row: Mapping[str, Any], column: str, place: str) -> Any:
    value = find(row, column)
    if value is MISSING:
        near = nearest(column, row)
        raise SourceError(place, f"the record lacks the field {column!r}.", f"{near} It has: {', '.join(row)}.")
    return value


def _choice(value: Any, place: str, column: str) -> str:
    text = as_text(value, place, column)
    if text is None:
        raise SourceError(place, f"the choice {column!r} is empty.", "Leave it out of the list, or say it in words.")
    return text


def as_text(value: Any, place: str, column: str) -> str | None:
    """A scalar as text, in the way JSON writes it; None where it is missing."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float, decimal.Decimal)):
        if isinstance(value, float) and math.isnan(value):  # how pandas writes a gap in a column of numbers
            return None
        if isinstance(value, float) and math.isinf(value):
            reason = f"column {column!r} holds a number that is infinite, or larger than a float can be."
            raise SourceError(place, reason, "Write it as text.")
        return str(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if not isinstance(value, str):
        inside = isinstance(value, (Mapping, list))
        step = f"Name one value inside it, such as `{column}.0` or `{column}.text`." if inside else "Write it as text."
        raise SourceError(place, f"column {column!r} holds {kind(value)}, not text.", step)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SourceError(place, f"column {column!r} holds half a surrogate pair, which is no text.") from None
    return value if value.strip() else None


def _tokenizer_file(folder: Path) -> Path:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise SourceError(str(path), "no such file.", "`opening.tokenizer` is a folder with a tokenizer.json.")
    return path


class _Opening:
    """Cuts an input, given as text or as token ids, to its first tokens."""

    def __init__(self, datafile: DataFile, base_dir: Path, name: str) -> None:
        from tokenizers import Tokenizer

        assert datafile.opening is not None
        path = _tokenizer_file(paths.resolve(datafile.opening.tokenizer, base_dir, name))
        self.tokenizer = Tokenizer.from_file(str(path))
        self.tokens = datafile.opening.tokens

    def of(self, value: Any, place: str, column: str) -> str:
        """The opening of one value."""
        if isinstance(value, str):
            ids = self.tokenizer.encode(value).ids
        elif isinstance(value, list) and all(type(token) is int for token in value):
            ids = value
        else:
            raise SourceError(place, f"column {column!r} holds {kind(value)}, not text or a list of token ids.")
        text = self.tokenizer.decode(ids[: self.tokens], skip_special_tokens=True)
        if not text.strip():
            raise SourceError(place, f"the first {self.tokens} tokens of column {column!r} hold no text.")
        return text
