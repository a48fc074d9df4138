"""Readers of real files: what they make of rows, and the place they name when a file is not as described."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_dagster.config.models import DataFile
from distill_dagster.domains import delimited, readers
from distill_dagster.errors import SourceError


def data(path: str = "rows.jsonl", columns: dict[str, Any] | None = None, **more: Any) -> DataFile:
    mapping = columns or {"input": "text", "answer": "label"}
    return DataFile.model_validate({"path": path, "task": "t", "licence": "MIT", "columns": mapping, **more})


def write(folder: Path, content: str | bytes, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(folder: Path, datafile: DataFile) -> list[dict[str, Any]]:
    return list(readers.read(datafile, folder))


def test_dotted_names_lists_and_several_inputs(tmp_path: Path) -> None:
    record = {
        "id": 7,
        "q": {"title": "T", "body": "B"},
        "teacher": [{"output": "o", "n": 1.5}],
        "ok": True,
        "a.b": "literal",
        "choices": ["x", "y"],
        "by": None,
    }
    write(tmp_path, "\n" + json.dumps(record) + "\n\n")
    columns = {
        "id": "id",
        "input": ["q.title", "q.body", "teacher.0.n"],
        "answer": "ok",
        "rationale": "teacher.-1.output",
        "context": "a.b",
        "choices": "choices",
        "annotator": "by",
    }
    assert rows(tmp_path, data(columns=columns)) == [
        {
            "id": "7",
            "input": "T\n\nB\n\n1.5",
            "answer": "true",
            "rationale": "o",
            "context": "literal",
            "choices": ["x", "y"],
            "subject_key": None,
            "annotator": None,
            "language": None,
            "row": 2,
        }
    ]


TWO = '{"text": "one", "label": "a", "n": 1}\n{"text": "two", "label": "b", "n": 2}\n'


def test_the_formats_agree(tmp_path: Path) -> None:
    write(tmp_path, TWO)
    write(tmp_path, b"\xef\xbb\xbf" + TWO.replace("\n", "\r\n").encode(), "bom.ndjson")
    write(tmp_path, 'text,label,n\r\n"one",a,1\r\n\r\ntwo,b,2\r\n', "rows.csv")
    write(tmp_path, "text\tlabel\tn\none\ta\t1\ntwo\tb\t2", "rows.tsv")
    pq.write_table(pa.table({"text": ["one", "two"], "label": ["a", "b"], "n": [1, 2]}), tmp_path / "rows.parquet")
    names = ["rows.jsonl", "bom.ndjson", "rows.csv", "rows.tsv", "rows.parquet"]
    found = [rows(tmp_path, data(name, {"input": "text", "answer": "label", "id": "n"}, rows=2)) for name in names]
    assert found[0][1] == {**found[0][1], "input": "two", "answer": "b", "id": "2", "row": 2}
    assert all(entry == found[0] for entry in found)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_where_limit_and_declared_rows(tmp_path: Path, name: str) -> None:
    write(tmp_path, "".join(f'{{"text": "t{n}", "even": {str(n % 2 == 0).lower()}, "n": {n}}}\n' for n in range(10)))
    write(tmp_path, "text,even,n\n" + "".join(f"t{n},{str(n % 2 == 0).lower()},{n}\n" for n in range(10)), "rows.csv")
    columns = {"input": "text"}
    kept = rows(tmp_path, data(name, columns, where={"even": True}, limit=3, rows=10))
    assert [row["input"] for row in kept] == ["t0", "t2", "t4"] and [row["row"] for row in kept] == [1, 3, 5]
    assert [row["input"] for row in rows(tmp_path, data(name, columns, where={"n": 7}))] == ["t7"]
    with pytest.raises(SourceError, match="10 rows, but the YAML file declares 9"):
        rows(tmp_path, data(name, columns, limit=3, rows=9))
    with pytest.raises(SourceError, match="no row has {'n': 77}"):
        rows(tmp_path, data(name, columns, where={"n": 77}))
    with pytest.raises(SourceError, match="Did you mean 'even'"):
        rows(tmp_path, data(name, columns, where={"evn": True}))


BAD = [
    ("rows.jsonl", '{"text": "a", "label": "b"}\n{"text": \n', ["rows.jsonl:2", "not JSON"]),
    ("rows.jsonl", '{"text": "a", "label": "b"}\n\n{"txt": "a", "label": "b"}\n', ["rows.jsonl:3", "'text'", "'txt'"]),
    ("rows.jsonl", '{"text": "a"}\n', ["rows.jsonl:1", "lacks the field 'label'"]),
    ("rows.jsonl", '{"text": "a", "label": ["b"]}\n', ["rows.jsonl:1", "a list, not text", "`label.0`"]),
    ("rows.jsonl", '{"text": " ", "label": "b"}\n', ["rows.jsonl:1", "'text' is empty"]),
    ("rows.jsonl", '{"text": null, "label": "b"}\n', ["rows.jsonl:1", "'text' is empty"]),
    ("rows.jsonl", '{"text": "\\ud800", "label": "b"}\n', ["rows.jsonl:1", "surrogate"]),
    ("rows.jsonl", '{"text": NaN, "label": "b"}\n', ["rows.jsonl:1", "NaN is not JSON"]),
    ("rows.jsonl", '[{"text": "a", "label": "b"}]\n', ["rows.jsonl:1", "a JSON array", "one object a line"]),
    ("rows.jsonl", '[\n{"text": "a", "label": "b"}\n]\n', ["rows.jsonl:1", "a JSON array", "one object a line"]),
    ("rows.jsonl", '"a"\n', ["rows.jsonl:1", "a JSON object, not text"]),
    ("rows.jsonl", '{"a":' * 100_000 + "\n", ["rows.jsonl:1", "not JSON"]),
    ("rows.jsonl", b'{"text": "a", "label": "b"}\n{"text": "\xe9"}\n', ["rows.jsonl:2", "0xe9 at offset 38"]),
    ("rows.jsonl", b'\xef\xbb\xbf{"text": "\xe9"}\n', ["rows.jsonl:1", "0xe9 at offset 13"]),
    ("rows.jsonl", '{"text": "a"}'.encode("utf-16"), ["UTF-16", "Save it as UTF-8"]),
    ("rows.jsonl", b"\x1f\x8b\x08", ["gzip"]),
    ("rows.jsonl", "", ["holds no records"]),
    ("rows.jsonl", "\n\n", ["holds no records"]),
    ("rows.csv", "", ["holds no records"]),
    ("rows.csv", "text,label\n", ["holds no records"]),
    ("rows.csv", "text,label\na,b\n\nc\n", ["rows.csv:4", "1 fields, the header 2"]),
    ("rows.csv", 'text,label\n"a\nb",c\nd,e,f\n', ["rows.csv:4", "3 fields"]),
    ("rows.csv", 'text,label\na,b\n"c,d\n', ["rows.csv:3", "not CSV"]),
    ("rows.csv", "text,text\na,b\n", ["rows.csv:1", "'text' twice"]),
    ("rows.csv", "txt,label\na,b\n", ["rows.csv:2", "'text'", "'txt'"]),
    ("rows.csv", "text,label\n,b\n", ["rows.csv:2", "'text' is empty"]),
    ("rows.csv", b"text,label\n\xff,b\n", ["rows.csv:2", "0xff at offset 11"]),
    ("rows.parquet", b"PAR1 no", ["rows.parquet", "not a parquet file"]),
    ("rows.parquet", "", ["rows.parquet", "not a parquet file"]),
    ("rows.txt", "a\n", ["does not tell the format", "`format`"]),
]


@pytest.mark.parametrize(("name", "content", "words"), BAD, ids=[f"{at}-{row[0]}" for at, row in enumerate(BAD)])
def test_a_bad_file_names_the_place(tmp_path: Path, name: str, content: str | bytes, words: list[str]) -> None:
    path = write(tmp_path, content, name)
    with pytest.raises(SourceError) as caught:
        rows(tmp_path, data(name))
    assert caught.value.place.startswith(str(path))
    for word in words:
        assert word in str(caught.value)


def test_a_field_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, f"text,label\n{'a' * 200_000},b\n", "rows.csv")
    assert len(rows(tmp_path, data("rows.csv"))[0]["input"]) == 200_000
    write(tmp_path, f'text,label\na,b\n"{"a" * (delimited.MAX_FIELD + 1)}",b\n', "rows.csv")
    with pytest.raises(SourceError, match=r"rows\.csv:3.*never closed"):
        rows(tmp_path, data("rows.csv"))


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name, reason in (("absent.jsonl", "no such file"), ("folder.csv", "is a folder")):
        with pytest.raises(SourceError, match=reason) as caught:
            rows(tmp_path, data(name))
        assert str(tmp_path) in caught.value.next_step


def test_ids_are_unique(tmp_path: Path) -> None:
    write(tmp_path, '{"i": 1, "text": "a"}\n{"i": 2, "text": "a"}\n{"i": "1", "text": "b"}\n')
    with pytest.raises(SourceError, match=r"rows\.jsonl:3: id '1' stands twice, first at 1"):
        rows(tmp_path, data(columns={"id": "i", "input": "text"}))


def test_an_optional_column_may_be_missing_from_some_rows_but_not_from_all(tmp_path: Path) -> None:
    write(tmp_path, '{"text": "a"}\n{"text": "b", "patient": "p1"}\n')
    found = rows(tmp_path, data(columns={"input": "text", "subject_key": "patient"}))
    assert [row["subject_key"] for row in found] == [None, "p1"]
    with pytest.raises(SourceError, match="no row has the column 'pateint'. Did you mean 'patient'"):
        rows(tmp_path, data(columns={"input": "text", "subject_key": "pateint"}))


def test_an_unlabelled_row_has_no_answer(tmp_path: Path) -> None:
    write(tmp_path, '{"text": "a", "label": null}\n')
    assert rows(tmp_path, data())[0]["answer"] is None
    write(tmp_path, "text,label\na,\n", "rows.csv")
    assert rows(tmp_path, data("rows.csv"))[0]["answer"] is None


def test_parquet_reads_nested_columns_and_lists_what_it_has(tmp_path: Path) -> None:
    table = pa.table({"q": [{"text": "a"}], "label": [3], "other": ["x"], "day": [pa.scalar(0, pa.date32()).as_py()]})
    pq.write_table(table, tmp_path / "rows.parquet")
    found = rows(tmp_path, data("rows.parquet", {"input": "q.text", "answer": "label", "annotator": "day"}))
    assert (found[0]["input"], found[0]["answer"], found[0]["annotator"]) == ("a", "3", "1970-01-01")
    with pytest.raises(SourceError, match="no column 'labels'. It has: q, label, other, day"):
        rows(tmp_path, data("rows.parquet", {"input": "q.text", "answer": "labels"}))


def test_paths_take_variables_and_are_relative_to_the_yaml_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").mkdir()
    write(tmp_path, TWO)
    monkeypatch.delenv("ROWS_FOLDER", raising=False)
    datafile = data("${ROWS_FOLDER:-..}/rows.jsonl")
    assert len(rows(tmp_path / "config", datafile)) == 2
    monkeypatch.setenv("ROWS_FOLDER", str(tmp_path / "absent"))
    with pytest.raises(SourceError, match="absent"):
        rows(tmp_path / "config", datafile)
    assert readers.source_id(datafile) == "file:rows.jsonl"


def test_digests_follow_the_content_and_not_the_place(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write(tmp_path / "a", TWO)
    write(tmp_path / "b", TWO)
    first = readers.digests([data()], tmp_path / "a")
    assert first == readers.digests([data()], tmp_path / "b")
    os.utime(tmp_path / "a" / "rows.jsonl", (0, 0))
    assert first == readers.digests([data()], tmp_path / "a")
    write(tmp_path / "b", TWO + "\n")
    assert first != readers.digests([data()], tmp_path / "b")


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A word tokenizer with a start token, saved in a folder."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {"<s>": 0, "<unk>": 1, "once": 2, "upon": 3, "a": 4, "time": 5}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.add_special_tokens(["<s>"])
    (tmp_path / "words").mkdir()
    made.save(str(tmp_path / "words" / "tokenizer.json"))
    return tmp_path / "words"


def test_an_opening_is_cut_from_text_or_from_token_ids(tmp_path: Path, tokenizer: Path) -> None:
    write(tmp_path, '{"ids": [0, 2, 3, 4, 5], "text": "once upon a time"}\n')
    opening = {"tokenizer": "words", "tokens": 3}
    assert rows(tmp_path, data(columns={"input": "ids"}, opening=opening))[0]["input"] == "once upon"
    assert rows(tmp_path, data(columns={"input": "text"}, opening=opening))[0]["input"] == "once upon a"
    assert set(readers.digests([data(columns={"input": "ids"}, opening=opening)], tmp_path)) == {
        "file:rows.jsonl",
        "tokenizer:words",
    }
    with pytest.raises(SourceError, match=r"tokenizer\.json.*no such file"):
        rows(tmp_path, data(columns={"input": "ids"}, opening={"tokenizer": ".", "tokens": 3}))
    with pytest.raises(SourceError, match="hold no text"):
        rows(tmp_path, data(columns={"input": "ids"}, opening={"tokenizer": "words", "tokens": 1}))
    write(tmp_path, '{"ids": {"a": 1}}\n')
    with pytest.raises(SourceError, match=r"rows\.jsonl:1.*an object, not text or a list of token ids"):
        rows(tmp_path, data(columns={"input": "ids"}, opening=opening))
