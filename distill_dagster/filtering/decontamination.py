"""Decontamination: inputs that stand in an evaluation set of the domain, word for word, in long runs, or nearly.

Three tests against every evaluation input. Equal after folding, which is all that very short items can show. A run
of words: the share of an item's 13-word runs (Brown et al. 2020) that stand in the candidate; an item shorter than
that is one run. Near match by the MinHash of the duplicate rule. Runs that many evaluation items share are
boilerplate of the task (a rule that is quoted in each), and count for nothing.

Where records have a context or choices, they are compared with the input: one question about many passages is many
questions, and so are many questions about one passage. Runs and near matches then have to be found in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from pydantic import Field

from distill_dagster.config.models import Strict
from distill_dagster.filtering._minhash import Numbers, Sides, hashed_words, near_pairs, windows
from distill_dagster.filtering._text import fold, words
from distill_dagster.filtering.base import KEEP, Batch, Context, EvalText, Look, RuleBase
from distill_dagster.records.messages import joined


class Rule(RuleBase):
    """Drops candidates whose input an evaluation set holds, or that quote one. `detail` names the item and its set."""

    version = "3"

    class Params(Strict):
        ngram: int = Field(13, ge=3, description="Words in a run")
        shortest: int = Field(8, ge=3, description="A shorter item is compared as a whole only, not as a run")
        overlap: float = Field(0.5, gt=0, le=1, description="Share of an item's runs that make a hit")
        common: int = Field(10, ge=1, description="Runs in more evaluation items than this are boilerplate")
        threshold: float = Field(0.8, gt=0, le=1, description="Jaccard similarity of a near match")
        numbers: Numbers = "distinct"

    params: Params

    def look(self, candidates: Batch, context: Context) -> list[Look]:
        """Reasons: exact, run (score: the share found), near (score: the similarity), said (a run in the answer)."""
        looks = [KEEP] * len(candidates)
        items = context.evaluation
        if not items or not len(candidates):
            return looks
        texts = [joined(item.text, item.rest) for item in items]
        # Candidates often share an input (samples, judges); each input is tested once.
        distinct: dict[tuple[str, str], int] = {}
        both = zip(candidates.inputs, candidates.rests, strict=True)
        owner = [distinct.setdefault(pair, len(distinct)) for pair in both]
        inputs, asked = [text for text, _ in distinct], [joined(*pair) for pair in distinct]
        found: dict[int, Look] = {}
        parts: list[Sides] = []
        if any(item.rest for item in items):
            parts = [(inputs, [item.text for item in items]), ([rest for _, rest in distinct], [i.rest for i in items])]
        pairs = near_pairs(asked, texts, self.params.threshold, numbers=self.params.numbers, parts=parts)
        for at in np.argsort(pairs.similarity, kind="stable"):
            hit = items[int(pairs.right[at])]
            found[int(pairs.left[at])] = _hit("near", float(pairs.similarity[at]), self.params.threshold, hit)
        found |= self._beside(distinct, items)
        found |= self._runs(inputs, asked, texts, items)
        exact: dict[str, EvalText] = {}
        for item, text in zip(items, texts, strict=True):
            exact.setdefault(fold(text), item)
        for row, text in enumerate(asked):
            item = exact.get(fold(text))
            if item is not None:
                found[row] = _hit("exact", 1.0, 1.0, item)
        said = self._said(candidates, texts, items)
        return [found.get(row) or said.get(at, KEEP) for at, row in enumerate(owner)]

    def _beside(self, asked: Iterable[tuple[str, str]], items: Sequence[EvalText]) -> dict[int, Look]:
        """Items without a context among the inputs that have one."""
        rows = [(row, text) for row, (text, rest) in enumerate(asked) if rest]
        bare = [item for item in items if not item.rest]
        found: dict[int, Look] = {}
        if not rows or not bare:
            return found
        texts, held = [text for _, text in rows], [item.text for item in bare]
        pairs = near_pairs(texts, held, self.params.threshold, numbers=self.params.numbers)
        for at in np.argsort(pairs.similarity, kind="stable"):
            hit = bare[int(pairs.right[at])]
            found[rows[int(pairs.left[at])][0]] = _hit("near", float(pairs.similarity[at]), self.params.threshold, hit)
        return found

    def _said(self, candidates: Batch, texts: Sequence[str], items: Sequence[EvalText]) -> dict[int, Look]:
        """Runs of items in answers and rationales; those of a few words are left out, which no run fits in."""
        distinct: dict[str, int] = {}
        owner: dict[int, int] = {}
        for at, parts in enumerate(zip(candidates.column("answer"), candidates.column("rationale"), strict=True)):
            text = "\n".join(part for part in parts if part)
            if len(text) >= self.params.shortest:
                owner[at] = distinct.setdefault(text, len(distinct))
        told = list(distinct)
        found = self._runs(told, told, texts, items) if told else {}
        return {at: replace(found[row], reason="said") for at, row in owner.items() if row in found}

    def _runs(
        self, inputs: Sequence[str], whole: Sequence[str], texts: Sequence[str], items: Sequence[EvalText]
    ) -> dict[int, Look]:
        """The best run hit of each input; `whole` and `texts` are inputs and items with what they show beside."""
        size = self.params.ngram
        asked, held = hashed_words(whole), hashed_words(texts)
        length = np.diff(held.edges)
        found: dict[int, tuple[float, int]] = {}
        for run in range(min(self.params.shortest, size), size + 1):
            mine = np.flatnonzero(length >= size if run == size else length == run)
            if not len(mine):
                continue
            value, item = windows(held, run)
            inside = np.isin(item, mine)
            keys = np.unique(np.stack([value[inside], item[inside].astype(np.uint64)], axis=1), axis=0)
            value, item = keys[:, 0], keys[:, 1].astype(np.int64)
            _, place, count = np.unique(value, return_inverse=True, return_counts=True)
            rare = count[place] <= self.params.common
            value, item = value[rare], item[rare]
            own = np.bincount(item, minlength=len(items))
            grams, source = windows(asked, run)
            known = np.isin(grams, value)
            pairs = np.unique(np.stack([grams[known], source[known].astype(np.uint64)], axis=1), axis=0)
            grams, source = pairs[:, 0], pairs[:, 1].astype(np.int64)
            low, high = np.searchsorted(value, grams, "left"), np.searchsorted(value, grams, "right")
            sizes = high - low
            index = np.repeat(np.arange(len(grams)), sizes)
            hit = item[low[index] + np.arange(len(index)) - np.repeat(np.cumsum(sizes) - sizes, sizes)]
            both, shared = np.unique(source[index] * len(items) + hit, return_counts=True)
            for pair, common in zip(both.tolist(), shared.tolist(), strict=True):
                row, number = divmod(int(pair), len(items))
                share = common / int(own[number])
                if share < self.params.overlap:
                    continue
                item_of = items[number]
                if item_of.rest:
                    share = min(share, _held(inputs[row], item_of.text), _held(whole[row], item_of.rest))
                if share >= self.params.overlap and share > found.get(row, (0.0, 0))[0]:
                    found[row] = (share, number)
        return {row: _hit("run", share, self.params.overlap, items[at]) for row, (share, at) in found.items()}


def _held(text: str, item: str) -> float:
    """Share of the item's words, in runs of three, that stand in the text."""
    wanted, given = (
        {tuple(said[at : at + 3]) for at in range(max(1, len(said) - 2))} for said in (words(item), words(text))
    )
    return len(wanted & given) / len(wanted)


def _hit(reason: str, score: float, threshold: float, item: EvalText) -> Look:
    place = f"{item.record_id} of {item.origin}" if item.origin else item.record_id
    return Look("drop", reason, score, threshold, place)
