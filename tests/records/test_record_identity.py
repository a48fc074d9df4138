"""Record ids and roots: what they bind, what they ignore, and that an outsider's RFC 8785 gives the same ones."""

import math
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from distill_dagster.records import identity
from distill_dagster.records.identity import CHUNK, canonical, content, keyed_id, record_id, record_root
from distill_dagster.records.schemas import NOT_IDENTITY, TABLES

IDS = st.lists(st.text("0123456789abcdef", min_size=32, max_size=32), max_size=40)
#: Well-formed strings, those outside the Basic Multilingual Plane and controls included.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
KEYS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8)
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_canonical_json_is_that_of_rfc_8785(value) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    ("number", "spelled"),
    [
        (1.0, b"1"),
        (-0.0, b"0"),
        (0.1, b"0.1"),
        (1e-5, b"0.00001"),
        (1e-7, b"1e-7"),
        (1e21, b"1e+21"),
        (1e16, b"1" + b"0" * 16),
    ],
)
def test_numbers_are_spelled_as_in_ecmascript(number: float, spelled: bytes) -> None:
    assert canonical({"x": [number]}) == b'{"x":[' + spelled + b"]}"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_canonical_json_refuses_what_json_cannot_say(number: float) -> None:
    with pytest.raises(ValueError):
        canonical({"x": number})


def test_an_integer_and_the_float_it_equals_are_one_number() -> None:
    assert record_id({"weight": 1}) == record_id({"weight": 1.0}) != record_id({"weight": True})


@given(IDS, st.randoms())
def test_root_ignores_order(ids: list[str], random) -> None:
    shuffled = [*ids]
    random.shuffle(shuffled)
    assert record_root(shuffled) == record_root(ids)


@given(IDS.filter(bool), st.data())
def test_root_binds_every_id_and_how_often_it_occurs(ids: list[str], data) -> None:
    at = data.draw(st.integers(0, len(ids) - 1))
    other = ids[at][:-1] + ("0" if ids[at][-1] != "0" else "1")
    root = record_root(ids)
    assert record_root([*ids[:at], other, *ids[at + 1 :]]) != root
    assert record_root([*ids[:at], *ids[at + 1 :]]) != root
    assert record_root([*ids, ids[at]]) != root


@pytest.mark.parametrize("count", [CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 5 * CHUNK + 7])
def test_root_binds_the_first_and_last_id_of_every_chunk(count: int) -> None:
    ids = [f"{number:032x}" for number in range(count)]
    root = record_root(ids)
    assert record_root(reversed(ids)) == root
    edges = {0, count - 1, *range(CHUNK - 1, count, CHUNK), *range(CHUNK, count, CHUNK)}
    for at in edges:
        assert record_root([*ids[:at], "f" * 32, *ids[at + 1 :]]) != root


def test_root_of_many_chunks_is_a_merkle_tree_with_its_size_bound_in() -> None:
    import hashlib

    def sha(data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    ids = sorted(f"{number:032x}" for number in range(2 * CHUNK + 3))
    leaves = [sha(b"\x00" + "\n".join(ids[at : at + CHUNK]).encode()) for at in (0, CHUNK, 2 * CHUNK)]
    top = sha(b"\x01" + sha(b"\x01" + leaves[0] + leaves[1]) + leaves[2])
    assert record_root(ids) == sha(b"\x02" + top + f"/{len(ids)}/{CHUNK}".encode()).hex()


def test_empty_and_single_roots_differ() -> None:
    assert len({record_root([]), record_root([""]), record_root(["", ""])}) == 3


PART = st.fixed_dictionaries(
    {"type": st.just("text"), "text": TEXT, "blob": st.none() | TEXT, "media_type": st.none() | TEXT}
)
MESSAGES = st.lists(st.fixed_dictionaries({"role": TEXT, "parts": st.lists(PART, max_size=2)}), max_size=2)
RECORDS = st.fixed_dictionaries(
    {
        "task": TEXT,
        "messages": MESSAGES,
        "answer": TEXT,
        "weight": st.floats(0, 10),
        "choices": st.lists(TEXT, max_size=2),
    }
)


@given(RECORDS, st.data())
def test_id_ignores_row_numbers_and_nulls_and_nothing_else(record: dict, data) -> None:
    known = record_id(record)
    numbered = {**record, **dict.fromkeys(NOT_IDENTITY, 7), "rationale": None, "score": math.nan}
    assert record_id(numbered) == known
    assert record_id(dict(reversed(record.items()))) == known
    column = data.draw(st.sampled_from(sorted(record)))
    value = {"task": "?", "answer": "?", "weight": -1.0, "choices": ["?", "?", "?"], "messages": "?"}[column]
    if record[column] != value:
        assert record_id({**record, column: value}) != known
    assert record_id({**record, "language": "de"}) != known
    assert record_id({name: entry for name, entry in record.items() if name != column}) != known


@given(RECORDS)
def test_a_null_field_of_a_message_part_may_be_left_out(record: dict[str, Any]) -> None:
    lean = [
        {**entry, "parts": [{k: v for k, v in part.items() if v is not None} for part in entry["parts"]]}
        for entry in record["messages"]
    ]
    assert record_id({**record, "messages": lean}) == record_id(record)


def test_an_empty_list_or_text_is_content() -> None:
    assert (
        len({record_id({"task": "a"}), record_id({"task": "a", "choices": []}), record_id({"task": "a", "answer": ""})})
        == 3
    )


def test_what_is_left_out_of_the_identity_are_numbers_and_places() -> None:
    columns = {name for schema in TABLES.values() for name in schema.names}
    assert columns >= NOT_IDENTITY
    assert {name for name in NOT_IDENTITY if not name.endswith("_no")} == {"record_id", "source_row"}


@given(RECORDS, st.binary(min_size=1), st.binary(min_size=1))
def test_keyed_ids_need_the_key(record: dict, key: bytes, other: bytes) -> None:
    assert keyed_id(record, key) == keyed_id({**record, "seed_no": 3}, key) != record_id(record)
    if key.rstrip(b"\0") != other.rstrip(b"\0"):  # HMAC pads keys with zeros
        assert keyed_id(record, key) != keyed_id(record, other)


def test_content_is_what_the_id_is_of() -> None:
    record = {"task": "a", "seed_no": 1, "answer": None}
    assert content(record) == {"task": "a"}
    assert record_id(record) == identity.digest({"task": "a"})[:32]
