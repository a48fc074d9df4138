"""Continuing prompts with a model: batches of like length, greedily or sampled. Teachers and students answer this way.

A row's answer does not depend on the rows beside it: batches hold prompts of like length only, are never smaller
than the sizes at which matrix products round alike, and every sampled token uses the row's own random numbers.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from distill_dagster.models.folder import context_length
from distill_dagster.models.placing import placed
from distill_dagster.models.steppers import stepper

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: Fewer rows a thread go through other kernels, which round differently (measured: from 4 rows a thread on, alike).
LEAST_ROWS = 16
BUCKET = 16
#: Numbers that a GPU adds up at once where a token is drawn.
_BLOCK = 512


@dataclass
class Row:
    """One prompt on its way.

    Attributes:
        index: Where it stood among those asked.
        prompt: Token ids.
        limit: Most tokens of an answer.
        temperature: 0: the likeliest token each time.
        top_p: Draw from the likeliest tokens that hold this much mass.
        stop: Strings that end an answer.
        rng: Its own random numbers.
        said: Token ids of the answer, the end token included where it was said.
        text: The answer, once it has stopped.
        finish: stop or length.
    """

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


class Generator:
    """Continues prompts with a model whose weights do not change meanwhile.

    Args:
        model: A causal language model, in evaluation mode.
        tokenizer: Its tokenizer.
        batch_size: Most rows in a batch.
        threads: CPU threads.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int = 64, threads: int = 1
    ) -> None:
        self.tokenizer, self.batch_size, self.threads = tokenizer, batch_size, threads
        self.context = context_length(model)
        self.stepper = stepper(model)
        generation = model.generation_config
        ends = generation.eos_token_id if generation is not None else None
        self.ends = set(ends if isinstance(ends, list) else [] if ends is None else [ends])
        self.ends.add(int(tokenizer.eos_token_id))  # pyright: ignore[reportArgumentType]

    def run(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Every row once it has stopped; shorter prompts first, in an order that the rows alone decide."""
        waiting = sorted(rows, key=lambda row: (row.bucket, len(row.prompt), row.index))
        start = 0
        while start < len(waiting):
            stop = start
            while stop < min(len(waiting), start + self.batch_size) and waiting[stop].bucket == waiting[start].bucket:
                stop += 1
            batch, start = waiting[start:stop], stop
            self._answer(batch)
            yield from batch

    def _answer(self, batch: list[Row]) -> None:
        """Continue a batch of one bucket until every row has stopped."""
        least = LEAST_ROWS * self.threads
        # Rows that only fill the batch up repeat the first one; nobody reads them.
        alive: list[Row | None] = [*batch, *([None] * (least - len(batch)))]
        limit, bucket = batch[0].bucket
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                prompts = [batch[0].prompt if row is None else row.prompt for row in alive]
                logits = self._read(prompts, least, min(self.context, bucket * BUCKET + limit))
                while True:
                    chosen = logits.argmax(-1)
                    drawn = [place for place, row in enumerate(alive) if row is not None and row.temperature > 0]
                    if drawn and logits.is_cuda:
                        chosen[drawn] = _together(logits[drawn], [alive[place] for place in drawn])
                    elif drawn:
                        for place in drawn:
                            row = alive[place]
                            assert row is not None
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
                        self.stepper.keep(torch.tensor(rows))
                        alive, chosen = [alive[place] for place in rows], chosen[rows]
                    logits = self.stepper.step(chosen)
        finally:
            torch.set_num_threads(before)

    def _read(self, prompts: list[list[int]], least: int, room: int) -> torch.Tensor:
        """Logits after each prompt; a prompt that several rows have is read once."""
        numbers: dict[tuple[int, ...], int] = {}
        places = [numbers.setdefault(tuple(prompt), len(numbers)) for prompt in prompts]
        if max(len(numbers), least) == len(prompts):
            return self.stepper.read(prompts, room)
        distinct = [list(prompt) for prompt in numbers]
        logits = self.stepper.read(distinct + distinct[:1] * (least - len(distinct)), room)
        rows = torch.tensor(places)
        self.stepper.keep(rows)
        return logits[rows]

    def _say(self, row: Row, token: int) -> bool:
        """Add a token to a row; whether the row has stopped."""
        row.said.append(token)
        if token in self.ends:
            row.finish, row.text = "stop", self._text(row, row.said[:-1])
        elif row.stop:
            text = self._text(row, row.said)
            cuts = [text.index(stop) for stop in row.stop if stop in text]
            if cuts:
                row.finish, row.text = "stop", text[: min(cuts)]
        if row.text is None and len(row.said) >= row.limit:
            row.text = self._text(row, row.said)
        return row.text is not None

    def _text(self, row: Row, said: list[int]) -> str:
        return text_after(self.tokenizer, row.prompt, said)


def text_after(tokenizer: PreTrainedTokenizerBase, prompt: list[int], said: list[int]) -> str:
    """Text of an answer as it follows the prompt: some tokenizers drop a leading space of what stands alone."""
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    tail = prompt[-8:]
    before, whole = (str(tokenizer.decode(ids, **options)) for ids in (tail, tail + said))
    return whole[len(before) :] if whole.startswith(before) else str(tokenizer.decode(said, **options))


def _together(logits: torch.Tensor, rows: Sequence[Row | None]) -> torch.Tensor:
    """A token of each row as `sample` draws it, on the logits' device: R × V in, R token ids out.

    Only what rounding decides may differ from `sample`: sums of more than `_BLOCK` numbers are added up in two stages,
    each in an order of its own, since a GPU's one-stage cumulative sum has none.
    """
    asked = [(row.temperature, row.top_p, row.rng.random()) for row in rows if row is not None]
    heat, share, uniform = (
        placed(torch.tensor(part, dtype=torch.float64), logits.device) for part in zip(*asked, strict=True)
    )
    probability, order = (logits.double() / heat[:, None]).softmax(-1).sort(descending=True, stable=True)
    cumulative = _cumulative(probability)
    last = order.shape[1] - 1
    kept = torch.searchsorted(cumulative, share[:, None]).clamp(max=last)
    whole = cumulative[:, -1:]
    mass = torch.where(share[:, None] < 1, cumulative.gather(1, kept), whole)
    places = torch.searchsorted(cumulative, uniform[:, None] * mass, right=True).clamp(max=last)
    return order.gather(1, places)[:, 0]


def _cumulative(values: torch.Tensor) -> torch.Tensor:
    """Cumulative sums of each row, R × V, by products with triangles of ones."""
    count, size = values.shape
    blocks = torch.nn.functional.pad(values, (0, -size % _BLOCK)).view(count, -1, _BLOCK)
    inside = blocks @ values.new_ones(_BLOCK, _BLOCK).triu()
    sums = inside[..., -1]
    before = sums @ values.new_ones(sums.shape[1], sums.shape[1]).triu(1)
    return (inside + before[..., None]).flatten(1)[:, :size].contiguous()


def sample(logits: torch.Tensor, temperature: float, top_p: float, uniform: float) -> int:
    """A token drawn by inverting the cumulative distribution at `uniform` in [0, 1).

    `top_p` keeps the most likely tokens whose mass first reaches it (Holtzman et al. 2020).
    """
    probability, order = (logits.double() / temperature).softmax(-1).sort(descending=True, stable=True)
    cumulative = probability.cumsum(-1)
    mass = cumulative[-1].item()
    if top_p < 1:
        kept = int(torch.searchsorted(cumulative, torch.tensor(top_p, dtype=torch.float64)))
        mass = cumulative[min(kept, len(order) - 1)].item()
    place = int(torch.searchsorted(cumulative, torch.tensor(uniform * mass, dtype=torch.float64), right=True))
    return int(order[min(place, len(order) - 1)])
