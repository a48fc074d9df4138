"""What training a model would take, from its configuration alone: parameters, memory, arithmetic, time.

The model is built on torch's meta device, which keeps shapes and no numbers. All figures are for fp32 weights and AdamW
on one device, and for batches in which every record is as long as `max_length` and every token carries a loss (of a
classifier's record: its one position): what a run needs at most.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill_dagster.errors import ConfigError
from distill_dagster.models.classifier import CLASSIFIES

if TYPE_CHECKING:
    from distill_dagster.config.models import Recipe

#: Bytes of fp32, and of a weight in 4 bits with its scales.
WIDE, NARROW = 4, 0.56
#: Resident memory of a Python process with torch and transformers before there is a model (bytes).
RUNTIME = 450_000_000
#: What glibc's allocator takes for the library's own layers, whose many small tensors come and go, in multiples of what
#: they keep. Measured with and without MALLOC_MMAP_THRESHOLD_; the fast path's few large ones need no more than 1.
SPREAD = 1.8
#: How much of the speed of a plain matrix product a whole training step reaches on a CPU.
EFFICIENCY = 0.6


@dataclass(frozen=True)
class Counts:
    """Parameters of a model.

    Attributes:
        total: All, tied ones once.
        head: The output layer's, or a classifier's last.
        linear: Of the linear layers without it.
        adapter: Of the recipe's adapter, or 0.
        layers: Layers.
        floats: Numbers that one layer keeps of a token for the backward pass.
        copies: Weights of one layer that the fast path lays side by side.
        width: Key heads' width times layers, for attention's own products (numbers).
    """

    total: int
    head: int
    linear: int
    adapter: int
    layers: int
    floats: int
    copies: int
    width: int


@dataclass(frozen=True)
class Sizes:
    """What a training process would hold (bytes) and compute.

    Attributes:
        counts: Parameters.
        trained: Parameters with gradients.
        weights: All weights, as they are kept.
        gradients: Of the trained ones.
        optimizer: Two moments each.
        activations: What the forward pass keeps for the backward pass, with weights laid side by side or in bf16.
        logits: Logits of a batch, their logarithms and their gradient.
        checkpoint: The copy that a checkpoint writes from.
        peak: Most at once, the runtime included, but for the moments in which a checkpoint is written.
        operations: Floating-point operations of an optimizer step, in one process.
    """

    counts: Counts
    trained: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    checkpoint: int
    peak: int
    operations: float


def config_of(architecture: Mapping[str, Any], place: str, layers: int | None = None, labels: int = 0) -> Any:
    """The model configuration of a `config.json`.

    Args:
        architecture: What the file says.
        place: What an error names.
        layers: Asks for fewer layers than it says.
        labels: Of the head that a classifier has; 0 for a language model.

    Raises:
        ConfigError: It names no architecture that transformers knows.
    """
    from transformers import AutoConfig

    said = {key: value for key, value in architecture.items() if key not in ("model_type", "source")}
    if layers is not None:
        said = {key: value for key, value in said.items() if key not in ("layer_types", "n_layer", "n_layers")}
        said["num_hidden_layers"] = layers
    if labels:
        said = {key: value for key, value in said.items() if key not in ("id2label", "label2id")}
        said |= {"num_labels": labels, "architectures": [CLASSIFIES]}
    try:
        return AutoConfig.for_model(str(architecture["model_type"]), **said)
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(
            place, f"it describes no model that transformers knows ({error}).", "See the model's config.json."
        ) from error


def classifies(config: Any) -> bool:
    """Is it a classifier's configuration, as `config_of` makes one?"""
    return str((config.architectures or [""])[0]).endswith(CLASSIFIES)


def build(config: Any, device: str = "meta") -> Any:
    """A language model or classifier of a configuration: on `meta` without numbers, on `cpu` with random weights, fp32.

    Raises:
        ConfigError: transformers has no such model of this architecture.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    auto = AutoModelForSequenceClassification if classifies(config) else AutoModelForCausalLM
    try:
        with torch.device(device):
            return auto.from_config(config, dtype=torch.float32, trust_remote_code=False)
    except ValueError as error:
        raise ConfigError(
            f"model_type {config.model_type}",
            f"transformers has no {'classifier' if classifies(config) else 'language model'} of this architecture "
            f"({str(error).splitlines()[0]}).",
            "Start from a causal language model, or for a task of kind `label` from an encoder such as BERT.",
        ) from error


def count(config: Any, recipe: Recipe) -> Counts:
    """Parameters of a model, and what its layers keep of a token."""
    model = build(config)
    found = {name: module for name, module in model.named_modules() if type(module).__name__ in ("Linear", "Conv1D")}
    head = list(found.values())[-1] if classifies(config) else model.get_output_embeddings()
    linear = {name: module for name, module in found.items() if module is not head}
    adapter = 0
    if recipe.adapter is not None:
        wanted = recipe.adapter.targets
        for name, module in linear.items():
            if wanted == "auto" or name.rsplit(".", 1)[-1] in wanted or name in wanted:
                adapter += recipe.adapter.r * sum(module.weight.shape)
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    keys = size * (getattr(config, "num_key_value_heads", None) or heads)
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    fast = _fast(config) and recipe.adapter is None
    # Counted with saved-tensor hooks on Llama layers: what attention, norms and the gated feed-forward part keep.
    floats = (9 if fast else 8) * config.hidden_size + (3 if fast else 2) * keys + 4 * inner
    copies = config.hidden_size * (size * heads + 2 * keys + 2 * inner) if fast else 0
    if classifies(config):
        floats = _kept(model, linear, min(recipe.max_length, recipe.batch_tokens))
    return Counts(
        total=sum(entry.numel() for entry in model.parameters()),
        head=head.weight.numel(),
        linear=sum(module.weight.numel() for module in linear.values()),
        adapter=adapter,
        layers=config.num_hidden_layers,
        floats=floats,
        copies=copies,
        width=size * heads * config.num_hidden_layers,
    )


def _fast(config: Any) -> bool:
    """Would the Llama fast path take it? See `distill_dagster.models.llama.supports`."""
    llama = config.model_type == "llama" and not classifies(config)
    return llama and not config.attention_bias and not config.mlp_bias


def _kept(model: Any, linear: Mapping[str, Any], length: int) -> int:
    """Numbers that one of an encoder's layers keeps of a token, in records of `length` tokens.

    Counted with saved-tensor hooks on BERT, DistilBERT and ModernBERT: twice what the linear layers give, but for
    those that write into the residual stream, and what positions rotate. Dropout on attention, or attention that is no
    kernel of torch, keeps the scores besides.
    """
    config = model.config
    inside = [module for name, module in linear.items() if any(part.isdigit() for part in name.split("."))]
    # A Conv1D's weight lies the other way round; no encoder has one.
    floats = 2 * sum(module.weight.shape[0] for module in inside) // config.num_hidden_layers - 2 * config.hidden_size
    if any("rotary" in name for name, _ in model.named_modules()):
        floats += 2 * config.hidden_size
    dropped = any(getattr(config, name, 0) for name in ("attention_probs_dropout_prob", "attention_dropout"))
    if dropped or config._attn_implementation == "eager":
        floats += 3 * config.num_attention_heads * length + 2 * config.hidden_size
    return floats


def sizes(config: Any, recipe: Recipe) -> Sizes:
    """Memory and arithmetic of training a model by a recipe."""
    from distill_dagster.training.objectives.base import samples

    counts = count(config, recipe)
    trained = counts.adapter or counts.total
    length = min(recipe.max_length, recipe.batch_tokens)
    tokens = recipe.batch_tokens // length * length
    whole = recipe.adapter is None
    if recipe.adapter is not None and recipe.adapter.kind == "qlora":
        weights = WIDE * (counts.total - counts.linear + counts.adapter) + NARROW * counts.linear
    else:
        weights = WIDE * (counts.total + counts.adapter)
    half = 2 * (counts.linear + counts.head) if recipe.precision == "bf16" else 0
    activations = WIDE * (tokens * counts.floats * counts.layers + counts.copies * counts.layers) + half
    classes = classifies(config)
    # A classifier has logits of a record, and sees to both sides of a token.
    positions, width = (tokens // length, config.num_labels) if classes else (tokens, config.vocab_size)
    dense = "sft" in recipe.terms or classes
    logits = (3 if dense else 1) * WIDE * positions * width
    if not dense:
        logits = min(logits, 256 << 20)
    gradients, optimizer = WIDE * trained, 2 * WIDE * trained
    if whole and not classes:
        logits += WIDE * counts.head  # a tied layer's gradient comes from both its ends
    checkpoint = gradients + optimizer
    # The best weights so far; and the student before training, which a divergence from it is computed with.
    kept = WIDE * trained if recipe.early_stop is not None else 0
    kept += int(weights) if any(plan.judging is not None and plan.judging.reference for plan in samples(recipe)) else 0
    # What the allocator takes for activations it rarely gives back, so gradients come on top of them.
    spread = 1.0 if counts.copies else SPREAD
    peak = RUNTIME + weights + kept + optimizer + gradients + max(spread * activations + logits, gradients)
    passes = 6 if whole else 4
    attention = 4 * tokens * (length if classes else length / 2) * counts.width * 3
    products = counts.linear * tokens + counts.head * positions
    operations = passes * products + attention + (6 * counts.adapter * tokens)
    operations *= max(1, recipe.accumulate // recipe.processes)
    return Sizes(
        counts=counts,
        trained=trained,
        weights=int(weights),
        gradients=gradients,
        optimizer=optimizer,
        activations=int(activations),
        logits=int(logits),
        checkpoint=checkpoint,
        peak=int(peak),
        operations=float(operations),
    )


def speed(config: Any, threads: int, seconds: float = 0.5) -> float:
    """Floating-point operations a second of this machine, in the matrix products of such a model (fp32)."""
    import torch

    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        left, right = torch.ones(512, config.hidden_size), torch.ones(config.hidden_size, inner)
        torch.mm(left, right)
        done, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            torch.mm(left, right)
            done += 1
        return 2 * 512 * config.hidden_size * inner * done / elapsed
    finally:
        torch.set_num_threads(before)


def step_seconds(found: Sizes, rate: float) -> float:
    """Seconds an optimizer step would take at that rate of matrix products."""
    return found.operations / (rate * EFFICIENCY)
