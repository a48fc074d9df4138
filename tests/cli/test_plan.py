"""`distill-dagster plan`: what a student's training takes, with nothing downloaded."""

import json
from pathlib import Path

import pytest
from pipeline import tiny
from pipeline.tiny import Tiny
from terminal import command

pytestmark = pytest.mark.needs_torch

REPO = Path(__file__).resolve().parents[2]
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
    project.edit("pipeline.yaml", "vocabulary: 300", "revision: abc")
    command(project, "plan", "finance", HF_HUB_OFFLINE="1").refused("nobody/nothing", "student.architecture")
    project.edit("pipeline.yaml", "revision: abc", "revision: abc, architecture: ./none.json")
    command(project, "check").refused("none.json", "architecture")
    (project.folder / "assets_config" / "none.json").write_text('{"hidden_size": 8}', "utf-8")
    command(project, "plan", "finance").refused("model_type")
    # What only a plan reads makes nothing stale.
    from distill_dagster.config.models import StudentOptions, identity

    assert identity(StudentOptions(architecture="a.json")) == identity(StudentOptions())


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
