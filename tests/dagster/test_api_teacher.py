"""A teacher behind an API through Dagster and MLflow: the checks say what the server did, and the key is nowhere."""

import dagster as dg
import pytest
from pipeline import tiny
from places import at_home, run
from teachers.fault_server import FaultServer

pytestmark = [pytest.mark.needs_torch, pytest.mark.slow]

CANARY = "sk-canary-0ddba11"
DATA_HALF = (*tiny.SOURCE, *tiny.DATA)
TEACHER = """\
kind: teacher
name: nano_teacher
backend: openai
model: test-model
revision: "1"
prompt_style: short
endpoint: {url: URL, api_key_env: TEACHER_KEY, attempts: 1, max_in_flight: 1, deadline: 20.0}
"""


def check(instance, name):
    """The newest evaluation of a check of the teacher's outputs."""
    key = dg.AssetCheckKey(dg.AssetKey(["parcels", "teacher_outputs"]), name)
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    return record.event.dagster_event.asset_check_evaluation_data


def test_checks_tell_of_failures_and_of_another_model(tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", CANARY)
    echo = '{"error": {"message": "Incorrect: {authorization}"}}'
    with FaultServer() as server:
        project = tiny.parcels(tmp_path)
        (tmp_path / "assets_config" / "teacher.yaml").write_text(TEACHER.replace("URL", server.url), "utf-8")
        server.script = ["html", "500"]
        run(project, DATA_HALF)
        with at_home(project), dg.DagsterInstance.get() as instance:
            answered, served = check(instance, "answered"), check(instance, "served_model")
        assert not answered.passed and answered.metadata["failures"].value == "malformed: 1, server: 1"
        assert served.passed and served.metadata["models"].value == "test-model"

        asked = server.requests
        run(project, DATA_HALF)
        with at_home(project), dg.DagsterInstance.get() as instance:
            assert check(instance, "answered").passed
        assert server.requests == asked + 2

        server.model = "test-model-2026-12-12"
        project.append("source.yaml", "prompts: [{task: colour, style: short, user: 'Which? {{ input }}'}]\n")
        run(project, DATA_HALF)
        with at_home(project), dg.DagsterInstance.get() as instance:
            answered, served = check(instance, "answered"), check(instance, "served_model")
        assert answered.passed and not served.passed
        assert served.metadata["models"].value == "test-model, test-model-2026-12-12"

        server.status = (401, echo)
        project.edit("teacher.yaml", 'revision: "1"', 'revision: "2"')
        with pytest.raises(Exception, match="does not accept the key in TEACHER_KEY"):
            run(project, DATA_HALF)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("dagster" in path.parts for path in files) and any("mlflow" in str(path) for path in files)
    assert not [path for path in files if CANARY.encode() in path.read_bytes()]
