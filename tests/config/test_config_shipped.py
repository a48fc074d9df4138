"""The files that come with the repository are sound, and the real-data examples read what they say they read."""

from collections import Counter
from pathlib import Path

import pytest

from distill_dagster.config import pipeline_checks, registry
from distill_dagster.config.check import check, render
from distill_dagster.config.load import load_project
from distill_dagster.domains import sampler
from distill_dagster.domains.registry import discover
from distill_dagster.records import tables

EXAMPLES = ("banking77", "overruling", "pubmedqa", "stories", "svamp")


@pytest.fixture(autouse=True)
def known_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_checks, "blocks", registry.blocks)


@pytest.mark.parametrize(
    "folder",
    [
        "assets_config",
        "examples/budget",
        "examples/real_data",
        "examples/knowledge",
        "examples/own_samples",
        "examples/pretrained",
    ],
)
def test_shipped_files_have_no_problems(repo: Path, folder: str) -> None:
    problems = check(repo / folder, files="real_data" not in folder)
    assert not problems, render(problems, repo / folder)


@pytest.mark.parametrize("folder", ["assets_config", "examples"])
def test_every_yaml_file_names_the_schema_for_editors(repo: Path, folder: str) -> None:
    files = sorted((repo / folder).rglob("*.yaml"))
    assert files
    for path in files:
        first = path.read_text(encoding="utf-8").splitlines()[0]
        reference = first.removeprefix("# yaml-language-server: $schema=")
        assert (path.parent / reference).resolve() == repo / "assets_config" / "schema.json", path


def test_the_built_in_pipelines(repo: Path) -> None:
    project = load_project(repo / "assets_config")
    for name in ("finance", "law", "medicine"):
        assert project.pipelines[name].teacher == f"{name}_small"
        assert project.sources[name].domain == name
        assert not project.pipelines[name].schedule.enabled


@pytest.mark.real_data
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_reads_its_data(repo: Path, real_data: Path, name: str) -> None:
    domains = discover()
    project = load_project(repo / "examples" / "real_data" / name, domains)
    config = project.sources[name]
    folder = project.file_of("source", name).parent
    domain = domains.get(config.domain)
    counts: Counter[str] = Counter()
    for group in ("seed", "evaluation"):
        table = tables.build("seed", sampler.records(config, domain, group, folder))
        counts.update(table["part"].to_pylist())
        assert len(set(table["record_id"].to_pylist())) == table.num_rows
    expected = {"banking77": 3080, "overruling": 386, "pubmedqa": 500, "stories": 85, "svamp": 200}
    assert counts["test"] == expected[name]
    assert counts["unlabeled"] > 100 and counts["validation"] > 20
    labels = {"banking77": 77, "overruling": 2, "pubmedqa": 3, "stories": 0, "svamp": 0}
    assert [len(task.labels) for task in sampler.task_specs(config, domain, folder)] == [labels[name]]
