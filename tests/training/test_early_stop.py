"""Stopping by the validation loss: when, with which weights, and through a kill."""

from pathlib import Path

import pytest

from distill_dagster.config.models import Recipe
from distill_dagster.config.recipe import EarlyStop
from distill_dagster.errors import TrainingError
from distill_dagster.training import metrics
from distill_dagster.training.early_stop import Stopping

pytestmark = pytest.mark.needs_torch

STOP = EarlyStop(every=5, patience=2, share=1.0)
RECIPE = Recipe(
    steps=200, batch_tokens=256, learning_rate=1e-2, warmup_steps=2, checkpoint_every=7, log_every=4, early_stop=STOP
)


class Stop(Exception):
    """Stands for a kill."""


def fresh(tokenizer):
    from distill_dagster.training import presets

    return presets.build("nano", tokenizer, 3)


@pytest.fixture(scope="module")
def overfitted(tokenizer, examples, tmp_path_factory):
    """A run on six records, which soon knows them by heart."""
    from distill_dagster.training.trainer import train

    folder, model = tmp_path_factory.mktemp("overfitted"), fresh(tokenizer)
    summary = train(model, tokenizer, examples[:6], RECIPE, folder, validation=examples[60:90])
    return summary, model, metrics.read(folder / "metrics.jsonl")


def test_it_stops_and_keeps_the_best(overfitted, tokenizer, examples, tmp_path: Path) -> None:
    from distill_dagster.training.trainer import Run

    summary, model, rows = overfitted
    looks = {row["step"]: row["validation_loss"] for row in rows if "validation_loss" in row}
    best = min(looks, key=lambda step: (looks[step], step))
    assert list(looks) == list(range(5, summary["steps"] + 1, 5))
    assert summary["stopped_early"] and summary["steps"] == summary["stopped_at"] == best + 10 < 200
    assert (summary["best_step"], summary["best_validation_loss"]) == (best, looks[best])
    assert f"step {best}" in summary["stop_reason"] and "2 looks" in summary["stop_reason"]
    # The weights are those of the best step, not of the last.
    assert summary["validation_loss"] == looks[best] < looks[summary["steps"]]
    assert Run(model, tokenizer, examples[:6], RECIPE, tmp_path).loss(examples[60:90]) == summary["validation_loss"]


@pytest.mark.parametrize("lag", [-1, 5, 8])
def test_a_kill_changes_nothing(overfitted, tokenizer, examples, tmp_path: Path, lag: int) -> None:
    """Killed before the best step, between it and the end, and two steps before the end."""
    from distill_dagster.training.trainer import train

    summary, model, rows = overfitted
    wanted = next(row["step"] for row in rows if row["step"] >= summary["best_step"] + lag)

    def kill(step: int, steps: int, loss: float) -> None:
        if step == wanted:
            raise Stop

    with pytest.raises(Stop):
        train(fresh(tokenizer), tokenizer, examples[:6], RECIPE, tmp_path, validation=examples[60:90], progress=kill)
    again = fresh(tokenizer)
    resumed = train(again, tokenizer, examples[:6], RECIPE, tmp_path, validation=examples[60:90])
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert one.equal(other)
    volatile = {"seconds", "tokens_per_second", "resumed_from", "validation_loss_before"}
    assert {k: v for k, v in resumed.items() if k not in volatile} == {
        k: v for k, v in summary.items() if k not in volatile
    }
    keep = ("step", "loss", "validation_loss")
    ours = metrics.read(tmp_path / "metrics.jsonl")
    assert [[row.get(k) for k in keep] for row in ours] == [[row.get(k) for k in keep] for row in rows]


def test_a_kill_behind_the_checkpoint_of_the_last_step_does_not_let_it_go_on(
    tokenizer, examples, tmp_path: Path, monkeypatch
) -> None:
    """The loss would fall again after the stop: a run that went on would have other weights."""
    from distill_dagster.training import resuming
    from distill_dagster.training.trainer import Run, train

    losses = [9.0, 5.0, 6.0, 6.0, 1.0, 0.9, 2.0, 2.0, 2.0]
    monkeypatch.setattr(Run, "loss", lambda self, _: losses[self.step])
    stop = EarlyStop(every=1, patience=2, share=1.0)
    recipe = Recipe(steps=8, batch_tokens=256, checkpoint_every=1, log_every=1, early_stop=stop)

    def run(folder: Path) -> tuple:
        model = fresh(tokenizer)
        return train(model, tokenizer, examples[:6], recipe, folder, validation=examples[60:62]), model

    whole, model = run(tmp_path / "whole")
    assert (whole["stopped_at"], whole["best_step"]) == (3, 1)
    save = resuming.save

    def kill(run) -> None:
        save(run)
        if run.step == 3:
            raise Stop

    with monkeypatch.context() as patched, pytest.raises(Stop):
        patched.setattr(resuming, "save", kill)
        run(tmp_path / "killed")
    summary, again = run(tmp_path / "killed")
    for key in ("steps", "stopped_at", "best_step", "best_validation_loss", "stop_reason", "tokens"):
        assert summary[key] == whole[key], key
    assert all(one.equal(other) for one, other in zip(model.parameters(), again.parameters(), strict=True))


def test_a_run_that_still_improves_goes_to_its_end(tokenizer, examples, tmp_path: Path) -> None:
    from distill_dagster.training.trainer import train

    recipe = RECIPE.model_copy(update={"steps": 12, "learning_rate": 1e-3})
    summary = train(fresh(tokenizer), tokenizer, examples[:60], recipe, tmp_path, validation=examples[60:90])
    assert summary["steps"] == 12 and not summary["stopped_early"] and summary["best_step"] == 12
    assert summary["stop_reason"].startswith("all steps were done")


def test_a_checkpoint_that_was_judged_by_other_records_is_not_taken(tokenizer, examples, tmp_path: Path) -> None:
    from distill_dagster.training.trainer import train

    def kill(step: int, steps: int, loss: float) -> None:
        if step == 8:
            raise Stop

    short = RECIPE.model_copy(update={"steps": 10})
    with pytest.raises(Stop):
        train(fresh(tokenizer), tokenizer, examples[:6], short, tmp_path, validation=examples[60:70], progress=kill)
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000007"]
    other = train(fresh(tokenizer), tokenizer, examples[:6], short, tmp_path, validation=examples[80:90])
    assert other["resumed_from"] == 0


def test_without_validation_records_it_does_not_start(tokenizer, examples, tmp_path: Path) -> None:
    from distill_dagster.training.trainer import train

    with pytest.raises(TrainingError, match="early_stop needs validation records"):
        train(fresh(tokenizer), tokenizer, examples, RECIPE, tmp_path)


def test_patience_and_min_delta() -> None:
    import torch

    stopping = Stopping(EarlyStop(every=10, patience=2, min_delta=0.1))
    assert [step for step in range(1, 26) if stopping.due(step, 25)] == [10, 20, 25]
    weights = {"a": torch.zeros(1)}
    for step, loss in enumerate([2.0, 1.95, 1.5, 1.45], start=1):
        weights["a"] += 1
        stopping.look(step, loss, weights)
        assert not stopping.over
    assert (stopping.step, stopping.best, stopping.weights["a"].item()) == (3, 1.5, 3)
    taken = Stopping(EarlyStop(every=10, patience=2, min_delta=0.1))
    taken.restore(stopping.state(), {**stopping.tensors(), "random": torch.zeros(2)})
    for one in (stopping, taken):
        one.look(5, 1.41, weights)
        assert one.over and one.step == 3 and one.weights["a"].item() == 3


def test_a_loss_that_needs_a_teacher_is_judged_by_the_labels(tokenizer, examples, tmp_path: Path) -> None:
    from distill_dagster.training.trainer import Run

    objective = {"divergence": {"weight": 1.0, "signals": "live"}}
    recipe = Recipe(**{**RECIPE.model_dump(), "objective": objective})
    taught = Run(fresh(tokenizer), tokenizer, examples, recipe, tmp_path)
    plain = Run(fresh(tokenizer), tokenizer, examples, RECIPE, tmp_path)
    assert taught.loss(examples[:30]) == plain.loss(examples[:30])
