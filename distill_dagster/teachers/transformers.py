"""A model folder as a teacher: prompts in batches on this machine, greedily or sampled. Students answer the same way,
and so do classifiers, whose answer is a label (`distill_dagster.teachers._classifier`).

An answer does not depend on the questions beside it (`distill_dagster.models.generation`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
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
    from distill_dagster.models.generation import Row
    from distill_dagster.teachers._classifier import Classifier


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
        rows: list[Row] = []
        for index, request in enumerate(requests):
            row = self._row(index, request)
            if row.limit > 0:
                rows.append(row)
            else:
                yield index, Response("", "error", self.served_model, len(row.prompt), 0, "context_exceeded")
        for row in self._generator.run(rows):
            yield row.index, Response(row.text or "", row.finish, self.served_model, len(row.prompt), len(row.said))

    @cached_property
    def _classifier(self) -> Classifier:
        from distill_dagster.teachers._classifier import Classifier

        return Classifier(self.folder, self.batch_size, self.threads, self.dtype)

    def _load(self) -> None:
        if self._model is not None:
            return
        from distill_dagster.models.generation import Generator

        self._tokenizer = folders.load_tokenizer(self.folder)
        if self.template == "chat":
            require_template(self._tokenizer)
        self._model = folders.load_model(self.folder, self.dtype)
        self._generator = Generator(self._model, self._tokenizer, self.batch_size, self.threads)

    def _row(self, index: int, request: Request) -> Row:
        from distill_dagster.models.generation import Row

        sampling = request.sampling
        if self.template == "chat":
            prompt = chat_tokens(self._tokenizer, request.messages, True)
        else:
            text = "".join(message["content"] for message in request.messages)
            prompt = plain_tokens(self._tokenizer, text, True)
        if not prompt:
            raise ModelError(f"question {index}", "it has no text.", "Leave it out, or use a template that adds some.")
        room = self._generator.context - len(prompt)
        seed = {"messages": [dict(message) for message in request.messages], "sample": request.sample}
        return Row(
            index,
            prompt,
            min(int(sampling.get("max_new_tokens") or 32), room),
            float(sampling.get("temperature") or 0.0),
            float(sampling.get("top_p") or 1.0),
            tuple(sampling.get("stop") or ()),
            random.Random(digest({**seed, "seed": int(sampling.get("seed") or 0)})),
        )
