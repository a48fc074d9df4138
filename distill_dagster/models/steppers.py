"""Reading prompts and then one token a step, with a key-value cache: by the Llama fast path, or by any causal model."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch

from distill_dagster.models.llama import Llama, supports
from distill_dagster.models.placing import placed

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Stepper(Protocol):
    """A batch of prompts being continued."""

    def read(self, prompts: Sequence[list[int]], room: int) -> torch.Tensor:
        """Read the prompts, with room for so many tokens in all; logits of the next token, B × V."""
        ...

    def step(self, chosen: torch.Tensor) -> torch.Tensor:
        """Take one token a row (B); logits of the next one, B × V."""
        ...

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows only."""
        ...


def stepper(model: PreTrainedModel) -> Stepper:
    """The fastest stepper that computes this model."""
    return LlamaStepper(model) if supports(model) else CacheStepper(model)


class LlamaStepper:
    """The Llama fast path. Prompts are padded on the right, and every answer overwrites its padding.

    Attention always spans the whole `room`, so a row's numbers do not depend on the rows beside it.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.view = Llama(model, bf16=model.dtype == torch.bfloat16)

    def read(self, prompts: Sequence[list[int]], room: int) -> torch.Tensor:
        view = self.view
        width = min(room, -(-max(len(prompt) for prompt in prompts) // 16) * 16)
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        self.lengths = torch.tensor([len(prompt) for prompt in prompts])
        cache: list[tuple[torch.Tensor, torch.Tensor]] = []
        last = torch.arange(len(prompts)) * width + self.lengths - 1
        states = view.hidden(ids, last, cache)
        shape = (len(prompts), view.key_heads, room, view.size)
        self.keys, self.values = [], []
        for key, value in cache:
            for store, part in ((self.keys, key), (self.values, value)):
                whole = torch.zeros(shape)
                whole[:, :, :width] = part
                store.append(whole)
        self.room = torch.arange(room)
        return view.logits(states)

    def step(self, chosen: torch.Tensor) -> torch.Tensor:
        view, rows = self.view, torch.arange(len(chosen))
        states = torch.nn.functional.embedding(chosen, view.embedding).float()
        angles = view.angles(self.lengths)
        unseen = (self.room[None] > self.lengths[:, None])[:, None, None]
        groups = view.heads // view.key_heads
        for number, layer in enumerate(view.layers):
            query, key, value = view.split(view.norm(states, layer.before_attention), layer, angles)
            keys, values = self.keys[number], self.values[number]
            keys[rows, :, self.lengths] = key
            values[rows, :, self.lengths] = value
            query = query.view(len(chosen), view.key_heads, groups, view.size) * view.size**-0.5
            scores = torch.matmul(query, keys.transpose(2, 3)).masked_fill(unseen, float("-inf"))
            mixed = torch.matmul(scores.softmax(-1), values).reshape(len(chosen), view.heads * view.size)
            states = view.mlp(states + view.linear(mixed, layer.out), layer)
        self.lengths = self.lengths + 1
        return view.logits(view.norm(states, view.last_norm))

    def keep(self, rows: torch.Tensor) -> None:
        self.lengths = self.lengths[rows]
        self.keys = [key[rows] for key in self.keys]
        self.values = [value[rows] for value in self.values]


def can_step(model: PreTrainedModel) -> bool:
    """Does the model keep what it has read where a stepper finds it? Mamba and its like keep it elsewhere."""
    return "past_key_values" in inspect.signature(model.forward).parameters


class CacheStepper:
    """Any causal model of transformers, with its own cache. Prompts are padded on the left.

    Logits stay on the model's device: a vocabulary a row and token is too much to copy from a GPU.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def read(self, prompts: Sequence[list[int]], room: int) -> torch.Tensor:
        width = max(len(prompt) for prompt in prompts)
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        self.mask = torch.zeros(len(prompts), width, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            self.mask[row, width - len(prompt) :] = 1
        self.cache = None
        ids, self.mask = (placed(part, self.model.device) for part in (ids, self.mask))
        return self._forward(ids, (self.mask.cumsum(-1) - 1).clamp(min=0))

    def step(self, chosen: torch.Tensor) -> torch.Tensor:
        self.mask = torch.cat((self.mask, self.mask.new_ones(len(chosen), 1)), 1)
        return self._forward(placed(chosen[:, None], self.model.device), self.mask.sum(-1, keepdim=True) - 1)

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        output = self.model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache = output.past_key_values
        return output.logits[:, -1].float()

    def keep(self, rows: torch.Tensor) -> None:
        rows = placed(rows, self.model.device)
        self.mask = self.mask[rows]
        assert self.cache is not None
        self.cache.reorder_cache(rows)  # Layers of every kind have it, and it takes fewer rows as well.
