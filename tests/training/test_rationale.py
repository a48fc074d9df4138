"""Explanations as a second task, or before the answer."""

from pathlib import Path

import pytest

from distill_dagster.config.models import Recipe
from distill_dagster.config.recipe import RationaleOptions
from distill_dagster.errors import ConfigError
from distill_dagster.knowledge.labeling import split_rationale
from distill_dagster.records.messages import as_chat, message
from distill_dagster.training import rationale
from distill_dagster.training.data import chats, encode

TURNS = [message("system", "Be brief."), message("user", "turn ab"), message("assistant", "ba")]
ROW = {"record_id": "r1", "task": "turn", "weight": 1.0, "messages": TURNS, "rationale": "b comes last, so it is first"}
BARE = {**ROW, "record_id": "r2", "rationale": None}


def made(mode: str) -> list[dict]:
    return rationale.rows([ROW, BARE], RationaleOptions(mode=mode))  # pyright: ignore[reportArgumentType]


def test_by_default_nothing_changes() -> None:
    assert Recipe().rationale.mode == "label_only"
    assert made("label_only") == [ROW, BARE]


def test_two_tasks() -> None:
    answer, explanation, bare = made("multi_task")
    # The prompt that evaluation and service use is as it was; the prefix asks for the explanation.
    assert answer == ROW and bare == BARE
    assert as_chat(explanation["messages"]) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "[rationale] turn ab"},
        {"role": "assistant", "content": "b comes last, so it is first"},
    ]
    assert explanation["task"] == "turn#rationale" and explanation["record_id"] == "r1"


def test_in_the_answer_and_out_again() -> None:
    worked, bare = made("in_answer")
    said = as_chat(worked["messages"])[-1]["content"]
    assert said == "b comes last, so it is first\nAnswer: ba"
    assert split_rationale(said) == ("b comes last, so it is first", "ba")
    assert bare == BARE


@pytest.fixture
def examples(tokenizer, chats):
    """Every record answered, every second one explained at length."""
    rows = [
        {
            "record_id": chat.record_id,
            "task": "turn",
            "weight": 1.0,
            "messages": [message(turn["role"], turn["content"]) for turn in chat.messages],
            "rationale": f"the last is {chat.messages[0]['content'][-1]}, then on" if number % 2 else None,
        }
        for number, chat in enumerate(chats)
    ]
    return encoded(tokenizer, rows)


def encoded(tokenizer, rows):
    return encode(tokenizer, chats(rationale.rows(rows, RationaleOptions(mode="multi_task"))), 128).examples


RECIPE = Recipe(
    steps=20,
    batch_tokens=512,
    learning_rate=3e-3,
    warmup_steps=2,
    grad_clip=1e9,
    rationale=RationaleOptions(mode="multi_task", weight=0.3),
)


def step(tokenizer, batches, folder: Path, **change):
    import torch

    from distill_dagster.training import presets
    from distill_dagster.training.trainer import Run

    model = presets.build("nano", tokenizer, 3)
    recipe = RECIPE.model_copy(update={"accumulate": len(batches), **change})
    run = Run(model, tokenizer, [e for b in batches for e in b], recipe, folder)
    values = run._update(batches)
    return values, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.needs_torch
def test_the_loss_is_that_of_answers_plus_a_share_of_that_of_explanations(tokenizer, examples, tmp_path: Path) -> None:
    chosen = examples[:24]
    answers = [example for example in chosen if not rationale.explains(example)]
    others = [example for example in chosen if rationale.explains(example)]
    assert len(others) >= 7
    plain = {"rationale": RationaleOptions()}
    value, gradient = step(tokenizer, [chosen], tmp_path)
    for_answers, for_others = (step(tokenizer, [part], tmp_path, **plain) for part in (answers, others))
    assert value["sft"] == pytest.approx(for_answers[0]["sft"], rel=1e-5)
    assert value["rationale"] == pytest.approx(for_others[0]["sft"], rel=1e-5)
    assert value["loss"] == pytest.approx(value["sft"] + 0.3 * value["rationale"], rel=1e-5)
    wanted = for_answers[1] + 0.3 * for_others[1]
    assert (gradient - wanted).norm() <= 1e-5 * wanted.norm()
    # However the step is cut, also where a batch has answers alone or explanations alone.
    cut, cut_gradient = step(tokenizer, [answers[:3], others[:2], answers[3:], others[2:]], tmp_path)
    assert cut["loss"] == pytest.approx(value["loss"], rel=1e-5)
    assert (cut_gradient - wanted).norm() <= 1e-5 * wanted.norm()


@pytest.mark.needs_torch
@pytest.mark.parametrize("packing", [False, True])
def test_answer_and_explanation_share_a_batch(tokenizer, examples, packing: bool) -> None:
    from distill_dagster.training.feeds.base import Setting
    from distill_dagster.training.feeds.examples import Feed

    recipe = RECIPE.model_copy(update={"packing": packing})
    taken: list[str] = []
    explained = {example.record_id for example in examples if rationale.explains(example)}
    for batch in Feed(Setting(None, tokenizer, examples, recipe)).batches(0):  # pyright: ignore[reportArgumentType]
        own = {example.record_id for example in batch if not rationale.explains(example)}
        assert {example.record_id for example in batch if rationale.explains(example)} == own & explained
        longest = max(len(example.ids) for example in batch)
        assert (sum(len(e.ids) for e in batch) if packing else longest * len(batch)) <= recipe.batch_tokens
        taken += own
        if len(taken) >= 120:
            break
    assert sorted(taken) == sorted(f"r{number}" for number in range(120))


@pytest.mark.needs_torch
def test_both_tasks_are_learned_and_told_apart_in_the_log(tokenizer, examples, tmp_path: Path) -> None:
    from distill_dagster.training import metrics, presets
    from distill_dagster.training.trainer import train

    answers = [example for example in examples if not rationale.explains(example)]
    summary = train(presets.build("nano", tokenizer, 3), tokenizer, examples, RECIPE, tmp_path, validation=answers[:20])
    rows = metrics.read(tmp_path / "metrics.jsonl")
    for row in rows:
        assert row["loss"] == pytest.approx(row["sft"] + 0.3 * row["rationale"], rel=1e-5)
    assert rows[-1]["rationale"] < 0.8 * max(row["rationale"] for row in rows)
    # Validation records are answered, not explained.
    assert summary["validation_loss"] < 0.8 * summary["validation_loss_before"]


@pytest.mark.needs_torch
def test_an_objective_of_other_kind_is_refused(tokenizer, examples, tmp_path: Path) -> None:
    from distill_dagster.training.trainer import Run

    change = {"objective": {"divergence": {"weight": 1.0, "signals": "live", "k": 0}}}
    recipe = Recipe(**{**RECIPE.model_dump(), **change})
    from distill_dagster.training import presets

    with pytest.raises(ConfigError, match="objective.divergence.*multi_task"):
        Run(presets.build("nano", tokenizer, 3), tokenizer, examples, recipe, tmp_path)
