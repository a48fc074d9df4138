"""Tables and messages: types are held, ids are those of the typed content, and nothing changes on the way through."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_dagster.errors import DistillError
from distill_dagster.records import tables
from distill_dagster.records.identity import record_id, record_root
from distill_dagster.records.messages import as_chat, from_chat, message, text_of
from distill_dagster.records.schemas import TABLES

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ROLES = st.sampled_from(["system", "user", "assistant", "tool"])
CHATS = st.lists(st.fixed_dictionaries({"role": ROLES, "content": TEXT}), max_size=5)


@given(CHATS)
def test_messages_round_trip(chat: list[dict[str, str]]) -> None:
    assert as_chat(from_chat(chat)) == chat
    assert text_of(from_chat(chat)) == "\n".join(entry["content"] for entry in chat)


@given(CHATS, st.integers(-5, 5), st.none() | TEXT)
def test_messages_and_ids_survive_parquet(chat, row, answer) -> None:
    entry = {
        "task": "t",
        "part": "gold",
        "messages": from_chat(chat),
        "answer": answer,
        "source_row": row,
        "choices": [],
    }
    table = tables.build("seed", [entry])
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    read = pq.read_table(pa.BufferReader(sink.getvalue()))
    assert read.schema == table.schema
    assert as_chat(read["messages"][0].as_py()) == chat
    assert list(tables.record_ids(read)) == table["record_id"].to_pylist() == [record_id(entry)]


def test_text_of_takes_one_role_and_skips_blobs() -> None:
    picture = {"type": "blob", "text": None, "blob": "a" * 64, "media_type": "image/png"}
    talk = [message("user", "one"), {"role": "user", "parts": [picture]}, message("assistant", "two")]
    assert text_of(talk) == "one\n\ntwo".replace("\n\n", "\n")
    assert text_of(talk, "assistant") == "two"


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_table_can_be_built_empty_and_numbers_its_rows(name: str) -> None:
    empty = tables.build(name, [])
    assert empty.schema == TABLES[name] and empty.num_rows == 0
    table = tables.build(name, iter([{}, {}]))
    assert table.schema == TABLES[name]
    first = TABLES[name].names[0]
    if first.endswith("_no"):
        assert table[first].to_pylist() == [0, 1]


def test_numbers_run_on_over_chunks_and_given_ones_stay() -> None:
    count = tables.CHUNK * 2 + 5
    table = tables.build("seed", ({"task": str(number)} for number in range(count)))
    assert table["seed_no"].to_pylist() == list(range(count))
    assert len(set(table["record_id"].to_pylist())) == count
    assert tables.build("seed", [{"seed_no": 7}, {}])["seed_no"].to_pylist() == [7, 1]


def test_a_given_id_stays() -> None:
    assert tables.build("seed", [{"record_id": "x"}, {"task": "a"}])["record_id"].to_pylist() == [
        "x",
        record_id({"task": "a"}),
    ]


def test_ids_are_those_of_the_typed_values() -> None:
    lean = {"role": "user", "parts": [{"type": "text", "text": "a"}]}
    rows = [{"messages": [lean], "weight": 1}, {"messages": [message("user", "a")], "weight": 1.0}]
    table = tables.build("example", rows)
    ids = table["record_id"].to_pylist()
    assert ids[0] == ids[1]
    assert list(tables.record_ids(table)) == ids


@pytest.mark.parametrize(
    ("table", "row", "named"),
    [
        ("seed", {"tusk": "a"}, "tusk"),
        ("seed", {"task": 3}, "task"),
        ("seed", {"task": ["a"]}, "task"),
        ("seed", {"task": "\ud800"}, "task"),
        ("seed", {"source_row": 1.5}, "source_row"),
        ("seed", {"source_row": "1"}, "source_row"),
        ("seed", {"source_row": 2**63}, "source_row"),
        ("seed", {"source_row": True}, "source_row"),
        ("seed", {"choices": "a"}, "choices"),
        ("seed", {"messages": [{"role": "user", "parts": "hello"}]}, "messages"),
        ("seed", {"messages": "hello"}, "messages"),
        ("candidate", {"sample": 2**31}, "sample"),
        ("example", {"weight": "1.0"}, "weight"),
        ("call", {"reused": 1}, "reused"),
    ],
)
def test_wrong_columns_and_types_are_refused_by_name(table: str, row: dict, named: str) -> None:
    with pytest.raises(DistillError) as caught:
        tables.build(table, [{}, row])
    assert "row 1" in caught.value.place and table in caught.value.place
    assert named in str(caught.value)


def test_roots_of_parts_are_the_roots_of_their_rows() -> None:
    rows = [
        {"task": "a", "part": part, "answer": str(number)} for number, part in enumerate(["gold", "all", "gold", None])
    ]
    table = tables.build("seed", rows)
    ids = table["record_id"].to_pylist()
    roots = tables.roots(table, "part")
    assert roots == {"all": record_root(ids), "gold": record_root([ids[0], ids[2]]), "None": record_root([ids[3]])}
    assert tables.roots(table) == {"all": record_root(ids)}


@given(st.permutations(list(range(6))))
def test_roots_ignore_row_order(order: list[int]) -> None:
    rows = [{"task": "a", "answer": str(number % 4)} for number in range(6)]
    assert tables.roots(tables.build("seed", [rows[at] for at in order])) == tables.roots(tables.build("seed", rows))


def test_a_join_table_is_bound_numbers_included() -> None:
    rows = [{"call_no": 1, "kind": "seed", "ref_no": 2}, {"call_no": 1, "kind": "seed", "ref_no": 3}]
    root = tables.roots(tables.build("call_input", rows))
    assert tables.roots(tables.build("call_input", rows[::-1])) == root
    for changed in ({"call_no": 2}, {"kind": "exemplar"}, {"ref_no": 9}):
        assert tables.roots(tables.build("call_input", [{**rows[0], **changed}, rows[1]])) != root
