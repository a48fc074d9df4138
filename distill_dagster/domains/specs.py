"""The tasks of a source: the domain's, with those that the source defines on top."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from distill_dagster.config.models import SourceConfig, TaskSpec
from distill_dagster.config.source_checks import task_names
from distill_dagster.domains import readers
from distill_dagster.domains.base import Domain, Task
from distill_dagster.errors import SourceError


def task_specs(source: SourceConfig, domain: Domain, base_dir: Path) -> list[Task]:
    """The tasks of a source, complete. Reads the seed files of a label task that lists no labels.

    Raises:
        SourceError: Such a task has fewer than two different answers in its seed files, or one in two spellings.
    """
    own = {spec.name: spec for spec in source.define}
    shipped = {task.name: task for task in domain.tasks}
    return [
        _complete(own[name], source, base_dir) if name in own else shipped[name] for name in task_names(source, domain)
    ]


def _written(label: str) -> str:
    """The label in one spelling: Unicode form C, white space folded, whole numbers without `.0`."""
    text = " ".join(unicodedata.normalize("NFC", label).split())
    return text.removesuffix(".0") if re.fullmatch(r"-?[0-9]+\.0", text) else text


def _complete(spec: TaskSpec, source: SourceConfig, base_dir: Path) -> Task:
    labels = tuple(spec.labels or ())
    if spec.kind == "label" and not labels:
        files = [data for data in source.seeds if data.task == spec.name]
        answers = {row["answer"] for data in files for row in readers.read(data, base_dir)}
        labels = tuple(sorted(answer.strip() for answer in answers if answer is not None and answer.strip()))
        if len(set(labels)) < 2:
            raise SourceError(
                f"source {source.key}, task {spec.name}",
                f"the seed files hold {len(labels)} different answers, and a label task needs two.",
                "Map `columns.answer`, or list the `labels`.",
            )
        labels = tuple(dict.fromkeys(labels))
        alike: dict[str, str] = {}
        for label in labels:
            other = alike.setdefault(_written(label), label)
            if other != label:
                raise SourceError(
                    f"source {source.key}, task {spec.name}",
                    f"the seed files hold both {other!a} and {label!a} as answers, which would be two labels.",
                    "Write them in one way. If they are two labels, list the `labels`.",
                )
    return Task(
        name=spec.name,
        kind=spec.kind,
        title=spec.title or spec.name.replace("_", " "),
        description=spec.description,
        labels=labels,
        max_new_tokens=spec.max_new_tokens,
    )
