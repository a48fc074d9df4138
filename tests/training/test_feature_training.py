"""Students that learn from a teacher's layers: what is learned beside them, checkpoints, and what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from distill_dagster.config.models import Recipe
from distill_dagster.errors import TrainingError
from distill_dagster.records.messages import from_chat
from distill_dagster.records.tables import build as build_table

pytestmark = pytest.mark.needs_torch

OBJECTIVE: dict[str, Any] = {
    "sft": 0.5,
    "divergence": {"weight": 0.5, "signals": "live", "k": 0},
    "hidden": {"weight": 0.1, "layers": {"0": 0, "2": 3}},
    "attention": {"weight": 1.0},
    "relation": {"weight": 1.0},
}
SAID: dict[str, Any] = {
    "steps": 24, "batch_tokens": 512, "learning_rate": 3e-3, "warmup_steps": 4, "checkpoint_every": 10, "log_every": 4
}  # fmt: skip
RECIPE = Recipe(**SAID, objective=OBJECTIVE)


class Stop(Exception):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def teacher(tokenizer, tmp_path_factory) -> Path:
    """A model twice as wide as nano, with a layer more."""
    from distill_dagster.models import folder
    from distill_dagster.training import presets

    return folder.save(presets.build("micro", tokenizer, 11), tokenizer, tmp_path_factory.mktemp("teacher") / "model")


def fresh(tokenizer) -> Any:
    from distill_dagster.training import presets

    return presets.build("nano", tokenizer, 3)


def run(tokenizer, examples, teacher: Path, folder: Path, recipe: Recipe = RECIPE, **more: Any) -> tuple[Any, Any]:
    """Summary and model."""
    from distill_dagster.training.signals.live import LiveTeacher
    from distill_dagster.training.trainer import train

    model = more.pop("model", None) or fresh(tokenizer)
    return train(model, tokenizer, examples, recipe, folder, signals=[LiveTeacher(teacher, tokenizer)], **more), model


def lines(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{key: row[key] for key in row if key not in ("elapsed", "tokens_per_second")} for row in rows]


def weights(model: Any) -> bytes:
    return b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())


@pytest.fixture(scope="module")
def undisturbed(tokenizer, examples, teacher, tmp_path_factory):
    """Summary, weights, metrics and folder of a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("undisturbed")
    summary, model = run(tokenizer, examples, teacher, folder, validation=examples[:10])
    return summary, weights(model), lines(folder), folder


def test_each_term_falls_and_the_student_stays_what_it_was(undisturbed, tokenizer) -> None:
    summary, _, rows, _ = undisturbed
    # The teacher knows nothing, so what labels teach leads away from its probabilities.
    for name in set(OBJECTIVE) - {"divergence"}:
        assert 0 < rows[-1][name] < rows[0][name], name
    assert summary["forward"] == "decoder"
    assert summary["parameters"] == sum(one.numel() for one in fresh(tokenizer).parameters())
    assert summary["validation_loss"] < summary["validation_loss_before"]


def test_projections_are_drawn_by_name_and_learned_but_not_saved(undisturbed, tokenizer) -> None:
    import torch
    from safetensors.torch import load_file

    from distill_dagster.training import features

    (checkpoint,) = undisturbed[3].glob("step-*")
    stored = load_file(checkpoint / "model.safetensors")
    names = {name for name in stored if name.startswith("objective.")}
    assert names == {"objective.hidden.projection.0", "objective.hidden.projection.2"}
    for name in names:
        drawn = features.draw(name, (128, 64), 0)
        assert stored[name].shape == (128, 64) and not torch.equal(stored[name], drawn)
        assert (stored[name] - drawn).norm() < 0.9 * drawn.norm()
        assert drawn.std().item() == pytest.approx(64**-0.5, rel=0.05)
    assert not any("objective" in name for name in fresh(tokenizer).state_dict())
    one, again, seed, other = (
        features.draw(name, (3, 2), number) for name, number in (("a", 0), ("a", 0), ("a", 1), ("b", 0))
    )
    assert torch.equal(one, again) and not torch.equal(one, seed) and not torch.equal(one, other)


@pytest.mark.parametrize("stop", [12, 24])
@pytest.mark.slow
def test_a_resumed_run_ends_like_an_undisturbed_one(
    undisturbed, tokenizer, examples, teacher, tmp_path: Path, stop: int
) -> None:
    def kill(step: int, steps: int, loss: float) -> None:
        if step == stop:
            raise Stop

    with pytest.raises(Stop):
        run(tokenizer, examples, teacher, tmp_path, progress=kill)
    summary, model = run(tokenizer, examples, teacher, tmp_path)
    assert summary["resumed_from"] == stop // 10 * 10 and summary["loss"] == undisturbed[0]["loss"]
    assert weights(model) == undisturbed[1] and lines(tmp_path) == undisturbed[2]


@pytest.mark.slow
def test_other_layers_are_another_run(undisturbed, tokenizer, examples, teacher, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(undisturbed[3], tmp_path / "work")
    layers = {**OBJECTIVE, "hidden": {"weight": 0.1, "layers": {0: 0, 2: 2}}}
    summary, _ = run(tokenizer, examples, teacher, tmp_path / "work", Recipe(**SAID, objective=layers))
    assert summary["resumed_from"] == 0
    same = {**OBJECTIVE, "hidden": {"weight": 0.1, "layers": {0: 0, 2: 3}}}
    work = shutil.copytree(undisturbed[3], tmp_path / "again")
    # As YAML writes the map, and as Python does: the same run after a trip through JSON.
    again = Recipe(**json.loads(Recipe(**SAID, objective=same).model_dump_json()))
    assert run(tokenizer, examples, teacher, work, again)[0]["resumed_from"] == 20


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_same_curve(chats, examples, tokenizer, teacher, tmp_path: Path) -> None:
    rows = [{"origin": "gold", "task": "turn", "split": "train", "messages": from_chat(c.messages)} for c in chats]
    pq.write_table(build_table("example", rows), tmp_path / "examples.parquet")

    task = {
        "examples": str(tmp_path / "examples.parquet"),
        "base": {"preset": "nano", "tokenizer": tokenizer.name_or_path},
        "recipe": RECIPE.model_dump(),
        "teacher": {"path": str(teacher), "dtype": "fp32"},
        "out": str(tmp_path / "out"),
        "work": str(tmp_path / "work"),
    }
    (tmp_path / "TASK.json").write_text(json.dumps(task), "utf-8")
    command = [sys.executable, "-m", "distill_dagster.training.process", str(tmp_path / "TASK.json")]
    # Killed (SIGKILL) where the second checkpoint is about to be put in place.
    log = tmp_path / "points"
    faults = {"DISTILL_FAULT_AT": "11", "DISTILL_FAULT_LOG": str(log)}
    assert subprocess.run(command, env={**os.environ, **faults}, check=False).returncode == -9
    points = [line.split()[-1] for line in log.read_text("utf-8").splitlines()]
    assert points[-1] == "checkpoint.rename" and points.count("checkpoint.rename") == 2, points
    assert subprocess.run(command, check=False).returncode == 0
    assert json.loads((tmp_path / "work" / "result.json").read_text("utf-8"))["summary"]["resumed_from"] == 10
    # The same run in this process, which nothing interrupts.
    from distill_dagster.models import folder
    from distill_dagster.training import presets

    model = presets.build("nano", tokenizer, RECIPE.seed)
    run(tokenizer, examples, teacher, tmp_path / "whole", model=model)
    assert lines(tmp_path / "work") == lines(tmp_path / "whole")
    assert weights(folder.load_model(tmp_path / "out")) == weights(model)
    assert b"objective" not in (tmp_path / "out" / "model.safetensors").read_bytes()


def test_without_a_teacher_it_does_not_start(tokenizer, examples, tmp_path: Path) -> None:
    from distill_dagster.training.trainer import train

    recipe = Recipe(**SAID, objective={"relation": 1.0})
    with pytest.raises(TrainingError, match="no teacher in memory") as caught:
        train(fresh(tokenizer), tokenizer, examples, recipe, tmp_path)
    assert caught.value.place == "training.objective.relation"


def test_another_tokenizer_is_refused(tokenizer, examples, chats, teacher, tmp_path: Path) -> None:
    from distill_dagster.training import tokenizer as tokenizers
    from distill_dagster.training.signals.live import LiveTeacher

    other = tokenizers.fit([message["content"] for chat in chats for message in chat.messages], 300, tmp_path / "t")
    with pytest.raises(TrainingError, match="tokenizer .* is not the student's"):
        LiveTeacher(teacher, other)


def test_a_layer_that_is_not_there_stops_before_the_first_step(tokenizer, examples, teacher, tmp_path: Path) -> None:
    recipe = Recipe(**{**SAID, "objective": {"hidden": {"layers": {"2": 9}}}})
    with pytest.raises(TrainingError, match="teacher .* has no layer 9: it has 3 layers"):
        run(tokenizer, examples, teacher, tmp_path, recipe)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_term_of_weight_0_asks_for_nothing(tokenizer, examples, tmp_path: Path) -> None:
    from distill_dagster.training.objectives.base import needs
    from distill_dagster.training.trainer import train

    recipe = Recipe(**{**SAID, "steps": 2, "objective": {"sft": 1.0, "hidden": {"weight": 0.0}}})
    assert needs(recipe) == []
    assert {need.source for need in needs(RECIPE)} == {"live"}
    assert train(fresh(tokenizer), tokenizer, examples, recipe, tmp_path)["forward"] == "llama"


def test_bf16_is_near(undisturbed, tokenizer, examples, teacher, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"precision": "bf16", "steps": 4})
    run(tokenizer, examples, teacher, tmp_path, recipe)
    first, known = lines(tmp_path)[0], undisturbed[2][0]
    for name in OBJECTIVE:
        assert first[name] == pytest.approx(known[name], rel=0.05), name
