"""What a sound folder amounts to: configs by kind and name, with the files they came from."""

from collections.abc import Callable
from pathlib import Path

import pytest

from distill_dagster.config.check import check, render
from distill_dagster.config.load import load_project
from distill_dagster.config.models import Block, DataFile, Recipe, identity
from distill_dagster.config.problems import Problem
from distill_dagster.config.strict import Strict, later
from distill_dagster.config.yaml_reader import Document, read
from distill_dagster.domains.registry import Domains

Found = Callable[..., list[Problem]]


def test_a_project_by_kind_and_name(found: Found, tmp_path: Path, domains: Domains) -> None:
    second = "kind: pipeline\nsource: toy\nname: toy_small\ndata_from: toy\n"
    hidden = tmp_path / ".hidden" / "source.yaml"
    hidden.parent.mkdir()
    hidden.write_text("not: a source\n")
    assert found(second=second) == []
    project = load_project(tmp_path, domains)
    assert set(project.sources) == {"toy"} and set(project.pipelines) == {"toy", "toy_small"}
    assert project.teachers["small"].model == "domain:teacher"
    assert project.file_of("source", "toy") == tmp_path / "source.yaml"
    assert project.file_of("pipeline", "toy") == tmp_path / "pipeline.yaml"
    with pytest.raises(KeyError):
        project.file_of("teacher", "toy")


def test_files_lie_at_any_depth_and_a_relative_folder_will_do(
    tmp_path: Path, domains: Domains, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "config" / "deep" / "er" / "x.yml").write_text("kind: source\ndomain: toy\n")
    monkeypatch.chdir(tmp_path)
    project = load_project(Path("config"), domains)
    assert project.file_of("source", "toy") == tmp_path / "config" / "deep" / "er" / "x.yml"


def test_scalars_follow_the_core_schema(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: [no, on, yes, true, 1e-3, 2031-05-14, 12:30, 0o17, 017, 0x1f, ~, 1_000, -3, .5]\n")
    document = read(path)
    assert isinstance(document, Document)
    assert document.value["a"] == [
        "no", "on", "yes", True, 0.001, "2031-05-14", "12:30", 15, 17, 31, None, "1_000", -3, 0.5,
    ]  # fmt: skip


def test_a_bare_name_is_a_block_without_parameters() -> None:
    assert Block.model_validate("schema") == Block(name="schema")
    assert Block.model_validate({"name": "length", "max_words": 3}).params == {"max_words": 3}


def test_identity_leaves_out_what_only_changes_how() -> None:
    assert identity(Recipe(checkpoint_every=5, log_every=3)) == identity(Recipe())
    assert identity(Recipe(steps=5)) != identity(Recipe())


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": "x.csv", "hub": "a/b"},
        {},
        {"hub": "a/b", "split": "train"},
        {"hub": "a/b", "split": "train", "revision": "main"},
        {"hub": "a/b", "revision": "0" * 40},
        {"path": "x.csv", "split": "train"},
        {"hub": "a/b", "revision": "0" * 40, "split": "train", "format": "csv"},
    ],
)
def test_a_data_file_has_one_pinned_origin(wrong: dict) -> None:
    rest = {"columns": {"input": "text"}, "task": "colour", "licence": "MIT"}
    DataFile.model_validate({"hub": "a/b", "revision": "0" * 40, "split": "train", **rest})
    with pytest.raises(ValueError, match="hub|path"):
        DataFile.model_validate({**wrong, **rest})


def test_missing_data_is_found_by_check_and_not_by_loading(found: Found, tmp_path: Path, domains: Domains) -> None:
    data = "{path: %s, task: colour, licence: MIT, columns: {input: text, answer: label}}"
    source = f"kind: source\ndomain: toy\nseeds:\n- {data % 'there.jsonl'}\nevaluation:\n- {data % 'absent.jsonl'}\n"
    (tmp_path / "there.jsonl").write_text("{}\n")
    problems = found(source=source)
    assert [(problem.line, problem.key) for problem in problems] == [(6, "evaluation[0].path")]
    assert "absent.jsonl" in problems[0].reason
    load_project(tmp_path, domains)
    assert check(tmp_path, domains, files=False) == []


def test_rendering(found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert render(found(), tmp_path).endswith("no problems.")
    problems = found(teacher="kind: teacher\nname: small\nbackand: x\n")
    monkeypatch.chdir(tmp_path)
    text = render(problems, tmp_path)
    assert text == "teacher.yaml:3: backand: unknown key 'backand'. Did you mean 'backend'?\n1 problem."


def test_a_later_field_counts_once_it_is_used() -> None:
    class Old(Strict):
        steps: int = 3

    class New(Strict):
        steps: int = 3
        patience: int = later(0, description="in a newer release")
        parts: dict[str, int] = later({}, description="in a newer release")

    assert identity(New()) == identity(Old()) == identity(New(patience=0)) == {"steps": 3}
    assert identity(New(patience=2, parts={"a": 1})) == {"steps": 3, "patience": 2, "parts": {"a": 1}}
