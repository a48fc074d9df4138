"""A change remakes what reads it, and nothing else; only the calls that changed are asked again."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from distill_dagster.config.models import Split
from distill_dagster.domains import sampler
from distill_dagster.domains.base import Domain
from distill_dagster.domains.registry import Domains
from distill_dagster.domains.split import assign
from distill_dagster.errors import ConfigError, SourceError
from distill_dagster.lineage.engine import head_version
from distill_dagster.lineage.graph import descendants
from distill_dagster.settings import Settings
from distill_dagster.stages import project as projects
from distill_dagster.stages.project import Project
from distill_dagster.storage.store import key_text
from pipeline import tiny
from pipeline.tiny import Tiny

pytestmark = pytest.mark.needs_torch

PIPELINE = set(tiny.DATA) | set(tiny.STUDENT)
SENTENCE = "quux zorgle green blivet frobnic wexle"


def change_record(project: Tiny, part: str, field: str) -> None:
    """Change one record of a part in the file."""
    found = head_version(project.project().store, ("parcels", "seed_set"))
    assert found is not None
    depots = found[0].table("seed", filters=[("part", "==", part)])["subject_key"].to_pylist()
    lines = project.lines("seeds.jsonl")
    line = next(line for line in lines if line["depot"] == depots[0])
    if field == "colour":
        line["colour"] = {"red": "green", "green": "red"}[line["colour"]]
    else:  # the part hangs on the input, so take one that leaves the record where it is
        inputs = (f"{SENTENCE} {number}" for number in range(99))
        line["text"] = next(text for text in inputs if assign([_as_input(text, line["depot"])], Split()) == [part])
    project.write_lines("seeds.jsonl", lines)


def _as_input(text: str, depot: str) -> dict[str, str]:
    return {"input": text, "subject_key": depot}


def made_by(project: Tiny) -> set[str]:
    """Run with a gate that lets any student pass; what was made."""
    project.edit("pipeline.yaml", "floor_over_chance: -1.0", "floor_over_chance: -1.0, delta: 1.0")
    made = project.run()
    assert not project.unfresh()
    return {name for name, one in made.items() if not one.reused}


def calls(project: Tiny, artifact: str) -> dict[str, int]:
    found = head_version(project.project().store, ("parcels", artifact))
    assert found is not None
    return found[0].run(found[1])["notes"]["calls"]


def test_one_input_changed(parcels: Tiny) -> None:
    before = calls(parcels, "teacher_outputs")
    assert (before["asked"], before["reused"]) == (23, 0)
    change_record(parcels, "unlabeled", "text")
    found = parcels.states()
    assert parcels.unfresh() == {"seed_set"} | PIPELINE
    assert found["parcels/seed_set"].state == "stale" and "files changed" in found["parcels/seed_set"].reason
    assert all(found[f"parcels/{name}"].state == "downstream" for name in PIPELINE)

    made = made_by(parcels)
    assert made >= {"seed_set", "teacher_outputs", "filtered_dataset", "initial_student", "student_checkpoint"}
    assert made >= {"eval_report"} and not made & {"eval_set", "prompt_set", "teacher_model"}
    after = calls(parcels, "teacher_outputs")
    assert (after["asked"], after["reused"]) == (1, 22)
    assert calls(parcels, "eval_report")["asked"] == 0  # the teacher had answered the test items


def test_one_gold_answer_changed(parcels: Tiny) -> None:
    change_record(parcels, "gold", "colour")
    made = made_by(parcels)
    assert made >= {"seed_set", "filtered_dataset", "student_checkpoint", "control_checkpoint", "eval_report"}
    assert not made & {"eval_set", "prompt_set", "teacher_model", "teacher_outputs"}


def test_one_teacher_record_changed(parcels: Tiny) -> None:
    change_record(parcels, "teacher", "colour")
    made = made_by(parcels)
    assert made >= {"seed_set", "teacher_model", "teacher_outputs", "filtered_dataset", "eval_report"}
    assert not made & {"eval_set", "prompt_set", "initial_student", "control_checkpoint"}
    assert calls(parcels, "teacher_outputs")["asked"] == 23  # another teacher must answer anew


def test_one_test_item_changed(parcels: Tiny) -> None:
    lines = parcels.lines("test.jsonl")
    lines[3]["text"] = SENTENCE
    parcels.write_lines("test.jsonl", lines)
    made = made_by(parcels)
    # The filter looks for evaluation items among the answers, so it looks again; what it keeps is the same.
    assert {"eval_set", "filtered_dataset", "eval_report"} <= made
    assert not made & {"prompt_set", "teacher_model", "teacher_outputs", "initial_student"}
    assert not made & {"student_checkpoint", "control_checkpoint"}
    assert calls(parcels, "eval_report")["asked"] == 1


@pytest.mark.parametrize(("artifact", "file"), [("seed_set", "seeds.jsonl"), ("eval_set", "test.jsonl")])
def test_a_file_that_is_changed_while_it_is_read_makes_no_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifact: str, file: str
) -> None:
    project = tiny.parcels(tmp_path / "parcels")
    read = sampler.records

    def meanwhile(*arguments, **more):
        rows = read(*arguments, **more)
        project.write_lines(file, project.lines(file)[:-1])
        return rows

    monkeypatch.setattr(sampler, "records", meanwhile)
    with pytest.raises(SourceError, match=f"{file}: the file was changed while it was read"):
        project.run([artifact])
    assert head_version(project.project().store, ("parcels", artifact)) is None
    monkeypatch.undo()
    assert not project.run([artifact])[artifact].reused


def test_sources_know_nothing_of_each_other(parcels: Tiny) -> None:
    config = parcels.folder / "assets_config"
    (config / "other").mkdir()
    for name, old, new in (
        ("source.yaml", "name: parcels", "name: letters"),
        ("pipeline.yaml", "source: parcels", "source: letters"),
    ):
        (config / "other" / name).write_text((config / name).read_text("utf-8").replace(old, new), "utf-8")
    for name, prefix in (("seeds.jsonl", "a"), ("test.jsonl", "b")):
        tiny.write_lines(config / "other" / name, tiny.rows(prefix, 30))
    letters = Tiny(parcels.folder, "letters")
    letters.run(tiny.SOURCE)
    assert not parcels.unfresh()
    tiny.write_lines(config / "other" / "seeds.jsonl", tiny.rows("c", 30))
    found = letters.states()
    assert found["letters/seed_set"].state == "stale"
    assert {name for name, one in found.items() if one.fresh} == {f"parcels/{name}" for name in tiny.ALL} | {
        "letters/eval_set",
        "letters/prompt_set",
    }


def test_who_depends_on_the_version_of_the_verifier_and_of_a_task(tmp_path: Path, monkeypatch) -> None:
    made = tiny.finance(tmp_path)
    config = tmp_path / "assets_config"
    plain = (config / "pipeline.yaml").read_text("utf-8")
    judging = "filtering: [verifier, exact_duplicate]\nknowledge: [{name: feedback, method: verify}]"
    asking = "teacher: nano_teacher\nname: judged"
    judged = plain.replace("filtering: [refusal, exact_duplicate]", judging).replace("teacher: nano_teacher", asking)
    (config / "judged.yaml").write_text(judged, "utf-8")

    def codes() -> dict[str, str]:
        return {key_text(key): node.code_version for key, node in made.project().nodes.items()}

    def changed(domain: Domain) -> set[str]:
        before = codes()
        with monkeypatch.context() as patch:
            patch.setattr(projects, "discover", lambda: Domains({**usual.found, "finance": domain}))
            return {name for name, code in codes().items() if code != before[name]}

    usual = projects.discover()
    finance = usual.found["finance"]
    assert changed(replace(finance, verifier_version="2")) == {
        "finance/eval_report",
        "judged/eval_report",
        "judged/filtered_dataset",
        "judged/preference_pairs",
        "judged/teacher_outputs",
    }
    tasks = (replace(finance.tasks[0], version="2"), *finance.tasks[1:])
    assert {"finance/teacher_outputs", "judged/teacher_outputs"} < changed(replace(finance, tasks=tasks))


def test_changing_law_touches_nothing_in_finance(repo: Path, tmp_path: Path) -> None:
    config = tmp_path / "assets_config"
    shutil.copytree(repo / "assets_config", config)

    def identities() -> dict[str, list]:
        nodes = Project(Settings(config, str(tmp_path / "store"), tmp_path / "state")).nodes
        for key in nodes:
            assert {below[0] for below in descendants(nodes, key)} <= {key[0]}
        found: dict[str, list] = {}
        for key, node in nodes.items():
            found.setdefault(key[0], []).append((key, node.code_version, node.parents, node.outside()))
        return found

    before = identities()
    for file, old, new in (("source.yaml", "seed: 17", "seed: 18"), ("pipeline.yaml", "  - refusal\n", "")):
        text = (config / "law" / file).read_text("utf-8")
        assert text.count(old) == 1
        (config / "law" / file).write_text(text.replace(old, new), "utf-8")
    after = identities()
    assert set(after) == {"finance", "law", "medicine"}
    assert {name for name in after if after[name] != before[name]} == {"law"}


@pytest.mark.parametrize(
    "change",
    [
        lambda project: project.append("pipeline.yaml", "schedule: {cron: '5 4 * * *', enabled: true}\n"),
        lambda project: project.append("pipeline.yaml", "deploy: {alias: other, enabled: false}\n"),
        lambda project: project.append("pipeline.yaml", "owners: ['team:desk']\ndescription: Sorts parcels\n"),
        lambda project: project.append("source.yaml", "owners: ['team:desk']\nshow_records: true\n"),
        lambda project: project.edit(
            "pipeline.yaml", "{resamples: 200}", "{resamples: 200, batch_size: 3, threads: 2}"
        ),
        lambda project: project.edit("pipeline.yaml", "log_every: 2}", "log_every: 1, checkpoint_every: 2}"),
        lambda project: project.edit("teacher.yaml", "batch_size: 64", "batch_size: 3\nthreads: 2"),
        lambda project: project.edit("teacher.yaml", "log_every: 2}", "log_every: 1, checkpoint_every: 2}"),
        lambda project: project.edit("source.yaml", "kind: source", "# a comment\nkind: source"),
        lambda project: project.edit("source.yaml", "domain: generic\nname: parcels", "name: parcels\ndomain: generic"),
        lambda project: (project.folder / "assets_config/seeds.jsonl").touch(),
    ],
    ids=[
        "schedule",
        "deploy",
        "owners",
        "shown",
        "evaluation",
        "checkpoints",
        "teacher",
        "fit",
        "comment",
        "order",
        "touched",
    ],
)
def test_what_is_no_identity_remakes_nothing(
    finished_parcels: Tiny, tmp_path: Path, change: Callable[[Tiny], object]
) -> None:
    copy = Tiny(tmp_path, "parcels")
    _link(finished_parcels, copy)
    change(copy)
    assert copy.unfresh() == set()


@pytest.mark.parametrize(
    ("file", "old", "new", "stale"),
    [
        ("pipeline.yaml", "[refusal, exact_duplicate]", "[refusal]", {"filtered_dataset"}),
        ("pipeline.yaml", "[refusal,", "[{name: length, max_chars: 90},", {"filtered_dataset"}),
        ("pipeline.yaml", "{floor_over_chance: -1.0}", "{floor_over_chance: -0.5}", {"deployed_student"}),
        ("pipeline.yaml", "{resamples: 200}", "{resamples: 201}", {"eval_report"}),
        ("pipeline.yaml", "{multiples: [1]}", "{multiples: [1, 2]}", {"control_checkpoint"}),
        ("pipeline.yaml", "steps: 6", "steps: 7", {"student_checkpoint", "control_checkpoint"}),
        ("pipeline.yaml", "vocabulary: 300", "vocabulary: 301", {"initial_student"}),
        ("teacher.yaml", "steps: 6", "steps: 7", {"teacher_model"}),
        (
            "source.yaml",
            "max_new_tokens: 4",
            "max_new_tokens: 5",
            {"seed_set", "eval_set", "prompt_set", "teacher_outputs", "eval_report"},
        ),
    ],
    ids=["rules", "parameter", "gate", "evaluation", "control", "recipe", "tokenizer", "fit", "task"],
)
def test_what_is_identity_makes_its_own_stage_stale(
    finished_parcels: Tiny, tmp_path: Path, file: str, old: str, new: str, stale: set[str]
) -> None:
    copy = Tiny(tmp_path, "parcels")
    _link(finished_parcels, copy)
    copy.edit(file, old, new)
    found = copy.states()
    assert {name for name in tiny.ALL if found[f"parcels/{name}"].state == "stale"} == stale
    nodes = copy.project().nodes
    below = {key[1] for name in stale for key in descendants(nodes, ("parcels", name))}
    assert copy.unfresh() == stale | below


def test_other_filter_rules_remake_the_data_but_ask_nobody(parcels: Tiny) -> None:
    parcels.edit("pipeline.yaml", "[refusal, exact_duplicate]", "[refusal]")
    made = parcels.run(["filtered_dataset", "student_checkpoint"])
    assert not made["filtered_dataset"].reused
    # All candidates had passed both rules: the same examples are the same version, and nothing is trained.
    assert made["student_checkpoint"].reused
    assert len(parcels.sealed()["parcels/filtered_dataset"]) == 1
    assert len(parcels.sealed()["parcels/teacher_outputs"]) == 1


def _link(finished: Tiny, copy: Tiny) -> None:
    """The config files copied; store and state looked at where they lie."""
    shutil.copytree(finished.folder / "assets_config", copy.folder / "assets_config")
    for name in ("store", "state"):
        (copy.folder / name).symlink_to(finished.folder / name)


def test_artifacts_are_selected_as_dagster_selects_them(parcels: Tiny) -> None:
    project = parcels.project()

    def chosen(*names: str) -> set[str]:
        return {node.key[1] for node in project.select("parcels", names)}

    assert chosen() == set(tiny.ALL)
    assert chosen("seed_set,eval_set") == chosen("seed_set", "parcels/eval_set") == {"seed_set", "eval_set"}
    assert chosen("+filtered_dataset") == {*tiny.SOURCE, *tiny.DATA}
    assert chosen("eval_report+", "seed_set") == {"seed_set", "eval_report", "deployed_student"}
    assert chosen("+initial_student+") == {*tiny.STUDENT, "seed_set"}
    with pytest.raises(ConfigError, match="'sead_set'.*") as error:
        chosen("eval_set, sead_set+")
    assert "seed_set" in str(error.value)
