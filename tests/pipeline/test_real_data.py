"""The examples on real data run from their YAML files: a pilot on a few records, with a few steps."""

import json
import re
from pathlib import Path

import pytest

from distill_dagster.lineage.engine import Services
from distill_dagster.settings import Settings
from distill_dagster.stages.project import Project
from pipeline.nursery import Start

pytestmark = [pytest.mark.needs_torch, pytest.mark.real_data]

ITEMS = 12


#: Folder of each pipeline.
EXAMPLES = {
    "banking77": "banking77",
    "banking77_encoder": "banking77",
    "cqa": "cqa",
    "overruling": "overruling",
    "pubmedqa": "pubmedqa",
    "stories": "stories",
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_end_to_end(
    repo: Path, real_data: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILL_REAL_DATA", str(real_data))
    monkeypatch.setenv("DISTILL_REAL_WEIGHTS", str(real_data.parent / "weights"))
    config = tmp_path / "assets_config"
    config.mkdir()
    for file in (repo / "examples" / "real_data" / EXAMPLES[name]).glob("*.yaml"):
        (config / file.name).write_text(re.sub(r"steps: \d+", "steps: 4", file.read_text("utf-8")), "utf-8")
    project = Project(Settings(config, str(tmp_path / "store"), tmp_path / "state"), limit=ITEMS)
    nodes = [node for node in project.needed(name) if node.key[1] != "deployed_student"]  # four steps pass no gate
    made = {one.node.key[1]: one for one in project.run(nodes, Services(project.state, start=Start))}
    assert made["teacher_outputs"].record["notes"]["calls"]["asked"] > 0
    assert made["filtered_dataset"].version.table("example").num_rows > 0
    report = json.loads(made["eval_report"].version.local("report.json").read_text("utf-8"))
    assert "uthored" not in report["notice"] and "ictional" not in report["notice"]
    assert made["eval_set"].record["notes"]["counts"]["records"] >= ITEMS
