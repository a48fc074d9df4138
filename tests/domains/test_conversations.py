"""An input of several turns: what a file may hold, and what is wrong with it."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_dagster.config.models import DataFile, SourceConfig
from distill_dagster.domains import readers, sampler
from distill_dagster.domains.generic.domain import domain as generic
from distill_dagster.errors import SourceError
from distill_dagster.records.messages import as_chat

TURNS = [
    {"role": "user", "content": "I sent two."},
    {"role": "assistant", "content": "Which arrived?"},
    {"role": "user", "content": "The red one."},
]


def data(path: str = "rows.jsonl", **more: object) -> DataFile:
    columns = {"input": "turns", "answer": "label"}
    return DataFile.model_validate({"path": path, "task": "t", "licence": "MIT", "columns": columns, **more})


def read(folder: Path, turns: object) -> list[dict]:
    (folder / "rows.jsonl").write_text(json.dumps({"turns": turns, "label": "red"}), "utf-8")
    return list(readers.read(data(), folder))


def test_turns_come_from_jsonl_and_parquet_alike(tmp_path: Path) -> None:
    (row,) = read(tmp_path, TURNS)
    assert row["turns"] == [("user", "I sent two."), ("assistant", "Which arrived?"), ("user", "The red one.")]
    assert row["input"] == "I sent two.\nWhich arrived?\nThe red one."
    pq.write_table(pa.Table.from_pylist([{"turns": TURNS, "label": "red"}]), tmp_path / "rows.parquet")
    assert list(readers.read(data("rows.parquet"), tmp_path)) == [row]


def test_records_keep_every_turn(tmp_path: Path) -> None:
    lines = [
        json.dumps({"turns": [*TURNS[:2], {"role": "user", "content": f"{at}"}], "label": "red"}) for at in range(9)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), "utf-8")
    file = data().model_dump(exclude_none=True)
    source = SourceConfig.model_validate(
        {
            "kind": "source",
            "domain": "generic",
            "name": "talks",
            "define": [{"name": "t", "kind": "text"}],
            "seeds": [file],
            "evaluation": [file],
        }
    )
    records = list(sampler.records(source, generic(), "seed", tmp_path))
    assert {len(as_chat(record["messages"])) for record in records} == {3}
    assert {as_chat(record["messages"])[1]["role"] for record in records} == {"assistant"}


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ([], ["does not end with a question"]),
        (TURNS[:2], ["does not end with a question"]),
        ([{"role": "judge", "content": "x"}], ["turns.0.role", "'judge'", "user"]),
        ([{"role": "user", "text": "x"}], ["entry 0", "`content`"]),
        ([{"role": "user", "content": " "}], ["'turns.0' is empty"]),
        ([{"role": "user", "content": {"a": 1}}], ["turns.0.content", "an object"]),
        (["hello"], ["entry 0"]),
    ],
)
def test_a_bad_conversation_names_the_place(tmp_path: Path, turns: object, words: list[str]) -> None:
    with pytest.raises(SourceError) as caught:
        read(tmp_path, turns)
    assert "rows.jsonl:1" in caught.value.place
    for word in words:
        assert word in str(caught.value)
