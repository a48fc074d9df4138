"""Small Llama architectures as data: `preset:NAME` is a student (or teacher) that starts from nothing.

Initial weights are drawn by name from a counter-based generator, so they depend on preset, vocabulary and seed
only: not on the machine, the thread count or the order in which a library builds its layers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill_dagster.config.registry import nearest
from distill_dagster.errors import ConfigError

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

PREFIX = "preset:"


@dataclass(frozen=True)
class Preset:
    """Sizes of one architecture: rotary positions, tied embeddings, as many key heads as query heads."""

    hidden: int
    layers: int
    heads: int
    feed_forward: int
    context: int = 1024

    def parameters(self, vocabulary: int) -> int:
        """Parameters with the embedding of that vocabulary, which the output layer shares."""
        layer = 4 * self.hidden**2 + 3 * self.hidden * self.feed_forward + 2 * self.hidden
        return vocabulary * self.hidden + self.layers * layer + self.hidden


#: With a vocabulary of 2048: nano 0.2 M, micro 0.9 M, mini 3.7 M, small 9.6 M. micro is 23 % of mini.
#: nano has four heads: with two it does not learn, in a demo's budget, which of several statements an answer is about.
PRESETS = {
    "nano": Preset(hidden=64, layers=2, heads=4, feed_forward=128),
    "micro": Preset(hidden=128, layers=3, heads=4, feed_forward=352),
    "mini": Preset(hidden=256, layers=4, heads=4, feed_forward=704),
    "small": Preset(hidden=384, layers=5, heads=6, feed_forward=1024),
}


def find(name: str) -> Preset:
    """The preset `NAME` or `preset:NAME`.

    Raises:
        ConfigError: No such preset; names the nearest.
    """
    short = name.removeprefix(PREFIX)
    if short not in PRESETS:
        raise ConfigError(f"{PREFIX}{short}", f"unknown preset {short!r}.", nearest(short, PRESETS))
    return PRESETS[short]


def build(name: str, tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> LlamaForCausalLM:
    """A model of that preset for that tokenizer, fp32, with initial weights drawn from `seed`.

    Weights are normal with standard deviation 1/sqrt(fan-in) for layers (scaled by 1/sqrt(2·layers) where they
    write into the residual stream, as GPT-2 does) and 0.02 for the embedding.
    """
    import numpy
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    preset = find(name)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=preset.hidden,
        num_hidden_layers=preset.layers,
        num_attention_heads=preset.heads,
        num_key_value_heads=preset.heads,
        intermediate_size=preset.feed_forward,
        max_position_embeddings=preset.context,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,  # pyright: ignore[reportArgumentType]
        pad_token_id=tokenizer.pad_token_id,  # pyright: ignore[reportArgumentType]
    )
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0)
                continue
            spread = 0.02 if "embed_tokens" in key else parameter.shape[1] ** -0.5
            if key.endswith(("o_proj.weight", "down_proj.weight")):
                spread /= (2 * preset.layers) ** 0.5
            word = hashlib.sha256(f"{seed}/{key}".encode()).digest()[:16]
            draw = numpy.random.Generator(numpy.random.Philox(key=int.from_bytes(word, "big")))
            values = draw.standard_normal(tuple(parameter.shape)) * spread
            parameter.copy_(torch.from_numpy(values.astype(numpy.float32)))
    return model.eval()
