"""What reviewers are given and hand back: no formula runs, every text comes back, strata keep their shares."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_dagster.errors import SourceError
from distill_dagster.stages import review, review_files
from distill_dagster.stages.review import Item, drawn
from distill_dagster.stages.review_files import COLUMNS, FORMULA, SHOWN, from_csv, from_label_studio, harmless, read

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
CELL = st.one_of(
    TEXT, st.builds("".join, st.tuples(st.sampled_from(["=", "+", "-", "@", "'", "\t", " =", "\r"]), TEXT))
)
FILE = Path("back.csv")


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(SHOWN, CELL)), max_size=5))
def test_every_text_comes_back_and_no_cell_is_a_formula(rows: list[dict[str, str]]) -> None:
    filled = {"reviewer": "anna", "verdict": "accept", "critical_error": "", "comment": ""}
    data = review_files.to_csv([{**row, **filled} for row in rows])
    assert data.startswith(b"\xef\xbb\xbf")
    text = data.decode("utf-8-sig")
    cells = [cell for line in csv.reader(io.StringIO(text, newline="")) for cell in line]
    assert not [cell for cell in cells if cell.lstrip().startswith(FORMULA) or cell.startswith(("\t", "\r", "\n"))]
    back = from_csv(FILE, text)
    assert [{name: getattr(row, name) for name in SHOWN} for row in back] == rows


@given(TEXT)
def test_harmless_changes_nothing_else(text: str) -> None:
    assert harmless(text) in (text, f"'{text}")
    if text[:1].isalnum():
        assert harmless(text) == text


def test_what_spreadsheets_do_to_a_file() -> None:
    typed = {"verdict": " Reject ", "reviewer": " anna ", "critical_error": "wrong dose; no unit ;", "comment": "'=bad"}
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=";")
    writer.writerow(COLUMNS)
    for row in ({"record_id": "r", "question": "two\nlines", **typed}, {}, {"record_id": "s"}):
        writer.writerow([row.get(name, "") for name in COLUMNS] if row else [])
    first, second = from_csv(FILE, text.getvalue())
    assert (first.place, second.place) == ("back.csv:2", "back.csv:5")
    assert (first.verdict, first.reviewer, first.comment) == ("reject", "anna", "=bad")
    assert first.critical == ("no unit", "wrong dose") and first.question == "two\nlines"
    assert second.verdict == ""


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "column 'record_id' is missing"),
        ("a.csv", b"record_id,verdict\n1,accept\n", "column 'task' is missing"),
        ("a.csv", (",".join(COLUMNS) + "\n" + "x," * 30 + "\n").encode(), "31 cells in a row of 10 columns"),
        ("a.csv", (",".join(COLUMNS) + ",verdict\n").encode(), "a.csv:1: column 'verdict' stands twice"),
        ("a.csv", b"\xff\xfe1\x00", "not UTF-8"),
        ("a.json", b"{", r"a.json:1: it is not JSON"),
        ("a.json", b"{}", "not a list of tasks"),
        ("a.json", b'[{"id": 1, "question": "x", "verdict": "accept"}]', "task 1.*JSON-MIN"),
        ("none.csv", None, "cannot be read"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=words):
        read(tmp_path / name)


def test_label_studio_s_interface_is_well_formed_and_names_what_tasks_hold() -> None:
    row = {"record_id": "r", "task": "dose", "question": "<b>&</b>", "answer": "=1", "rationale": "", "shown": "0"}
    (task,) = json.loads(review_files.to_label_studio([row], {"dose": ["wrong <dose>"]}))
    assert task["data"] == {**row, "critical_errors": [{"value": "wrong <dose>"}]}
    root = ElementTree.fromstring(review_files.labelling_config(("accept", "reject"), True, True))
    asked = {entry.attrib["value"][1:] for entry in root.iter() if entry.attrib.get("value", "").startswith("$")}
    assert asked == {"task", "question", "answer", "rationale", "critical_errors"} and asked <= set(task["data"])
    names = {entry.attrib["name"] for entry in root.iter() if entry.tag in ("Choices", "TextArea")}
    assert names == {"verdict", "critical_error", "comment"}
    controls = [entry for entry in root.iter() if "toName" in entry.attrib]
    objects = {entry.attrib["name"] for entry in root.iter("Text")}
    assert controls and {entry.attrib["toName"] for entry in controls} <= objects


def test_a_task_that_was_not_judged_is_a_row_without_a_verdict() -> None:
    data = dict.fromkeys(SHOWN, "x")
    tasks = [{"data": data, "annotations": []}, {"data": {**data, "reviewer": "anna"}, "annotations": []}]
    found = from_label_studio(FILE, json.dumps(tasks))
    assert [(row.reviewer, row.verdict) for row in found] == [("", ""), ("anna", "")]


def items(sizes: dict[tuple[str, str], int]) -> list[Item]:
    return [
        Item(f"{task}/{source}/{at}", task, source, None, "q", "a", "")
        for (task, source), size in sizes.items()
        for at in range(size)
    ]


@given(
    st.dictionaries(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), st.integers(1, 40), min_size=1),
    st.integers(0, 80),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_a_sample_keeps_every_stratums_share(sizes, count, seed, random) -> None:
    every = items(sizes)
    found = drawn(every, count, seed)
    total = sum(sizes.values())
    assert len(found) == len(set(found)) == min(count, total) and set(found) <= set(every)
    for key, size in Counter((item.task, item.source) for item in found).items():
        share = min(count, total) * sizes[key] / total
        assert abs(size - share) < 1
    assert drawn(random.sample(every, total), count, seed) == found


def test_another_seed_draws_others_and_every_record_is_drawn_as_often() -> None:
    every = items({("a", "x"): 20})
    times = Counter(item.record_id for seed in range(2000) for item in drawn(every, 5, seed))
    assert len(times) == 20 and max(abs(count - 500) for count in times.values()) < 90  # 4.6 standard deviations


def test_what_was_shown_is_bound_to_its_record_and_not_to_line_breaks() -> None:
    assert review.digest_of("r", "a\r\nb ") == review.digest_of("r", "a\nb")
    assert review.digest_of("r", "ab") != review.digest_of("ra", "b")
    assert review.digest_of("r", "a") != review.digest_of("s", "a")
