"""Packed batches give the loss and the gradient of padded ones: no record sees another."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_dagster.config.models import Recipe
from distill_dagster.training import packing
from distill_dagster.training.data import Example, batches

pytestmark = pytest.mark.needs_torch

SMALL: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "eos_token_id": 1,
    "intermediate_size": 48, "pad_token_id": 0,
}  # fmt: skip


def llama(**options):
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**{**SMALL, **options}))


def qwen():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(**SMALL, num_key_value_heads=2))


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=1)
    )


def gemma2():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    options: dict[str, Any] = {**SMALL, "num_key_value_heads": 2, "head_dim": 8}
    return Gemma2ForCausalLM(Gemma2Config(**options, final_logit_softcapping=2.0))


MODELS = {
    "tied": (lambda: llama(tie_word_embeddings=True), "llama"),
    "grouped": (lambda: llama(num_key_value_heads=2, head_dim=16), "llama"),
    "one layer": (lambda: llama(num_hidden_layers=1), "llama"),
    "biased": (lambda: llama(attention_bias=True), "decoder"),
    "qwen": (qwen, "decoder"),
    "gpt2": (gpt2, "decoder"),
    "capped": (gemma2, "whole"),
}
_MADE: dict[str, Any] = {}


def model_of(name: str):
    import torch

    if name not in _MADE:
        torch.manual_seed(0)
        model = MODELS[name][0]().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3 if parameter.dim() > 1 else 1)
        _MADE[name] = model
    return _MADE[name]


def gradients(model, loss):
    import torch

    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return torch.cat([part.flatten() for part in found if part is not None])


#: Length of each record, and of its prompt as a share of it.
RECORDS = st.lists(st.tuples(st.integers(2, 40), st.floats(0, 0.95)), min_size=2, max_size=9)


def records(sizes) -> list[Example]:
    import random

    rng, made = random.Random(7), []
    for number, (length, prompt) in enumerate(sizes):
        ids = [rng.randrange(2, 64) for _ in range(length)]
        before = int(length * prompt)
        weights = [0.0] * before + [0.5 + (number % 3)] * (length - before)
        # A weight on the first token predicts nothing, and in a row of several must not be the last one's label.
        made.append(Example(f"r{number}", ids, weights))
    return made


@pytest.mark.parametrize("name", sorted(MODELS))
@settings(max_examples=12)
@given(sizes=RECORDS)
def test_loss_and_gradient_are_those_of_padded_batches(name: str, sizes) -> None:
    from distill_dagster.training.forward import Forward
    from distill_dagster.training.objectives.sft import Objective

    model, chosen = model_of(name), records(sizes)
    padded, packed = Forward(model), Forward(model, packing=True)
    one, other = padded(chosen, 0), packed(chosen, 0)
    assert packed.packs is True and packed.way == MODELS[name][1]
    for field in ("labels", "weights", "rows"):
        assert getattr(one, field).tolist() == getattr(other, field).tolist()
    ours, theirs = Objective()(other), Objective()(one)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    ours, theirs = gradients(model, ours), gradients(model, theirs)
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_what_stands_before_changes_nothing() -> None:
    from distill_dagster.training.forward import Forward

    for name in ("tied", "qwen"):
        forward = Forward(model_of(name), packing=True)
        last = Example("last", [9, 8, 7, 6, 5], [0, 0, 1, 1, 1])
        states = [
            forward([Example("first", first, [0.0, *[1.0] * (len(first) - 1)]), last], 0).hidden[-3:]
            for first in ([2, 3, 4], [50, 51, 52])
        ]
        assert (states[0] - states[1]).norm() <= 1e-5 * states[0].norm()


def test_a_model_that_ignores_positions_is_padded(monkeypatch) -> None:
    """Where packed examples would see each other, batches stay padded; the loss is right either way."""
    from distill_dagster.training.forward import Forward

    model = model_of("biased")
    usual = type(model.model).forward

    def blind(self, *args, position_ids=None, **kwargs):
        return usual(self, *args, **kwargs)

    monkeypatch.setattr(type(model.model), "forward", blind)
    forward, chosen = Forward(model, packing=True), records([(9, 0.3), (5, 0.3), (7, 0.3)])
    found = forward(chosen, 0)
    assert forward.packs is False
    assert found.hidden.equal(Forward(model)(chosen, 0).hidden)


@given(sizes=RECORDS)
def test_rows_hold_every_token_once(sizes) -> None:
    chosen = records(sizes)
    for layout in (packing.rows(chosen, 0), packing.line(chosen)):
        said = layout.rows.flatten()
        for number, example in enumerate(chosen):
            assert layout.ids.flatten()[said == number].tolist() == example.ids
            assert layout.columns.flatten()[said == number].tolist() == list(range(len(example.ids)))
        assert layout.owners.tolist() == sorted(layout.owners.tolist())
    assert packing.line(chosen).ids.numel() == sum(len(example.ids) for example in chosen)


@given(lengths=st.lists(st.integers(1, 64), min_size=1, max_size=60), seed=st.integers(0, 5))
def test_packed_batches_hold_each_record_once_an_epoch(lengths: list[int], seed: int) -> None:
    order, taken = batches(lengths, 64, seed, packed=True), []
    while len(taken) < len(lengths):
        batch = next(order)
        assert batch and sum(lengths[index] for index in batch) <= 64
        taken += batch
    assert sorted(taken) == list(range(len(lengths)))


def test_the_trainer_packs(tokenizer, examples, tmp_path) -> None:
    from distill_dagster.training import presets
    from distill_dagster.training.trainer import train

    recipe = Recipe(steps=24, batch_tokens=512, learning_rate=3e-3, warmup_steps=4, packing=True)
    model = presets.build("nano", tokenizer, 3)
    summary = train(model, tokenizer, examples, recipe, tmp_path / "one", validation=examples[:20])
    assert summary["packed"] is True and summary["forward"] == "llama"
    assert summary["validation_loss"] < 0.75 * summary["validation_loss_before"]
    # bf16 too.
    recipe = recipe.model_copy(update={"precision": "bf16"})
    other = train(presets.build("nano", tokenizer, 3), tokenizer, examples, recipe, tmp_path / "two")
    assert other["loss"] == pytest.approx(summary["loss"], rel=0.1)


def test_batches_that_are_not_packed_keep_to_their_size(tokenizer, tmp_path, monkeypatch) -> None:
    """`batch_tokens` counts padding: batches of mixed lengths would be padded to several times as much."""
    import torch
    from transformers import BloomConfig, BloomForCausalLM

    from distill_dagster.training.forward import Forward
    from distill_dagster.training.trainer import train

    size, seen, usual = len(tokenizer), [], Forward._padded

    def padded(self, examples, padding):
        seen.append(len(examples) * max(len(example.ids) for example in examples))
        return usual(self, examples, padding)

    monkeypatch.setattr(Forward, "_padded", padded)
    torch.manual_seed(0)
    model = BloomForCausalLM(BloomConfig(vocab_size=size, hidden_size=16, n_layer=1, n_head=2))  # ALiBi: no positions
    short, long = [(4, 0.0)] * 40, [(60, 0.0)] * 5
    recipe = Recipe(steps=6, batch_tokens=128, packing=True)
    summary = train(model, tokenizer, records([*short, *long]), recipe, tmp_path)
    assert summary["packed"] is False and max(seen) <= 128


@settings(max_examples=10)
@given(sizes=RECORDS)
def test_a_step_of_the_trainer_is_the_padded_one(tokenizer, tmp_path_factory, sizes) -> None:
    import torch

    from distill_dagster.training import presets
    from distill_dagster.training.trainer import Run

    chosen, found = records(sizes), []
    for flag in (False, True):
        model = presets.build("nano", tokenizer, 3)
        recipe = Recipe(batch_tokens=1024, grad_clip=1e9, packing=flag)
        run = Run(model, tokenizer, chosen, recipe, tmp_path_factory.mktemp("step"))
        values = run._update([chosen])
        found.append((values, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])))
    assert found[1][0]["loss"] == pytest.approx(found[0][0]["loss"], rel=1e-5)
    assert (found[1][1] - found[0][1]).norm() <= 1e-5 * found[0][1].norm()
