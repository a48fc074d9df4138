"""Small architectures as data: `preset:NAME` is a student (or teacher) that starts from nothing. Llama writes text;
BERT (`encoder_…`) answers one of the labels of its task.

Initial weights are drawn by name from a counter-based generator, so they depend on preset, vocabulary and seed
only: not on the machine, the thread count or the order in which a library builds its layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill_dagster.config.registry import nearest
from distill_dagster.errors import ConfigError

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

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


@dataclass(frozen=True)
class EncoderPreset:
    """Sizes of one BERT: learned positions, a pooler, a linear head over the labels. No dropout: it is small."""

    hidden: int
    layers: int
    heads: int
    feed_forward: int
    context: int = 512

    def parameters(self, vocabulary: int, labels: int = 2) -> int:
        """Parameters with that vocabulary and that many labels."""
        layer = 4 * self.hidden**2 + 2 * self.hidden * self.feed_forward + 9 * self.hidden + self.feed_forward
        tables = (vocabulary + self.context + 1) * self.hidden + 2 * self.hidden
        return tables + self.layers * layer + self.hidden**2 + self.hidden + labels * (self.hidden + 1)


#: With a vocabulary of 2048: nano 0.2 M, micro 0.9 M, mini 3.7 M, small 9.6 M. micro is 23 % of mini.
#: nano has four heads: with two it does not learn, in a demo's budget, which of several statements an answer is about.
PRESETS: dict[str, Preset | EncoderPreset] = {
    "nano": Preset(hidden=64, layers=2, heads=4, feed_forward=128),
    "micro": Preset(hidden=128, layers=3, heads=4, feed_forward=352),
    "mini": Preset(hidden=256, layers=4, heads=4, feed_forward=704),
    "small": Preset(hidden=384, layers=5, heads=6, feed_forward=1024),
    # With a vocabulary of 2048 and 77 labels: 0.3 M and 1.2 M.
    "encoder_tiny": EncoderPreset(hidden=64, layers=2, heads=4, feed_forward=256),
    "encoder_small": EncoderPreset(hidden=128, layers=4, heads=4, feed_forward=512),
}


def find(name: str) -> Preset | EncoderPreset:
    """The preset `NAME` or `preset:NAME`.

    Raises:
        ConfigError: No such preset; names the nearest.
    """
    short = name.removeprefix(PREFIX)
    if short not in PRESETS:
        raise ConfigError(f"{PREFIX}{short}", f"unknown preset {short!r}.", nearest(short, PRESETS))
    return PRESETS[short]


def is_encoder(name: str) -> bool:
    """Is the preset a classifier, whose head needs labels and whose tokenizer a classification token?"""
    return isinstance(find(name), EncoderPreset)


def build(name: str, tokenizer: PreTrainedTokenizerBase, seed: int = 0, labels: Sequence[str] = ()) -> PreTrainedModel:
    """A model of that preset for that tokenizer, fp32, with initial weights drawn from `seed`.

    `labels` are the answers of an encoder, in the order of its logits.

    Raises:
        ConfigError: An encoder with fewer than two labels.
    """
    preset = find(name)
    if isinstance(preset, Preset):
        return _llama(preset, tokenizer, seed)
    if len(labels) < 2:
        raise ConfigError(
            f"{PREFIX}{name.removeprefix(PREFIX)}",
            f"a classifier needs at least two labels, and there are {len(labels)}.",
            "Use it for a task of kind `label`.",
        )
    return _bert(preset, tokenizer, seed, labels)


def _llama(preset: Preset, tokenizer: PreTrainedTokenizerBase, seed: int) -> LlamaForCausalLM:
    """Weights are normal with standard deviation 1/sqrt(fan-in) for layers (scaled by 1/sqrt(2·layers) where they
    write into the residual stream, as GPT-2 does) and 0.02 for the embedding.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from distill_dagster.models.draw import normal

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
            parameter.copy_(normal(seed, key, tuple(parameter.shape), spread))
    return model.eval()


def _bert(
    preset: EncoderPreset, tokenizer: PreTrainedTokenizerBase, seed: int, labels: Sequence[str]
) -> PreTrainedModel:
    """Weights are normal with standard deviation 1/sqrt(fan-in) for layers and 0.02 for embeddings and head."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from distill_dagster.models.classifier import name_labels
    from distill_dagster.models.draw import normal

    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=preset.hidden,
        num_hidden_layers=preset.layers,
        num_attention_heads=preset.heads,
        intermediate_size=preset.feed_forward,
        max_position_embeddings=preset.context,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id,  # pyright: ignore[reportArgumentType]
    )
    name_labels(config, labels)
    with torch.random.fork_rng(devices=[]):
        model = BertForSequenceClassification(config)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(0.0 if key.endswith("bias") else 1.0)
                continue
            small = "embeddings" in key or key.startswith("classifier")
            spread = 0.02 if small else parameter.shape[1] ** -0.5
            parameter.copy_(normal(seed, key, tuple(parameter.shape), spread))
    return model.eval()
