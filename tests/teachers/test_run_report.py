"""What a run says of its asking: how much was asked and how much was known, and on the way calls, tokens and money."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fault_server import FaultServer
from pipeline import tiny
from pipeline.tiny import Tiny
from test_openai_pipeline import TEACHER, colour, notes, unlabeled_text
from typer.testing import CliRunner

from distill_dagster.lineage.engine import Services, head_version

DATA_HALF = (*tiny.SOURCE, *tiny.DATA)
PRICES = """\
kind: prices
name: list_prices
currency: USD
entries: [{model: test-model, valid_from: "2026-01-01", input_per_million: 500.0, output_per_million: 900.0}]
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TEACHER_KEY", "sk-of-no-use")
    with FaultServer(reply=colour) as running:
        yield running


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Tiny], str]:
    """`distill-dagster run` of a project's data half; what it printed."""
    from distill_dagster.cli import app

    def run(project: Tiny) -> str:
        for name, value in {**project.environment, "COLUMNS": "200"}.items():
            monkeypatch.setenv(name, value)
        said = CliRunner().invoke(app, ["run", "parcels", "--no-dagster", "--select", ",".join(DATA_HALF)])
        assert said.exit_code == 0, said.output
        return " ".join(said.output.split())

    return run


def test_a_percent_of_the_seeds_changed(server: FaultServer, tmp_path, command) -> None:
    project = tiny.parcels(tmp_path / "parcels")
    (project.folder / "assets_config" / "teacher.yaml").write_text(TEACHER.replace("URL", server.url), "utf-8")
    project.append("source.yaml", "split: {teacher: 0, gold: 0, unlabeled: 1.0}\n")
    project.write_lines("seeds.jsonl", tiny.rows("s", 400))
    said = command(project)
    assert server.requests == 400 and "400 teacher calls, 0 trained" in said
    lines = project.lines("seeds.jsonl")
    for number in range(0, 400, 100):  # 1 %
        lines[number]["text"] = unlabeled_text(lines[number]["depot"], 1000 * (number + 1))
        lines[number]["colour"] = "red"
    project.write_lines("seeds.jsonl", lines)
    said = command(project)
    assert server.requests == 404
    assert "4 teacher calls, 396 answers known before" in said
    assert {name: notes(project)["calls"][name] for name in ("asked", "reused")} == {"asked": 4, "reused": 396}
    found = head_version(project.project().store, ("parcels", "teacher_outputs"))
    assert found is not None
    calls = found[0].side_table(found[1], "call").to_pylist()
    assert sum(not row["reused"] for row in calls) == 4


def test_progress_tells_calls_tokens_money_and_failures(server: FaultServer, tmp_path) -> None:
    project = tiny.parcels(tmp_path / "parcels")
    config = project.folder / "assets_config"
    teacher = TEACHER.replace("URL", server.url).replace("prompt_style", "prices: list_prices\nprompt_style")
    (config / "teacher.yaml").write_text(teacher + "  max_in_flight: 2\n", "utf-8")
    (config / "prices.yaml").write_text(PRICES, "utf-8")
    server.script = ["", "500", "html"]
    heard: list[tuple[int, int | None, str]] = []
    at_work = project.project()
    services = Services(at_work.state, progress=lambda done, total, note="": heard.append((done, total, note)))
    at_work.run(at_work.select("parcels", DATA_HALF), services)
    done, total, note = [entry for entry in heard if entry[2].startswith("teacher: labeling")][-1]
    assert done == total == 23
    assert note.startswith("teacher: labeling, round 1, 25 calls (") and "/s)" in note
    cost, tokens = (notes(project)["calls"][name] for name in ("cost_micros", "output_tokens"))
    assert cost and tokens and f"0.{cost:06d}".rstrip("0") in note and " USD" in note and " tokens" in note
    assert "server 1" in note and "malformed 1" in note


def test_the_line_of_the_answers_says_how_many_failed(server: FaultServer, tmp_path, command) -> None:
    project = tiny.parcels(tmp_path / "parcels")
    teacher = TEACHER.replace("URL", server.url).replace("attempts: 3", "attempts: 1\n  max_in_flight: 1")
    (project.folder / "assets_config" / "teacher.yaml").write_text(teacher, "utf-8")
    server.script = ["", "500", "500"]
    said = command(project)
    line = said.partition("parcels/teacher_outputs")[2].partition("parcels/filtered_dataset")[0]
    assert "2 of 23 failed (server 2)" in line and said.count("failed (") == 1
    assert "failed (" not in command(project)
