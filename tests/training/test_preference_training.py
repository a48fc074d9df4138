"""Training on preference pairs: it learns, survives a kill with an equal curve, and refuses what it cannot use."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline.nursery import Start

from distill_dagster.config.models import Recipe
from distill_dagster.errors import ConfigError, TrainingError
from distill_dagster.records.messages import from_chat
from distill_dagster.records.tables import build
from distill_dagster.training.launch import launch

pytestmark = pytest.mark.needs_torch

RECIPE = Recipe(
    objective={"dpo": {"weight": 1.0, "beta": 0.2}, "sft": 0.1},  # pyright: ignore[reportArgumentType]
    steps=16,
    batch_tokens=512,
    learning_rate=3e-3,
    warmup_steps=2,
    checkpoint_every=5,
    log_every=2,
)
OTHER = str.maketrans("abcd", "wxyz")
VOLATILE = ("elapsed", "tokens_per_second")


class Stop(Exception):
    """Stands for a kill: nothing of the run is told beforehand."""


@pytest.fixture(scope="module")
def rows(chats) -> list[dict]:
    """PREFERENCE rows: the word turned around is better than the same in other letters."""
    made = []
    for prompt, answer in (chat.messages for chat in chats):
        content = {"chosen": answer["content"], "rejected": answer["content"].translate(OTHER)}
        made.append({"task": "turn", "split": "train", "messages": from_chat([prompt]), **content})
    return build("preference", made).to_pylist()


@pytest.fixture(scope="module")
def examples(tokenizer, rows):
    from distill_dagster.training.pairs import encode_pairs, pairs

    return encode_pairs(tokenizer, pairs(rows), 128).examples


def fresh(tokenizer, seed: int = 3):
    from distill_dagster.training import presets

    return presets.build("nano", tokenizer, seed)


def weights(model) -> bytes:
    return b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())


def lines(folder: Path) -> list[dict]:
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{name: value for name, value in row.items() if name not in VOLATILE} for row in read]


@pytest.fixture(scope="module")
def undisturbed(tokenizer, examples, tmp_path_factory):
    """Weights and metrics of a run that nothing interrupts."""
    from distill_dagster.training.trainer import train

    folder = tmp_path_factory.mktemp("undisturbed")
    model = fresh(tokenizer)
    train(model, tokenizer, examples, RECIPE, folder)
    return weights(model), lines(folder)


def test_the_better_answers_gain(undisturbed) -> None:
    _, logged = undisturbed
    first, last = logged[0], logged[-1]
    assert set(first) >= {"dpo", "sft", "dpo_margin", "dpo_accuracy", "dpo_chosen_log_prob", "dpo_rejected_log_prob"}
    # Before the first step the student is its own reference.
    assert first["dpo"] == pytest.approx(0.6931, abs=1e-3) and first["dpo_margin"] == pytest.approx(0, abs=1e-3)
    assert last["dpo"] < 0.6 and last["dpo_margin"] > 0.3 and last["dpo_accuracy"] > 0.8
    assert last["dpo_chosen_log_prob"] - last["dpo_rejected_log_prob"] > 1
    assert last["sft"] < first["sft"]
    for row in logged:
        assert row["loss"] == pytest.approx(row["dpo"] + 0.1 * row["sft"], rel=1e-5)


@pytest.mark.parametrize("objective", [{"simpo": 1.0}, {"dpo": {"weight": 1.0, "loss": "ipo", "beta": 0.5}}])
def test_the_others_learn_too(objective: dict, tokenizer, examples, tmp_path: Path) -> None:
    from distill_dagster.training.trainer import train

    recipe = Recipe(**{**RECIPE.model_dump(), "objective": objective})
    train(fresh(tokenizer), tokenizer, examples, recipe, tmp_path)
    (name,) = objective
    first, last = lines(tmp_path)[0], lines(tmp_path)[-1]
    assert last[name] < 0.9 * first[name] and last[f"{name}_margin"] > first[f"{name}_margin"] + 0.1
    assert (tmp_path / "reference").exists() == (name == "dpo")


@pytest.mark.parametrize("stop", [4, 12])
def test_a_resumed_run_ends_like_an_undisturbed_one(
    undisturbed, tokenizer, examples, tmp_path: Path, stop: int, monkeypatch
) -> None:
    from distill_dagster.training import reference, trainer

    def kill(step: int, steps: int, loss: float) -> None:
        if step == stop:
            raise Stop

    with pytest.raises(Stop):
        trainer.train(fresh(tokenizer), tokenizer, examples, RECIPE, tmp_path, progress=kill)
    # Nothing is asked of the start again.
    monkeypatch.setattr(reference._Scorer, "__call__", lambda self, part: pytest.fail("computed again"))
    model = fresh(tokenizer)
    assert trainer.train(model, tokenizer, examples, RECIPE, tmp_path)["resumed_from"] == (stop - 1) // 5 * 5
    assert (weights(model), lines(tmp_path)) == undisturbed


@pytest.mark.kill
@pytest.mark.slow
def test_kill_9_at_points_of_a_real_process(tokenizer, rows, tmp_path: Path) -> None:
    """Amid the log-probabilities of the start, and amid checkpoints: the curve and the weights are the same."""
    pq.write_table(build("preference", rows), tmp_path / "pairs.parquet")

    def task(name: str) -> dict:
        return {
            "pairs": str(tmp_path / "pairs.parquet"),
            "base": {"preset": "nano", "tokenizer": tokenizer.name_or_path},
            "recipe": RECIPE.model_dump(),
            "out": str(tmp_path / name / "model"),
            "name": "finance/student_checkpoint",
        }

    expected = launch(task("whole"), tmp_path / "whole", start=Start)
    assert expected["steps"] == 16 and expected["examples"] == 2 * len(rows)
    # Points in order: three of the reference's one shard, then four a checkpoint.
    for at in (1, 3, 6):
        folder = tmp_path / f"killed-{at}"
        with pytest.raises(TrainingError, match="SIGKILL"):
            launch(task(folder.name), folder, env={"DISTILL_FAULT_AT": str(at)}, start=Start)
        launch(task(folder.name), folder, start=Start)
        assert lines(folder) == lines(tmp_path / "whole")
        assert (folder / "model" / "model.safetensors").read_bytes() == (
            tmp_path / "whole" / "model" / "model.safetensors"
        ).read_bytes()


def test_the_starts_log_probabilities_are_kept_in_shards_that_depend_on_nothing_else(
    tokenizer, examples, tmp_path: Path, monkeypatch
) -> None:
    import torch

    from distill_dagster.training import reference

    monkeypatch.setattr(reference, "SHARD", 50)
    model = fresh(tokenizer)
    (one,) = reference.wanted(model, tokenizer, examples, RECIPE, tmp_path)
    files = sorted((tmp_path / "reference").rglob("*.parquet"))
    assert len(files) == -(-len(examples) // 50)
    before = [path.read_bytes() for path in files]
    files[1].unlink()
    asked = []
    usual = reference._Scorer.__call__
    monkeypatch.setattr(reference._Scorer, "__call__", lambda self, part: asked.append(len(part)) or usual(self, part))
    (again,) = reference.wanted(model, tokenizer, examples, RECIPE, tmp_path)
    assert asked == [50] and [path.read_bytes() for path in files] == before and again.digest == one.digest
    # They are what the model itself says.
    example = examples[7]
    with torch.no_grad():
        said = model(input_ids=torch.tensor([example.ids])).logits[0].log_softmax(-1)
    start = example.weights.index(1.0)
    expected = sum(said[at - 1, example.ids[at]].item() for at in range(start, len(example.ids)))
    from distill_dagster.training.forward import Forward

    positions = Forward(model)([example], 0)
    assert one([example], positions).item() == pytest.approx(expected, rel=1e-4)


def test_a_wrong_file_is_refused(tokenizer, examples, tmp_path: Path) -> None:
    from distill_dagster.training import reference

    reference.wanted(fresh(tokenizer), tokenizer, examples, RECIPE, tmp_path / "a")
    reference.wanted(fresh(tokenizer, 4), tokenizer, examples, RECIPE, tmp_path / "b")
    (mine,) = (tmp_path / "a").rglob("*.parquet")
    (other,) = (tmp_path / "b").rglob("*.parquet")
    assert mine.parent.name != other.parent.name
    kept = mine.read_bytes()

    def again():
        return reference.wanted(fresh(tokenizer), tokenizer, examples, RECIPE, tmp_path / "a")

    mine.write_bytes(other.read_bytes())
    with pytest.raises(TrainingError, match="of another start or other pairs"):
        again()
    table = pq.read_table(pa.BufferReader(kept))
    pq.write_table(table.slice(1).replace_schema_metadata(table.schema.metadata), mine)
    with pytest.raises(TrainingError, match="of other answers"):
        again()
    mine.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(TrainingError, match="no file of log-probabilities.*computed again"):
        again()
    mine.write_bytes(kept)
    assert len(again()) == 1
    # Another start in the same folder: its own are computed, the earlier ones go.
    reference.wanted(fresh(tokenizer, 4), tokenizer, examples, RECIPE, tmp_path / "a")
    assert not mine.exists()


def test_a_loss_that_is_not_finite_names_each_record_once(tokenizer, examples, tmp_path: Path, monkeypatch) -> None:
    from distill_dagster.training import trainer
    from distill_dagster.training.objectives import dpo

    usual = dpo.Objective.__call__
    monkeypatch.setattr(dpo.Objective, "__call__", lambda self, positions: usual(self, positions) * float("nan"))
    with pytest.raises(TrainingError, match="step 1 of 16: the loss is not finite") as caught:
        trainer.train(fresh(tokenizer), tokenizer, examples, RECIPE, tmp_path)
    named = [word.strip(",.") for word in caught.value.reason.split("records ")[1].split()]
    assert named[0] in {example.record_id for example in examples} and len(set(named)) == len(named)


def test_clear_errors_for_what_cannot_be_learnt_from(tokenizer, rows, examples, tmp_path: Path) -> None:
    from distill_dagster.training.data import Example
    from distill_dagster.training.pairs import encode_pairs, pairs
    from distill_dagster.training.trainer import train

    with pytest.raises(TrainingError, match="there is no pair.*funnel"):
        encode_pairs(tokenizer, [], 128)
    with pytest.raises(TrainingError, match="all .* pairs are longer than max_length 10"):
        encode_pairs(tokenizer, pairs(rows), 10, too_long="drop")
    with pytest.raises(TrainingError, match=f"record {rows[0]['record_id']}.*more than max_length 10"):
        encode_pairs(tokenizer, pairs(rows), 10)

    def run(given, **changed):
        recipe = Recipe(**{**RECIPE.model_dump(), **changed})
        train(fresh(tokenizer), tokenizer, given, recipe, tmp_path)

    with pytest.raises(TrainingError, match="there is no pair"):
        run([], objective={"simpo": 1.0})
    with pytest.raises(TrainingError, match="single answer"):
        run([Example("lonely", [5, 6, 7], [0.0, 1.0, 1.0])])
    with pytest.raises(TrainingError, match="the rejected answer of its pair is not in the batch"):
        run(examples[:1])
    long = pairs([{**rows[0], "record_id": "long", "rejected": "b" * 40}])
    with pytest.raises(TrainingError, match="record long: its pair takes .* more than batch_tokens 64"):
        run(encode_pairs(tokenizer, long, 128).examples, batch_tokens=64)
    with pytest.raises(ConfigError, match="prompt_loss_weight"):
        run(examples, prompt_loss_weight=0.1)


def test_pairs_longer_than_a_batch_of_one_side_are_dropped_whole(tokenizer, rows) -> None:
    from distill_dagster.training.pairs import Pair, encode_pairs

    prompt = ({"role": "user", "content": "turn a"},)
    given = [Pair("short", prompt, "a", "b"), Pair("long", prompt, "a", "b" * 200), Pair("third", prompt, "c", "d")]
    made = encode_pairs(tokenizer, given, 64, too_long="drop")
    assert made.dropped == ["long"]
    assert [(one.record_id, one.side.pair, one.side.chosen) for one in made.examples if one.side] == [
        ("short", 0, True), ("short", 0, False), ("third", 1, True), ("third", 1, False)
    ]  # fmt: skip


def test_a_term_of_weight_0_asks_for_nothing(tokenizer, tmp_path: Path, chats) -> None:
    from distill_dagster.training.data import encode
    from distill_dagster.training.trainer import train

    recipe = Recipe(**{**RECIPE.model_dump(), "objective": {"sft": 1.0, "dpo": 0.0}, "steps": 2})
    train(fresh(tokenizer), tokenizer, encode(tokenizer, chats, 128).examples, recipe, tmp_path)
    assert set(lines(tmp_path)[0]) & {"sft", "dpo"} == {"sft"} and not (tmp_path / "reference").exists()


def test_validation_of_pairs_is_refused(tokenizer, rows, tmp_path: Path) -> None:
    from distill_dagster.training import process

    pq.write_table(build("preference", rows), tmp_path / "pairs.parquet")
    task = {
        "pairs": str(tmp_path / "pairs.parquet"),
        "validation": str(tmp_path / "pairs.parquet"),
        "base": {"preset": "nano", "tokenizer": tokenizer.name_or_path},
        "recipe": RECIPE.model_dump(),
        "out": str(tmp_path / "out"),
        "work": str(tmp_path),
    }
    with pytest.raises(TrainingError, match="no `validation`"):
        process.run(task)
