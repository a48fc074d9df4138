"""What the layers of a model say while it reads a batch, taken from the one forward pass there is.

Layers are numbered as transformers' `output_hidden_states` does: 0 is the embedding output, l what block l gives, and
the last one the states after the last norm. Only layers that somebody asked for are kept.

Queries, keys and values are taken where they enter attention, rotated and scaled, through transformers' attention
interface: any architecture that uses it can be read, with the mask that it made itself. The model's own attention
computes the result as before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from distill_dagster.errors import TrainingError
from distill_dagster.models.placing import placed

if TYPE_CHECKING:
    from distill_dagster.training.data import Example

#: Implementations of attention whose inputs can be read.
READABLE = ("sdpa", "eager")
#: Largest relative difference (Frobenius) between attention and softmax(scale · QKᵀ)V that counts as rounding.
TOLERANCE = 1e-3
#: A score that no softmax sees; finite, so that its gradient is 0 and not NaN.
FAR = -1e9
_NAME = "distill_dagster_layers"
_PROBE = 8
_ACTIVE: ContextVar[_Record | None] = ContextVar("active", default=None)


@dataclass(frozen=True)
class Watch:
    """Which layers to keep: `hidden` states (from 0) and attention `heads` (from 1)."""

    hidden: frozenset[int] = frozenset()
    heads: frozenset[int] = frozenset()

    def __or__(self, other: Watch) -> Watch:
        return Watch(self.hidden | other.hidden, self.heads | other.heads)

    def __bool__(self) -> bool:
        return bool(self.hidden or self.heads)


@dataclass(frozen=True)
class Heads:
    """One layer's attention before its softmax.

    Attributes:
        query: B × A × T × d.
        key: B × A' × T × d, where A' divides A.
        value: B × A' × T × d.
        scale: Factor of the scores.
        seen: B × 1 × T × T (the first may be 1): whether a position (third) may see another (fourth).
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    scale: float
    seen: torch.Tensor

    @property
    def scores(self) -> torch.Tensor:
        """Scaled products of queries and keys, B × A × T × T, fp32, not masked."""
        query, key = self.query.float(), self.key.float()
        return query @ key.repeat_interleave(query.shape[1] // key.shape[1], 1).transpose(2, 3) * self.scale


@dataclass
class Layers:
    """What the watched layers said about a batch of B rows of T places.

    Attributes:
        hidden: States by layer, B × T × H.
        heads: Attention by layer.
        weights: B × T: the record's weight at each of its tokens, 0 at padding.
        answer: B × T: the loss weight of the token that each place predicts, 0 where it predicts none.
    """

    hidden: dict[int, torch.Tensor] = field(default_factory=dict)
    heads: dict[int, Heads] = field(default_factory=dict)
    weights: torch.Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    answer: torch.Tensor = field(default_factory=lambda: torch.zeros(0, 0))

    def weigh(
        self,
        examples: Sequence[Example],
        length: int,
        places: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
    ) -> Layers:
        """Fill in the weights of one example a row, padded on the right to `length`.

        Args:
            examples: The batch. A record weighs what its heaviest token does.
            length: T.
            places: Where a loss stands, as indices into the flattened rows; None where a model predicts no tokens.
            weights: The loss weights there.
        """
        self.weights = torch.zeros(len(examples), length)
        for row, example in enumerate(examples):
            self.weights[row, : len(example.ids)] = max(example.weights, default=0.0)
        self.answer = self.weights
        if places is not None and weights is not None:
            flat = torch.zeros(len(examples) * length, device=places.device).index_put((places,), weights.float())
            self.weights, self.answer = placed(self.weights, places.device), flat.view(len(examples), length)
        return self


@dataclass(frozen=True)
class Shape:
    """What a model's layers look like, from reading a few tokens.

    Attributes:
        name: Its architecture.
        depth: Blocks.
        widths: Width of the states of each layer, from 0 to `depth`.
        heads: Query heads, key heads, size of a query and of a value, by layer; empty where they cannot be read.
        plain: Layers whose attention is softmax(scale · QKᵀ)V and nothing more.
        attention: Its attention implementation.
    """

    name: str
    depth: int
    widths: Mapping[int, int]
    heads: Mapping[int, tuple[int, int, int, int]]
    plain: frozenset[int]
    attention: str


class _Record(Layers):
    """Layers while they are being recorded."""

    def __init__(self, stack: _Stack, watch: Watch, check: bool) -> None:
        super().__init__()
        self.owners = {id(part): number for number in watch.heads for part in stack.blocks[number - 1].modules()}
        self.usual, self.check = stack.attention, check
        self.plain: set[int] = set()

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **options: Any
    ) -> Any:
        """The model's own attention; what a watched layer puts into it is kept."""
        number = self.owners.get(id(module))
        seen = _seen(mask, query, options.get("is_causal", getattr(module, "is_causal", True)))
        if self.usual == "eager" and mask is not None and mask.dtype is torch.bool:
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, torch.finfo(query.dtype).min)
        output = _usual(self.usual, module)(module, query, key, value, mask, **options)
        if number is not None:
            scale = options.get("scaling") or query.shape[-1] ** -0.5
            heads = self.heads[number] = Heads(query, key, value, scale, seen)
            if self.check and _plain(heads, output[0]):
                self.plain.add(number)
        return output


def _usual(name: str, module: Any) -> Callable[..., Any]:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    own = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    return ALL_ATTENTION_FUNCTIONS.get_interface(name, own)  # pyright: ignore[reportArgumentType]


def _seen(mask: Any, query: torch.Tensor, causal: bool) -> torch.Tensor:
    if mask is not None:
        return mask if mask.dtype is torch.bool else mask >= 0
    whole = torch.ones(1, 1, query.shape[2], query.shape[2], dtype=torch.bool, device=query.device)
    return whole.tril() if causal else whole


def _plain(heads: Heads, output: torch.Tensor) -> bool:
    maps = heads.scores.masked_fill(~heads.seen, FAR).softmax(-1)
    value = heads.value.float()
    again = (maps @ value.repeat_interleave(maps.shape[1] // value.shape[1], 1)).transpose(1, 2)
    return again.shape == output.shape and bool((again - output).norm() <= TOLERANCE * output.float().norm())


class _Stack:
    """A model's blocks, and the module that runs them and gives the last hidden states.

    Raises:
        TrainingError: The model has no list of as many blocks as its config has layers.
    """

    def __init__(self, model: Any) -> None:
        from transformers import PreTrainedModel

        depth = getattr(model.config.get_text_config(), "num_hidden_layers", 0)
        lists = (part for part in model.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == depth)
        blocks = next(lists, None)
        if not depth or blocks is None:
            raise TrainingError(
                type(model).__name__,
                "its layers are not to be found: no list of blocks as long as its config says.",
                "Use `divergence` or `sft`, or a model of another architecture.",
            )
        self.blocks: Any = blocks
        around = [
            part
            for part in model.modules()
            if isinstance(part, PreTrainedModel) and any(inner is blocks for inner in part.modules())
        ]
        self.inner: Any = around[-1]
        self.attention = str(getattr(self.inner.config, "_attn_implementation", None))
        self.configs: list[Any] = list({id(part.config): part.config for part in around}.values())

    def hook(self, number: int, keep: Callable[[Any], None]) -> Any:
        """Call `keep` with the states of a layer, each time they are computed."""
        if number == 0:
            return self.blocks[0].register_forward_pre_hook(
                lambda _, given, named: keep(given[0] if given else named["hidden_states"]), with_kwargs=True
            )
        module = self.inner if number == len(self.blocks) else self.blocks[number - 1]
        return module.register_forward_hook(
            lambda _, __, said: keep(said if isinstance(said, torch.Tensor) else said[0])
        )


@contextmanager
def recording(model: Any, watch: Watch, *, check: bool = False) -> Iterator[Layers]:
    """What the watched layers say in the forward pass made inside; weights are the caller's to fill in.

    Args:
        model: A transformers model, or one around it.
        watch: What to keep.
        check: Compare attention with what the kept parts give (`Shape.plain`).
    """
    if not watch:
        yield Layers()
        return
    stack = _Stack(model)
    record = _Record(stack, watch, check)

    def keeper(number: int) -> Callable[[Any], None]:
        def keep(states: torch.Tensor) -> None:
            record.hidden[number] = states

        return keep

    hooks = [stack.hook(number, keeper(number)) for number in sorted(watch.hidden)]
    try:
        with _read(stack, record) if watch.heads and stack.attention in READABLE else _nothing():
            yield record
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _read(stack: _Stack, record: _Record) -> Iterator[None]:
    """Lead attention through `record` and have the model make its masks as booleans."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, _mask)
    token = _ACTIVE.set(record)
    before = [config._attn_implementation for config in stack.configs]
    for config in stack.configs:
        config._attn_implementation = _NAME
    try:
        yield
    finally:
        for config, usual in zip(stack.configs, before, strict=True):
            config._attn_implementation = usual
        _ACTIVE.reset(token)


def _attend(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any) -> Any:
    record = _ACTIVE.get()
    assert record is not None
    return record.attend(module, query, key, value, attention_mask, **options)


def _mask(*given: Any, **named: Any) -> Any:
    from transformers.masking_utils import sdpa_mask

    skips = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(*given, **{**named, **skips})


@torch.no_grad()
def shape(model: Any) -> Shape:
    """The shape of a model's layers.

    Raises:
        TrainingError: Its layers are not to be found.
    """
    stack = _Stack(model)
    depth = len(stack.blocks)
    everything = Watch(frozenset(range(depth + 1)), frozenset(range(1, depth + 1)))
    training = model.training
    model.eval()
    try:
        with recording(model, everything, check=True) as record:
            stack.inner(input_ids=torch.arange(_PROBE, device=model.device)[None])
    finally:
        model.train(training)
    return Shape(
        name=type(model).__name__,
        depth=depth,
        widths={number: states.shape[-1] for number, states in record.hidden.items()},
        heads={
            number: (one.query.shape[1], one.key.shape[1], one.query.shape[3], one.value.shape[3])
            for number, one in record.heads.items()
        },
        plain=frozenset(record.plain),  # pyright: ignore[reportAttributeAccessIssue]
        attention=stack.attention,
    )
