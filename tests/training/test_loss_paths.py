"""Every way to compute the loss gives the numbers of transformers' own forward pass."""

from typing import Any

import pytest

from distill_dagster.training.data import Example
from distill_dagster.training.objectives.sft import Objective

pytestmark = pytest.mark.needs_torch

EXAMPLES = [
    Example("a", [5, 6, 7, 8, 9, 10, 1], [0, 0, 0, 0, 1, 1, 1]),
    Example("b", [11, 12, 13, 14], [0, 0, 1, 1]),
    Example("c", [15, 16, 17, 18, 19, 20, 21, 22, 1], [0, 0, 0, 0, 0, 0, 0, 0, 1]),
]
SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "eos_token_id": 1,
}


def llama(**options):
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**{**SMALL, "intermediate_size": 48, "pad_token_id": 0, **options}))


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=1)
    )


def gemma2():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    options: dict[str, Any] = {
        **SMALL,
        "intermediate_size": 48,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "pad_token_id": 0,
    }
    return Gemma2ForCausalLM(Gemma2Config(**options, final_logit_softcapping=2.0))


MODELS = {
    "tied": (lambda: llama(tie_word_embeddings=True), "llama"),
    "grouped": (lambda: llama(num_key_value_heads=2, head_dim=16), "llama"),
    "biased": (lambda: llama(attention_bias=True), "decoder"),
    "scaled": (
        lambda: llama(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}),
        "decoder",
    ),
    "gpt2": (gpt2, "decoder"),
    "capped": (gemma2, "whole"),
}


def reference(model, examples):
    """transformers' own loss: labels of weight-0 tokens masked, shifted by the library."""
    import torch

    width = max(len(example.ids) for example in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        mask[row, : len(example.ids)] = 1
        for column, weight in enumerate(example.weights):
            if weight:
                labels[row, column] = example.ids[column]
    return model(input_ids=ids, attention_mask=mask, labels=labels).loss


def gradients(model, loss):
    import torch

    model.zero_grad(set_to_none=True)
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("name", sorted(MODELS))
def test_loss_and_gradient_are_the_librarys_own(name: str) -> None:
    import torch

    from distill_dagster.training.forward import Forward

    make, way = MODELS[name]
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.dim() > 1 else 1)
    expected = reference(model, EXAMPLES)
    forward = Forward(model)
    positions = forward(EXAMPLES, 0)
    assert forward.way == way
    assert positions.labels.tolist() == [9, 10, 1, 13, 14, 1]
    assert positions.rows.tolist() == [0, 0, 0, 1, 1, 2]
    loss = Objective()(positions)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    ours, theirs = gradients(model, loss), gradients(model, reference(model, EXAMPLES))
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


@pytest.mark.parametrize("name", ["tied", "gpt2"])
def test_bf16_is_near(name: str) -> None:
    import torch

    from distill_dagster.training.forward import Forward

    torch.manual_seed(0)
    model = MODELS[name][0]().eval()
    expected = reference(model, EXAMPLES)
    forward = Forward(model, "bf16")
    loss = Objective()(forward(EXAMPLES, 0))
    assert forward.way == MODELS[name][1]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-2)
    assert loss.item() != expected.item()
    ours, theirs = gradients(model, loss), gradients(model, reference(model, EXAMPLES))
    assert (ours - theirs).norm() <= 0.1 * theirs.norm()
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_a_weight_of_two_is_the_record_twice() -> None:
    import torch

    from distill_dagster.training.forward import Forward

    torch.manual_seed(0)
    model = llama().eval()
    forward = Forward(model)
    heavy = Example("a", EXAMPLES[0].ids, [2 * weight for weight in EXAMPLES[0].weights])
    once = gradients(model, Objective()(forward([heavy, EXAMPLES[1]], 0)))
    twice = gradients(model, Objective()(forward([EXAMPLES[0], EXAMPLES[0], EXAMPLES[1]], 0)))
    assert torch.allclose(once, twice, rtol=1e-4, atol=1e-7)


def test_padding_changes_nothing() -> None:
    import torch

    from distill_dagster.training.forward import Forward

    torch.manual_seed(0)
    forward = Forward(llama().eval())
    together = Objective()(forward(EXAMPLES, 0)).item() * 6
    apart = sum(Objective()(forward([example], 0)).item() * n for example, n in zip(EXAMPLES, (3, 2, 1), strict=True))
    assert together == pytest.approx(apart, rel=1e-5)
