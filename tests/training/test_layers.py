"""Layers are kept in the one forward pass there is: the library's own numbers, and nothing else changes."""

from typing import Any

import pytest
from test_loss_paths import EXAMPLES, gemma2, gpt2, llama

from distill_dagster.training.objectives.base import build

pytestmark = pytest.mark.needs_torch


def bert(**options: Any) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48)
    )


def distilbert() -> Any:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    return DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=64, dim=32, n_layers=2, n_heads=4, hidden_dim=48)
    )


def qwen3(**options: Any) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    sizes: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    return Qwen3ForCausalLM(
        Qwen3Config(**sizes, num_attention_heads=4, num_key_value_heads=2, head_dim=12, pad_token_id=0, **options)
    )


def opt() -> Any:
    from transformers import OPTConfig, OPTForCausalLM

    sizes: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2}
    return OPTForCausalLM(OPTConfig(**sizes, num_attention_heads=4, max_position_embeddings=64, word_embed_proj_dim=32))


MODELS = {
    "llama": lambda: llama(num_key_value_heads=2, head_dim=16),
    "gpt2": gpt2,
    "qwen3": qwen3,
    "windowed": lambda: qwen3(use_sliding_window=True, sliding_window=4, max_window_layers=1),
    "opt": opt,
    "bert": bert,
    "distilbert": distilbert,
}
CAUSAL = ("llama", "gpt2", "qwen3", "windowed", "opt")


def made(name: str) -> Any:
    import torch

    torch.manual_seed(0)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.dim() > 1 else 1)
    return model


def batch(model: Any) -> tuple[Any, Any]:
    """Token ids and mask of `EXAMPLES`."""
    import torch

    from distill_dagster.training.forward import pad

    ids, _ = pad(EXAMPLES, 0)
    return ids, torch.arange(ids.shape[1]) < torch.tensor([[len(example.ids)] for example in EXAMPLES])


def hooks(model: Any) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


@pytest.mark.parametrize("usual", ["sdpa", "eager"])
@pytest.mark.parametrize("name", MODELS)
def test_layers_are_the_librarys_own(name: str, usual: str) -> None:
    import torch

    from distill_dagster.training import layers

    model = made(name)
    model.set_attn_implementation("eager")
    ids, mask = batch(model)
    expected = model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True, output_attentions=True)
    depth = len(expected.attentions)
    model.set_attn_implementation(usual)
    watch = layers.Watch(frozenset(range(depth + 1)), frozenset(range(1, depth + 1)))
    before = hooks(model)
    with layers.recording(model, watch) as kept:
        said = model(input_ids=ids, attention_mask=mask.long())
    assert model.config._attn_implementation == usual
    which = mask if name in CAUSAL else ...
    assert torch.allclose(said.logits[which], expected.logits[which], rtol=1e-4, atol=1e-5)
    for number in range(depth + 1):
        assert torch.allclose(kept.hidden[number][mask], expected.hidden_states[number][mask], rtol=1e-4, atol=1e-5)
    for number in range(1, depth + 1):
        one = kept.heads[number]
        maps = one.scores.masked_fill(~one.seen, layers.FAR).softmax(-1).transpose(1, 2)[mask]
        assert torch.allclose(maps, expected.attentions[number - 1].transpose(1, 2)[mask], rtol=1e-4, atol=1e-6)
    # Afterwards the model is as it was: nothing is kept.
    count = len(kept.hidden)
    model(input_ids=ids, attention_mask=mask.long())
    assert len(kept.hidden) == count == depth + 1
    assert hooks(model) == before


def test_only_watched_layers_are_kept() -> None:
    from distill_dagster.training import layers

    model = made("qwen3")
    with layers.recording(model, layers.Watch(frozenset({2}), frozenset({3}))) as kept:
        model(input_ids=batch(model)[0])
    assert set(kept.hidden) == {2} and set(kept.heads) == {3}


def test_shapes_say_what_the_models_are() -> None:
    from distill_dagster.training import layers

    shape = layers.shape(made("qwen3").train())
    assert (shape.depth, dict(shape.widths)) == (3, dict.fromkeys(range(4), 32))
    assert dict(shape.heads) == dict.fromkeys((1, 2, 3), (4, 2, 12, 12)) and shape.plain == {1, 2, 3}
    assert layers.shape(made("bert")).depth == 3
    # Gemma 2 caps its scores: what it multiplies can be read, its maps cannot be computed again.
    capped = layers.shape(capped_gemma())
    assert set(capped.heads) == {1, 2} and not capped.plain and capped.attention == "eager"


def capped_gemma() -> Any:
    import torch

    torch.manual_seed(0)
    model = gemma2().eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                parameter.mul_(300)
    return model


def test_maps_of_capped_scores_are_refused_and_relations_are_not() -> None:
    from distill_dagster.errors import TrainingError
    from distill_dagster.training import layers

    shape = layers.shape(capped_gemma())
    with pytest.raises(TrainingError, match=r"layer 1 of Gemma2ForCausalLM \('eager'\) is more than a softmax"):
        build("attention", {}).bind(shape, shape, None)
    build("relation", {}).bind(shape, shape, None)


def test_an_attention_that_cannot_be_read_is_named() -> None:
    from distill_dagster.training import layers

    model = made("llama")
    model.config._attn_implementation = "sdpa"
    assert layers.shape(model).heads
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "READABLE", ("eager",))
        shape = layers.shape(model)
    assert not shape.heads and shape.attention == "sdpa" and shape.widths
