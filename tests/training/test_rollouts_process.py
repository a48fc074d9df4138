"""Learning from own samples in the training process: rewards by a domain's name, and a kill -9 on the way."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import distill_dagster
from distill_dagster.errors import PluginError, TrainingError
from distill_dagster.records.messages import from_chat
from distill_dagster.records.tables import build
from distill_dagster.training.launch import launch

pytestmark = pytest.mark.needs_torch

MODELS = Path(distill_dagster.__file__).parent / "domains" / "finance" / "models"
TERMS: dict[str, dict[str, Any]] = {
    "grpo": {"prompts": 3, "group": 4, "every": 4, "buffer": 20, "well_formed": 0.1, "cut": 0.2, "kl": 0.05},
    "gkd": {"prompts": 4, "on_policy": 0.5, "every": 4, "buffer": 6},
}


def task(folder: Path, name: str) -> dict[str, Any]:
    """A task on covenants, as a stage writes it."""
    from distill_dagster.domains.registry import discover

    domain = discover().get("finance")
    assert domain.items is not None
    items = list(domain.items("covenant", "gold", 24, 17))
    rows = [
        {
            "origin": "gold",
            "task": "covenant",
            "split": "train",
            "messages": from_chat(
                [{"role": "user", "content": one.text}, {"role": "assistant", "content": one.answer}]
            ),
        }
        for one in items
    ]
    table = build("example", rows)
    pq.write_table(table, folder / "examples.parquet")
    known = [
        {"record_id": record, "task": "covenant", "facts": json.dumps(dict(one.facts)), "answer": None}
        for record, one in zip(table["record_id"].to_pylist(), items, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(known), folder / "rewards.parquet")
    recipe = {"steps": 12, "batch_tokens": 512, "checkpoint_every": 4, "log_every": 2, "learning_rate": 1e-4}
    made = {
        "examples": str(folder / "examples.parquet"),
        "base": str(MODELS / "teacher"),
        "recipe": {**recipe, "objective": {name: TERMS[name]}},
        "out": str(folder / "out"),
        "name": "finance/student_checkpoint",
    }
    if name == "gkd":
        return {**made, "teacher": {"path": str(MODELS / "teacher"), "dtype": "fp32"}}
    path = str(folder / "rewards.parquet")
    return {**made, "rewards": {"path": path, "domain": "finance", "version": "1", "labels": {"covenant": []}}}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grpo", "gkd"])
def test_a_killed_child_resumes_and_ends_alike(tmp_path: Path, name: str) -> None:
    from distill_dagster.training.folder import digest

    asked = task(tmp_path, name)

    def curve(work: str) -> list[dict]:
        rows = [json.loads(line) for line in (tmp_path / work / "metrics.jsonl").read_text("utf-8").splitlines()]
        timed = ("elapsed", "tokens_per_second", "generation_share")
        return [{key: value for key, value in row.items() if key not in timed} for row in rows]

    whole = launch(asked, tmp_path / "one")
    wanted = digest(tmp_path / "out")
    # The points of a checkpoint are 5; this kills the child while the second one is being written.
    with pytest.raises(TrainingError, match="SIGKILL"):
        launch(asked, tmp_path / "two", env={"DISTILL_FAULT_AT": "13"})
    again = launch(asked, tmp_path / "two")
    assert again["resumed_from"] in (4, 8) and whole["resumed_from"] == 0
    assert digest(tmp_path / "out") == wanted and curve("two") == curve("one")
    assert again["samples"] == whole["samples"] > 0
    if name == "grpo":
        assert any(row["right"] > 0 for row in curve("one"))


def test_a_domain_that_is_not_here_is_named(tmp_path: Path) -> None:
    from distill_dagster.training import process, rewards

    asked = task(tmp_path, "grpo")
    with pytest.raises(PluginError, match="unknown domain 'financ'.*'finance'.*installed in this environment"):
        rewards.load({**asked["rewards"], "domain": "financ"})
    (tmp_path / "task.json").write_text(json.dumps({**asked, "rewards": None, "work": str(tmp_path / "work")}))
    assert process.main([str(tmp_path / "task.json")]) == 1
    found = json.loads((tmp_path / "work" / "result.json").read_text())
    assert found["kind"] == "TrainingError" and "nothing judges" in found["reason"]
