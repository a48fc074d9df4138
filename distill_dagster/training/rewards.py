"""Rewards of a student's samples: a domain's verdicts, asked in the training process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_dagster.domains.base import Domain
from distill_dagster.errors import TrainingError
from distill_dagster.knowledge._labels import to_label
from distill_dagster.records.identity import digest


@dataclass(frozen=True)
class Verdict:
    """What is known of one sample.

    Attributes:
        right: 1 or 0; None where nobody can tell.
        well_formed: Whether it has the form of an answer: one of the labels, or anything at all.
        failure: `task: ErrorClass` where the verifier raised; then it is neither right nor wrong.
    """

    right: float | None
    well_formed: bool
    failure: str | None = None


class Rewards:
    """Judges answers to known records.

    The verifier works from the record's facts. Where it cannot tell, a gold answer decides, if the record has one that
    the student may see.

    Args:
        rows: `record_id`, `task`, `facts` (the generator's numbers) and `answer` (gold, or None) of each record.
        domain: The domain whose verifier judges.
        labels: Labels of each label task.
        version: Version of the verifier, for checkpoints.
    """

    def __init__(
        self, rows: list[dict[str, Any]], domain: Domain, labels: Mapping[str, tuple[str, ...]], version: str
    ) -> None:
        if domain.verify is None:
            raise TrainingError(
                f"domain {domain.name}",
                "it has no verifier, so nothing can reward a sample.",
                "Write `verify` in the domain plugin, or use another objective.",
            )
        self.rows = {row["record_id"]: row for row in rows}
        self.verify, self.labels = domain.verify, labels
        self.digest = digest({"rows": rows, "domain": domain.name, "version": version})

    def __contains__(self, record: str) -> bool:
        """Whether anything is known to judge this record's answers by."""
        return record in self.rows

    def __call__(self, record: str, text: str) -> Verdict:
        """The verdict on an answer to a record."""
        row = self.rows[record]
        labels = self.labels.get(row["task"], ())
        said = to_label(text, labels)
        well_formed = said in labels if labels else bool(text.strip())
        right: float | None = None
        if row["facts"]:
            try:
                verdict = self.verify(row["task"], row["facts"], said)
                right = None if verdict.ok is None else float(verdict.ok)
            except Exception as error:
                return Verdict(None, well_formed, f"{row['task']}: {type(error).__name__}")
        if right is None and row["answer"] is not None:
            right = float(" ".join(said.casefold().split()) == " ".join(row["answer"].casefold().split()))
        return Verdict(right, well_formed)


def load(task: Mapping[str, Any]) -> Rewards:
    """The rewards of a training task: `{path, domain, version, labels}`; the domain is found by its entry point.

    Raises:
        PluginError: The domain is not installed here, or is broken.
    """
    import json

    import pyarrow.parquet as pq

    from distill_dagster.domains.registry import discover

    rows = pq.read_table(Path(task["path"])).to_pylist()
    for row in rows:
        row["facts"] = json.loads(row["facts"]) if row["facts"] else {}
    labels = {name: tuple(known) for name, known in task["labels"].items()}
    return Rewards(rows, discover().get(task["domain"]), labels, task["version"])
