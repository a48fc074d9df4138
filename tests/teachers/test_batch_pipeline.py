"""A pipeline whose teacher is asked in batch jobs, from YAML: answers, prices, and no question twice."""

from __future__ import annotations

import pytest
from batch_server import BatchServer
from fault_server import FaultServer
from pipeline import tiny
from pipeline.kinds import table

WANTED = (*tiny.SOURCE, *tiny.DATA)
TEACHER = """\
kind: teacher
name: nano_teacher
backend: openai
model: test-model
revision: "1"
prompt_style: short
prices: list
endpoint: {url: URL, deadline: 60.0, mode: batch, batch: {poll: 0.001, most: 10}}
"""
PRICES = """\
kind: prices
name: list
entries:
  - {model: test-model, valid_from: "2020-01-01", input_per_million: 2, output_per_million: 8,
     batch_input_per_million: 1, batch_output_per_million: 4}
"""


def colour(body, sound):
    """The colour that the question names."""
    said = next(word for word in body["messages"][-1]["content"].split() if word in ("red", "green"))
    sound["choices"][0]["message"]["content"] = said
    return sound


def test_a_pipeline_by_batch_jobs(tmp_path):
    made = tiny.parcels(tmp_path)
    config = made.folder / "assets_config"
    (config / "prices.yaml").write_text(PRICES, "utf-8")
    with BatchServer(reply=colour) as server:
        (config / "teacher.yaml").write_text(TEACHER.replace("URL", server.url), "utf-8")
        found = made.run(WANTED)
        assert len(server.jobs) == 3 and sum(server.billed.values()) == len(server.billed) == 23
    for row in table(found["teacher_outputs"], "candidate"):
        *_, shown, said = row["messages"]
        assert said["parts"][0]["text"] in shown["parts"][0]["text"].split()
    notes = found["teacher_outputs"].record["notes"]
    assert notes["calls"]["cost_micros"] == notes["paid"]["cost_micros"] == 23 * (7 * 1 + 3 * 4)
    assert notes["served_model"]["here"] == {"test-model": 23}
    # The same questions live: the journal has them all.
    version = found["teacher_outputs"].version.version
    with FaultServer(reply=colour) as live:
        (config / "teacher.yaml").write_text(TEACHER.replace("URL", live.url).replace("batch,", "live,"), "utf-8")
        again = made.run(WANTED)
        assert live.requests == 0 and again["teacher_outputs"].version.version == version


@pytest.mark.parametrize("batch", ["{poll: 0}", "{most: 60000}", "{completion_window: soon}"])
def test_what_a_job_may_not_be(tmp_path, batch):
    from distill_dagster.config.load import examine

    made = tiny.parcels(tmp_path)
    text = TEACHER.replace("URL", "http://127.0.0.1:1/v1").replace("{poll: 0.001, most: 10}", batch)
    (made.folder / "assets_config" / "prices.yaml").write_text(PRICES, "utf-8")
    (made.folder / "assets_config" / "teacher.yaml").write_text(text, "utf-8")
    assert any("batch" in problem.key for problem in examine(made.folder / "assets_config")[1])
