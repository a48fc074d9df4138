"""The fast path for a line of examples without padding: block-diagonal causal attention, example by example.

Everything but attention works on the line of T tokens, so padding costs nothing there. For attention the examples stand
side by side, B × L, and each sees itself alone: that is the block-diagonal mask, without the T² entries of one.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from distill_dagster.models.llama import Grid, Llama


class Packed(Llama):
    """A view of a supported model's weights that reads lines."""

    def line(self, ids: torch.Tensor, columns: torch.Tensor, rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Last hidden states, after the last norm.

        Args:
            ids: Token ids of all examples, one behind the other, T.
            columns: The position of each within its example, T.
            rows: The example of each, T, ascending from 0.
            places: Positions wanted, as ascending indices into the T.

        Returns:
            len(places) × H.
        """
        batch, length = int(rows.max()) + 1, int(columns.max()) + 1
        index = rows * length + columns
        states = functional.embedding(ids, self.embedding, self.padding).float()
        angles = self.angles(columns)
        grid = Grid.of(index[places], batch, length)

        def aside(part: torch.Tensor) -> torch.Tensor:
            """From T × heads × size to B × heads × L × size."""
            spread = part.new_zeros(batch * length, *part.shape[1:]).index_copy(0, index, part)
            return spread.unflatten(0, (batch, length)).transpose(1, 2)

        for number, layer in enumerate(self.layers):
            last = number == len(self.layers) - 1
            query, key, value = self.split(self.norm(states, layer.before_attention), layer, angles)
            if last and grid is not None:
                mixed = self.few(query[places], aside(key), aside(value), grid)
            else:
                mixed = functional.scaled_dot_product_attention(
                    aside(query), aside(key), aside(value), is_causal=True, enable_gqa=self.heads != self.key_heads
                )
                mixed = mixed.transpose(1, 2).flatten(2).flatten(0, 1)[index[places] if last else index]
            if last:
                states = states[places]
            states = self.mlp(states + self.linear(mixed, layer.out), layer)
        return self.norm(states, self.last_norm)
