"""Names, references and circles over several files."""

from collections.abc import Callable

import pytest

from distill_dagster.config.problems import Problem

Found = Callable[..., list[Problem]]


def pipeline(name: str, **more: str) -> str:
    lines = {"kind": "pipeline", "source": "toy", "name": name, **more}
    if "data_from" not in lines:
        lines["teacher"] = "small"
    return "".join(f"{key}: {value}\n" for key, value in lines.items())


def test_a_pipeline_may_have_its_own_sources_name_and_no_others(found: Found) -> None:
    assert found() == []
    other = "kind: source\ndomain: toy\nname: other\n"
    problems = found(other=other, taken=pipeline("other"))
    assert [(problem.file.name, problem.key) for problem in problems] == [("taken.yaml", "name")]
    assert "other.yaml" in problems[0].reason


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("kind: source\ndomain: toy\n", "domain"),
        ("kind: source\ndomain: generic\nname: toy\n", "name"),
        ("kind: pipeline\nsource: toy\nteacher: small\n", "source"),
        ("kind: pipeline\nsource: toy\ndata_from: toy\n", "source"),
        ("kind: teacher\nname: small\n", "name"),
    ],
)
def test_two_of_a_kind_with_one_name_name_both_files(found: Found, text: str, key: str) -> None:
    clashes = [problem for problem in found(zweite=text) if "two " in problem.reason]
    assert [(problem.file.name, problem.key) for problem in clashes] == [("zweite.yaml", key)]
    kind = text.split()[1]
    assert f"{kind}.yaml:" in clashes[0].reason


def test_a_teacher_may_share_a_name_with_what_owns_keys(found: Found) -> None:
    assert found(more="kind: teacher\nname: toy\n") == []


@pytest.mark.parametrize(
    ("files", "path"),
    [
        ({"a": pipeline("a", data_from="a")}, "a -> a"),
        ({"a": pipeline("a", data_from="b"), "b": pipeline("b", data_from="a")}, "a -> b -> a"),
        (
            {
                "a": pipeline("a", student="{base: 'pipeline:b@champion'}"),
                "b": pipeline("b", data_from="c"),
                "c": pipeline("c", student="{base: 'pipeline:a'}"),
            },
            "a -> b -> c -> a",
        ),
    ],
)
def test_circles_are_printed_once_as_a_path(found: Found, files: dict[str, str], path: str) -> None:
    problems = found(**files)
    assert [problem.reason for problem in problems] == [f"a circle: {path}."]


def test_a_chain_is_no_circle(found: Found) -> None:
    files = {"a": pipeline("a"), "b": pipeline("b", data_from="a"), "c": pipeline("c", data_from="b")}
    assert found(**files, d=pipeline("d", student="{base: 'pipeline:c@champion'}")) == []


def test_ones_own_champion_is_no_circle(found: Found) -> None:
    assert found(a=pipeline("a", student="{base: 'pipeline:a@champion'}")) == []


def test_data_of_another_source(found: Found) -> None:
    other = "kind: source\ndomain: toy\nname: other\n"
    reader = "kind: pipeline\nsource: other\nname: reader\ndata_from: toy\n"
    problems = found(other=other, reader=reader)
    assert [(problem.file.name, problem.key) for problem in problems] == [("reader.yaml", "source")]


@pytest.mark.parametrize("field", ["teacher: small", "filtering: [schema]", "knowledge: [labeling]"])
def test_who_reads_anothers_data_does_not_say_how_it_is_made(found: Found, field: str) -> None:
    problems = found(b=f"kind: pipeline\nsource: toy\nname: b\ndata_from: toy\n{field}\n")
    assert len(problems) == 1 and field.split(":")[0] in problems[0].reason


FILE = "{path: x.jsonl, task: %s, licence: MIT, columns: {input: text}}"


@pytest.mark.parametrize(
    ("seeds", "evaluation", "tasks", "words"),
    [
        (["colour", "size"], ["colour"], "", "'size' has no test file"),
        (["colour"], ["colour", "size"], "", "'size' has no file in `seeds`"),
        (["colour"], ["colour"], "tasks: [size]\n", "'size' has no file in `seeds`"),
        (["colour"], ["colours"], "", "no task is named 'colours'"),
    ],
)
def test_every_task_has_its_data(found: Found, seeds: list, evaluation: list, tasks: str, words: str) -> None:
    text = f"kind: source\ndomain: toy\n{tasks}seeds: [{', '.join(FILE % task for task in seeds)}]\n"
    text += f"evaluation: [{', '.join(FILE % task for task in evaluation)}]\n"
    assert any(words in problem.reason for problem in found(source=text))
