"""Hidden states at the positions that carry a loss, by the fastest way that gives the model's own numbers.

Three ways, tried in this order on the first batch and compared with the model's own logits: the Llama fast path;
the model's decoder with the output layer at the chosen positions only; the whole model (for architectures that
scale or cap their logits). A classifier has its own way: `distill_dagster.training.classify`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from distill_dagster.models import llama, packed
from distill_dagster.models.classifier import is_classifier
from distill_dagster.models.placing import placed
from distill_dagster.training import adapters, layers, packing
from distill_dagster.training.classify import classified
from distill_dagster.training.data import Example
from distill_dagster.training.objectives.base import Positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Largest relative difference (Frobenius) from the model's own fp32 logits that still counts as the same numbers.
TOLERANCE = 1e-4


def positions(
    ids: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where a batch carries a loss: the state at t predicts the token at t + 1.

    Args:
        ids: B × T token ids, padded on the right.
        weights: B × T loss weights of the tokens; those of padding are 0.

    Returns:
        Indices into the flattened B·T states, and for each the label, its weight and its row.
    """
    rows, columns = torch.nonzero(weights[:, 1:], as_tuple=True)
    return rows * ids.shape[1] + columns, ids[rows, columns + 1], weights[rows, columns + 1], rows


def learned(weights: torch.Tensor, rows: torch.Tensor, examples: list[Example]) -> torch.Tensor:
    """The weights of R positions, 0 at a pair's rejected answer: only terms on pairs may look there."""
    if all(example.side is None for example in examples):
        return weights
    kept = torch.tensor([example.side is None or example.side.chosen for example in examples])
    return weights * placed(kept, rows.device)[rows]


def pad(examples: list[Example], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and weights of a batch, B × T, padded on the right."""
    length = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), length), padding, dtype=torch.long)
    weights = torch.zeros(len(examples), length)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        weights[row, : len(example.ids)] = torch.tensor(example.weights)
    return ids, weights


class Forward:
    """A model's forward pass for training.

    Args:
        model: A causal language model, or a classifier.
        precision: fp32, or bf16 (matrix products in bf16, weights and sums in fp32).
        packing: Examples behind each other instead of padded, where the model gives the same numbers so.
    """

    def __init__(self, model: PreTrainedModel, precision: str = "fp32", packing: bool = False) -> None:
        self.model = model
        self.precision = precision
        self.packing = packing
        self.way = "classifier" if is_classifier(model) else "unknown"
        #: Whether batches are packed; None before the first one of several examples.
        self.packs: bool | None = None if packing and self.way == "unknown" else False
        self.watch = layers.Watch()

    def look(self, watch: layers.Watch) -> None:
        """Keep these layers, too, from now on. The fast path computes some of them at a few positions only, and two
        models must have their tokens at the same places, so batches are padded."""
        self.watch |= watch
        if self.way != "classifier":
            self.way, self.packs = "unknown", False

    def can_pack(self, examples: Sequence[Example], padding: int, room: int) -> bool:
        """Whether batches of these are packed, before the first one: a feed cuts other batches where they are not.

        Args:
            examples: All that is trained on, of which some short ones are looked at.
            padding: Fills rows.
            room: Most tokens to look at, padding included.
        """
        short = sorted(examples, key=lambda example: len(example.ids))[:8]
        while len(short) > 2 and len(short) * len(short[-1].ids) > room:
            short.pop()
        if self.packs is None and len(short) > 1:
            self._settle(short, padding)
        return self.packs is not False

    def _settle(self, examples: list[Example], padding: int) -> None:
        """Choose the way, and whether to pack, by a model's own numbers on these."""
        if self.way == "unknown":
            ids = pad(examples, padding)[0][:2].to(self.model.device)
            with adapters.stirred(self.model):
                self.way = self._choose(ids, torch.arange(ids.numel(), device=ids.device))
        if self.packs is None and len(examples) > 1:
            self.packs = self._agrees(examples, padding)

    def __call__(self, examples: list[Example], padding: int) -> Positions:
        """The positions of a batch that carry a loss, example by example; there may be none."""
        if self.way == "classifier":
            return classified(self.model, examples, padding, self.precision, self.watch)
        self._settle(examples, padding)
        return self._padded(examples, padding) if not self.packs else self._packed(examples, padding)

    def _padded(self, examples: list[Example], padding: int) -> Positions:
        ids, weights = pad(examples, padding)
        found = positions(ids, weights)
        view = llama.Llama(self.model, self.precision == "bf16") if self.way == "llama" else None
        places, *others = (placed(part, self.model.device) for part in found)
        with layers.recording(self.model, self.watch) as kept:
            hidden = self._hidden(placed(ids, self.model.device), places, view)
        said = self._said(hidden, others, examples, view)
        if self.watch:
            said.layers = kept.weigh(examples, ids.shape[1], places, said.weights)
        return said

    def _packed(self, examples: list[Example], padding: int, width: int | None = None) -> Positions:
        if self.way == "llama":
            view = packed.Packed(self.model, self.precision == "bf16")
            line = packing.line(examples)
            return self._said(view.line(line.ids, line.columns, line.rows, line.places), line.others, examples, view)
        rows = packing.rows(examples, padding, width)
        ids, columns, places, *others = (
            placed(part, self.model.device) for part in (rows.ids, rows.columns, rows.places, *rows.others)
        )
        return self._said(self._hidden(ids, places, None, position_ids=columns), others, examples, None)

    def _said(
        self, hidden: torch.Tensor, others: Sequence[torch.Tensor], examples: list[Example], view: llama.Llama | None
    ) -> Positions:
        labels, weights, rows = others
        return Positions(
            hidden=hidden,
            labels=labels,
            weights=learned(weights, rows, examples),
            rows=rows,
            examples=examples,
            project=lambda states: self._project(states, view),
            head=self._head(view),
        )

    @torch.no_grad()
    def _agrees(self, examples: list[Example], padding: int) -> bool:
        """Whether this model gives packed examples the states of padded ones, in fp32 and without dropout."""
        training, precision = self.model.training, self.precision
        self.model.eval()
        self.precision = "fp32"
        try:
            some = examples[:8]
            expected = self._padded(some, padding).hidden.float()
            # One row for all: in shorter ones they might stand alone, and nothing would be shown.
            got = self._packed(some, padding, sum(len(example.ids) for example in some)).hidden.float()
            return got.shape == expected.shape and bool((got - expected).norm() <= TOLERANCE * expected.norm())
        except (AttributeError, TypeError):
            return False
        finally:
            self.model.train(training)
            self.precision = precision

    def _hidden(self, ids: torch.Tensor, places: torch.Tensor, view: llama.Llama | None, **more: Any) -> torch.Tensor:
        if view is not None:
            return view.hidden(ids, places)
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            if self.way == "decoder":
                states = self.model.get_decoder()(input_ids=ids, use_cache=False, **more).last_hidden_state
            else:
                states = self.model(input_ids=ids, use_cache=False, **more).logits
        return states.flatten(0, 1)[places]

    def _project(self, states: torch.Tensor, view: llama.Llama | None) -> torch.Tensor:
        if view is not None:
            return view.logits(states)
        if self.way == "whole":
            return states
        with torch.autocast(states.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.model.get_output_embeddings()(states)  # pyright: ignore[reportOptionalCall]

    def _head(self, view: llama.Llama | None) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """The output layer in the precision of its products, with its bias; None where states are logits."""
        if view is not None:
            return view.head, None
        if self.way == "whole":
            return None
        layer: Any = self.model.get_output_embeddings()
        weight = layer.weight.to(torch.bfloat16) if self.precision == "bf16" else layer.weight
        return weight, getattr(layer, "bias", None)

    @torch.no_grad()
    def _choose(self, ids: torch.Tensor, places: torch.Tensor) -> str:
        """The first way whose logits agree with the model's own, all in fp32 and without dropout."""
        config = self.model.config.to_dict()
        if any("logit" in name and value not in (None, False, 1, 1.0) for name, value in config.items()):
            return "whole"  # Logits that are scaled or capped: near 0 a cap is too close to the identity to be seen.
        training, precision = self.model.training, self.precision
        self.model.eval()
        self.precision = "fp32"
        try:
            expected = self.model(input_ids=ids, use_cache=False).logits.flatten(0, 1).float()
            for way in ("llama", "decoder"):
                if way == "llama" and (self.watch or not llama.supports(self.model)):
                    continue
                self.way = way
                view = llama.Llama(self.model) if way == "llama" else None
                try:
                    got = self._project(self._hidden(ids, places, view), view).float()
                except (AttributeError, TypeError, RuntimeError):
                    continue
                if got.shape == expected.shape and (got - expected).norm() <= TOLERANCE * expected.norm():
                    return way
            return "whole"
        finally:
            self.model.train(training)
            self.precision = precision
