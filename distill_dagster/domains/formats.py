"""Raw rows of local files: JSONL, CSV and parquet, each a function `(path, columns) -> (number, place, row)`.

`number` counts from 1: the line of a JSONL file, the record of a CSV file, the row of a parquet file. `place` is the
path with the line or row, for messages. Only parquet looks at `columns`, to read no others; CSV has them for messages.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_dagster.config import paths
from distill_dagster.domains.delimited import delimited
from distill_dagster.domains.json_lines import jsonl
from distill_dagster.domains.parquet_rows import parquet
from distill_dagster.errors import SourceError

Rows = Iterator[tuple[int, str, Mapping[str, Any]]]

READERS: dict[str, Callable[[Path, Sequence[str]], Rows]] = {"jsonl": jsonl, "csv": delimited, "parquet": parquet}

_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_WORKBOOKS = (".xlsx", ".xls", ".ods")


def guess(path: Path, declared: str | None) -> str:
    """The declared format, or the one that the file name says, in capitals or not."""
    if declared is not None:
        return declared
    suffix = path.suffix.lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if suffix in _PACKED:
        raise SourceError(str(path), "packed files are not read.", "Unpack it, and name what was in it.")
    if suffix in _WORKBOOKS:
        raise SourceError(str(path), "workbooks are not read.", "Save its sheet as `CSV UTF-8`.")
    if suffix == ".json":
        step = "Where each line is an object, give `format: jsonl`; else `jq -c '.[]' in.json > out.jsonl` makes it so."
        raise SourceError(str(path), "a file that is one JSON document is not read.", step)
    reason = f"the name {path.name!r} does not tell the format."
    raise SourceError(str(path), reason, "Give `format`: jsonl, csv or parquet.")


def locate(written: str, base_dir: Path, field: str = "path") -> Path:
    """The file on this machine that `field` of a YAML file in `base_dir` names.

    Raises:
        SourceError: No file lies there, or it may not be read.
    """
    path = paths.resolve(written, base_dir, f"{field}: {written}")
    step = f"`{field}: {written}` is relative to the YAML file's folder, {base_dir}."
    if path.is_dir():
        raise SourceError(str(path), "is a folder, not a file.", f"Name a file in it. {step}")
    if not path.is_file():
        raise SourceError(str(path), "no such file.", step)
    if not os.access(path, os.R_OK):
        raise SourceError(str(path), "may not be read by this user.", "Give this user the right to read it.")
    return path


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unchanged(path: Path, before: str) -> None:
    """Refuse a file whose digest is not what it was before it was read.

    Raises:
        SourceError: Its rows would be filed under the digest of others.
    """
    if sha256(path) != before:
        step = "Run again once nothing writes to it."
        raise SourceError(str(path), "the file was changed while it was read.", step)
