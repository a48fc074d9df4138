import json
import math
from pathlib import Path

import pytest

from distill_dagster.config import registry
from distill_dagster.config.models import Recipe
from distill_dagster.errors import ConfigError, StoreError, TrainingError
from distill_dagster.training.data import Example
from distill_dagster.training.schedule import rate

pytestmark = pytest.mark.needs_torch

RECIPE = Recipe(steps=24, batch_tokens=512, learning_rate=3e-3, warmup_steps=4, checkpoint_every=10, log_every=4)


class Stop(Exception):
    """Stands for a kill: nothing of the run is told beforehand."""


def weights(model) -> bytes:
    return b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def fresh(tokenizer, seed: int = 3):
    from distill_dagster.training import presets

    return presets.build("nano", tokenizer, seed)


@pytest.fixture(scope="module")
def undisturbed(tokenizer, examples, tmp_path_factory):
    """Summary, weights and metrics of a run that nothing interrupts."""
    from distill_dagster.training.trainer import train

    folder = tmp_path_factory.mktemp("undisturbed")
    model = fresh(tokenizer)
    summary = train(model, tokenizer, examples, RECIPE, folder, validation=examples[:20])
    return summary, weights(model), lines(folder)


def test_it_learns_and_says_so(undisturbed, examples) -> None:
    summary, _, rows = undisturbed
    assert [row["step"] for row in rows] == [1, 4, 8, 12, 16, 20, 24]
    for row in rows:
        assert row["loss"] == row["sft"] > 0
        assert set(row) == {
            "step", "loss", "sft", "grad_norm", "lr", "tokens", "tokens_per_second", "elapsed"
        }  # fmt: skip
    assert summary["loss"] < 0.75 * summary["first_loss"]
    assert summary["validation_loss"] < 0.75 * summary["validation_loss_before"]
    assert summary["steps"] == 24 and summary["resumed_from"] == 0
    assert summary["tokens"] == rows[-1]["tokens"]
    assert summary["epochs"] == pytest.approx(summary["tokens"] / sum(len(e.ids) for e in examples))
    assert rows[0]["lr"] == pytest.approx(3e-3 / 4)


def test_the_same_inputs_give_the_same_bytes(undisturbed, tokenizer, examples, tmp_path: Path) -> None:
    import torch

    from distill_dagster.training.trainer import train

    torch.manual_seed(99)
    before = torch.get_rng_state(), torch.get_num_threads()
    model = fresh(tokenizer)
    train(model, tokenizer, examples, RECIPE, tmp_path)
    assert weights(model) == undisturbed[1]
    assert torch.equal(before[0], torch.get_rng_state()) and torch.get_num_threads() == before[1]
    assert not torch.are_deterministic_algorithms_enabled()
    other = fresh(tokenizer)
    train(other, tokenizer, examples, RECIPE.model_copy(update={"seed": 1}), tmp_path / "other")
    assert weights(other) != undisturbed[1]


@pytest.mark.parametrize("stop", [4, 12, 16, 20])
def test_a_resumed_run_ends_like_an_undisturbed_one(
    undisturbed, tokenizer, examples, tmp_path: Path, stop: int
) -> None:
    from distill_dagster.training.trainer import train

    def kill(step: int, steps: int, loss: float) -> None:
        assert steps == 24
        if step == stop:
            raise Stop

    with pytest.raises(Stop):
        train(fresh(tokenizer), tokenizer, examples, RECIPE, tmp_path, progress=kill)
    with (tmp_path / "metrics.jsonl").open("a") as torn:
        torn.write('{"step": 2')
    model = fresh(tokenizer)
    summary = train(model, tokenizer, examples, RECIPE, tmp_path)
    # A step is logged before its checkpoint is written.
    assert summary["resumed_from"] == (stop - 1) // 10 * 10
    assert weights(model) == undisturbed[1]
    volatile = ("elapsed", "tokens_per_second")
    strip = lambda rows: [{k: v for k, v in row.items() if k not in volatile} for row in rows]  # noqa: E731
    assert strip(lines(tmp_path)) == strip(undisturbed[2])
    for key in ("loss", "first_loss", "tokens", "answer_tokens", "epochs"):
        assert summary[key] == undisturbed[0][key]
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000020"]


def test_a_checkpoint_of_another_run_is_not_taken(undisturbed, tokenizer, examples, tmp_path: Path) -> None:
    from distill_dagster.training.trainer import train

    train(fresh(tokenizer), tokenizer, examples, RECIPE.model_copy(update={"learning_rate": 1e-3}), tmp_path)
    model = fresh(tokenizer)
    assert train(model, tokenizer, examples, RECIPE, tmp_path)["resumed_from"] == 0
    assert weights(model) == undisturbed[1]
    assert len(lines(tmp_path)) == 7
    # What is not identity may change between the runs.
    model = fresh(tokenizer)
    often = RECIPE.model_copy(update={"checkpoint_every": 5, "log_every": 1})
    assert train(model, tokenizer, examples, often, tmp_path)["resumed_from"] == 20
    assert weights(model) == undisturbed[1]


def test_bf16_learns_too_and_keeps_fp32_weights(undisturbed, tokenizer, examples, tmp_path: Path) -> None:
    import torch

    from distill_dagster.training.trainer import train

    model = fresh(tokenizer)
    summary = train(model, tokenizer, examples, RECIPE.model_copy(update={"precision": "bf16"}), tmp_path)
    assert summary["loss"] == pytest.approx(undisturbed[0]["loss"], rel=0.1)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_nan_names_step_and_records_and_leaves_the_checkpoint(
    tokenizer, examples, tmp_path: Path, poison: str, monkeypatch
) -> None:
    import torch

    from distill_dagster.training import trainer
    from distill_dagster.training.objectives import sft

    calls = []
    usual = sft.Objective.__call__

    def poisoned(self, positions):
        calls.append(positions.record_ids)
        value = usual(self, positions)
        if len(calls) < 13:
            return value
        return value * math.nan if poison == "loss" else value + torch.sqrt(0 * positions.logits.sum())

    monkeypatch.setattr(sft.Objective, "__call__", poisoned)
    with pytest.raises(TrainingError, match="step 13 of 24.*not finite") as caught:
        trainer.train(fresh(tokenizer), tokenizer, examples, RECIPE, tmp_path)
    assert calls[12][0] in caught.value.reason and "learning_rate" in caught.value.next_step
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000010"]
    monkeypatch.undo()
    assert trainer.train(fresh(tokenizer), tokenizer, examples, RECIPE, tmp_path)["resumed_from"] == 10


def test_an_empty_batch_is_an_error(tokenizer, tmp_path: Path) -> None:
    from distill_dagster.training.trainer import train

    # Only the first token has a weight, and nothing predicts it.
    with pytest.raises(TrainingError, match="no position.*records lonely"):
        train(fresh(tokenizer), tokenizer, [Example("lonely", [5, 6], [1.0, 0.0])], RECIPE, tmp_path)


def test_a_full_disk_keeps_the_last_checkpoint(tokenizer, examples, tmp_path: Path, monkeypatch) -> None:
    import safetensors.torch

    from distill_dagster.training.trainer import train

    usual, made = safetensors.torch.save_file, []

    def full(tensors, path, metadata=None):
        made.append(path)
        if len(made) > 2:
            raise OSError(28, "No space left on device")
        usual(tensors, path, metadata)

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(StoreError, match="disk is full"):
        train(fresh(tokenizer), tokenizer, examples, RECIPE, tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["step-00000010"]


def test_an_unknown_objective_names_the_nearest(tokenizer, examples, tmp_path: Path) -> None:
    from distill_dagster.training.trainer import train

    assert "sft" in registry.names("distill_dagster.training.objectives")
    recipe = RECIPE.model_copy(update={"objective": {"sfd": 1.0}})
    with pytest.raises(ConfigError, match="'sft'"):
        train(fresh(tokenizer), tokenizer, examples, recipe, tmp_path)


def test_norms_and_the_embedding_do_not_decay(tokenizer, examples, tmp_path: Path) -> None:
    from distill_dagster.training.trainer import Run

    run = Run(fresh(tokenizer), tokenizer, examples, RECIPE.model_copy(update={"weight_decay": 0.3}), tmp_path)
    named = {id(parameter): name for name, parameter in run.parameters.items()}
    decay, keep = ({named[id(p)] for p in group["params"]} for group in run.optimizer.param_groups)
    assert all(name.endswith("proj.weight") for name in decay) and len(decay) == 14
    assert keep == {name for name in run.parameters if "norm" in name or "embed" in name}
    assert [group["weight_decay"] for group in run.optimizer.param_groups] == [0.3, 0.0]


def test_schedules() -> None:
    assert [rate("constant", step, 10, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert [rate("linear", step, 10, 0) for step in (0, 5, 9)] == pytest.approx([1, 0.5, 0.1])
    assert [rate("cosine", step, 12, 2) for step in (1, 2, 7, 12)] == pytest.approx([1, 1, 0.5, 0])
    assert max(rate("cosine", step, 10, 500) for step in range(10)) == 1
    assert rate("cosine", 0, 1, 20) == 1


def test_a_measure_without_a_number_is_left_out(tokenizer, examples, tmp_path: Path) -> None:
    """Strict readers of JSON know no Infinity."""
    from distill_dagster.training.trainer import Run

    run = Run(fresh(tokenizer), tokenizer, examples, RECIPE, tmp_path)
    run.start()
    run.set_rate()
    run.count(10, {"loss": 1.0, "dpo_margin": float("inf")})
    run.write(run.means.take(), {"entropy": float("nan"), "samples": 3.0})

    def refuse(name: str) -> None:
        raise AssertionError(name)

    (row,) = (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()
    said = json.loads(row, parse_constant=refuse)
    assert said["loss"] == 1.0 and said["samples"] == 3.0 and {"dpo_margin", "entropy"}.isdisjoint(said)


def test_what_a_kill_left_of_a_checkpoint_does_not_stop_the_next_start(tmp_path: Path, monkeypatch) -> None:
    import shutil

    import torch

    from distill_dagster.training import checkpoint

    one = checkpoint.Checkpoint({"a": torch.ones(2)}, {"b": torch.zeros(1)}, {"fingerprint": "mine", "step": 4})
    checkpoint.write(tmp_path, 4, one)
    half = tmp_path / "step-00000008"  # of another run, its removal killed half way
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"x")
    torn = tmp_path / "step-00000006"
    shutil.copytree(tmp_path / "step-00000004", torn)
    (torn / "state.json").write_text('{"fingerpr')
    for number, name in ((10, "model"), (11, "optimizer")):  # as a disk that was full or dying leaves them
        short = tmp_path / f"step-000000{number}"
        shutil.copytree(tmp_path / "step-00000004", short)
        whole = (short / f"{name}.safetensors").read_bytes()
        (short / f"{name}.safetensors").write_bytes(whole[: len(whole) // 2])
    bare = tmp_path / "step-00000009"
    shutil.copytree(tmp_path / "step-00000004", bare)
    (bare / "optimizer.safetensors").unlink()
    (tmp_path / ".step-00000007.tmp").mkdir()
    found = checkpoint.newest(tmp_path, "mine")
    assert found is not None and found.state["step"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000004"]

    # A kill while one is removed leaves none that looks whole.
    def killed(path: Path, **_) -> None:
        if Path(path).exists():
            next(Path(path).iterdir()).unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "rmtree", killed)
        checkpoint.newest(tmp_path, "other")
    assert [path.name for path in tmp_path.iterdir()] == [".step-00000004.tmp"]
    assert checkpoint.newest(tmp_path, "other") is None and not list(tmp_path.iterdir())
