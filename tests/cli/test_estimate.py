"""An estimate before anything is sent holds what the run then takes, and knows what is answered already."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline import tiny
from pipeline.tiny import Tiny
from pyarrow import parquet
from terminal import command

from distill_dagster.stages.estimate import by_bytes
from distill_dagster.teachers.base import Request
from distill_dagster.teachers.journal import Journal

PRICES = """\
kind: prices
name: paper
currency: EUR
entries: [{model: "domain:teacher", valid_from: "2025-01-01", input_per_million: 300.0, output_per_million: 900.0}]
"""
TEACHER = "kind: teacher\nname: nano_teacher\nmodel: domain:teacher\nprompt_style: short\nprices: paper\n"
DATA = ("seed_set", "eval_set", "prompt_set", "teacher_model", "teacher_outputs", "filtered_dataset")


@pytest.fixture
def priced(tmp_path: Path) -> Tiny:
    """The authored finance project with the domain's own teacher, at a price."""
    made = tiny.finance(tmp_path / "finance")
    (made.folder / "assets_config" / "prices.yaml").write_text(PRICES, "utf-8")
    (made.folder / "assets_config" / "teacher.yaml").write_text(TEACHER, "utf-8")
    made.edit("source.yaml", "domain: finance\n", "domain: finance\ntasks: [routing]\n")
    return made


def estimated(project: Tiny) -> dict:
    said = command(project, "estimate", "finance", "--json")
    assert said.code == 0, said
    return json.loads(said.out)


@pytest.mark.needs_torch
def test_a_run_takes_what_was_estimated(priced: Tiny) -> None:
    before = estimated(priced)
    with Journal(priced.settings.state / "journal.sqlite") as journal:
        assert journal.store.attempts() == []
    labeling, report = before["parts"]
    assert labeling["name"] == "finance/teacher_outputs: labeling" and report["name"] == "finance/eval_report"
    assert (labeling["questions"], labeling["answered"], report["questions"]) == (24, 0, 16)
    assert before["currency"] == "EUR" and not before["unfitted"] and before["earlier"] == 0
    made = priced.run(DATA)["teacher_outputs"]
    calls = parquet.read_table(made.version.place / "runs" / made.run / "call.parquet").to_pylist()
    assert len(calls) == 24
    for tokens in ("input_tokens", "output_tokens"):
        low, likely, high = labeling[tokens]
        assert low <= sum(call[tokens] for call in calls) <= high
    assert labeling["input_tokens"] == [sum(call["input_tokens"] for call in calls)] * 3
    paid = sum(call["cost_micros"] for call in calls)
    assert 0 < labeling["cost_micros"][0] <= paid <= labeling["cost_micros"][2]
    after = estimated(priced)
    assert (after["parts"][0]["answered"], after["parts"][0]["cost_micros"]) == (24, [0, 0, 0])
    assert after["earlier"] == 24
    likely = round(sum(call["output_tokens"] for call in calls) / 24)
    assert after["parts"][1]["output_tokens"][1] == 16 * likely
    said = command(priced, "estimate", "finance")
    assert "to ask" in said.out and "nothing was sent" in said.out and "EUR" in said.out


@pytest.mark.needs_torch
def test_a_teacher_that_is_yet_to_be_fitted(tmp_path: Path) -> None:
    project = tiny.finance(tmp_path / "finance")
    found = estimated(project)
    assert found["unfitted"] and found["currency"] is None and found["parts"][0]["cost_micros"] is None
    assert found["parts"][0]["answered"] == 0 and found["parts"][0]["input_tokens"][0] > 0
    assert "fitted first" in command(project, "estimate", "finance").out
    command(project, "estimate", "financ").refused("financ", "Did you mean 'finance'")


@given(st.text(max_size=200))
def test_bounds_by_bytes_are_in_order(text: str) -> None:
    low, likely, high = by_bytes(Request(({"role": "user", "content": text},)))
    assert 0 <= low <= likely <= high and high >= len(text.encode("utf-8", "replace"))
