"""`distill-dagster plan`: what a student's training takes, with nothing downloaded."""

import json
from pathlib import Path

import pytest
from pipeline import tiny
from pipeline.tiny import Tiny
from terminal import command

pytestmark = pytest.mark.needs_torch

REPO = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef" * 2 + "01234567"
BASE = 'base: "preset:nano", vocabulary: 300'
EXAMPLE = str(REPO / "examples" / "pretrained")


@pytest.fixture
def project(tmp_path: Path) -> Tiny:
    return tiny.finance(tmp_path)


def planned(project: Tiny, *arguments: str) -> dict:
    said = command(project, "plan", *arguments, "--json", HF_HUB_OFFLINE="1")
    assert said.code == 0, said
    return json.loads(said.out)


def test_a_plan_of_the_pretrained_example_needs_no_download(project: Tiny, monkeypatch) -> None:
    import socket

    def refuse(*arguments, **options):
        raise AssertionError("a plan opens no connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    whole = planned(project, "pretrained", "--config", EXAMPLE)
    assert whole["sizes"]["counts"]["total"] == whole["sizes"]["trained"] == 134_515_008
    assert whole["read"] == "smollm2-135m-instruct.json" and whole["measured"] is None
    assert whole["seconds"] > 0 and (whole["steps"], whole["control_steps"]) == (300, 300)
    small = planned(project, "pretrained_lora", "--config", EXAMPLE)
    assert small["sizes"]["trained"] == 4_884_480 and small["sizes"]["peak"] < whole["sizes"]["peak"]


@pytest.mark.slow
def test_a_dry_run_stands_beside_the_estimate(project: Tiny) -> None:
    found = planned(project, "finance", "--dry-run")
    assert found["base"] == found["read"] == "preset:nano"
    one = found["measured"]
    assert one["layers"] == found["sizes"]["counts"]["layers"] == 2 and one["seconds"] > 0
    assert 0.5 < one["expected_peak"] / one["peak"] < 2
    said = command(project, "plan", "finance", "--dry-run")
    assert said.code == 0 and "measured on random weights" in said.out and "nothing was downloaded" in said.out


def test_a_hub_model_that_nobody_described(project: Tiny) -> None:
    project.edit("pipeline.yaml", "preset:nano", "nobody/nothing")
    project.edit("pipeline.yaml", "vocabulary: 300", f"revision: {COMMIT}")
    command(project, "plan", "finance", HF_HUB_OFFLINE="1").refused("nobody/nothing", "student.architecture")
    project.edit("pipeline.yaml", COMMIT, f"{COMMIT}, architecture: ./none.json")
    command(project, "check").refused("none.json", "architecture")
    (project.folder / "assets_config" / "none.json").write_text('{"hidden_size": 8}', "utf-8")
    command(project, "plan", "finance").refused("model_type")
    # What only a plan reads makes nothing stale.
    from distill_dagster.config.models import StudentOptions, identity

    assert identity(StudentOptions(architecture="a.json")) == identity(StudentOptions())


def test_a_student_of_its_teachers_layers(tmp_path: Path) -> None:
    """An encoder's preset that is fitted; a classifier of the task's two labels, with one of its two layers."""
    from dataclasses import replace

    from distill_dagster.training import presets

    made = tiny.parcels(tmp_path)
    made.edit("teacher.yaml", "preset:nano", "preset:encoder_tiny")
    made.edit("pipeline.yaml", BASE, "base: teacher, layers: 1")
    found = planned(made, "parcels")
    encoder = presets.find("encoder_tiny")
    assert isinstance(encoder, presets.EncoderPreset)
    assert found["sizes"]["counts"]["total"] == replace(encoder, layers=1).parameters(2048, 2)
    assert (found["base"], found["read"], found["labels"]) == ("teacher", "preset:encoder_tiny", 2)
    said = command(made, "plan", "parcels")
    assert "a classifier of 2 labels" in said.out
    made.edit("pipeline.yaml", "layers: 1", "layers: 3")
    command(made, "plan", "parcels").refused("3 layers are wanted, and there are 2")
    made.edit("pipeline.yaml", "layers: 3", "layers: [1]")
    made.edit("pipeline.yaml", "training: {", "training: {adapter: {r: 4}, ")
    command(made, "plan", "parcels").refused("training.adapter", "a classifier trains whole")


def test_a_student_from_an_encoders_configuration(tmp_path: Path) -> None:
    made = tiny.parcels(tmp_path)
    config = {"model_type": "distilbert", "dim": 32, "n_heads": 2, "n_layers": 4, "hidden_dim": 64, "vocab_size": 300}
    (made.folder / "assets_config" / "config.json").write_text(json.dumps(config), "utf-8")
    text = f"base: owner/name, revision: {COMMIT}, architecture: ./config.json"
    made.edit("pipeline.yaml", BASE, text)
    found = planned(made, "parcels")
    assert found["labels"] == 2 and found["sizes"]["counts"]["layers"] == 4
    made.edit("pipeline.yaml", "./config.json", "./config.json, layers: [0, 2]")
    assert planned(made, "parcels")["sizes"]["counts"]["layers"] == 2


def test_a_head_is_fitted_to_an_encoder_alone(project: Tiny) -> None:
    config = {"model_type": "llama", "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    (project.folder / "assets_config" / "config.json").write_text(json.dumps(config), "utf-8")
    text = f"base: owner/name, revision: {COMMIT}, architecture: ./config.json"
    project.edit("pipeline.yaml", BASE, text)
    project.edit("pipeline.yaml", "training: {", "training: {linear_probe: {}, ")
    command(project, "plan", "finance").refused("training.linear_probe", "a model that writes")


def test_a_student_of_another_pipeline_is_as_that_would_be(project: Tiny) -> None:
    found = planned(project, "finance")
    text = "kind: pipeline\nsource: finance\nname: next\ndata_from: finance\n"
    (project.folder / "assets_config" / "next.yaml").write_text(
        text + "student: {base: 'pipeline:finance@champion'}\n", "utf-8"
    )
    next_one = planned(project, "next")
    assert next_one["sizes"]["counts"] == found["sizes"]["counts"] and next_one["read"] == "preset:nano"


@pytest.mark.slow
@pytest.mark.timeout(1500)  # on a machine that others keep busy
@pytest.mark.parametrize("name", ["pretrained", "pretrained_lora"])
def test_a_dry_run_of_the_pretrained_student(project: Tiny, tmp_path: Path, name: str) -> None:
    """135 million parameters with random weights take a step here, in short batches."""
    import shutil

    folder = tmp_path / "pretrained"
    shutil.copytree(EXAMPLE, folder)
    for file in ("full.yaml", "lora.yaml"):
        text = (folder / file).read_text("utf-8")
        short = text.replace("batch_tokens: 1024", "batch_tokens: 64").replace("max_length: 512", "max_length: 32")
        (folder / file).write_text(short, "utf-8")
    found = planned(project, name, "--dry-run", "--config", str(folder))["measured"]
    assert found["seconds"] > 0 and 1 <= found["layers"] <= 30
    assert 0.5 < found["expected_peak"] / found["peak"] < 1.6
