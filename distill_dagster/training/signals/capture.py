"""Asking a teacher for its probabilities, record by record, in shards that outlive a crash.

Each record goes through the teacher alone: a matrix product rounds otherwise in another batch, and a record that is
scored again must give the bytes that it gave before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from distill_dagster.errors import TrainingError
from distill_dagster.models import folder
from distill_dagster.models.padding import padding
from distill_dagster.storage.atomic import sync_file, sync_folder
from distill_dagster.storage.faults import fault_point
from distill_dagster.training.data import Example
from distill_dagster.training.forward import Forward
from distill_dagster.training.losses.targets import top_k
from distill_dagster.training.signals import codec, store
from distill_dagster.training.signals.live import require_room
from distill_dagster.training.signals.store import Meta, Row

PREFIX = "shard-"


@dataclass(frozen=True)
class Captured:
    """What a capture did: rows in the order of the examples, and the cost of those that were not known.

    Attributes:
        rows: One a record.
        scored: Records that the teacher was asked about now.
        resumed: Records found in shards of a run that was killed.
        reused: Records known from an earlier version.
        tokens: Tokens the teacher read now, prompts included.
        seconds: How long that took.
    """

    rows: list[Row]
    scored: int
    resumed: int
    reused: int
    tokens: int
    seconds: float


class Scorer:
    """A teacher that gives its probabilities at the positions of a record that carry a loss.

    Args:
        path: Its model folder.
        meta: How signals are written.
        dtype: Precision it runs in: fp32 or bf16.
        device: Where it runs.
    """

    def __init__(self, path: Path, meta: Meta, dtype: str = "fp32", device: torch.device | str = "cpu") -> None:
        self.meta = meta
        model = folder.load_model(path)
        self.padding, self.context = padding(model, folder.load_tokenizer(path)), folder.context_length(model)
        self.forward = Forward(model.to(device), dtype)  # pyright: ignore[reportArgumentType]

    @torch.no_grad()
    def __call__(self, example: Example) -> codec.Signal:
        """The signals of one record.

        Raises:
            TrainingError: It is longer than the teacher's context, or what the teacher says of it is no number.
        """
        require_room(example, self.context)
        positions = self.forward([example], self.padding)
        logits = positions.logits[:, : self.meta.vocabulary]
        ids, values, _ = top_k(logits.log_softmax(-1), self.meta.k)
        # Bytes have no place for it: it would be read again as a probability like any other.
        if bool(values.isnan().any()):
            raise TrainingError(
                f"record {example.record_id}",
                "what the teacher says of it is not a number (NaN).",
                "Look at the teacher's weights; in bf16, set the teacher's `dtype: fp32`.",
            )
        rests = []
        for temperature in self.meta.temperatures:
            hot = (logits / temperature).log_softmax(-1).scatter_(1, ids, float("-inf"))
            rests.append(torch.logsumexp(hot, -1))
        return codec.Signal(*(part.cpu().numpy() for part in (ids, values, torch.stack(rests, 1))))


def capture(
    examples: Sequence[Example],
    meta: Meta,
    score: Callable[[Example], codec.Signal],
    work: Path,
    *,
    known: Iterable[Row] = (),
    shard: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> Captured:
    """The signals of some records; those of a killed run's shards and of `known` are taken as they are.

    Args:
        examples: Encoded records; one that stands twice is asked once.
        meta: How signals are written.
        score: Asks the teacher about one record.
        work: Folder for shards; other captures' shards in it are ignored.
        known: Rows of an earlier version with the same metadata.
        shard: Records a shard: at most so many are asked again after a kill.
        progress: Called with (records done, records in all).
    """
    work.mkdir(parents=True, exist_ok=True)
    wanted = {(example.record_id, store.token_hash(example)): example for example in examples}
    have = {(row.example_id, row.token_hash): row for row in known if (row.example_id, row.token_hash) in wanted}
    reused, number = len(have), 0
    for path in sorted(work.glob(f"{PREFIX}*.parquet")):
        number = max(number, int(path.stem.removeprefix(PREFIX)) + 1)
        if store.read_meta(path) == meta:
            have |= {(row.example_id, row.token_hash): row for row in store.read(path)}
    have = {key: row for key, row in have.items() if key in wanted}
    resumed, missing = len(have) - reused, [example for key, example in wanted.items() if key not in have]
    started = time.perf_counter()
    for start in range(0, len(missing), shard):
        fresh = []
        for index, example in enumerate(missing[start : start + shard], start):
            blob = codec.encode(score(example), meta.layout)
            fresh.append(Row(example.record_id, store.token_hash(example), store.count(example), blob))
            if progress is not None:
                progress(len(have) + index - start + 1, len(wanted))
        _write(work / f"{PREFIX}{number:06d}.parquet", fresh, meta)
        have |= {(row.example_id, row.token_hash): row for row in fresh}
        number += 1
    return Captured(
        rows=[have[key] for key in wanted],
        scored=len(missing),
        resumed=resumed,
        reused=reused,
        tokens=sum(len(example.ids) for example in missing),
        seconds=time.perf_counter() - started,
    )


def _write(path: Path, rows: list[Row], meta: Meta) -> None:
    """A shard, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    fault_point("signals.write")
    store.write(temporary, rows, meta)
    sync_file(temporary)
    fault_point("signals.rename")
    temporary.rename(path)
    sync_folder(path.parent)
    fault_point("signals.done")
