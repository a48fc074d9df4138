"""Prices and budgets in YAML: what is paid, what a kept record came to, and a run that stops and goes on."""

from __future__ import annotations

import pytest
from pyarrow import parquet

from distill_dagster.config.check import check
from distill_dagster.errors import BudgetError
from pipeline import tiny
from pipeline.test_recorded_pipeline import NAMES, TEACHER

PRICES = """\
kind: prices
name: paper
currency: EUR
entries:
  - {model: "domain:teacher", valid_from: "2025-01-01", input_per_million: 1.5, output_per_million: 4.0}
"""


@pytest.fixture
def parcels(tmp_path, monkeypatch):
    """A file that teaches, whose answers count as 3 tokens read and 2 written."""
    from distill_dagster.teachers import recorded

    look_up = recorded.Backend._response

    def counted(self, request):
        from dataclasses import replace

        return replace(look_up(self, request), input_tokens=3, output_tokens=2)

    monkeypatch.setattr(recorded.Backend, "_response", counted)
    made = tiny.parcels(tmp_path / "parcels")
    (made.folder / "assets_config" / "prices.yaml").write_text(PRICES, "utf-8")
    (made.folder / "assets_config" / "teacher.yaml").write_text(TEACHER + "prices: paper\n", "utf-8")
    rows = [{"text": row["text"], "said": row["colour"]} for row in made.lines("seeds.jsonl")]
    made.write_lines("answers.jsonl", rows)
    return made


def calls(made):
    one = made["teacher_outputs"]
    return parquet.read_table(one.version.place / "runs" / one.run / "call.parquet").to_pylist()


def test_what_a_kept_record_cost(parcels):
    """3 tokens at 1.5 and 2 at 4 are 12.5 micro-units a call, rounded up to 13."""
    made = parcels.run(NAMES)
    rows = calls(made)
    assert rows and {row["cost_micros"] for row in rows} == {13}
    cost = made["filtered_dataset"].record["notes"]["cost"]
    kept = made["filtered_dataset"].record["notes"]["funnel"]["kept"]
    assert cost["cost_micros"] == 13 * len(rows) and cost["kept"] == kept < len(rows) + 1
    assert cost["per_kept_micros"] == -(-13 * len(rows) // kept)
    assert cost["cost per kept record"] == f"0.{cost['per_kept_micros']:06d} EUR"


def test_answers_paid_earlier_still_cost_what_they_cost(parcels):
    first = parcels.run(NAMES)
    paid = first["filtered_dataset"].record["notes"]["cost"]["cost_micros"]
    parcels.edit("pipeline.yaml", "[refusal, exact_duplicate]", "[exact_duplicate]")
    again = parcels.run(NAMES)
    assert again["teacher_outputs"].reused and not again["filtered_dataset"].reused
    assert again["filtered_dataset"].record["notes"]["cost"]["cost_micros"] == paid
    # A row more: one question is asked, the others are listed at 0, and the data set cost all of them.
    parcels.append("seeds.jsonl", '{"text": "a wholly red new thing", "colour": "red", "depot": "u1"}\n')
    parcels.append("answers.jsonl", '{"text": "never asked", "said": "red"}\n')
    asked = calls(parcels.run(NAMES))
    assert {row["cost_micros"] for row in asked} == {13}  # the file changed, and so did its revision


def test_a_budget_stops_a_run_that_goes_on_when_it_is_raised(parcels):
    parcels.append("teacher.yaml", "budget: {calls: 5}\n")
    with pytest.raises(BudgetError, match="5 of 5 calls are made") as caught:
        parcels.run(NAMES)
    assert "run again" in caught.value.next_step and "teacher_outputs" not in {
        key.split("/")[1] for key in parcels.versions()
    }
    parcels.edit("teacher.yaml", "calls: 5", "calls: 500")
    made = parcels.run(NAMES)
    rows = calls(made)
    assert sum(row["reused"] for row in rows) == 5
    assert sum(row["cost_micros"] for row in rows) == 13 * (len(rows) - 5)
    assert made["filtered_dataset"].record["notes"]["cost"]["cost_micros"] == 13 * len(rows)


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("teacher.yaml", "prices: paper", "prices: papr", "no prices are named 'papr'. Did you mean 'paper'?"),
        ("prices.yaml", "domain:teacher", "other", "have no price of model 'domain:teacher'"),
        ("teacher.yaml", "prices: paper", "budget: {money: 1.0}", "a budget in `money` needs `prices`"),
        ("teacher.yaml", "prices: paper", "budget: {}", "at least one of `money`, `tokens` and `calls`"),
    ],
)
def test_check_names_what_prices_and_budgets_lack(parcels, file, old, new, says):
    assert check(parcels.folder / "assets_config") == []
    parcels.edit(file, old, new)
    problems = check(parcels.folder / "assets_config")
    assert len(problems) == 1 and says in str(problems[0])
