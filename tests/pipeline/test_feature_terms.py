"""Students that learn from a teacher's layers, from YAML: the teacher is in memory, and the control trains without."""

import json
from pathlib import Path

import pytest

from distill_dagster.errors import TrainingError
from distill_dagster.lineage.engine import Made
from pipeline import tiny
from pipeline.tiny import RECIPE, Tiny

pytestmark = pytest.mark.needs_torch

PIPELINE = f"""\
kind: pipeline
source: finance
teacher: nano_teacher
filtering: [refusal]
student: {{base: "domain:student_base"}}
training:
  {RECIPE[1:-1].replace(", ", chr(10) + "  ")}
  objective:
    sft: 0.5
    divergence: {{weight: 0.5, k: 8}}
    hidden: {{weight: 0.1, layers: {{0: 0, 1: 2}}}}
    attention: {{kind: kl, heads: mean}}
    relation: {{layers: last, positions: answer}}
control: {{multiples: [1]}}
gate: {{floor_over_chance: -1.0}}
evaluation: {{resamples: 200}}
"""
TEACHER = "kind: teacher\nname: nano_teacher\nmodel: domain:teacher\nprompt_style: short\n"


@pytest.fixture
def project(tmp_path: Path) -> Tiny:
    """A student of a teacher's layers, answers and stored probabilities."""
    made = tiny.finance(tmp_path)
    (tmp_path / "assets_config" / "teacher.yaml").write_text(TEACHER, "utf-8")
    (tmp_path / "assets_config" / "pipeline.yaml").write_text(PIPELINE, "utf-8")
    return made


def rows(made: Made, name: str) -> list[dict]:
    path = made.version.place / "runs" / made.run / f"{name}_metrics.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.slow
def test_hidden_attention_and_relation_from_yaml(project: Tiny) -> None:
    made = project.run()
    first, last = rows(made["student_checkpoint"], "student")[0], rows(made["student_checkpoint"], "student")[-1]
    for name in ("sft", "divergence", "hidden", "attention", "relation"):
        assert first[name] > 0, name
    assert last["loss"] < first["loss"]
    assert {parent.role for parent in made["student_checkpoint"].node.parents} == {
        "data", "start", "teacher", "signals"
    }  # fmt: skip
    # Gold alone has no teacher.
    terms = {"sft", "divergence", "hidden", "attention", "relation"}
    assert set(rows(made["control_checkpoint"], "control_1x")[0]) & terms == {"sft"}
    # What was learned beside the student is not in it.
    from safetensors import safe_open

    with safe_open(made["student_checkpoint"].version.local("model") / "model.safetensors", "pt") as weights:
        assert not [name for name in weights.keys() if "objective" in name]  # noqa: SIM118
    assert made["deployed_student"].version.version
    assert project.run(["student_checkpoint"])["student_checkpoint"].reused

    # Other layers, another student; the captured probabilities stay.
    project.edit("pipeline.yaml", "layers: {0: 0, 1: 2}", "layers: {0: 0, 1: 99}")
    with pytest.raises(TrainingError, match="has no layer 99: it has"):
        project.run(["student_checkpoint"])
    project.edit("pipeline.yaml", "layers: {0: 0, 1: 99}", "layers: uniform")
    again = project.run(["teacher_signals", "student_checkpoint"])
    assert again["teacher_signals"].reused
    assert again["student_checkpoint"].version.version != made["student_checkpoint"].version.version


def test_a_map_that_is_none_is_named_with_its_line(project: Tiny) -> None:
    from distill_dagster.config.load import load_project
    from distill_dagster.domains.registry import discover
    from distill_dagster.errors import ConfigError

    project.edit("pipeline.yaml", "layers: {0: 0, 1: 2}", "layers: {first: 2}")
    with pytest.raises(ConfigError, match=r"first: 2 are not two numbers of layers: give `uniform`"):
        load_project(project.folder / "assets_config", discover())
