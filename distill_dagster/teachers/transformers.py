"""A model folder as a teacher: prompts in batches on this machine, greedily or sampled. Students answer the same way,
and so do classifiers, whose answer is a label (`distill_dagster.teachers._classifier`).

A row's answer does not depend on the rows beside it: batches hold prompts of like length only, are never smaller
than the sizes at which matrix products round alike, and every sampled token uses the question's own random numbers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distill_dagster.errors import ModelError
from distill_dagster.models import classifier
from distill_dagster.models import folder as folders
from distill_dagster.models.chat import chat_tokens, plain_tokens, require_template
from distill_dagster.records.identity import digest
from distill_dagster.teachers.base import Request, Response

if TYPE_CHECKING:
    import torch

    from distill_dagster.teachers._classifier import Classifier

#: Fewer rows a thread go through other kernels, which round differently (measured: from 4 rows a thread on, alike).
LEAST_ROWS = 16
BUCKET = 16


@dataclass
class _Row:
    """One question on its way."""

    index: int
    prompt: list[int]
    limit: int
    temperature: float
    top_p: float
    stop: tuple[str, ...]
    rng: random.Random
    said: list[int] = field(default_factory=list)
    text: str | None = None
    finish: str = "length"

    @property
    def bucket(self) -> tuple[int, int]:
        """Rows of one bucket are computed with the same shapes, whatever else is asked."""
        return self.limit, -(-len(self.prompt) // BUCKET)


class Backend:
    """A folder of a causal language model, or of a classifier, that answers.

    Args:
        folder: Model folder, checked at once and loaded at the first question.
        identity: Declared name of the model.
        revision: Declared revision; None means the digest of the folder's files.
        template: `chat` (the tokenizer's chat template) or `plain` (the messages' text, one after another).
        batch_size: Most questions in a batch.
        threads: CPU threads.
        dtype: Precision of the weights: fp32 or bf16.

    Raises:
        ModelError: The folder does not pass the check, or template `chat` is asked of a tokenizer that has none.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        identity: str,
        revision: str | None = None,
        template: Literal["chat", "plain"] = "chat",
        batch_size: int = 64,
        threads: int = 1,
        dtype: str = "fp32",
    ) -> None:
        self.folder = folders.check(folder)
        self.identity = identity
        self.revision = folders.digest(self.folder) if revision is None else revision
        self.template = template
        self.batch_size, self.threads, self.dtype = batch_size, threads, dtype
        self._model: Any = None

    @property
    def served_model(self) -> str:
        """`identity@revision`, or the identity alone."""
        return f"{self.identity}@{self.revision}" if self.revision else self.identity

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[int, Response]]:
        """Answer every request; shorter prompts first, in an order that the requests alone decide.

        `sampling` may hold `max_new_tokens` (32), `temperature` (0: greedy), `top_p` (1), `stop` (strings) and `seed`.
        A prompt that leaves no room in the model's context yields a response with failure `context_exceeded`.
        """
        if not requests:
            return
        if classifier.kind(self.folder) == "classifier":
            yield from self._classifier.ask(requests, self.served_model)
            return
        self._load()
        rows: list[_Row] = []
        for index, request in enumerate(requests):
            row = self._row(index, request)
            if row.limit > 0:
                rows.append(row)
            else:
                yield index, Response("", "error", self.served_model, len(row.prompt), 0, "context_exceeded")
        rows.sort(key=lambda row: (row.bucket, len(row.prompt), row.index))
        start = 0
        while start < len(rows):
            stop = start
            while stop < min(len(rows), start + self.batch_size) and rows[stop].bucket == rows[start].bucket:
                stop += 1
            batch, start = rows[start:stop], stop
            self._answer(batch)
            for row in batch:
                yield row.index, Response(row.text or "", row.finish, self.served_model, len(row.prompt), len(row.said))

    @cached_property
    def _classifier(self) -> Classifier:
        from distill_dagster.teachers._classifier import Classifier

        return Classifier(self.folder, self.batch_size, self.threads, self.dtype)

    def _load(self) -> None:
        if self._model is not None:
            return
        from distill_dagster.models.steppers import stepper

        self._tokenizer = folders.load_tokenizer(self.folder)
        if self.template == "chat":
            require_template(self._tokenizer)
        self._model = folders.load_model(self.folder, self.dtype)
        self._context = folders.context_length(self._model)
        self._stepper = stepper(self._model)
        generation = self._model.generation_config
        ends = generation.eos_token_id if generation is not None else None
        self._ends = set(ends if isinstance(ends, list) else [] if ends is None else [ends])
        self._ends.add(int(self._tokenizer.eos_token_id))  # pyright: ignore[reportArgumentType]

    def _row(self, index: int, request: Request) -> _Row:
        sampling = request.sampling
        if self.template == "chat":
            prompt = chat_tokens(self._tokenizer, request.messages, True)
        else:
            text = "".join(message["content"] for message in request.messages)
            prompt = plain_tokens(self._tokenizer, text, True)
        if not prompt:
            raise ModelError(f"question {index}", "it has no text.", "Leave it out, or use a template that adds some.")
        room = self._context - len(prompt)
        seed = {"messages": [dict(message) for message in request.messages], "sample": request.sample}
        return _Row(
            index,
            prompt,
            min(int(sampling.get("max_new_tokens") or 32), room),
            float(sampling.get("temperature") or 0.0),
            float(sampling.get("top_p") or 1.0),
            tuple(sampling.get("stop") or ()),
            random.Random(digest({**seed, "seed": int(sampling.get("seed") or 0)})),
        )

    def _answer(self, batch: list[_Row]) -> None:
        """Continue a batch of one bucket until every row has stopped."""
        import torch

        least = LEAST_ROWS * self.threads
        # Rows that only fill the batch up repeat the first one; nobody reads them.
        alive: list[_Row | None] = [*batch, *([None] * (least - len(batch)))]
        limit, bucket = batch[0].bucket
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                prompts = [batch[0].prompt if row is None else row.prompt for row in alive]
                logits = self._stepper.read(prompts, min(self._context, bucket * BUCKET + limit))
                while True:
                    chosen = logits.argmax(-1)
                    for place, row in enumerate(alive):
                        if row is not None and row.temperature > 0:
                            chosen[place] = sample(logits[place], row.temperature, row.top_p, row.rng.random())
                    for place, (row, token) in enumerate(zip(alive, chosen.tolist(), strict=True)):
                        if row is not None and self._say(row, token):
                            alive[place] = None
                    running = [place for place, row in enumerate(alive) if row is not None]
                    if not running:
                        return
                    if max(len(running), least) <= len(alive) * 3 // 4:
                        fill = [place for place, row in enumerate(alive) if row is None]
                        rows = sorted(running + fill[: max(0, least - len(running))])
                        self._stepper.keep(torch.tensor(rows))
                        alive, chosen = [alive[place] for place in rows], chosen[rows]
                    logits = self._stepper.step(chosen)
        finally:
            torch.set_num_threads(before)

    def _say(self, row: _Row, token: int) -> bool:
        """Add a token to a row; whether the row has stopped."""
        row.said.append(token)
        if token in self._ends:
            row.finish, row.text = "stop", self._text(row, row.said[:-1])
        elif row.stop:
            text = self._text(row, row.said)
            cuts = [text.index(stop) for stop in row.stop if stop in text]
            if cuts:
                row.finish, row.text = "stop", text[: min(cuts)]
        if row.text is None and len(row.said) >= row.limit:
            row.text = self._text(row, row.said)
        return row.text is not None

    def _text(self, row: _Row, said: list[int]) -> str:
        """Text of an answer as it follows the prompt: some tokenizers drop a leading space of what stands alone."""
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        tail = row.prompt[-8:]
        before, whole = (str(self._tokenizer.decode(ids, **options)) for ids in (tail, tail + said))
        return whole[len(before) :] if whole.startswith(before) else str(self._tokenizer.decode(said, **options))


def sample(logits: torch.Tensor, temperature: float, top_p: float, uniform: float) -> int:
    """A token drawn by inverting the cumulative distribution at `uniform` in [0, 1).

    `top_p` keeps the most likely tokens whose mass first reaches it (Holtzman et al. 2020).
    """
    import torch

    probability, order = (logits.double() / temperature).softmax(-1).sort(descending=True, stable=True)
    cumulative = probability.cumsum(-1)
    mass = cumulative[-1].item()
    if top_p < 1:
        kept = int(torch.searchsorted(cumulative, torch.tensor(top_p, dtype=torch.float64)))
        mass = cumulative[min(kept, len(order) - 1)].item()
    place = int(torch.searchsorted(cumulative, torch.tensor(uniform * mass, dtype=torch.float64), right=True))
    return int(order[min(place, len(order) - 1)])
