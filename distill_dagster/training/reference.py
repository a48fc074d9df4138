"""What the student before training says about each answer of a pair, computed once and kept beside the checkpoints.

So a term that holds the student against its start needs no second model in memory, and a run that was killed reads on
where it stood. The files belong to one start and one set of pairs; no others are taken for them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from distill_dagster.config.models import Recipe
from distill_dagster.errors import TrainingError
from distill_dagster.models.padding import padding
from distill_dagster.records.identity import digest
from distill_dagster.storage.atomic import sync_file, sync_folder
from distill_dagster.storage.faults import fault_point
from distill_dagster.training.data import Example
from distill_dagster.training.forward import Forward
from distill_dagster.training.objectives.base import Positions, build
from distill_dagster.training.pairs import summed
from distill_dagster.training.signals.store import token_hash

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FOLDER, PREFIX = "reference", "shard-"
#: Examples a shard: at most so many are read again after a kill. A shard's bytes depend on nothing outside of it.
SHARD = 512
_KEY = b"distill_dagster.reference"

Name = tuple[str, bytes]


class Reference:
    """The start's log-probability of each example's answer, by record and tokens."""

    name = "reference"

    def __init__(self, known: dict[Name, float], key: str) -> None:
        self._known = known
        self.digest = digest({"key": key, "said": [value.hex() for value in known.values()]})

    def __call__(self, examples: Sequence[Example], positions: Positions) -> torch.Tensor:
        """Of each example of a batch, B, in nats.

        Raises:
            TrainingError: An example that it was not computed for; names the record.
        """
        for example in examples:
            if _name(example) not in self._known:
                raise TrainingError(
                    f"record {example.record_id}",
                    "the student before training was not asked about these tokens.",
                    "Give `train` all examples beforehand.",
                )
        dtype = positions.hidden.dtype if positions.hidden.dtype == torch.float64 else torch.float32
        values = [self._known[_name(example)] for example in examples]
        return torch.tensor(values, dtype=dtype, device=positions.hidden.device)


def wanted(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    recipe: Recipe,
    folder: Path,
) -> list[Reference]:
    """What the terms of a recipe need of the model as it stands before training; nothing where none does.

    Args:
        model: The student before its first step, also where a run is about to be resumed.
        tokenizer: For the padding token.
        examples: Encoded answers.
        recipe: Which terms, and the precision and batch size of the forward pass.
        folder: Work folder of the run.

    Raises:
        TrainingError: A kept file is damaged, or of another start or other pairs.
    """
    built = [build(name, params) for name, (weight, params) in recipe.terms.items() if weight]
    if not any(getattr(term, "reference", False) for term in built):
        return []
    key = digest({"start": _weights(model), "data": _data(examples), "precision": recipe.precision, "shard": SHARD})
    place = folder / FOLDER / key[:16]
    if place.parent.is_dir():
        for other in place.parent.iterdir():
            if other != place:
                shutil.rmtree(other, ignore_errors=True)
    place.mkdir(parents=True, exist_ok=True)
    scorer = _Scorer(model, padding(model, tokenizer), recipe)
    known: dict[Name, float] = {}
    for start in range(0, len(examples), SHARD):
        part = examples[start : start + SHARD]
        path = place / f"{PREFIX}{start // SHARD:06d}.parquet"
        if not path.exists():
            _write(path, part, scorer(part), key)
        known |= _read(path, part, key)
    return [Reference(known, key)]


def _name(example: Example) -> Name:
    return example.record_id, token_hash(example)


def _weights(model: PreTrainedModel) -> str:
    """SHA-256 of all weights, frozen ones as well."""
    whole = hashlib.sha256()
    for name, parameter in model.named_parameters():
        whole.update(name.encode())
        whole.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def _data(examples: Sequence[Example]) -> str:
    whole = hashlib.sha256()
    for example in examples:
        whole.update(json.dumps([example.record_id, token_hash(example).hex()]).encode())
    return whole.hexdigest()


class _Scorer:
    """Reads the answers of a shard, those of like length together."""

    def __init__(self, model: PreTrainedModel, padding: int, recipe: Recipe) -> None:
        self.model, self.padding, self.room = model, padding, recipe.batch_tokens
        self.forward = Forward(model, recipe.precision)

    @torch.no_grad()
    def __call__(self, examples: Sequence[Example]) -> list[float]:
        """Log-probability of each answer, in the order of the examples."""
        training = self.model.training
        self.model.eval()
        found = [0.0] * len(examples)
        batch: list[int] = []
        order = sorted(range(len(examples)), key=lambda at: (len(examples[at].ids), at))
        for index, at in enumerate(order):
            batch.append(at)
            following = order[index + 1] if index + 1 < len(order) else None
            if following is None or len(examples[following].ids) * (len(batch) + 1) > self.room:
                sums, _ = summed(self.forward([examples[one] for one in batch], self.padding))
                for one, value in zip(batch, sums.tolist(), strict=True):
                    found[one] = value
                batch = []
        self.model.train(training)
        return found


def _write(path: Path, examples: Sequence[Example], said: list[float], key: str) -> None:
    """A shard, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [("example_id", pa.string()), ("token_hash", pa.binary(16)), ("log_prob", pa.float64())],
        metadata={_KEY: key.encode()},
    )
    columns = [[example.record_id for example in examples], [token_hash(example) for example in examples], said]
    temporary = path.with_name(f".{path.name}.tmp")
    fault_point("reference.write")
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), temporary)
    sync_file(temporary)
    fault_point("reference.rename")
    temporary.rename(path)
    sync_folder(path.parent)
    fault_point("reference.done")


def _read(path: Path, examples: Sequence[Example], key: str) -> dict[Name, float]:
    """The values of a shard, held against what it has to be about."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    again = "Remove the file; it is computed again."
    try:
        table = pq.read_table(path)
        said = (table.schema.metadata or {}).get(_KEY, b"").decode()
        ids, hashes, values = (table[name].to_pylist() for name in ("example_id", "token_hash", "log_prob"))
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise TrainingError(str(path), f"no file of log-probabilities ({error}).", again) from error
    names = list(zip(ids, hashes, strict=True))
    if said != key or names != [_name(example) for example in examples]:
        other = f"of another start or other pairs ({said[:12]}, not {key[:12]})" if said != key else "of other answers"
        raise TrainingError(str(path), f"its log-probabilities are {other}.", again)
    return dict(zip(names, values, strict=True))
