"""Semantic duplicates: inputs that a sentence encoder puts in one place, whatever their words.

Any folder that transformers reads as an encoder serves (weights as safetensors): token states are averaged over the
text (mean pooling, Reimers and Gurevych 2019) and compared by cosine, all pairs, block by block. Where records have a
context or choices, only inputs with the same ones are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from distill_dagster.config.models import Strict
from distill_dagster.filtering._groups import Per, groups
from distill_dagster.filtering._minhash import Numbers
from distill_dagster.filtering._text import fold, is_number, plain_number, words
from distill_dagster.filtering.base import KEEP, Batch, Context, Look, RuleBase

#: Candidates compared with all that were kept before, at a time.
BLOCK = 512


class Rule(RuleBase):
    """Drops a candidate whose input lies too close to that of a kept one before it."""

    version = "1"

    class Params(Strict):
        encoder: str = Field(description="Folder of the encoder, relative to the pipeline's file")
        threshold: float = Field(0.95, gt=0, le=1, description="Cosine from which two inputs are one")
        numbers: Numbers = Field("distinct", description="distinct: inputs with other figures are never duplicates")
        per: Per = "input"
        max_length: int = Field(256, ge=8, description="Tokens of an input that are read")
        batch_size: int = Field(32, ge=1, description="Inputs encoded together")

    params: Params

    def outside(self, folder: Path | None) -> Mapping[str, Any]:
        """The encoder's weights and tokenizer: their digest is part of what the rule depends on."""
        from distill_dagster.models.folder import check, digest

        return {"encoder": digest(check(self._path(folder)))}

    def look(self, candidates: Batch, context: Context) -> list[Look]:
        """Reason: none beside the rule's name; the score is the cosine to `twin`."""
        looks = [KEEP] * len(candidates)
        if not len(candidates):
            return looks
        order, alive = candidates.survivors_first()
        texts = [candidates.inputs[row] for row in order.tolist()]
        vectors = encode(texts, self._path(context.folder), self.params.max_length, self.params.batch_size)
        rests = [fold(candidates.rests[row]) for row in order.tolist()]
        keys = self._keys(texts, rests, groups(candidates, self.params.per)[order])
        twins, scores = nearest_kept(vectors, keys, self.params.threshold, alive)
        for place, row in enumerate(order.tolist()):
            if twins[place] >= 0:
                twin = candidates.numbers[int(order[twins[place]])]
                looks[row] = Look("drop", "", float(scores[place]), self.params.threshold, f"twin {twin}", twin)
        return looks

    def _path(self, folder: Path | None) -> Path:
        return (folder or Path()) / Path(self.params.encoder).expanduser()

    def _keys(self, texts: Sequence[str], rests: Sequence[str], group: np.ndarray) -> np.ndarray:
        """A number for each text; only texts with the same one are compared."""
        known: dict[tuple[int, str, tuple[str, ...]], int] = {}
        keys = []
        for text, rest, number in zip(texts, rests, group.tolist(), strict=True):
            figures = (plain_number(word) for word in words(text) if is_number(word))
            key = (number, rest, tuple(figures) if self.params.numbers == "distinct" else ())
            keys.append(known.setdefault(key, len(known)))
        return np.array(keys, dtype=np.int64)


def nearest_kept(
    vectors: np.ndarray, keys: np.ndarray, threshold: float, anchors: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """For each text, in order, the nearest kept one before it at `threshold` or above, or -1, and the cosine.

    Args:
        vectors: `[texts, dimensions]`, of length 1.
        keys: Only texts with equal keys are compared.
        threshold: Cosine.
        anchors: Only the first so many can be kept for others; all by default.
    """
    count = len(vectors)
    anchors = count if anchors is None else anchors
    twin = np.full(count, -1, dtype=np.int64)
    score = np.zeros(count)
    for key in np.unique(keys):
        rows = np.flatnonzero(keys == key)
        kept = np.zeros(0, dtype=np.int64)
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            before = vectors[block] @ vectors[kept].T if len(kept) else np.zeros((len(block), 0))
            inside = vectors[block] @ vectors[block].T
            fresh: list[int] = []
            for at, row in enumerate(block.tolist()):
                near = np.concatenate([before[at], inside[at, fresh]])
                best = int(near.argmax()) if len(near) else -1
                if best >= 0 and near[best] >= threshold - 1e-6:
                    twin[row] = kept[best] if best < len(kept) else block[fresh[best - len(kept)]]
                    score[row] = min(1.0, float(near[best]))
                elif row < anchors:
                    fresh.append(at)
            kept = np.concatenate([kept, block[fresh]])
    return twin, score


def encode(texts: Sequence[str], folder: Path, max_length: int = 256, batch_size: int = 32) -> np.ndarray:
    """Mean of the last token states of each text, scaled to length 1: `[texts, dimensions]`, float32.

    Raises:
        ModelError: The folder is missing, incomplete, or not safe to load.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    from distill_dagster.models.folder import check

    check(folder)
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    # In half precision the cosine of two texts would depend on the padding beside them.
    model = AutoModel.from_pretrained(str(folder), local_files_only=True, use_safetensors=True, dtype=torch.float32)
    model.eval()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    distinct: dict[str, int] = {}
    place = [distinct.setdefault(text, len(distinct)) for text in texts]
    # Texts of one length are encoded together: padding costs time, and a result that does not depend on neighbours.
    order = sorted(distinct, key=lambda text: (len(text), text))
    states = np.zeros((len(distinct), int(model.config.hidden_size)), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            inputs = tokenizer(part, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
            inputs.pop("token_type_ids", None)
            hidden = model(**inputs).last_hidden_state.float()
            mask = inputs["attention_mask"].unsqueeze(-1).float()
            mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
            unit = torch.nn.functional.normalize(mean, dim=1)
            states[[distinct[text] for text in part]] = unit.numpy()
    return states[place]
