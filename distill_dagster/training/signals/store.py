"""Stored signals: one parquet file, a row a record, joined by record id and token hash and never by order.

The file's metadata says who taught and how: a reader that has another teacher, tokenizer or chat template is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distill_dagster.errors import TrainingError
from distill_dagster.records.identity import digest
from distill_dagster.training.data import Example, Template
from distill_dagster.training.signals import codec

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

    from distill_dagster.training.losses.targets import TopK
    from distill_dagster.training.objectives.base import Positions

FILE = "signals.parquet"
AGAIN = "Materialize teacher_signals again."
_KEY = b"distill_dagster.signals"


@dataclass(frozen=True)
class Meta:
    """Who said it, about which tokens, and how it is written.

    Attributes:
        teacher: Version of `teacher_model`.
        tokenizer: `tokenizer_digest`.
        template: `template_digest`.
        vocabulary: Ids are below this; the teacher's distribution is over these.
        k: Tokens a position.
        temperatures: At which the rest is known.
        codec: How the bytes are written.
        labels: A classifier's labels, which its distribution is over; its readers may have another tokenizer, so
            `tokenizer` and `template` say nothing. Empty for a language model.
    """

    teacher: str
    tokenizer: str
    template: str
    vocabulary: int
    k: int
    temperatures: tuple[float, ...]
    codec: int = codec.CODEC
    labels: tuple[str, ...] = ()

    def said(self) -> dict[str, Any]:
        """As JSON."""
        found = asdict(self)
        return found if self.labels else {name: value for name, value in found.items() if name != "labels"}

    @property
    def layout(self) -> codec.Layout:
        """How blobs are written."""
        return codec.Layout(self.k, self.temperatures, self.vocabulary)


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the vocabulary, token by token, with the end token's id; 64 hex digits."""
    words = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    return digest({"vocabulary": [[word, number] for word, number in words], "end": tokenizer.eos_token_id})


def template_digest(tokenizer: PreTrainedTokenizerBase, template: Template) -> str:
    """SHA-256 of how a conversation becomes text; 64 hex digits."""
    return digest({"template": template, "chat": str(tokenizer.chat_template) if template == "chat" else None})


def token_hash(example: Example) -> bytes:
    """16 bytes of SHA-256 over the ids and which of them carry a loss: other tokens are another question.

    A classifier is asked about a text, in whatever tokens.
    """
    if example.label is not None:
        return hashlib.sha256(b"text" + example.text.encode("utf-8", "surrogatepass")).digest()[:16]
    ids = np.asarray(example.ids, "<i4").tobytes()
    mask = np.asarray([weight != 0 for weight in example.weights], "u1").tobytes()
    return hashlib.sha256(len(example.ids).to_bytes(8, "little") + ids + mask).digest()[:16]


def count(example: Example) -> int:
    """Positions of an example that carry a loss."""
    return 1 if example.label is not None else sum(weight != 0 for weight in example.weights[1:])


@dataclass(frozen=True)
class Row:
    """The signals of one record."""

    example_id: str
    token_hash: bytes
    positions: int
    blob: bytes


def write(path: Path, rows: Iterable[Row], meta: Meta) -> None:
    """Write a file whole; the same rows and metadata give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    listed = list(rows)
    schema = pa.schema(
        [("example_id", pa.string()), ("token_hash", pa.binary(16)), ("positions", pa.int32()), ("blob", pa.binary())],
        metadata={_KEY: json.dumps(meta.said(), sort_keys=True).encode()},
    )
    columns = [[getattr(row, field.name) for row in listed] for field in schema]
    table = pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
    # Dictionaries of values that never repeat only cost; blobs are what zstd is for.
    pq.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False, row_group_size=4096)


def read_meta(path: Path) -> Meta:
    """The metadata of a file.

    Raises:
        TrainingError: It is no file of signals, or one written in another way.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        said = (pq.read_schema(path).metadata or {}).get(_KEY)
        found = json.loads(said) if said is not None else None
        lists = {name: tuple(found[name]) for name in ("temperatures", "labels") if name in found} if found else {}
        meta = Meta(**{**found, **lists}) if found else None
    except (OSError, pa.ArrowInvalid, ValueError, TypeError, KeyError) as error:
        raise TrainingError(str(path), f"no file of signals ({error}).", AGAIN) from error
    if meta is None or meta.codec != codec.CODEC:
        other = "no metadata" if meta is None else f"codec {meta.codec}"
        raise TrainingError(str(path), f"it has {other}, not codec {codec.CODEC}.", AGAIN)
    return meta


def read(path: Path) -> list[Row]:
    """Every row of a file."""
    import pyarrow.parquet as pq

    table: pa.Table = pq.read_table(path)
    columns = (table[name].to_pylist() for name in ("example_id", "token_hash", "positions", "blob"))
    return [Row(*values) for values in zip(*columns, strict=True)]


class Stored:
    """A file of signals for a student's training.

    Args:
        path: The file.
        tokenizer: The student's tokenizer.
        template: How its conversations are written.
        teacher: Version of the teacher that must have been captured; None: any.
        labels: Of a student that is a classifier; the tokenizer may then be another.

    Raises:
        TrainingError: The signals are another teacher's, tokenizer's or template's, or of other labels.
    """

    name = "stored"

    def __init__(
        self,
        path: Path,
        tokenizer: PreTrainedTokenizerBase,
        template: Template = "chat",
        teacher: str | None = None,
        labels: Sequence[str] = (),
    ) -> None:
        self.path, self.meta = path, read_meta(path)
        checks = [("teacher", self.meta.teacher, teacher)]
        if labels or self.meta.labels:
            self._numbers = _numbers(self.meta, labels, path)
        else:
            self._numbers = None
            checks.append(("tokenizer", self.meta.tokenizer, tokenizer_digest(tokenizer)))
            checks.append(("chat template", self.meta.template, template_digest(tokenizer, template)))
        for what, said, wanted in checks:
            if wanted is not None and said != wanted:
                raise TrainingError(
                    str(path),
                    f"these signals are of another {what} ({said[:12]}, not {wanted[:12]}).",
                    AGAIN
                    if what == "teacher"
                    else "Start the student from a model with the teacher's tokenizer and chat template, or use "
                    "`cross_tokenizer` (a teacher in memory) or `sft`.",
                )
        self._rows = {(row.example_id, row.token_hash): row for row in read(path)}
        self._records = {example_id for example_id, _ in self._rows}

    @property
    def digest(self) -> str:
        """What a checkpoint must agree with."""
        whole = hashlib.sha256(json.dumps(self.meta.said(), sort_keys=True).encode())
        for key in sorted(self._rows):
            whole.update(key[0].encode() + key[1] + hashlib.sha256(self._rows[key].blob).digest())
        return whole.hexdigest()

    def row(self, example: Example) -> Row:
        """The signals of an example.

        Raises:
            TrainingError: There are none, or they are of other tokens; names the record.
        """
        found = self._rows.get((example.record_id, token_hash(example)))
        if found is not None and found.positions == count(example):
            return found
        known = example.record_id in self._records
        reason = "the teacher was asked about other tokens of it" if known else "the teacher was never asked about it"
        raise TrainingError(
            f"record {example.record_id}",
            f"{reason}, so {self.path} cannot teach it.",
            "Materialize teacher_signals from the same filtered_dataset; prompt_loss_weight must be 0.",
        )

    def __call__(self, examples: Sequence[Example], positions: Positions) -> StoredBatch:
        """The signals of a batch, in the order of its positions."""
        rows = [self.row(example) for example in examples]
        parts = [codec.decode(row.blob, self.meta.layout) for row in rows]
        if sum(len(part.ids) for part in parts) != len(positions.labels):
            raise TrainingError(str(self.path), "a blob is not as long as its record says.", AGAIN)
        joined = codec.Signal(
            *(np.concatenate([getattr(part, field) for part in parts]) for field in ("ids", "log_probs", "log_rest"))
        )
        if self._numbers is not None:
            joined = codec.Signal(self._numbers[joined.ids], joined.log_probs, joined.log_rest)
        return StoredBatch(joined, self.meta)


def _numbers(meta: Meta, labels: Sequence[str], path: Path) -> np.ndarray:
    """The student's number of each of the teacher's labels."""
    from distill_dagster.training.classify import match

    if not (labels and meta.labels):
        who = ("text", "a classifier") if labels else ("labels", "a language model")
        raise TrainingError(
            str(path),
            f"these signals are of a teacher that answers with {who[0]}, and the student is {who[1]}.",
            "Take a teacher of the student's kind, or learn from its answers alone, with `sft`.",
        )
    return np.argsort(np.asarray(match(meta.labels, labels, str(path))))


@dataclass(frozen=True)
class StoredBatch:
    """Signals of one batch."""

    signal: codec.Signal
    meta: Meta

    @property
    def vocabulary(self) -> int:
        """Tokens that the teacher's distribution is over."""
        return self.meta.vocabulary

    def targets(self, temperature: float, k: int) -> TopK:
        """The teacher's distribution at a temperature, as the loss takes it.

        Raises:
            TrainingError: It was not captured at this temperature, or with fewer tokens.
        """
        import torch

        from distill_dagster.training.losses.targets import TopK

        try:
            # All labels but one, and the rest is that one: nothing more can be kept.
            kept = min(k, self.meta.vocabulary - 1) if self.meta.labels else k
            signal = codec.at(self.signal, self.meta.temperatures, temperature, kept)
        except (KeyError, ValueError) as error:
            raise TrainingError(
                "training.objective.divergence",
                f"the signals were captured with k {self.meta.k} at temperatures {list(self.meta.temperatures)}; "
                f"k {k} at temperature {temperature:g} is wanted.",
                "Materialize teacher_signals with this recipe.",
            ) from error
        ids, log_probs, log_rest = map(torch.from_numpy, (signal.ids, signal.log_probs, signal.log_rest[:, 0]))
        return TopK(ids, log_probs, log_rest)


def any_of(meta: Meta) -> dict[str, Any]:
    """The metadata for people and run records."""
    return {**meta.said(), "bytes_a_token": meta.layout.width}
