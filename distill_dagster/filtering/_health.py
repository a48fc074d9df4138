"""Measures of a whole set of answers: how many were cut at the token limit, and how diverse inputs and answers are.

Diversity by two standard measures: distinct-n, the share of n-grams that occur once only among all (Li et al. 2016),
and the Vendi score, the exponential of the entropy of the eigenvalues of the similarity matrix: how many unlike texts
there are in effect (Friedman and Dieng 2023), here with the cosine of word-bigram counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from distill_dagster.filtering._minhash import hashed_words, windows

#: Texts that a Vendi score looks at: its matrix is that large, squared.
SAMPLE = 400
#: Largest share of cut answers, and smallest Vendi score as a share of the seeds', that raise no question.
CUT, COLLAPSE = 0.05, 0.5


def cut_shares(candidates: pa.Table) -> dict[str, float]:
    """Share of each task's answers that ended at the token limit; tasks without answers are left out."""
    asked: dict[str, list[bool]] = {}
    rows = zip(*(candidates[name].to_pylist() for name in ("task", "status", "finish_reason")), strict=True)
    for task, status, reason in rows:
        if status == "ok":
            asked.setdefault(task, []).append(reason == "length")
    return {task: round(sum(cut) / len(cut), 4) for task, cut in sorted(asked.items())}


def diversity(texts: Sequence[str]) -> dict[str, float]:
    """`distinct_1`, `distinct_2` (0 to 1) and `vendi` (1 to the number of texts) of some texts; empty for none.

    A large set is sampled by hash, so a text more or less changes little.
    """
    if not texts:
        return {}
    chosen = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())[:SAMPLE]
    split = hashed_words(chosen)
    found: dict[str, float] = {"texts": len(chosen)}
    for size in (1, 2):
        grams, _ = windows(split, size)
        found[f"distinct_{size}"] = round(len(np.unique(grams)) / len(grams), 4) if len(grams) else 1.0
    found["vendi"] = round(_vendi(*windows(split, 2), len(chosen)), 2)
    return found


def _vendi(grams: np.ndarray, owner: np.ndarray, count: int) -> float:
    known, place = np.unique(grams, return_inverse=True)
    vectors = np.zeros((count, len(known) + count))
    np.add.at(vectors, (owner, place), 1)
    # A text of one word has no bigram: it is like itself alone.
    bare = np.flatnonzero(~vectors.any(axis=1))
    vectors[bare, len(known) + bare] = 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    weights = np.linalg.eigvalsh(vectors @ vectors.T / count)
    weights = weights[weights > 1e-12]
    return float(np.exp(-(weights * np.log(weights)).sum()))


def by_task(tasks: Sequence[str], texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Diversity of the texts of each task."""
    found: dict[str, list[str]] = {}
    for task, text in zip(tasks, texts, strict=True):
        found.setdefault(task, []).append(text)
    return {task: diversity(own) for task, own in sorted(found.items())}


def collapsed(kept: Mapping[str, Mapping[str, Any]], seeds: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Tasks whose inputs are far less diverse than the seeds', with the share of the seeds' Vendi score that is left.

    Both scores are taken per text, so that fewer texts are not less diverse for being fewer.
    """
    found = {}
    for task, scores in kept.items():
        if scores and seeds.get(task):
            share = (scores["vendi"] / scores["texts"]) / (seeds[task]["vendi"] / seeds[task]["texts"])
            if share < COLLAPSE:
                found[task] = round(share, 3)
    return found
