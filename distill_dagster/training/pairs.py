"""Preference pairs on their way into a loss: rows, encoded answers, and log-probabilities side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from distill_dagster.errors import TrainingError
from distill_dagster.records.messages import as_chat
from distill_dagster.training.data import ASSISTANT, Chat, Encoded, Example, Side, Template, encode

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from distill_dagster.training.objectives.base import Positions

EMPTY = "See the funnel of preference_pairs: ties, equal answers and verdicts that depend on the order make no pair."


@dataclass(frozen=True)
class Pair:
    """What is asked, `[{role, content}]`, and two answers to it."""

    record_id: str
    prompt: Sequence[Mapping[str, str]]
    chosen: str
    rejected: str
    task: str = ""


def pairs(rows: Iterable[Mapping[str, Any]]) -> list[Pair]:
    """Pairs of PREFERENCE rows (`distill_dagster.records.schemas.PREFERENCE`)."""
    return [
        Pair(
            str(row["record_id"]),
            as_chat(row["messages"]),
            str(row["chosen"]),
            str(row["rejected"]),
            str(row.get("task") or ""),
        )
        for row in rows
    ]


def count(examples: Iterable[Example]) -> int:
    """Pairs among examples, by their chosen answers."""
    return sum(example.side is not None and example.side.chosen for example in examples)


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    given: Iterable[Pair],
    max_length: int,
    template: Template = "chat",
    too_long: Literal["error", "drop"] = "error",
) -> Encoded:
    """Both answers of each pair as examples, the chosen one first; a pair with one answer too long goes as a whole.

    Raises:
        ModelError: As `encode`.
        TrainingError: As `encode`; or there is no pair.
    """
    examples: list[Example] = []
    dropped: list[str] = []
    for pair in given:
        sides: list[Example] = []
        for said in (pair.chosen, pair.rejected):
            chat = Chat(pair.record_id, (*pair.prompt, {"role": ASSISTANT, "content": said}), 1.0, pair.task)
            sides += encode(tokenizer, [chat], max_length, 0.0, template, too_long).examples
        if len(sides) < 2:
            dropped.append(pair.record_id)
            continue
        number = len(examples) // 2
        examples += [replace(sides[0], side=Side(number, True)), replace(sides[1], side=Side(number, False))]
    if not examples:
        if not dropped:
            raise TrainingError("preference pairs", "there is no pair.", EMPTY)
        reason = f"all {len(dropped)} pairs are longer than max_length {max_length}."
        raise TrainingError("preference pairs", reason, "Raise training.max_length.")
    return Encoded(examples, dropped)


def whole(examples: Sequence[Example], place: str) -> list[tuple[int, int]]:
    """Where the chosen and the rejected answer of each pair stand, in the order of the chosen ones.

    Raises:
        TrainingError: An example is of no pair, or a pair lacks one of its answers.
    """
    chosen, rejected = {}, {}
    for at, example in enumerate(examples):
        if example.side is None:
            raise TrainingError(
                f"record {example.record_id}",
                f"{place} learns from preference pairs, and this is a single answer.",
                "Train through a pipeline whose `knowledge` compares answers, or give `train` encoded pairs.",
            )
        (chosen if example.side.chosen else rejected)[example.side.pair] = at
    for pair in chosen.keys() ^ rejected.keys():
        at = chosen.get(pair, rejected.get(pair, 0))
        raise TrainingError(
            f"record {examples[at].record_id}",
            f"the {'rejected' if pair in chosen else 'chosen'} answer of its pair is not in the batch.",
            "Batches of pairs come from the feed `pairs`.",
        )
    return [(at, rejected[pair]) for pair, at in chosen.items()]


@dataclass(frozen=True)
class Compared:
    """The P pairs of a batch: sums of log-probabilities and numbers of tokens of their answers, P each."""

    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor


def summed(positions: Positions) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each example's answer, B, in nats, and its tokens, B."""
    said = positions.log_probs
    sums = said.new_zeros(len(positions.examples)).index_add(0, positions.rows, said)
    counts = said.new_zeros(len(positions.examples)).index_add(0, positions.rows, said.new_ones(len(said)))
    return sums, counts


def compared(positions: Positions, place: str) -> Compared:
    """The student's log-probabilities of a batch, pair by pair. Raises TrainingError as `whole`."""
    left, right = (list(side) for side in zip(*whole(positions.examples, place), strict=True))
    sums, counts = summed(positions)
    return Compared(sums[left], sums[right], counts[left], counts[right])


def reference_of(positions: Positions, place: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The same sums under the student before training: chosen and rejected, P each.

    Raises:
        TrainingError: Nobody computed them.
    """
    found = positions.signals.get("reference")
    if found is None:
        raise TrainingError(
            f"records {', '.join(positions.record_ids[:4])}",
            f"{place} needs the log-probabilities of the student before training, and there are none.",
            "Train through `distill_dagster.training.trainer.train`, which computes them.",
        )
    left, right = (list(side) for side in zip(*whole(positions.examples, place), strict=True))
    return found[left], found[right]
