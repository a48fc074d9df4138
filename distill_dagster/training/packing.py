"""Several examples in one row, none of which sees another (padding-free batches).

Positions start again with every example, and the first token of one is never a label of the one before. Two layouts:
a line, one row without any padding, for the fast path, which knows where examples begin; and rows about as long as the
longest example, for models of transformers, which see from the positions where an example begins and mask the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from distill_dagster.training.data import Example


@dataclass(frozen=True)
class Layout:
    """Where every token of a batch stands.

    Attributes:
        ids: Token ids: a line of T, or B × T.
        columns: The position of each within its example, of the same shape.
        rows: The example of each, of the same shape; −1 for padding.
        places: Indices, ascending, into the flattened tokens before each label.
        labels: The token to predict.
        weights: Its loss weight.
        owners: Its example.
    """

    ids: torch.Tensor
    columns: torch.Tensor
    rows: torch.Tensor
    places: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    owners: torch.Tensor

    @property
    def others(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Labels, weights and examples of the places."""
        return self.labels, self.weights, self.owners


def line(examples: Sequence[Example]) -> Layout:
    """All examples in one line."""
    return _layout([list(range(len(examples)))], examples, 0, sum(len(example.ids) for example in examples), flat=True)


def rows(examples: Sequence[Example], padding: int, width: int | None = None) -> Layout:
    """Examples in order in rows of `width` (by default the longest one's length), each in the last row with room."""
    width = width or max(len(example.ids) for example in examples)
    filled: list[list[int]] = [[]]
    room = width
    for number, example in enumerate(examples):
        if len(example.ids) > room:
            filled.append([])
            room = width
        filled[-1].append(number)
        room -= len(example.ids)
    return _layout(filled, examples, padding, width)


def _layout(
    filled: list[list[int]], examples: Sequence[Example], padding: int, width: int, flat: bool = False
) -> Layout:
    ids = torch.full((len(filled), width), padding, dtype=torch.long)
    columns = torch.zeros_like(ids)
    owners = torch.full_like(ids, -1)
    weights = torch.zeros(len(filled), width)
    for row, members in enumerate(filled):
        start = 0
        for number in members:
            example = examples[number]
            part = slice(start, start + len(example.ids))
            ids[row, part] = torch.tensor(example.ids)
            columns[row, part] = torch.arange(len(example.ids))
            owners[row, part] = number
            weights[row, part] = torch.tensor([0.0, *example.weights[1:]])
            start = part.stop
        # Padding is an example of its own, which nobody asks about.
        columns[row, start:] = torch.arange(width - start)
    where, behind = torch.nonzero(weights[:, 1:], as_tuple=True)
    after = (where, behind + 1)
    found = (ids[after], weights[after], owners[after])
    places = where * width + behind
    if flat:
        ids, columns, owners = ids[0], columns[0], owners[0]
    return Layout(ids, columns, owners, places, *found)
