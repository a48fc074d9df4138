"""Classifiers from YAML: a fitted encoder teaches one made of some of its layers, through every stage."""

import json
from pathlib import Path

import pytest

from distill_dagster.errors import ModelError
from pipeline import tiny
from pipeline.tiny import Tiny

pytestmark = pytest.mark.needs_torch

RECIPE = "steps: 12, batch_tokens: 1024, learning_rate: 3e-3, warmup_steps: 2, max_length: 128, log_every: 2"
TEACHER = f"""\
kind: teacher
name: encoder
model: preset:encoder_tiny
prompt_style: short
fit: {{recipe: {{{RECIPE}}}}}
"""
GIVEN = "kind: teacher\nname: encoder\nmodel: ../../given\nprompt_style: short\n"
STUDENT = f"""\
student: {{base: teacher, layers: 1}}
training:
  {{{RECIPE}, objective: {{divergence: {{temperature: 2, hard: 0.25, signals: SIGNALS}}}}}}
control: {{multiples: [1]}}
evaluation: {{resamples: 200}}
gate: {{floor_over_chance: -1.0}}
"""
PIPELINE = "kind: pipeline\nsource: parcels\nteacher: encoder\nfiltering: [schema, exact_duplicate]\n" + STUDENT


def project(folder: Path, pipeline: str = PIPELINE, teacher: str = TEACHER) -> Tiny:
    made = tiny.parcels(folder)
    config = folder / "assets_config"
    (config / "teacher.yaml").write_text(teacher, "utf-8")
    (config / "pipeline.yaml").write_text(pipeline.replace("SIGNALS", "stored"), "utf-8")
    return made


@pytest.mark.slow
def test_an_encoder_teaches_one_of_its_layers(tmp_path: Path) -> None:
    from distill_dagster.models import classifier, folder

    made = project(tmp_path)
    done = made.run()
    assert done["teacher_model"].version.local("teacher.json").read_text("utf-8").count('"red"') == 1
    assert done["initial_student"].record["notes"]["layers"] == {"of": 2, "kept": [0]}
    signals = done["teacher_signals"].record["notes"]
    assert signals["counts"]["positions"] == signals["counts"]["records"] > 0
    report = json.loads(done["eval_report"].version.local("report.json").read_text("utf-8"))
    (task,) = report["tasks"]
    assert {"teacher", "student", "control_1"} <= set(task["arms"])
    scores = done["eval_report"].version.table("item_score").to_pylist()
    assert {row["output"] for row in scores if row["arm"] in ("teacher", "student")} <= {"red", "green"}
    served = done["deployed_student"].version.local("model")
    assert classifier.kind(served) == "classifier" and classifier.folder_labels(served) == ["red", "green"]
    assert folder.parameters(served) < folder.parameters(done["teacher_model"].version.local("model"))
    assert made.champions() and not made.unfresh() & set(done)

    # Nothing is made twice, and a live teacher needs no signals.
    assert all(one.reused for one in made.run().values())
    made.edit("pipeline.yaml", "signals: stored", "signals: live, k: 0")
    live = made.run(["student_checkpoint"])["student_checkpoint"]
    assert not live.reused and live.record["notes"]["training"]["forward"] == "classifier"


@pytest.mark.slow
def test_a_head_is_fitted_before_the_rest(tmp_path: Path) -> None:
    """A teacher's, a student's and its control's; another option of it is another student, and no other data."""
    probe = "linear_probe: {records: 30}, steps: 12"
    made = project(tmp_path, PIPELINE.replace("steps: 12", probe), TEACHER.replace("steps: 12", probe))
    done = made.run()
    for name in ("student_checkpoint", "control_checkpoint"):
        assert "linear_probe" in json.dumps(done[name].record["notes"]), name
    assert done["student_checkpoint"].record["notes"]["training"]["linear_probe"]["records"] == 30
    made.edit("pipeline.yaml", "records: 30", "records: 20")
    again = made.run(["student_checkpoint"])["student_checkpoint"]
    assert not again.reused and again.record["notes"]["training"]["linear_probe"]["records"] == 20
    made.edit("pipeline.yaml", "linear_probe: {records: 20}, ", "")
    assert "linear_probe" not in made.run(["student_checkpoint"])["student_checkpoint"].record["notes"]["training"]


@pytest.mark.slow
def test_another_tokenizer_and_a_second_student(tmp_path: Path) -> None:
    """A student with a tokenizer of its own learns from the same stored signals."""
    made = project(tmp_path)
    other = "kind: pipeline\nsource: parcels\nname: own\ndata_from: parcels\n" + STUDENT.replace("SIGNALS", "stored")
    other = other.replace("base: teacher, layers: 1", "base: preset:encoder_tiny, vocabulary: 300")
    (tmp_path / "assets_config" / "own.yaml").write_text(other, "utf-8")
    first = made.run()
    second = Tiny(tmp_path, "own").run([*tiny.DATA, "teacher_signals", "initial_student", "student_checkpoint"])
    assert second["teacher_signals"].reused
    words = {one["student_checkpoint"].version.local("model/tokenizer.json").read_bytes() for one in (first, second)}
    assert len(words) == 2
    assert second["student_checkpoint"].record["notes"]["training"]["labels"] == 2


def test_a_task_that_is_not_for_classifiers_is_refused(tmp_path: Path) -> None:
    made = project(tmp_path)
    made.edit("source.yaml", "kind: label, labels: [red, green]", "kind: text")
    with pytest.raises(ModelError, match="task 'colour' is of kind 'text'") as caught:
        made.run([*tiny.SOURCE, "teacher_model"])
    assert "causal" in caught.value.next_step


def test_several_tasks_are_refused_when_files_are_read(tmp_path: Path) -> None:
    from distill_dagster.errors import ConfigError

    made = tiny.finance(tmp_path)
    made.edit("pipeline.yaml", 'base: "preset:nano", vocabulary: 300', "base: preset:encoder_tiny")
    with pytest.raises(ConfigError, match="a classifier answers one task, and this pipeline teaches"):
        made.project()
    made.edit("pipeline.yaml", "base: preset:encoder_tiny", "base: preset:encoder_tiny, layers: 1")
    with pytest.raises(ConfigError, match="takes layers of a teacher, a folder or a hub model"):
        made.project()


def test_a_teacher_without_weights_gives_no_layers(tmp_path: Path) -> None:
    from distill_dagster.errors import ConfigError

    teacher = "kind: teacher\nname: encoder\nmodel: m\nbackend: openai\nendpoint: {url: 'http://127.0.0.1:9/v1'}\n"
    with pytest.raises(ConfigError, match="no weights of it are here"):
        project(tmp_path, teacher=teacher).project()


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (["red", "blue"], "it lacks green; the task has no blue"),
        (["LABEL_0", "LABEL_1"], "it lacks red, green; the task has no LABEL_0, LABEL_1"),
    ],
)
def test_a_classifier_of_other_labels_does_not_start_a_student(tmp_path: Path, labels: list[str], reason: str) -> None:
    made = project(tmp_path / "project", PIPELINE.replace("{base: teacher, layers: 1}", "{base: ../../given}"))
    given(tmp_path / "given", labels)
    with pytest.raises(ModelError, match=reason):
        made.run(["initial_student"])


def test_labels_beyond_the_task_are_reported(tmp_path: Path) -> None:
    """A classifier that teaches as it is may know more labels: they are named, and such answers dropped by reason."""
    made = project(tmp_path / "project", teacher=GIVEN)
    given(tmp_path / "given", ["green", "blue", "red"])
    done = made.run([*tiny.SOURCE, *tiny.DATA])
    record = json.loads(done["teacher_model"].version.local("teacher.json").read_text("utf-8"))
    assert record["labels_beyond_task"] == ["blue"] and record["labels"] == ["green", "blue", "red"]
    with pytest.raises(ModelError, match="the task has no blue"):
        made.run(["initial_student"])


def test_an_encoder_without_a_head_or_a_tokenizer_is_no_teacher(tmp_path: Path) -> None:
    made = project(tmp_path / "project", teacher=GIVEN)
    place = bare(given(tmp_path / "given", ["green", "red"]))
    with pytest.raises(ModelError, match="an encoder without a classification head"):
        made.run([*tiny.SOURCE, "teacher_model"])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (place / name).unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        made.run(["teacher_model"])


@pytest.mark.slow
def test_a_bare_encoder_is_fitted_and_gives_layers(tmp_path: Path) -> None:
    """`fit.base` is a folder without a head: it gets one, drawn from the recipe's seed."""
    made = project(tmp_path / "project", teacher=TEACHER.replace("fit: {", "fit: {base: ../../given, "))
    bare(given(tmp_path / "given", ["x", "y"]))
    done = made.run([*tiny.SOURCE, "teacher_model", "initial_student"])
    from distill_dagster.models import classifier, folder, layers

    student = folder.load_model(done["initial_student"].version.local("model"))
    assert classifier.labels(student) == ("red", "green") and layers.count(student) == 1


def given(place: Path, labels: list[str]) -> Path:
    """A classifier's folder that nobody trained."""
    from distill_dagster.models import folder
    from distill_dagster.training import presets, tokenizer

    words = tokenizer.fit([], "bytes", place.with_name("words"), encoder=True)
    return folder.save(presets.build("encoder_tiny", words, 3, labels), words, place)


def bare(place: Path) -> Path:
    """The same folder without its head."""
    from safetensors.torch import load_file, save_file

    weights = load_file(place / "model.safetensors")
    kept = {name.removeprefix("bert."): value for name, value in weights.items() if name.startswith("bert.")}
    save_file(kept, place / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((place / "config.json").read_text())
    config["architectures"] = ["BertModel"]
    for name in ("id2label", "label2id", "problem_type"):
        config.pop(name, None)
    (place / "config.json").write_text(json.dumps(config))
    return place
