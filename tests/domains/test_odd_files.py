"""What users' files hold by accident: read for what it is, or refused with the place and what to do; never a guess."""

import codecs
import datetime
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_dagster.config.models import DataFile
from distill_dagster.domains import formats, readers
from distill_dagster.errors import SourceError


def read(folder: Path, name: str, content: str | bytes | pa.Table, **more: Any) -> list[dict[str, Any]]:
    """Rows of a file with that content, by the columns `text` and `label` unless others are given."""
    path = folder / name
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    fields = {"columns": {"input": "text", "answer": "label"}, "task": "t", "licence": "MIT", **more}
    return list(readers.read(DataFile.model_validate({"path": name, **fields}), folder))


def not_utf_8(*values: bytes) -> pa.Array:
    """A column that says it is text, of any bytes, as careless writers make it."""
    binary = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(values), binary.buffers())


@pytest.mark.parametrize("name", ["A.JSONL", "a.NdJson", "A.CSV", "A.TSV", "a.Parquet", "A.PQ"])
def test_a_suffix_may_be_in_capitals(tmp_path: Path, name: str) -> None:
    content: dict[str, Any] = {
        "jsonl": '{"text": "a,b", "label": "c"}\n',
        "csv": 'text\tlabel\n"a,b"\tc\n' if name.endswith("TSV") else 'text,label\n"a,b",c\n',
        "parquet": pa.table({"text": ["a,b"], "label": ["c"]}),
    }
    (row,) = read(tmp_path, name, content[formats.guess(Path(name), None)])
    assert (row["input"], row["answer"]) == ("a,b", "c")


@pytest.mark.parametrize("blank", ["", " ", "\t \u00a0"])
def test_nothing_is_nothing_in_every_format(tmp_path: Path, blank: str) -> None:
    columns = {"input": "text", **{field: field for field in ("answer", "id", "subject_key", "context", "language")}}
    names = list(columns.values())
    row = dict.fromkeys(names, blank) | {"text": "a"}
    line = ", ".join(f'"{name}": "{value}"' for name, value in row.items()).replace("\t", "\\t")
    cells = ",".join(f'"{value}"' for value in row.values())
    found = [
        read(tmp_path, "a.jsonl", f"{{{line}}}\n" * 2, columns=columns),
        read(tmp_path, "a.csv", f"{','.join(names)}\n{cells}\n{cells}\n", columns=columns),
        read(tmp_path, "a.parquet", pa.Table.from_pylist([row, row]), columns=columns),
    ]
    for rows in found:
        assert len(rows) == 2 and not [row for row in rows for name in names[1:] if row.get(name) is not None]


def test_a_gap_in_a_column_of_numbers_is_a_gap(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b", "c"], "label": [1.0, float("nan"), None]})
    assert [row["answer"] for row in read(tmp_path, "a.parquet", table)] == ["1.0", None, None]
    with pytest.raises(SourceError, match=r"a\.parquet:row 2: the input column 'label' is empty"):
        read(tmp_path, "a.parquet", table, columns={"input": "label"})


def test_whole_numbers_are_found_in_a_column_of_floats(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b", "c"], "label": [1.0, 1.5, None]})
    assert [row["input"] for row in read(tmp_path, "a.parquet", table, where={"label": 1})] == ["a"]


def test_what_numbers_and_days_become(tmp_path: Path) -> None:
    large = "123456789012345678901234567890"
    rows = read(
        tmp_path, "a.jsonl", "".join(f'{{"text": "a", "label": {value}}}\n' for value in (large, "1.0", "true"))
    )
    assert [row["answer"] for row in rows] == [large, "1.0", "true"]
    day = pa.table({"text": ["a"], "label": [datetime.datetime(2020, 1, 2, 3, 4)]})
    assert read(tmp_path, "a.parquet", day)[0]["answer"] == "2020-01-02T03:04:00"
    codes = read(tmp_path, "a.csv", "text,label\na,007\nb,1e5\n")
    assert [row["answer"] for row in codes] == ["007", "1e5"]


def test_a_long_line_is_read(tmp_path: Path) -> None:
    assert len(read(tmp_path, "a.jsonl", f'{{"text": "a", "label": "{"x" * 10_000_000}"}}\n')[0]["answer"]) == 10**7


OBJECT = '{"text": "a", "label": "b"}'
JSONL = [
    ('{"text": "a", "label": "b", "label": "c"}\n', "a.jsonl:1: the key 'label' stands twice"),
    (OBJECT + '\n{"text": "a", "label": "b", "more": {"x": 1, "x": 1}}\n', "a.jsonl:2: the key 'x' stands twice"),
    ('{"text": "a", "label": "b",}\n', "at column.*Delete the comma before the closing bracket"),
    ('{"text": "a", "label": [1, 2,]}\n', "Delete the comma before the closing bracket"),
    (OBJECT + ",\n" + OBJECT + "\n", "a.jsonl:1: .* Delete the comma at the end of the line"),
    (f"[{OBJECT},{OBJECT}]", "a.jsonl:1: a JSON array.*one object a line"),
    (f"\n [{OBJECT},\n{OBJECT}]\n", "a.jsonl:2: a JSON array.*one object a line"),
    ('{\n"text": "a"}\n', "one JSON document"),
    (OBJECT + '\n{"text": "a",\n "label": "b"}\n', "a.jsonl:2: .*The line ends too early"),
    ("{'text': 'a', 'label': 'b'}\n", "how Python prints a dict"),
    ('{"text": "a", "label": None}\n', "how Python prints a dict"),
    (OBJECT + OBJECT + "\n", "Two objects in one line"),
    (OBJECT + "\r" + OBJECT + "\r", "not with CR alone"),
    (f"{OBJECT}\n\ufeff{OBJECT}\n", "a.jsonl:2: .*A byte order mark inside the file"),
    (f'{{"text": "a", "label": {"1" * 5000}}}\n', "more than 4300 digits.*as text"),
    ('{"text": "a", "label": 1e400}\n', "a.jsonl:1: column 'label' holds a number that is infinite"),
    ("7\n", "a JSON object, not a number"),
    ("null\n", "a JSON object, not null"),
    (codecs.BOM_UTF32_LE + OBJECT.encode("utf-32-le"), "the file is UTF-32"),
    (OBJECT.encode("utf-16-le"), "a.jsonl:1: a NUL byte at offset 1: the file is UTF-16"),
]
CSV = [
    ("text,label,,\na,b,,\n", "a.csv:1: columns 3, 4 of the header have no name"),
    ("text,label, text\na,b,c\n", "a.csv:1: the header names column 'text' twice"),
    ("text;label\na;b\n", "a.csv:1: the columns are separated by semicolons, not by commas.*decimal sign"),
    ("text\tlabel\na\tb\n", "a.csv:1: the columns are separated by tabs, not by commas.*tsv"),
    ("sep=;\ntext;label\na;b\n", "a.csv:1: the first line is 'sep=;'"),
    ("text,label\ra,b\r", "a.csv:1: .*a line end that is CR alone.*LF or CR LF"),
    ('text,label\na,b\nc,"d\n', "a.csv:3: .*inside quotes.*never closed"),
    ("text,label\na,b\n\ufefftext,label\n", "a.csv:3: the header stands here a second time"),
    ("text,label\na,b\nc\n", "a.csv:3: the record has 1 fields, the header 2"),
    ("text,label\ncaf\u00e9,b\n".encode("cp1252"), "a.csv:2: .*0xe9 at offset 14, '\u00e9' in Windows-1252.*iconv"),
    ("text\tlabel\na\tb\n".encode("utf-16"), "the file is UTF-16.*CSV UTF-8"),
    ("text,label\na,b\0\n", "a.csv:2: a NUL byte at offset 14"),
    (b"PK\x03\x04 a workbook", "a zip archive.*xlsx.*CSV UTF-8"),
    ("text,label\n", "holds no records"),
]
LATE = pa.array([10**17], pa.timestamp("ms"))
PARQUET = [
    (pa.Table.from_arrays([not_utf_8(b"a", b"b\xff"), pa.array(["x", "y"])], names=["text", "label"]),
     "a.parquet:row 2: column 'text' holds text that is not UTF-8: byte 0xff at position 1"),
    (pa.Table.from_arrays([pa.array(["a"])] * 3, names=["text", "label", "label"]),
     "a.parquet: the file names column 'label' twice"),
    (pa.table({"text": ["a"], "label": LATE}), "a.parquet:row 1: column 'label' .*cannot be read.*as text"),
    (pa.table({"text": ["a"], "label": pa.array([0], pa.timestamp("ms", "No/Where"))}), "cannot be read: 'No/Where'"),
    (pa.table({"text": ["a"], "label": [b"b"]}), "a.parquet:row 1: column 'label' holds bytes, not text. Write it"),
    (pa.table({"text": ["a"], "label": [float("-inf")]}), "infinite"),
    (pa.table({"text": ["a"], "label": [[["b"]]]}), "holds a list, not text. Name one value inside it"),
    (pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.string())}), "holds no records"),
]  # fmt: skip
BAD = [(name, *case) for name, cases in (("a.jsonl", JSONL), ("a.csv", CSV), ("a.parquet", PARQUET)) for case in cases]


@pytest.mark.parametrize(("name", "content", "words"), BAD, ids=[f"{at}-{row[0]}" for at, row in enumerate(BAD)])
def test_an_odd_file_is_refused_by_place_reason_and_next_step(
    tmp_path: Path, name: str, content: str | bytes | pa.Table, words: str
) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        read(tmp_path, name, content)
    assert caught.value.place.startswith(str(tmp_path / name)) and caught.value.next_step


def test_a_column_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "odd__": ["b"]}), tmp_path / "a.parquet", store_schema=False)
    content = (tmp_path / "a.parquet").read_bytes().replace(b"odd__", b"odd\xff\xfe")
    with pytest.raises(SourceError, match=r"a\.parquet: a column's name is not UTF-8"):
        read(tmp_path, "a.parquet", content, columns={"input": "text"})


def test_a_tsv_with_commas_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"a\.tsv:1: the columns are separated by commas, not by tabs"):
        read(tmp_path, "a.tsv", "text,label\na,b\n")


def test_one_column_may_have_any_name(tmp_path: Path) -> None:
    assert read(tmp_path, "a.csv", "a;b\nx\n", columns={"input": "a;b"})[0]["input"] == "x"


@pytest.mark.parametrize("hole", ["null", '""', '" "'])
def test_a_choice_that_is_nothing_is_refused(tmp_path: Path, hole: str) -> None:
    columns = {"input": "text", "choices": "choices"}
    lines = f'{{"text": "a", "choices": ["x", "y"]}}\n{{"text": "b", "choices": ["x", {hole}]}}\n'
    with pytest.raises(SourceError, match=r"a\.jsonl:2: the choice 'choices.1' is empty"):
        read(tmp_path, "a.jsonl", lines, columns=columns)
    table = pa.table({"text": ["a"], "choices": [["x", None]]})
    with pytest.raises(SourceError, match=r"a\.parquet:row 1: the choice 'choices.1' is empty"):
        read(tmp_path, "a.parquet", table, columns=columns)
    with pytest.raises(SourceError, match="holds text, not a list of choices. .*CSV cannot"):
        read(tmp_path, "a.csv", "text,choices\na,x\n", columns=columns)


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.jsonl.gz", "Unpack it"), ("a.XLSX", "CSV UTF-8"), ("a.json", "format: jsonl"), ("a", "jsonl, csv or parquet")],
)
def test_a_name_of_another_format_says_what_to_do(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        read(tmp_path, name, OBJECT)
    assert read(tmp_path, name, OBJECT, format="jsonl")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(SourceError, match=r"a\.jsonl: may not be read by this user"):
        read(tmp_path, "a.jsonl", OBJECT)
