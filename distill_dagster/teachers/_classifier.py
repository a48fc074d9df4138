"""A classifier that answers: its label as text, with the log-probabilities of all labels where they are asked for.

Batches hold texts of like length, padded to one shape, so that an answer does not depend on the texts beside it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from distill_dagster.errors import ModelError
from distill_dagster.models import classifier
from distill_dagster.models import folder as folders
from distill_dagster.models.chat import plain_tokens
from distill_dagster.models.generation import BUCKET, LEAST_ROWS, sample
from distill_dagster.models.padding import padding
from distill_dagster.records.identity import digest
from distill_dagster.teachers.base import Request, Response, TokenLogprob


class Classifier:
    """A classifier's folder; `Backend` of `distill_dagster.teachers.transformers` hands it the questions.

    Args:
        folder: The checked folder.
        batch_size: Most texts in a batch.
        threads: CPU threads.
        dtype: Precision of the weights: fp32 or bf16.
    """

    def __init__(self, folder: Path, batch_size: int = 64, threads: int = 1, dtype: str = "fp32") -> None:
        self.tokenizer, self.model = folders.load_tokenizer(folder), folders.load_model(folder, dtype)
        self.labels = classifier.labels(self.model)
        self.context = folders.context_length(self.model)
        self.batch_size, self.threads = batch_size, threads
        self.padding = padding(self.model, self.tokenizer)

    def ask(self, requests: Sequence[Request], served_model: str) -> Iterator[tuple[int, Response]]:
        """Classify every request's user turns; shorter texts first.

        Of `sampling`, `temperature` (0: the likeliest label), `top_p`, `seed` and `top_logprobs` count. A text longer
        than the context yields a response with failure `context_exceeded`.
        """
        rows: list[tuple[int, int, list[int]]] = []
        for index, request in enumerate(requests):
            text = classifier.text(request.messages)
            ids = plain_tokens(self.tokenizer, text, True)
            if not text.strip() or not ids:
                raise ModelError(f"question {index}", "it has no text in a user turn.", "Leave it out.")
            if len(ids) > self.context:
                yield index, Response("", "error", served_model, len(ids), 0, "context_exceeded")
            else:
                rows.append((-(-len(ids) // BUCKET), index, ids))
        rows.sort(key=lambda row: (row[0], len(row[2]), row[1]))
        start = 0
        while start < len(rows):
            stop = start
            while stop < min(len(rows), start + self.batch_size) and rows[stop][0] == rows[start][0]:
                stop += 1
            batch, start = rows[start:stop], stop
            logits = self._logits([ids for _, _, ids in batch], batch[0][0])
            for (_, index, ids), row in zip(batch, logits, strict=True):
                yield index, self._answer(requests[index], row, len(ids), served_model)

    def _logits(self, prompts: list[list[int]], bucket: int):
        """Logits over the labels, fp32, a row a text."""
        import torch

        # Rows that only fill the batch up repeat the first one; nobody reads them.
        full = [*prompts, *[prompts[0]] * (LEAST_ROWS * self.threads - len(prompts))]
        ids = torch.full((len(full), min(bucket * BUCKET, self.context)), self.padding, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(full):
            ids[row, : len(prompt)] = torch.tensor(prompt)
            mask[row, : len(prompt)] = 1
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                return self.model(input_ids=ids, attention_mask=mask).logits[: len(prompts)].float()
        finally:
            torch.set_num_threads(before)

    def _answer(self, request: Request, logits, read: int, served_model: str) -> Response:
        sampling = request.sampling
        temperature = float(sampling.get("temperature") or 0.0)
        number = int(logits.argmax())
        if temperature > 0:
            seed = {"messages": [dict(message) for message in request.messages], "sample": request.sample}
            uniform = random.Random(digest({**seed, "seed": int(sampling.get("seed") or 0)})).random()
            number = sample(logits, temperature, float(sampling.get("top_p") or 1.0), uniform)
        label, logprobs = self.labels[number], None
        most = int(sampling.get("top_logprobs") or 0)
        if most:
            said = logits.double().log_softmax(-1)
            best = said.sort(descending=True, stable=True).indices[:most].tolist()
            top = tuple((self.labels[place], float(said[place])) for place in best)
            logprobs = (TokenLogprob(label, float(said[number]), top),)
        return Response(label, "stop", served_model, read, 1, logprobs=logprobs)
