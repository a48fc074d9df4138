"""Preference pairs through TRL: the built-in trainer's weights and curves, kills, and what is refused."""

import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pipeline.nursery import Start
from trl_runs import PAIRS, apart, encoded, fresh, lines, pair_rows, through

from distill_dagster.config.models import Recipe, identity
from distill_dagster.errors import ConfigError, ModelError, TrainingError
from distill_dagster.records.tables import build
from distill_dagster.training.launch import launch
from distill_dagster.training.trl import library

pytestmark = [pytest.mark.needs_torch, pytest.mark.slow]

OBJECTIVES: list[dict[str, Any]] = [
    {"dpo": {"weight": 1.0, "beta": 0.3}},
    {"dpo": {"weight": 0.7, "loss": "ipo", "beta": 0.4}, "sft": 0.5},
]


@pytest.fixture(scope="module")
def rows(chats) -> list[dict]:
    return pair_rows(chats)


@pytest.fixture(scope="module")
def examples(tokenizer, rows):
    return encoded(tokenizer, rows)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["sigmoid", "ipo and sft"])
def test_a_whole_run_on_pairs_agrees_with_the_built_in_one(objective, tokenizer, examples, tmp_path: Path) -> None:
    """Several steps of unequal batches: loss, its parts, gradient norms, rates, and where the weights end."""
    recipe = Recipe(objective=objective, learning_rate=1e-3, **PAIRS)
    ours, theirs = fresh(tokenizer), fresh(tokenizer)
    said = through("builtin", ours, tokenizer, examples, recipe, tmp_path / "ours")
    told = through("trl", theirs, tokenizer, examples, recipe, tmp_path / "theirs")
    for one, other in zip(lines(tmp_path / "ours"), lines(tmp_path / "theirs"), strict=True):
        assert set(other) >= {"loss", "lr", "grad_norm", "tokens", "dpo_margin", "dpo_accuracy", "dpo_chosen_log_prob"}
        assert set(one) - set(other) == ({"dpo", "sft"} if "sft" in objective else set())
        assert other == pytest.approx({name: one[name] for name in other}, rel=1e-4, abs=2e-5)
    # AdamW divides by the gradient's own size, so rounding shows most where there is hardly any gradient.
    assert apart(fresh(tokenizer), ours, theirs) < 1e-4
    assert set(said) <= set(told) and told["trainer"].startswith("trl ")
    for name in ("steps", "examples", "tokens", "answer_tokens", "epochs", "parameters", "resumed_from"):
        assert told[name] == said[name]


def test_other_settings_would_show(tokenizer, examples, tmp_path: Path) -> None:
    """What the agreement above holds: every one of these alone is farther apart."""
    recipe = Recipe(objective=OBJECTIVES[0], learning_rate=1e-3, **PAIRS)
    ours = fresh(tokenizer)
    through("builtin", ours, tokenizer, examples, recipe, tmp_path / "ours")
    others = {"seed": 1, "warmup_steps": 1, "schedule": "linear", "weight_decay": 0.5, "beta2": 0.95, "grad_clip": 4.0}
    for name, value in others.items():
        theirs = fresh(tokenizer)
        changed = recipe.model_copy(update={name: value})
        through("trl", theirs, tokenizer, examples, changed, tmp_path / name)
        assert apart(fresh(tokenizer), ours, theirs) > 2e-3, name


def test_batches_of_a_step_and_a_lora_adapter(tokenizer, examples, tmp_path: Path) -> None:
    """One pair a batch, two batches a step: then the mean of the batches' means is the mean over pairs."""
    pytest.importorskip("peft")
    from distill_dagster.training import adapters

    recipe = Recipe(
        objective=OBJECTIVES[0],
        learning_rate=1e-2,
        accumulate=2,
        adapter={"kind": "lora", "r": 4, "dropout": 0.0},  # pyright: ignore[reportArgumentType]
        **{**PAIRS, "batch_tokens": 2 * max(len(one.ids) for one in examples)},
    )
    only = [one for one in examples if one.side.pair in (3, 4)]
    longest = max(len(one.ids) for one in only)
    recipe = recipe.model_copy(update={"batch_tokens": max(64, 2 * longest)})
    models = {}
    for name in ("start", "builtin", "trl"):
        models[name] = fresh(tokenizer)
        adapters.attach(models[name], recipe, "test")
        if name != "start":
            through(name, models[name], tokenizer, only, recipe, tmp_path / name)
    assert apart(models["start"], models["builtin"], models["trl"]) < 1e-4
    frozen = {name: part for name, part in models["trl"].named_parameters() if not part.requires_grad}
    assert frozen and all(
        bool((dict(models["start"].named_parameters())[name] == frozen[name]).all()) for name in frozen
    )


def task(folder: Path, tokenizer, rows: list[dict], **recipe: Any) -> dict[str, Any]:
    pq.write_table(build("preference", rows), folder / "pairs.parquet")
    return {
        "pairs": str(folder / "pairs.parquet"),
        "base": {"preset": "nano", "tokenizer": tokenizer.name_or_path},
        "recipe": {**PAIRS, "objective": OBJECTIVES[0], "steps": 8, "checkpoint_every": 3, "log_every": 2, **recipe},
        "out": str(folder / "out"),
        "name": "finance/student_checkpoint",
    }


@pytest.mark.kill
def test_a_process_killed_with_9_resumes_and_ends_alike(tokenizer, rows, tmp_path: Path) -> None:
    """Checkpoints are safetensors and JSON, and the run that resumes ends with the bytes of an undisturbed one."""
    asked = task(tmp_path, tokenizer, rows)
    whole = launch(asked, tmp_path / "whole", start=Start)
    served = (tmp_path / "out" / "model.safetensors").read_bytes()
    # Three points before the first step, four a checkpoint: this is amid the second one, at step 6.
    with pytest.raises(TrainingError, match="SIGKILL"):
        launch(asked, tmp_path / "killed", env={"DISTILL_FAULT_AT": "9"}, start=Start)
    (left,) = (tmp_path / "killed").glob("step-*")
    assert {path.suffix for path in left.iterdir()} == {".safetensors", ".json"}
    again = launch(asked, tmp_path / "killed", start=Start)
    assert again["resumed_from"] == 3 and again["steps"] == whole["steps"] == 8 and again["tokens"] == whole["tokens"]
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")
    assert [row["step"] for row in lines(tmp_path / "killed")] == [1, 2, 3, 4, 6, 8]
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == served
    pickled = {".bin", ".pt", ".pth", ".pkl", ".pickle"}
    assert not [path for path in tmp_path.rglob("*") if path.suffix in pickled]


def test_a_loss_that_is_not_finite_stops_the_run(tokenizer, rows, examples, tmp_path: Path) -> None:
    asked = task(tmp_path, tokenizer, rows, learning_rate=1e30, warmup_steps=0, schedule="constant")
    with pytest.raises(
        TrainingError, match=r"step 2 of 8: the (loss|gradient) is not finite \(.*\); records .*learning_rate"
    ):
        launch(asked, tmp_path / "work", start=Start)
    assert not (tmp_path / "out").exists()


def test_an_old_recipe_keeps_its_identity() -> None:
    assert "trainer" not in identity(Recipe()) and identity(Recipe(objective={"dpo": 1.0}, trainer="trl"))["trainer"]


def test_the_extra_is_named_where_trl_is_missing_or_old(monkeypatch, tokenizer, examples, tmp_path: Path) -> None:
    recipe = Recipe(objective=OBJECTIVES[0], **PAIRS)
    monkeypatch.setattr(library.importlib.metadata, "version", lambda name: "1.9.2")
    with pytest.raises(ModelError, match=r"needs trl 1.10 or newer, and this is 1.9.2.*distill-dagster\[trl\]"):
        library.require(recipe, "finance/student_checkpoint")
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(ModelError, match=r"needs the package trl.*pip install 'distill-dagster\[trl\]'"):
        through("trl", fresh(tokenizer), tokenizer, examples, recipe, tmp_path)
    library.require(recipe.model_copy(update={"trainer": "builtin"}), "anywhere")


def test_a_task_that_trl_cannot_follow_is_refused(monkeypatch, tokenizer, rows, examples, tmp_path: Path) -> None:
    from distill_dagster.training import process

    asked = {**task(tmp_path, tokenizer, rows), "work": str(tmp_path / "work")}
    with pytest.raises(TrainingError, match="'teacher'.*takes pairs"):
        process.run({**asked, "teacher": {"path": "nowhere"}})
    with pytest.raises(ConfigError, match=r"training.objective.simpo: .*Leave out `trainer: trl`"):
        process.run({**asked, "recipe": {**asked["recipe"], "objective": {"dpo": 1.0, "simpo": 1.0}}})
    from distill_dagster.training.world import World

    with pytest.raises(TrainingError, match="takes one process here, and there are 2"):
        through("trl", None, tokenizer, examples, Recipe(objective=OBJECTIVES[0], **PAIRS), tmp_path, world=World(0, 2))
