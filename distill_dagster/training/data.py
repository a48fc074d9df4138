"""From conversations to batches: token ids, a loss weight for every token, and an order that a seed decides."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from distill_dagster.errors import TrainingError
from distill_dagster.models.chat import chat_tokens, plain_tokens, require_template
from distill_dagster.records.messages import as_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Template = Literal["chat", "plain"]
ASSISTANT = "assistant"
#: What to do about a record with too many tokens.
TOO_LONG = (
    "Raise training.max_length, or let a filter drop such records. Gold answers pass no filter (D_G, and D_T, from "
    "which a teacher is fitted with the max_length of its `fit.recipe`): leave them out of the source's data."
)


@dataclass(frozen=True)
class Chat:
    """What a model reads and should say: `[{role, content}]`, with the record it comes from.

    A conversation without an assistant turn is plain text: every token of it is trained on.
    """

    record_id: str
    messages: Sequence[Mapping[str, str]]
    weight: float = 1.0
    task: str = ""


@dataclass(frozen=True)
class Side:
    """Which answer of a preference pair an example holds: `pair` numbers the pairs of a data set from 0."""

    pair: int
    chosen: bool


@dataclass(frozen=True)
class Example:
    """One encoded record: `ids` and, as long, `weights` (the loss weight of predicting that token).

    A classifier's has a `label`, the number of its class, the `text` that it was made from, and its weight at the last
    token alone: one position a record.
    An answer of a preference pair says which in `side`; both of its pair have the pair's record id.
    """

    record_id: str
    ids: list[int]
    weights: list[float]
    task: str = ""
    label: int | None = None
    text: str = ""
    side: Side | None = None


@dataclass
class Encoded:
    """Examples in the order of their records, and the ids of records dropped for being too long."""

    examples: list[Example]
    dropped: list[str] = field(default_factory=list)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example."""
        return [len(example.ids) for example in self.examples]


def chats(rows: Iterable[Mapping[str, Any]]) -> list[Chat]:
    """Conversations of EXAMPLE rows (record form, `distill_dagster.records.schemas.EXAMPLE`)."""
    return [
        Chat(
            str(row["record_id"]),
            as_chat(row["messages"]),
            1.0 if row.get("weight") is None else float(row["weight"]),
            str(row.get("task") or ""),
        )
        for row in rows
    ]


def texts(lines: Iterable[str]) -> list[Chat]:
    """Plain texts as conversations without an answer: language modelling on every token."""
    return [Chat(f"text {index}", ({"role": "user", "content": line},)) for index, line in enumerate(lines)]


def encode(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Iterable[Chat],
    max_length: int,
    prompt_loss_weight: float = 0.0,
    template: Template = "chat",
    too_long: Literal["error", "drop"] = "error",
) -> Encoded:
    """Token ids with loss weights.

    Tokens of an assistant turn and the end token after it weigh `weight`; all others `prompt_loss_weight · weight`.
    With template `plain` the contents are joined as they are, and the end token follows.

    Raises:
        ModelError: Template `chat`, but the tokenizer has no chat template.
        TrainingError: A record longer than `max_length` tokens, with nothing to learn, or of a weight that is no
            weight; names the record.
    """
    if template == "chat":
        require_template(tokenizer)
    examples, dropped = [], []
    for chat in conversations:
        ids, answer = _ids(tokenizer, chat, template)
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
        weights = [chat.weight * (1.0 if said else prompt_loss_weight) for said in answer]
        if not any(weights[1:]):
            raise TrainingError(
                f"record {chat.record_id}",
                "no token of it carries a loss: its answer is empty, or its weight is 0.",
                "Drop the record, or give it an answer and a weight.",
            )
        examples.append(Example(chat.record_id, ids, weights, chat.task))
    return Encoded(examples, dropped)


def require_weight(chat: Chat) -> None:
    """TrainingError where a record's weight is negative, which would unlearn it, or no finite number; names it."""
    if not (math.isfinite(chat.weight) and chat.weight >= 0):
        raise TrainingError(
            f"record {chat.record_id}",
            f"its weight is {chat.weight:g}, and a weight is 0 or a positive number.",
            "Mend the weight, or drop the record.",
        )


def _ids(tokenizer: PreTrainedTokenizerBase, chat: Chat, template: Template) -> tuple[list[int], list[bool]]:
    """Token ids of a conversation, and which of them an assistant says."""
    end = int(tokenizer.eos_token_id)  # pyright: ignore[reportArgumentType]
    roles = [message["role"] for message in chat.messages]
    if ASSISTANT not in roles:
        ids = plain_tokens(tokenizer, "".join(message["content"] for message in chat.messages), True)
        ids = ids if ids[-1:] == [end] else [*ids, end]
        return ids, [True] * len(ids)
    messages = [dict(message) for message in chat.messages]

    def upto(count: int, prompt: bool = False) -> list[int]:
        """Token ids of the first messages; with `prompt`, up to where the assistant begins to speak."""
        if template == "plain":
            return plain_tokens(tokenizer, "".join(message["content"] for message in messages[:count]), True)
        return chat_tokens(tokenizer, messages[:count], prompt)

    ids = upto(len(messages))
    if template == "plain" and ids[-1:] != [end]:
        ids = [*ids, end]
    answer = [False] * len(ids)
    for index in (index for index, role in enumerate(roles) if role == ASSISTANT):
        start = _common(ids, upto(index, True))
        last = index == len(roles) - 1
        stop = len(ids) if last else _common(ids, upto(index + 1))
        if template == "chat" and end in ids[start:stop]:
            # A model stops at its end token; what a template writes after it is never said.
            stop = ids.index(end, start, stop) + 1
            if last:
                ids, answer = ids[:stop], answer[:stop]
        elif last and ids[-1] != end:
            ids, answer, stop = [*ids, end], [*answer, False], stop + 1
        answer[start:stop] = [True] * (stop - start)
    return ids, answer


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the common beginning."""
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return index
    return min(len(left), len(right))


def batches(lengths: Sequence[int], batch_tokens: int, seed: int, packed: bool = False) -> Iterator[list[int]]:
    """Endless batches of indices; every epoch takes each index once, in an order that `seed` and the epoch decide.

    Indices of like length go together, so little is padded; a batch times its longest member is at most
    `batch_tokens`. Where batches are packed nothing is padded: lengths are mixed, and their sum is at most that.

    Raises:
        TrainingError: Nothing to batch, or an example longer than a batch.
    """
    if not lengths:
        raise TrainingError("training data", "there is no example.", "See the funnel of filtered_dataset.")
    longest = max(lengths)
    if longest > batch_tokens:
        raise TrainingError(
            "training data",
            f"an example has {longest} tokens, more than batch_tokens {batch_tokens}.",
            "Raise training.batch_tokens, or lower training.max_length.",
        )
    epoch = 0
    while True:
        yield from (_mixed if packed else _epoch)(lengths, batch_tokens, random.Random(f"{seed}/{epoch}"))
        epoch += 1


def _epoch(lengths: Sequence[int], batch_tokens: int, rng: random.Random) -> list[list[int]]:
    # The jitter moves an example by a few neighbours, so that it meets others in the next epoch.
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index] * (1 + 0.1 * rng.random()), index))
    groups: list[list[int]] = [[]]
    longest = 0
    for index in order:
        longest = max(longest, lengths[index])
        if longest * (len(groups[-1]) + 1) > batch_tokens:
            groups.append([])
            longest = lengths[index]
        groups[-1].append(index)
    rng.shuffle(groups)
    return groups


def _mixed(lengths: Sequence[int], batch_tokens: int, rng: random.Random) -> list[list[int]]:
    order = list(range(len(lengths)))
    rng.shuffle(order)
    groups: list[list[int]] = [[]]
    held = 0
    for index in order:
        held += lengths[index]
        if held > batch_tokens:
            groups.append([])
            held = lengths[index]
        groups[-1].append(index)
    return groups
