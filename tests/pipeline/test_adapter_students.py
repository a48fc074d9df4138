"""Students with adapters, from YAML: sealed alone or merged, examined, deployed, and started from."""

import json
from pathlib import Path

import pytest

from distill_dagster.config.check import check
from distill_dagster.models import adapter, folder
from pipeline import tiny
from pipeline.tiny import RECIPE, Tiny

pytestmark = [pytest.mark.needs_torch, pytest.mark.slow]

OWN = f"""\
kind: pipeline
source: finance
teacher: nano_teacher
filtering: [refusal, exact_duplicate]
student: {{base: "domain:student_base"}}
training: {RECIPE[:-1]}, adapter: {{r: 4, save: adapter}}}}
control: {{multiples: [1]}}
evaluation: {{resamples: 200}}
gate: {{floor_over_chance: -1.0}}
"""
SECOND = f"""\
kind: pipeline
source: finance
name: second
data_from: finance
student: {{base: "pipeline:finance@champion"}}
training: {RECIPE[:-1]}, adapter: {{targets: [q_proj, v_proj]}}}}
"""


def test_an_adapter_is_examined_deployed_and_started_from(tmp_path: Path) -> None:
    project = tiny.finance(tmp_path)
    config = tmp_path / "assets_config"
    (config / "pipeline.yaml").write_text(OWN, "utf-8")
    (config / "second.yaml").write_text(SECOND, "utf-8")
    made = project.run()
    start = made["initial_student"].version
    for artifact, name in (
        ("student_checkpoint", "model"),
        ("control_checkpoint", "model_1x"),
        ("deployed_student", "model"),
    ):
        place = made[artifact].version.local(name)
        said = adapter.reference(place)
        assert said["digest"] == folder.digest(start.local("model"))
        assert (said["artifact"], said["version"]) == ("finance/initial_student", start.version)
        assert adapter.base_of(place).samefile(start.local("model"))
    record = made["eval_report"].record["notes"]["resources"]["student"]
    whole = folder.parameters(start.local("model"))
    assert whole < record["parameters"] < 1.2 * whole

    second = Tiny(project.folder, "second")
    again = second.run(["initial_student", "student_checkpoint"])
    standing = again["initial_student"].version.local("model")
    assert not adapter.is_adapter(standing) and folder.parameters(standing) == whole
    student = again["student_checkpoint"].version.local("model")
    assert not adapter.is_adapter(student) and folder.parameters(student) == whole
    # Leaving `adapter` out is another action, an older recipe without the word the same one.
    assert "adapter" in json.dumps(again["student_checkpoint"].record["config"])

    text = (config / "teacher.yaml").read_text("utf-8")
    (config / "teacher.yaml").write_text(text.replace("{recipe: {", "{recipe: {adapter: {save: adapter}, "), "utf-8")
    (problem,) = check(config)
    assert "sealed whole" in str(problem) and "adapter" in str(problem)
