"""A teacher in memory whose tokenizer is another one than the student's: both read the same text, each in its tokens.

Each reads the conversation by its own chat template. Where both have a token boundary at the same byte of an answer
they have read the same, and their next words can be compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from distill_dagster.errors import TrainingError
from distill_dagster.models import folder
from distill_dagster.models.padding import padding
from distill_dagster.training.data import ASSISTANT, Chat, Example, Template, encode
from distill_dagster.training.forward import Forward
from distill_dagster.training.losses.targets import Tile, top_k
from distill_dagster.training.objectives.base import Positions
from distill_dagster.training.signals import spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Longer than any record: how long one may be is judged elsewhere.
ANY = 1 << 30


class AlignedTeacher:
    """A teacher's folder, held in memory while a student with another tokenizer trains.

    Args:
        path: Its model folder.
        tokenizer: The student's tokenizer.
        conversations: All that the student trains on, so that the teacher can read them in its own tokens.
        template: How conversations are written, for both.
        dtype: Precision it runs in: fp32 or bf16.

    Raises:
        TrainingError: A tokenizer whose tokens are no bytes, a record longer than the teacher's context, or nothing
            that both tokenizers have in common.
    """

    name = "aligned"

    def __init__(
        self,
        path: Path,
        tokenizer: PreTrainedTokenizerBase,
        conversations: Sequence[Chat],
        template: Template = "chat",
        dtype: str = "fp32",
    ) -> None:
        own = folder.load_tokenizer(path)
        self.path = path
        self.student, self.teacher = spans.words(tokenizer, "the student's tokenizer"), spans.words(own, str(path))
        self.pairs = spans.shared(self.student, self.teacher)
        self.model = folder.load_model(path)
        self.padding = padding(self.model, own)
        self.forward = Forward(self.model, dtype)
        read = encode(own, conversations, folder.context_length(self.model), template=template).examples
        mine = encode(tokenizer, conversations, ANY, template=template).examples
        self._known: dict[tuple[str, tuple[int, ...]], tuple[Example, list[spans.Span]]] = {}
        for chat, example, said in zip(conversations, mine, read, strict=True):
            self._known[example.record_id, tuple(example.ids)] = said, self._spans(chat, example, said)
        if conversations and not any(found for _, found in self._known.values()):
            raise TrainingError(
                str(path),
                "its tokenizer and the student's have no boundary in common in any record.",
                "Use `sft`: on the teacher's text it needs no tokens of the teacher's.",
            )
        self.digest = _digest(path, self._known)

    def _spans(self, chat: Chat, student: Example, teacher: Example) -> list[spans.Span]:
        answers = [message["content"] for message in chat.messages if message["role"] == ASSISTANT]
        texts = answers or ["".join(message["content"] for message in chat.messages)]
        mine, theirs = list(spans.turns(student, self.student)), list(spans.turns(teacher, self.teacher))
        if not len(texts) == len(mine) == len(theirs):
            return []
        found = [spans.align(*entry) for entry in zip(texts, mine, theirs, strict=True)]
        return [one for turn in found for one in turn]

    def to(self, device: torch.device) -> None:
        """Compute there from now on."""
        self.model.to(device)  # pyright: ignore[reportArgumentType]

    @torch.no_grad()
    def __call__(self, examples: Sequence[Example], positions: Positions) -> AlignedBatch:
        """What the teacher says at the bytes where a batch of the student's can be compared with it.

        Raises:
            TrainingError: A record that was not among the conversations; names it.
        """
        read: list[Example] = []
        matched: list[list[spans.Span]] = []
        for example in examples:
            known = self._known.get((example.record_id, tuple(example.ids)))
            if known is None:
                raise TrainingError(
                    f"record {example.record_id}",
                    "the teacher has another tokenizer and never read this text, so it cannot be aligned.",
                    "`cross_tokenizer` learns from the records themselves, not from samples.",
                )
            read.append(known[0])
            matched.append(known[1])
        said = self.forward(read, self.padding)
        places = _places(examples), _places(read)
        singles: list[tuple[int, int]] = []
        longer: list[tuple[list[int], list[int]]] = []
        for mine, theirs, found in zip(*places, matched, strict=True):
            for span in found:
                ours, its = [mine.get(at, -1) for at in span.student], [theirs.get(at, -1) for at in span.teacher]
                if min(*ours, *its) < 0:
                    continue  # the first token of a text is predicted by nobody
                if len(ours) == len(its) == 1:
                    singles.append((ours[0], its[0]))
                else:
                    longer.append((ours, its))
        return AlignedBatch(said, singles, longer, self.pairs, len(self.student.pieces), len(self.teacher.pieces))


def _digest(path: Path, known: dict[tuple[str, tuple[int, ...]], tuple[Example, list[spans.Span]]]) -> str:
    """What a checkpoint must agree with: the teacher, and what it reads of every record."""
    whole = hashlib.sha256(folder.digest(path).encode())
    for (record, ids), (said, found) in sorted(known.items()):
        whole.update(json.dumps([record, ids, said.ids, [(s.student, s.teacher) for s in found]]).encode())
    return whole.hexdigest()


def _places(examples: Sequence[Example]) -> list[dict[int, int]]:
    """For each example, the position of a batch at which each of its tokens is predicted."""
    found: list[dict[int, int]] = []
    count = 0
    for example in examples:
        carrying = [at for at in range(1, len(example.ids)) if example.weights[at]]
        found.append({at: count + number for number, at in enumerate(carrying)})
        count += len(carrying)
    return found


@dataclass(frozen=True)
class AlignedBatch:
    """The teacher at one batch.

    Attributes:
        said: The teacher's states at its own positions.
        singles: Positions of student and teacher whose next tokens cover the same bytes, one each.
        longer: Positions whose next tokens cover the same bytes together.
        pairs: Student ids by teacher id, of tokens that both have.
        words: Tokens of the student's tokenizer; its output layer may be padded beyond them.
        teacher_words: Tokens of the teacher's.
    """

    said: Positions
    singles: list[tuple[int, int]]
    longer: list[tuple[list[int], list[int]]]
    pairs: dict[int, int]
    words: int
    teacher_words: int

    def targets(self, temperature: float, k: int) -> Mapped:
        """The teacher's distribution over the student's tokens at `singles`, in their order."""
        rows = torch.tensor([row for _, row in self.singles], dtype=torch.long)
        device = self.said.hidden.device
        return Mapped(self.said, rows.to(device), self.both.to(device), self.teacher_words, self.closed, temperature, k)

    @cached_property
    def both(self) -> torch.Tensor:
        """Teacher id and student id of every token that both have, M × 2, by student id."""
        ordered = sorted(self.pairs.items(), key=lambda pair: pair[1])
        return torch.tensor(ordered, dtype=torch.long).view(-1, 2)

    @property
    def closed(self) -> bool:
        """Has one of them no other tokens?

        A rest would then be empty on one side, and whatever the other puts there a fault that nothing can mend: so the
        two are compared on what both have, each given that it is one of those.
        """
        return len(self.pairs) in (self.words, self.teacher_words)

    @torch.no_grad()
    def spoken(self, temperature: float) -> torch.Tensor:
        """The teacher's log-probability of each of its positions' label, at a temperature; one per position."""
        logits = self.said.logits[:, : self.teacher_words]
        return (logits / temperature).log_softmax(-1).gather(1, self.said.labels[:, None])[:, 0]


@dataclass(frozen=True)
class Mapped:
    """A teacher's distribution over tokens of the student; what the student has no token for is in the rest.

    Attributes:
        said: The teacher's states.
        rows: Which of them, R.
        pairs: Teacher id and student id of the tokens that both have, M × 2.
        size: Tokens of the teacher.
        closed: Given that it is a token of both; ids then are rows of `pairs`, and there is no rest.
        temperature: What logits are divided by.
        k: How many tokens to keep; 0 keeps all that both have.
    """

    said: Positions
    rows: torch.Tensor
    pairs: torch.Tensor
    size: int
    closed: bool
    temperature: float
    k: int

    @torch.no_grad()
    def tile(self, start: int, stop: int) -> Tile:
        """The distributions of rows `start` to `stop`."""
        logits = self.said.project(self.said.hidden[self.rows[start:stop]]).float()[:, : self.size]
        theirs, mine = self.pairs.unbind(1)
        if self.closed:
            both = (logits[:, theirs] / self.temperature).log_softmax(-1)
            return top_k(both, self.k) if 0 < self.k < len(mine) else (None, both, None)
        log_p = (logits / self.temperature).log_softmax(-1)
        both = log_p[:, theirs]
        others = log_p.index_fill(1, theirs, float("-inf")).logsumexp(-1)
        if 0 < self.k < len(mine):
            picked, values, rest = top_k(both, self.k)
            return mine[picked], values, torch.logaddexp(rest, others)
        return mine.expand(len(both), -1), both, others
