"""Everything a person can write wrongly in a YAML file: the file, line and key are named, and what to write instead."""

from collections.abc import Callable
from pathlib import Path

import pytest

from distill_dagster.config.load import ProjectError, load_project
from distill_dagster.config.problems import Problem
from distill_dagster.domains.registry import Domains
from distill_dagster.errors import ConfigError

Found = Callable[..., list[Problem]]
DATA = "{{path: rows.jsonl, task: {task}, licence: MIT, columns: {{input: text, answer: label}}}}"


def test_a_sound_project_has_no_problems(found: Found) -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("name", "text", "line", "key", "words"),
    [
        ("teacher", "kind: teacher\nname: small\nbackand: openai\n", 3, "backand", ["unknown key", "'backend'"]),
        ("teacher", "kind: teacher\nname: small\nbatch_size: many\n", 3, "batch_size", ["'many'", "integer"]),
        ("teacher", 'kind: teacher\nname: small\nbatch_size: "8"\n', 3, "batch_size", ["without quotes"]),
        ("teacher", "kind: teacher\nname: small\nrevision: 12345\n", 3, "revision", ['in quotes: "12345"']),
        ("teacher", "kind: teacher\nname: Small One\n", 2, "name", ["does not match", "'small_one'"]),
        ("teacher", "kind: teacher\nname: small\ntemplate: chatt\n", 3, "template", ["chat, plain", "'chat'"]),
        ("teacher", f"kind: teacher\nname: {'a' * 64}\n", 2, "name", ["at most 63", "shorter"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\nowners: [team:a, Bob]\n", 4, "owners[1]",
         ["'Bob' is neither an e-mail", "team:NAME"]),
        ("source", "kind: source\ndomain: toy\nowners: [\"team:\"]\n", 3, "owners[0]", ["'team:' is neither"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\ngate: {floor: {colour: 90}}\n", 4,
         "gate.floor.colour", ["90", "less than or equal to 1", "0.9, not 90"]),
        ("pipeline", 'kind: pipeline\nsource: toy\nteacher: small\ndeploy: {model_name: "a/b"}\n', 4,
         "deploy.model_name", ["'a/b' is no name of a model in MLflow", "neither / nor :"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\ndeploy: {alias: latest}\n", 4,
         "deploy", ["'latest'", "another name"]),
        ("teacher", "kind: teacher\nbackend: openai\n", 1, "name", ["required"]),
        ("teacher", "kind: teacher\nname: small\nbackend: transformer\n", 3, "backend", ["'transformers'"]),
        ("teacher", "kind: teacher\nname: small\nsampling: 3\n", 3, "sampling", ["3 is a number"]),
        ("teacher", "kind: teacher\nname: small\nmodel: preset:mini\n", 1, "", ["no weights yet", "`fit`"]),
        ("teacher", "kind: teacher\nname: small\nmodel: preset:mimi\nfit: {}\n", 3, "model", ["'mini'"]),
        ("teacher", "kind: teacher\nname: small\nmodel: owner/model\n", 3, "model", ["`revision`", "`./`"]),
        ("teacher", "kind: teacher\nname: small\nmodel: owner/model\nrevision: main\n", 4, "revision",
         ["'main' is none", "40 hex digits"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\nstudent:\n  base: owner/model\n  revision: v1.0\n",
         6, "student.revision", ["'v1.0' is none", "can move", "40 hex digits"]),
        ("teacher", "kind: teacher\nname: small\nmodel: domain:student\n", 3, "model", ["'student_base'"]),
        ("teacher", "kind: teacher\nname: small\nmodel: ${NOT_SET_HERE}/m\n", 3, "model", ["NOT_SET_HERE is not set"]),
        ("teacher", "kind: teacher\nname: small\nmodel: ./absent\n", 3, "model", ["'./absent'", "config.json"]),
        (
            "teacher",
            "kind: teacher\nname: small\nfit:\n  recipe:\n    objective: {stf: 1}\n",
            5,
            "fit.recipe.objective.stf",
            ["'sft'"],
        ),
        (
            "teacher",
            "kind: teacher\nname: small\nfit:\n  recipe:\n    objective:\n      divergence: {k: 4}\n",
            6,
            "fit.recipe.objective.divergence",
            ["no teacher itself", "`sft`"],
        ),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\ntraining:\n  objective: {sft: much}\n", 5,
         "training.objective.sft", ["'much'", "number"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\ntraining:\n  objective:\n    sft: {k: 3}\n", 6,
         "training.objective.sft", ["no parameters"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\ntraining:\n  objective:\n    divergence:\n"
         "      kind: backward\n", 7, "training.objective.divergence.kind", ["'backward'", "reverse"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\ntraining:\n  objective:\n    divergence:\n"
         "      temperatur: 2\n", 7, "training.objective.divergence.temperatur", ["unknown key", "'temperature'"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\ntraining:\n  prompt_loss_weight: 0.1\n"
         "  objective:\n    divergence: {kind: jsd}\n", 7, "training.objective.divergence", ["prompt_loss_weight"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\nstudent: {base: 'preset:nano'}\ntraining:\n"
         "  linear_probe: {}\n", 6, "training.linear_probe", ["preset:nano is a model that writes", "encoder"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\ntraining:\n  linear_probe: {l3: 1}\n", 5,
         "training.linear_probe.l3", ["unknown key", "'l2'"]),
        ("teacher", "kind: teacher\nname: small\nmodel: preset:mini\nfit:\n  recipe: {linear_probe: {}}\n", 5,
         "fit.recipe.linear_probe", ["preset:mini is a model that writes"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\ntraining:\n  early_stop: {}\n"
         "  rationale: {mode: in_answer}\n", 5, "training.early_stop", ["without explanations"]),
        ("teacher", "kind: teacher\nname: small\nfit:\n  recipe: {gold_repeat: 2}\n", 4,
         "fit.recipe.gold_repeat", ["gold alone"]),
        ("teacher", "kind: teacher\nname: small\nfit:\n  recipe: {rationale: {mode: multi_task}}\n", 4,
         "fit.recipe.rationale.mode", ["without explanations"]),
        ("pipeline", "kind: pipline\nsource: toy\n", 1, "kind", ["'pipeline'"]),
        ("pipeline", "source: toy\nteacher: small\n", 1, "", ["no `kind`"]),
        ("pipeline", "kind: pipeline\nsource: tog\nteacher: small\n", 2, "source", ["no source", "'toy'"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: smal\n", 3, "teacher", ["no teacher", "'small'"]),
        ("pipeline", "kind: pipeline\nsource: toy\n", 1, "", ["`teacher`", "`data_from`"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\nlearning_rate: 1e-3\n", 4, "learning_rate",
         ["'training.learning_rate'"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\ntraining:\n  steps: .nan\n", 5, "training.steps",
         [".nan"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\ntraining:\n  learning_rate: 1e999\n", 5,
         "training.learning_rate", ["finite"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\nfiltering:\n- schema\n- near_duplicat\n", 6,
         "filtering[1]", ["'near_duplicate'"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\nfiltering:\n- name: length\n  max_word: 3\n", 6,
         "filtering[0].max_word", ["unknown key", "'max_words'"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\nknowledge: [labelling]\n", 4, "knowledge[0]",
         ["'labeling'"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\nschedule: {cron: 0 25 * * *}\n", 4, "schedule.cron",
         ["hour '25'", "0 to 23"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\nschedule: {timezone: Europe/Berlim}\n", 4,
         "schedule.timezone", ["'Europe/Berlin'"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\ngate: {floor: {color: 0.5}}\n", 4,
         "gate.floor.color", ["'colour'"]),
        ("pipeline", "kind: pipeline\nsource: toy\nteacher: small\nstudent: {base: 'pipeline:lawyer@champion'}\n", 4,
         "student.base", ["no pipeline is named 'lawyer'"]),
        ("source", "kind: source\ndomain: tot\nname: toy\n", 2, "domain", ["unknown domain 'tot'", "'toy'"]),
        ("source", "kind: source\ndomain: broken\nname: toy\n", 2, "domain",
         ["acme-broken 2.0", "ImportError: no acme"]),
        ("source", "kind: source\ndomain: generic\nname: toy\n", 2, "domain", ["no grammar", "`seeds`"]),
        ("source", "kind: source\ndomain: toy\ntasks: [color]\n", 3, "tasks[0]", ["'colour'"]),
        ("source", "kind: source\ndomain: toy\ngrammar: {}\nseeds: [" + DATA.format(task="colour") + "]\n", 1, "",
         ["either `grammar` or `seeds`"]),
        ("source", "kind: source\ndomain: toy\nseeds: [" + DATA.format(task="colour") + "]\n", 1, "", ["`evaluation`"]),
        ("source", "kind: source\ndomain: toy\nsplit: {validation: 0.2}\n", 3, "split", ["add up to 1.2"]),
        ("source", "kind: source\ndomain: toy\nsplit: {gold: 1.5}\n", 3, "split", ["whole number"]),
        ("source", "kind: source\ndomain: toy\nprompts:\n- {task: colour, user: '{{ inptu }}'}\n", 4, "prompts[0].user",
         ["'inptu'", "'input'"]),
        ("source", "kind: source\ndomain: toy\nprompts:\n- {task: colour, user: '{{ input'}\n", 4, "prompts[0].user",
         ["Jinja2"]),
        ("source", "kind: source\ndomain: toy\nprompts:\n- {task: colour, system: '{{ input }}'}\n", 4,
         "prompts[0].system", ["user role only"]),
        ("source", "kind: source\ndomain: toy\ndefine:\n- {name: colour, kind: label}\n", 4, "define[0].name",
         ["exists already"]),
    ],
)  # fmt: skip
def test_each_fault_names_place_and_remedy(
    found: Found, name: str, text: str, line: int, key: str, words: list[str]
) -> None:
    problems = [problem for problem in found(**{name: text}) if problem.key == key]
    assert len(problems) == 1, found(**{name: text})
    problem = problems[0]
    assert (problem.file.name, problem.line) == (f"{name}.yaml", line), problem
    for word in words:
        assert word in str(problem), problem


@pytest.mark.parametrize(
    ("raw", "line", "words"),
    [
        (b"kind: source\ndomain: caf\xe9\n", 2, ["not UTF-8", "0xe9", "offset 24"]),
        (b"\xef\xbb\xbfkind: source\ndomain: \xff\n", 2, ["0xff", "offset 24"]),
        (b"kind: source\n\tdomain: toy\n", 2, ["spaces, not with tabs"]),
        (b"", 0, ["empty"]),
        (b"# only a comment\n", 0, ["empty"]),
        (b"- kind: source\n", 1, ["keys with values"]),
        (b"kind: source\ndomain: !!python/object/apply:os.system [ls]\n", 2, ["tag", "refused"]),
        (b"kind: source\ndomain: !mine toy\n", 2, ["'!mine'", "refused"]),
        (b"kind: source\ndomain: toy\nkind: teacher\n", 3, ["'kind' stands twice", "line 1"]),
        (b"kind: source\n---\nkind: teacher\n", 2, ["more than one document"]),
        (b"kind: source\ndomain: [toy\n", 3, ["not YAML"]),
        (b"kind: source\ndomain: *toy\n", 2, ["undefined alias"]),
        (b"kind: source\ndescription: &a [*a]\n", 2, ["points back"]),
        (b"base: &b {a: 1}\n<<: *b\n", 2, ["merge keys"]),
        (b"kind: source\ndomain: a: b\n", 2, ["quotes"]),
        (b"kind: source\ndomain: \x00\n", 0, ["not YAML"]),
        (b"a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
         b"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n", 1, ["more than 100000"]),
        (b"a: " + b"[" * 1100 + b"]" * 1100, 0, ["nested too deeply"]),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_names_the_line(found: Found, raw: bytes, line: int, words: list[str]) -> None:
    problems = [problem for problem in found(odd=raw) if problem.file.name == "odd.yaml"]
    assert len(problems) == 1
    assert problems[0].line == line
    for word in words:
        assert word in problems[0].reason + problems[0].hint


def test_a_byte_order_mark_is_tolerated(found: Found) -> None:
    assert found(source=b"\xef\xbb\xbfkind: source\ndomain: toy\n") == []


def test_a_faulty_file_makes_no_second_fault_elsewhere(found: Found) -> None:
    # The pipeline names a teacher whose file is broken: the teacher's own fault is the only one.
    assert {problem.file.name for problem in found(teacher="kind: teacher\nname: small\nx: 1\n")} == {"teacher.yaml"}
    assert {problem.file.name for problem in found(teacher=b"kind: [\n")} == {"teacher.yaml"}


def test_all_problems_are_raised_at_once(tmp_path: Path, domains: Domains) -> None:
    (tmp_path / "a.yaml").write_text("kind: source\ndomain: tog\n")
    (tmp_path / "b.yaml").write_text("kind: teacher\nname: x\ny: 1\n")
    with pytest.raises(ProjectError) as caught:
        load_project(tmp_path, domains)
    assert isinstance(caught.value, ConfigError)
    assert [problem.file.name for problem in caught.value.problems] == ["a.yaml", "b.yaml"]
    assert "a.yaml:2: domain" in str(caught.value) and "b.yaml:3: y" in str(caught.value)


def test_a_folder_without_files_is_a_problem(tmp_path: Path, domains: Domains) -> None:
    for folder, reason in ((tmp_path / "absent", "no such folder"), (tmp_path, "no YAML file")):
        with pytest.raises(ProjectError, match=reason):
            load_project(folder, domains)
