"""Training a classifier: a record is one position, its logits are over the labels, and its label is the class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import torch

from distill_dagster.errors import TrainingError
from distill_dagster.models import classifier
from distill_dagster.models.chat import plain_tokens
from distill_dagster.models.placing import placed
from distill_dagster.training import layers
from distill_dagster.training.data import ASSISTANT, TOO_LONG, Chat, Encoded, Example, require_weight
from distill_dagster.training.feeds.base import DEFAULT
from distill_dagster.training.objectives.base import Positions, build

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from distill_dagster.config.models import Recipe


def encode(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Iterable[Chat],
    labels: Sequence[str] | None,
    max_length: int,
    too_long: Literal["error", "drop"] = "error",
) -> Encoded:
    """Token ids of what was asked, and the number of the label that was answered.

    Args:
        tokenizer: The classifier's.
        conversations: The text is that of the user turns; the answer is the last turn.
        labels: What an answer may be, in the order of the logits; None where only the text counts.
        max_length: Most tokens a record.
        too_long: What becomes of longer ones.

    Raises:
        TrainingError: A record without a text, with an answer that is no label, a weight that is not above 0, or too
            many tokens; names the record.
    """
    numbers = {label: number for number, label in enumerate(labels or ())}
    examples, dropped = [], []
    for chat in conversations:
        text = classifier.text(chat.messages)
        ids = plain_tokens(tokenizer, text, True)
        if not text.strip() or not ids:
            raise TrainingError(f"record {chat.record_id}", "there is no text to classify.", "Drop the record.")
        if len(ids) > max_length:
            if too_long == "drop":
                dropped.append(chat.record_id)
                continue
            raise TrainingError(
                f"record {chat.record_id}",
                f"it has {len(ids)} tokens, more than max_length {max_length}.",
                TOO_LONG,
            )
        require_weight(chat)
        if not chat.weight:
            raise TrainingError(f"record {chat.record_id}", "its weight is 0.", "Drop the record.")
        number = 0 if labels is None else _number(chat, numbers)
        weights = [0.0] * (len(ids) - 1) + [chat.weight]
        examples.append(Example(chat.record_id, ids, weights, chat.task, number, text))
    return Encoded(examples, dropped)


def _number(chat: Chat, numbers: dict[str, int]) -> int:
    last = chat.messages[-1]
    said = last["content"].strip() if last["role"] == ASSISTANT else None
    if said is None or said not in numbers:
        found = "it has no answer" if said is None else f"its answer {said[:80]!r} is none of the {len(numbers)} labels"
        raise TrainingError(
            f"record {chat.record_id}",
            f"{found} of the classifier: {classifier.shown(list(numbers))}.",
            "Put `schema` in `filtering`: it drops such answers, each with its reason. For free text take a causal "
            "language model.",
        )
    return numbers[said]


def refuse_text(recipe: Recipe) -> None:
    """TrainingError where a recipe is for students that write: explanations, tokens to learn from, an adapter."""
    for name, asked in (("prompt_loss_weight", recipe.prompt_loss_weight), ("packing", recipe.packing)):
        if asked:
            raise TrainingError(
                f"training.{name}",
                f"{asked}: a classifier's record is one position, with a row of its own, so nothing would come of it.",
                f"Leave `{name}` out, or take a causal student.",
            )
    if recipe.adapter is not None:
        raise TrainingError(
            "training.adapter",
            "adapters are for causal students; a classifier would keep its head as it was drawn.",
            "Leave `adapter` out: a classifier trains whole.",
        )
    if recipe.rationale.mode != "label_only":
        raise TrainingError(
            "training.rationale.mode",
            f"{recipe.rationale.mode}: a classifier explains nothing.",
            "Leave `rationale` out, or take a causal student.",
        )
    for name, (weight, params) in recipe.terms.items():
        feed = getattr(build(name, params), "feed", DEFAULT) if weight else DEFAULT
        if feed != DEFAULT:
            raise TrainingError(
                f"training.objective.{name}",
                f"it learns from {feed}, and a classifier learns from records alone.",
                "Use `sft` or `divergence`, or a causal student.",
            )


def match(theirs: Sequence[str], ours: Sequence[str], place: str) -> list[int]:
    """For each of our labels, its number among theirs.

    Raises:
        TrainingError: They are not the same labels; names those that only one side has.
    """
    if set(theirs) != set(ours) or len(theirs) != len(ours):
        lacks = [label for label in ours if label not in set(theirs)]
        beyond = [label for label in theirs if label not in set(ours)]
        parts = [f"the student alone has {classifier.shown(lacks)}"] if lacks else []
        parts += [f"the teacher alone has {classifier.shown(beyond)}"] if beyond else []
        raise TrainingError(
            place,
            f"teacher and student do not answer the same labels: {'; '.join(parts)}.",
            "Rename the labels in the teacher's config.json, or learn from its answers alone, with `sft`.",
        )
    return [list(theirs).index(label) for label in ours]


def classified(
    model: PreTrainedModel, examples: list[Example], padding: int, precision: str, watch: layers.Watch
) -> Positions:
    """One position a record: its logits over the labels, B × C, stand in `hidden`, and there is no output layer."""
    length = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), length), padding, dtype=torch.long)
    mask = torch.zeros(len(examples), length, dtype=torch.long)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        mask[row, : len(example.ids)] = 1
    device = model.device
    half = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    with layers.recording(model, watch) as kept, half:
        logits = model(input_ids=placed(ids, device), attention_mask=placed(mask, device)).logits
    said = Positions(
        hidden=logits.float(),
        labels=placed(torch.tensor([example.label or 0 for example in examples]), device),
        weights=placed(torch.tensor([example.weights[-1] for example in examples]), device),
        rows=torch.arange(len(examples), device=device),
        examples=examples,
        project=lambda states: states,
    )
    if watch:
        said.layers = kept.weigh(examples, length)
        kept.weights = kept.answer = placed(kept.weights, device)
    return said
