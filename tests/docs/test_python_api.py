"""The Python of docs/python_api.md, run on a tiny project, and what is exported for other trainers."""

import json
import re
import runpy
from pathlib import Path

import pytest
from pipeline.finished import finance, finished_finance
from pipeline.tiny import Tiny

from distill_dagster.lineage.engine import head_version
from distill_dagster.stages.export import export

__all__ = ["finance", "finished_finance"]

pytestmark = [pytest.mark.slow, pytest.mark.needs_torch]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python_api.md"


def snippets(section: str) -> list[str]:
    text = PAGE.read_text("utf-8").split(f"## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(cell: str, folder: Path, names: dict) -> dict:
    """The names after a cell."""
    file = folder / "cell.py"
    file.write_text(cell, "utf-8")
    return runpy.run_path(str(file), {name: value for name, value in names.items() if not name.startswith("__")})


def test_one_stage_in_a_notebook(finance: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    for name, value in finance.environment.items():
        monkeypatch.setenv(name, value)
    notebook: dict = {}
    for cell in snippets("One stage in a notebook"):
        notebook = run(cell, tmp_path, notebook)
    printed = capsys.readouterr().out
    assert notebook["made"][0].reused
    assert notebook["version"].version == finance.versions()["finance/seed_set"]
    assert re.search(r"routing +gold +12\b", printed), printed


def test_exports_hold_the_same_examples(finance: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    project = finance.project()
    cell = next(cell for cell in snippets("The training data elsewhere") if "stages.export" in cell)
    notebook = run(cell, tmp_path, {"project": project})
    lines = [json.loads(line) for line in (tmp_path / "finance.jsonl").read_text("utf-8").splitlines()]

    found = head_version(project.store, ("finance", "filtered_dataset"))
    assert found is not None
    rows = found[0].table("example").to_pylist()
    assert notebook["count"] == len(lines) == len(rows) > 0
    for line, row in zip(lines, rows, strict=True):
        assert line["record_id"] == row["record_id"]
        assert [message["role"] for message in line["messages"]][-2:] == ["user", "assistant"]
        assert line["messages"][-1]["content"] == row["messages"][-1]["parts"][0]["text"]
    assert {line["origin"] for line in lines} <= {"gold", "teacher"}
    assert {line["origin"] for line in lines} >= {"gold"}

    from datasets import load_dataset, load_from_disk

    assert export(project, "finance", tmp_path / "folder") == len(lines)
    assert load_from_disk(str(tmp_path / "folder")).to_list() == lines
    data = load_dataset("json", data_files="finance.jsonl", split="train", cache_dir=str(tmp_path / "cache"))
    assert data.select_columns(["messages"])[0] == {"messages": lines[0]["messages"]}
