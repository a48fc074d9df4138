"""JSON objects, one a line; what is wrong with a line that is none, in plain words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from distill_dagster.domains.text_lines import lines
from distill_dagster.errors import SourceError

_ONE_A_LINE = "Write one object a line, without commas between: `jq -c '.[]' in.json > out.jsonl`."
_PYTHON = re.compile(r"\{\s*'|[:,\[]\s*(None|True|False)\b")


def jsonl(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """One JSON object a line; blank lines are skipped.

    Raises:
        SourceError: A line is no JSON object, or one of its objects has a key twice.
    """
    first = True
    with closing(lines(path)) as found:  # an error below must not leave the file to the garbage collector
        for number, text in found:
            if not text.strip():
                continue
            text = text.rstrip("\r\n")
            place = f"{path}:{number}"
            if first and text.lstrip().startswith("["):
                raise SourceError(place, "a JSON array, where each line must hold a JSON object.", _ONE_A_LINE)
            row = _parsed(text, place, first)
            if not isinstance(row, dict):
                reason = f"a line must hold a JSON object, not {kind(row)}."
                raise SourceError(place, reason, 'An object looks like {"column": "value"}.')
            first = False
            yield number, place, row


def _parsed(text: str, place: str, first: bool) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=distinct)
    except json.JSONDecodeError as error:
        step = _next_step(text, error, first)
        raise SourceError(place, f"not JSON: {error.msg} at column {error.colno}.", step) from None
    except RecursionError:
        raise SourceError(place, "not JSON that can be read: too many brackets inside one another.") from None
    except ValueError as error:
        if "digits" in str(error):  # Python's own limit, told by the name of a function
            reason = "a whole number of more than 4300 digits."
            raise SourceError(place, reason, "Write it as text, in quotes.") from None
        raise SourceError(place, f"not JSON: {error}.", "Leave the value out, or write null.") from None
    except _TwiceError as error:
        reason = f"the key {error.key!r} stands twice in one object."
        raise SourceError(place, reason, "Only one of its values could be read: name them apart.") from None


def _next_step(text: str, error: json.JSONDecodeError, first: bool) -> str:
    before, after = text[: error.pos].rstrip(), text[error.pos :].strip()
    if before.endswith(",") and after[:1] in ("}", "]") or re.match(r",\s*[}\]]", after):
        return "Delete the comma before the closing bracket."
    if error.msg == "Extra data" and after == ",":
        return "Delete the comma at the end of the line: nothing stands between two objects but a line break."
    if error.msg == "Extra data" and after.startswith("{"):
        return "Two objects in one line: end the line (with LF or CR LF, not with CR alone) after each."
    if first and text.strip() == "{":
        return "The file is one JSON document, not a JSON object a line. Write each object in one line."
    if _PYTHON.search(text):
        return "This is how Python prints a dict; `json.dumps` writes JSON."
    if text.startswith("\ufeff"):
        return "A byte order mark inside the file, where two files were joined: delete it."
    if error.pos >= len(text):
        return "The line ends too early: an object must not go on in the next line."
    return "Check the line in an editor that knows JSON."


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


class _TwiceError(Exception):
    """A key that stands twice in one object."""

    def __init__(self, key: str) -> None:
        self.key = key


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """`object_pairs_hook` that takes no key twice: `json` itself would keep the last one without a word."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return row


def kind(value: Any) -> str:
    """What sort of value it is, as people who write data files call it."""
    names = {dict: "an object", list: "a list", str: "text", bytes: "bytes", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)
