"""Log-probabilities captured with the calls, from YAML: kept as a table, and taught to a student of the same tokens."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import pytest
from teachers.fault_server import FaultServer

from distill_dagster.config.load import examine
from distill_dagster.errors import TrainingError
from pipeline import tiny
from pipeline.kinds import MODEL, table
from pipeline.tiny import Tiny

pytestmark = pytest.mark.needs_torch

BASE = MODEL.parent / "student_base"
WANTED = [*tiny.SOURCE, *tiny.DATA, "initial_student", "teacher_signals"]
TEACHER = """\
kind: teacher
name: nano_teacher
backend: openai
model: test-model
revision: "1"
prompt_style: short
endpoint: {url: URL, deadline: 200.0}
"""
OTHER = {"red": "green", "green": "red"}


@cache
def pieces(text: str) -> list[str]:
    """An answer in the student's own tokens."""
    from distill_dagster.models import folder

    tokenizer = folder.load_tokenizer(BASE)
    return [tokenizer.decode([number]) for number in tokenizer.encode(text, add_special_tokens=False)]


def colour(body, sound, split=pieces):
    """The colour that the question names, with three quarters of the mass at each token, and others listed."""
    said = next(word for word in body["messages"][-1]["content"].split() if word in OTHER)
    choice = sound["choices"][0]
    choice["message"]["content"] = f" {said}\n"
    others = [(OTHER[said], 0.125), ("no token of anybody", 0.0625)]
    entries = [{"token": text, "logprob": math.log(0.75)} for text in (" ", *split(said), "\n")]
    for entry in entries:
        tops = [(entry["token"], 0.75), *others]
        entry["top_logprobs"] = [{"token": text, "logprob": math.log(mass)} for text, mass in tops]
    if body.get("logprobs"):
        assert body["top_logprobs"] == 4
        choice["logprobs"] = {"content": entries}
    return sound


def project(folder: Path, server: FaultServer) -> Tiny:
    assert pieces("red") and pieces("green")  # what takes long is done before the server is asked
    made = tiny.parcels(folder)
    (made.folder / "assets_config" / "teacher.yaml").write_text(TEACHER.replace("URL", server.url), "utf-8")
    made.edit("pipeline.yaml", 'base: "preset:nano", vocabulary: 300', f'base: "{BASE}"')
    made.edit("pipeline.yaml", "filtering: [refusal, ", "knowledge: [{name: feature, top: 4}]\nfiltering: [")
    objective = "objective: {sft: 0.5, divergence: {weight: 0.5, k: 3}}"
    text = (made.folder / "assets_config" / "pipeline.yaml").read_text("utf-8")
    text = text.replace("log_every: 2}", f"log_every: 2, {objective}}}")
    (made.folder / "assets_config" / "pipeline.yaml").write_text(text, "utf-8")
    return made


@pytest.mark.slow
def test_a_student_learns_from_probabilities_that_came_with_the_answers(tmp_path):
    with FaultServer(reply=colour) as server:
        made = project(tmp_path, server)
        found = made.run([*WANTED, "student_checkpoint"])
        assert server.requests == 23
        features = table(found["teacher_outputs"], "feature")
        assert len(features) == 23
        for row in features:
            assert "".join(token["token"] for token in row["tokens"]).strip() == row["answer"]
            for token in row["tokens"]:
                assert [round(math.exp(one["logprob"]), 6) for one in token["top"]] == [0.75, 0.125, 0.0625]
                assert math.exp(token["rest"]) == pytest.approx(0.0625)
        counts = found["teacher_signals"].record["notes"]["counts"]
        examples = table(found["filtered_dataset"], "example")
        taught = [row for row in examples if row["origin"] == "teacher"]
        assert counts["records"] == len(examples)
        assert counts["taught"] == sum(len(pieces(row["messages"][-1]["parts"][0]["text"])) for row in taught)
        assert counts["listed"] == 3 * counts["taught"] and counts["unknown"] >= counts["taught"]
        lines = found["student_checkpoint"].version.place / "runs" / found["student_checkpoint"].run
        first = json.loads((lines / "student_metrics.jsonl").read_text("utf-8").splitlines()[0])
        assert first["divergence"] > 0 and first["sft"] > 0
        # Nothing is asked again, and the same signals come out.
        again = made.run(WANTED)
        assert server.requests == 23 and again["teacher_signals"].reused
        made.edit("pipeline.yaml", "k: 3", "k: 5")
        with pytest.raises(TrainingError, match="k is 5, and the calls kept 4"):
            made.run(WANTED)
        made.edit("pipeline.yaml", "k: 5", "k: 4, temperature: 2")
        with pytest.raises(TrainingError, match="temperature 1 alone"):
            made.run(WANTED)


def test_other_tokens_are_refused_with_the_place(tmp_path):
    with FaultServer(reply=lambda body, sound: colour(body, sound, lambda text: [text[:1], text[1:]])) as server:
        made = project(tmp_path, server)
        with pytest.raises(
            TrainingError, match=r"token \d of its answer is '.*' for the teacher|tokens for the teacher"
        ):
            made.run(WANTED)
        assert len(table(made.run(tiny.DATA)["teacher_outputs"], "feature")) == 23


def test_an_answer_without_probabilities_is_a_failure(tmp_path):
    def silent(body, sound):
        sound = colour(body, sound)
        del sound["choices"][0]["logprobs"]
        return sound

    with FaultServer(reply=silent) as server:
        made = project(tmp_path, server)
        found = made.run([*tiny.SOURCE, *tiny.DATA])
        rows = table(found["teacher_outputs"], "candidate")
        assert {(row["status"], row["failure"]) for row in rows} == {("failed", "no_logprobs")}
        assert table(found["teacher_outputs"], "feature") == []


def test_a_local_teacher_is_not_asked_so(tmp_path):
    made = tiny.parcels(tmp_path)
    made.edit("pipeline.yaml", "filtering: [refusal, ", "knowledge: [feature]\nfiltering: [")
    assert any("gives no log-probabilities" in str(one) for one in examine(made.folder / "assets_config")[1])
