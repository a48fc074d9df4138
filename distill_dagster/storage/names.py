"""Names that become paths, and the one form in which the store writes JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_dagster.errors import StoreError

#: Owner and artifact.
Key = tuple[str, str]

_PART = re.compile(r"(?!\.)[^/\\\x00]+")
_VERSION = re.compile(r"[0-9a-f]{32}")
_RUN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class DamagedError(StoreError):
    """A stored file is not what was sealed, or cannot be read; the error names it."""


def key_text(key: Key) -> str:
    """`owner/artifact`."""
    return "/".join(key)


def part(text: str, place: str) -> str:
    """A name that is one step of a path.

    Raises:
        StoreError: It could lead elsewhere, or hides.
    """
    return _named(_PART, text, place, "cannot be part of a path", "Use [a-z][a-z0-9_]* names.")


def version_name(text: str, place: str) -> str:
    """A data version: 32 hex digits.

    Raises:
        StoreError: It is something else.
    """
    return _named(_VERSION, text, place, "is not a data version", "A data version has 32 hex digits.")


def run_name(text: str, place: str) -> str:
    """A run id.

    Raises:
        StoreError: It is something else.
    """
    return _named(_RUN, text, place, "is not a run id", "It starts with a letter or digit and holds no slash.")


def _named(form: re.Pattern[str], text: str, place: str, reason: str, next_step: str) -> str:
    if not form.fullmatch(text):
        raise StoreError(place, f"{text!r} {reason}.", next_step)
    return text


def inside(folder: Path, name: str) -> Path:
    """`folder/name`, refused when it would leave the folder, through a link too."""
    if "\x00" not in name and "\\" not in name:
        path = (folder / name).resolve()
        if path.is_relative_to(folder.resolve()):
            return path
    raise StoreError(name, "the name leaves its folder.", "Use a plain relative name.")


def json_bytes(value: Any) -> bytes:
    """Stored JSON: sorted keys, one space of indent, UTF-8.

    Raises:
        ValueError: A float that is not finite; JSON has no word for it.
    """
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


def finite(value: Any) -> Any:
    """The value with null for every float that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return value


def parsed(text: bytes, place: str, fields: tuple[str, ...] = ()) -> dict[str, Any]:
    """A stored JSON object.

    Raises:
        DamagedError: It is not JSON, not an object, or lacks one of `fields`.
    """
    try:
        value = json.loads(text.decode("utf-8"))
    except ValueError as error:
        raise DamagedError(place, f"it is not readable JSON ({error}).", "Restore it from a copy.") from error
    missing = [name for name in fields if not isinstance(value, dict) or name not in value]
    if not isinstance(value, dict) or missing:
        what = f"it lacks {missing[0]!r}" if missing else "it is not a JSON object"
        raise DamagedError(place, f"{what}.", "Restore it from a copy.")
    return value
