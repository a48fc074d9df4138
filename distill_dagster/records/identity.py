"""Record identity and record roots.

A record id is SHA-256 over the canonical JSON of a record's content, cut to 128 bits. Proofs use the keyed form
(HMAC), so that an erased record cannot be guessed from its id. A record root is a Merkle tree (RFC 6962 prefixes)
over the sorted ids, so row order and parquet encoding do not change it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from distill_dagster.records.schemas import NOT_IDENTITY

CHUNK = 4096
#: The key of demos and tests; real namespaces keep their own outside the store.
PUBLIC_KEY = b"distill-dagster public record key"


def canonical(value: Any) -> bytes:
    """Canonical JSON (RFC 8785): sorted keys, no white space, UTF-8, numbers as ECMAScript writes them.

    It lets more through than the RFC: whole numbers beyond 2**53 keep their digits, and a lone surrogate its code.
    Keys are expected to be ASCII.

    Raises:
        ValueError: A float that is not finite.
        TypeError: Something that JSON does not know.
    """
    return _encode(value, drop_nulls=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON, 64 hex digits."""
    return hashlib.sha256(canonical(value)).hexdigest()


def content(record: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a record that are its identity: no row numbers, no nulls."""
    return {name: value for name, value in record.items() if name not in NOT_IDENTITY and not _is_null(value)}


def record_id(record: Mapping[str, Any]) -> str:
    """Plain record id, 32 hex digits.

    Nulls count nowhere, neither as columns nor inside message parts, so a field that is added later, and is null in
    the records of before, changes no id.
    """
    return hashlib.sha256(_encode(content(record), drop_nulls=True)).hexdigest()[:32]


def keyed_id(record: Mapping[str, Any], key: bytes) -> str:
    """Keyed record id for proofs, 32 hex digits (HMAC-SHA-256, RFC 2104)."""
    return hmac.new(key, _encode(content(record), drop_nulls=True), hashlib.sha256).hexdigest()[:32]


def record_root(ids: Iterable[str]) -> str:
    """Merkle root over the sorted ids in chunks of 4,096; count and chunk size are bound in. 64 hex digits."""
    ordered = sorted(ids)
    level = [
        hashlib.sha256(b"\x00" + "\n".join(ordered[start : start + CHUNK]).encode()).digest()
        for start in range(0, len(ordered), CHUNK)
    ] or [hashlib.sha256(b"\x00").digest()]
    while len(level) > 1:
        level = [
            hashlib.sha256(b"\x01" + level[i] + level[i + 1]).digest() if i + 1 < len(level) else level[i]
            for i in range(0, len(level), 2)
        ]
    return hashlib.sha256(b"\x02" + level[0] + f"/{len(ordered)}/{CHUNK}".encode()).hexdigest()


_dumps = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def _encode(value: Any, drop_nulls: bool) -> bytes:
    odd: list[float] = []
    plain = _plain(value, drop_nulls, odd)
    return (_spelled(plain) if odd else _dumps(plain)).encode("utf-8", "surrogatepass")


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _plain(value: Any, drop_nulls: bool, odd: list[float]) -> Any:
    """The value with whole floats as integers; `odd` gathers floats that Python spells unlike ECMAScript."""
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, float):
        if value.is_integer() and abs(value) <= 2**53:
            return int(value)
        if not 1e-4 <= abs(value) < 2**53:
            odd.append(value)
        return value
    if isinstance(value, Mapping):
        return {
            name: _plain(entry, drop_nulls, odd)
            for name, entry in value.items()
            if not (drop_nulls and _is_null(entry))
        }
    if isinstance(value, list | tuple):
        return [_plain(entry, drop_nulls, odd) for entry in value]
    return value


def _spelled(value: Any) -> str:
    """Canonical JSON in which floats are spelled one by one."""
    if isinstance(value, float):
        import rfc8785

        return rfc8785.dumps(value).decode()
    if isinstance(value, dict):
        return "{" + ",".join(f"{_dumps(str(name))}:{_spelled(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_spelled, value)) + "]"
    return _dumps(value)
