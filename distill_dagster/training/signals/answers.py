"""Signals from what a server said of its answers: top-k log-probabilities captured with the calls.

Token strings are all that a server tells. They teach a student whose own tokens are, one by one, the same strings;
for any other student they are refused, and the error says where they part. What a teacher was never asked about
(gold answers, and the end of an answer) counts as certain: all mass on the token that stands there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distill_dagster.errors import TrainingError
from distill_dagster.training.data import Example
from distill_dagster.training.signals import codec, store

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Log-probability of a token that only fills a row, and of all others beside a certain one.
NOTHING, ALMOST_NOTHING = -50.0, -14.0
NEXT_STEP = "Start the student from a model with the teacher's tokenizer, or use `sft`."

#: Tokens of one answer as the table FEATURE has them.
Tokens = Sequence[Mapping[str, Any]]


@dataclass
class Counts:
    """What became of the positions, and of the alternatives that a server listed.

    Attributes:
        taught: Positions with the teacher's probabilities.
        certain: Positions that count as certain.
        listed: Alternatives listed.
        unknown: Those that are no single token of the student's: their mass is part of the rest.
    """

    taught: int = 0
    certain: int = 0
    listed: int = 0
    unknown: int = 0


class Words:
    """A student's tokens by their strings; strings that several tokens share name none of them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.strings = tokenizer.batch_decode(
            [[number] for number in range(len(tokenizer))],
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )
        often = Counter(self.strings)
        self.ids = {text: number for number, text in enumerate(self.strings) if text and often[text] == 1}


def signal(example: Example, tokens: Tokens | None, words: Words, k: int, counts: Counts) -> codec.Signal:
    """The signals of one record at the positions that carry a loss.

    Args:
        example: The record as the student reads it.
        tokens: What the teacher said of the answer; None where it was not asked (gold).
        words: The student's tokens.
        k: Tokens to keep a position.
        counts: Adds up.

    Raises:
        TrainingError: The answer's tokens are not the same strings; names the record and the place.
    """
    said = [number for number, weight in zip(example.ids[1:], example.weights[1:], strict=True) if weight != 0]
    end = words.tokenizer.eos_token_id
    answer = said[:-1] if said and said[-1] == end else said
    given = [] if tokens is None else _trimmed(tokens)
    if tokens is not None:
        _same(example, [words.strings[number] for number in answer], [entry["token"] for entry in given])
    rows = []
    for at, number in enumerate(said):
        known: dict[int, float] = {}
        if at < len(given):
            for entry in given[at]["top"]:
                counts.listed += 1
                other = number if entry["token"] == given[at]["token"] else words.ids.get(entry["token"])
                if other is None:
                    counts.unknown += 1
                else:
                    known[other] = max(entry["logprob"], known.get(other, -math.inf))
            counts.taught += 1
        else:
            counts.certain += 1
        rows.append(_row(known, k) if known else _certain(number, k))
    ids, log_probs, rests = zip(*rows, strict=True)
    return codec.Signal(np.array(ids), np.array(log_probs, np.float32), np.array(rests, np.float32)[:, None])


def _trimmed(tokens: Tokens) -> list[dict[str, Any]]:
    """Tokens without the white space around the answer, which a candidate does not keep."""
    kept = list(tokens)
    while kept and not kept[0]["token"].strip():
        kept.pop(0)
    while kept and not kept[-1]["token"].strip():
        kept.pop()
    found = [{"token": one["token"], "top": [dict(other) for other in one["top"]]} for one in kept]
    if found and found[0]["token"] != found[0]["token"].lstrip():
        for entry in (found[0], *found[0]["top"]):
            entry["token"] = entry["token"].lstrip()
    if found:
        found[-1]["top"] = [
            {**entry, "token": entry["token"].rstrip()} if entry["token"] == found[-1]["token"] else entry
            for entry in found[-1]["top"]
        ]
        found[-1]["token"] = found[-1]["token"].rstrip()
    return found


def _same(example: Example, own: list[str], theirs: list[str]) -> None:
    for at, (mine, said) in enumerate(zip(own, theirs, strict=False)):
        if mine != said:
            raise TrainingError(
                f"record {example.record_id}",
                f"token {at + 1} of its answer is {said!r} for the teacher and {mine!r} for the student.",
                NEXT_STEP,
            )
    if len(own) != len(theirs):
        reason = f"its answer is {len(theirs)} tokens for the teacher and {len(own)} for the student."
        raise TrainingError(f"record {example.record_id}", reason, NEXT_STEP)


def _row(known: Mapping[int, float], k: int) -> tuple[list[int], list[float], float]:
    """Likeliest first, filled up with tokens of no mass; the log of all mass beside them."""
    kept = sorted(known.items(), key=lambda entry: (-entry[1], entry[0]))[:k]
    rest = math.log(max(math.exp(ALMOST_NOTHING), 1.0 - math.fsum(math.exp(value) for _, value in kept)))
    return (*_filled(kept, k), rest)


def _certain(number: int, k: int) -> tuple[list[int], list[float], float]:
    return (*_filled([(number, 0.0)], k), ALMOST_NOTHING)


def _filled(kept: Sequence[tuple[int, float]], k: int) -> tuple[list[int], list[float]]:
    ids, values = [number for number, _ in kept], [value for _, value in kept]
    other = 0
    while len(ids) < k:
        if other not in ids:
            ids.append(other)
            values.append(NOTHING)
        other += 1
    return ids, values


def captured(
    examples: Sequence[Example],
    tokens: Mapping[str, Tokens],
    tokenizer: PreTrainedTokenizerBase,
    meta: store.Meta,
) -> tuple[list[store.Row], Counts]:
    """Rows of a signal store, one a record, and what became of their positions.

    Args:
        examples: Encoded records; one that stands twice has one row.
        tokens: What the teacher said of its answers, by record id of the example.
        tokenizer: The student's.
        meta: How signals are written; at temperature 1 alone, since no other is known of a rest.
    """
    counts, words = Counts(), Words(tokenizer)
    rows: dict[tuple[str, bytes], store.Row] = {}
    for example in examples:
        key = (example.record_id, store.token_hash(example))
        if key not in rows:
            said = signal(example, tokens.get(example.record_id), words, meta.k, counts)
            rows[key] = store.Row(*key, store.count(example), codec.encode(said, meta.layout))
    return list(rows.values()), counts
