"""Rows of the seed record table, authored by a grammar or read from files, each in its part."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from distill_dagster.config.models import DataFile, GrammarOptions, SourceConfig
from distill_dagster.config.registry import nearest
from distill_dagster.domains import readers, split
from distill_dagster.domains.base import EVAL_PARTS, SEED_PARTS, Domain, Task
from distill_dagster.domains.specs import task_names, task_specs
from distill_dagster.errors import SourceError
from distill_dagster.records.identity import canonical
from distill_dagster.records.messages import message

__all__ = ["records", "task_names", "task_specs"]

Group = Literal["seed", "evaluation"]


def records(
    source: SourceConfig, domain: Domain, part_group: Group, base_dir: Path, limit: int | None = None
) -> list[dict[str, Any]]:
    """Rows for `records.tables.build("seed", rows)`, in the order of tasks, then of the source.

    Args:
        source: The source's config.
        domain: Its plugin.
        part_group: `seed` for the parts teacher, gold and unlabeled; `evaluation` for validation and test.
        base_dir: Folder of the YAML file; data paths are relative to it.
        limit: At most this many rows a task and part, from the top (a pilot).

    Raises:
        SourceError: A file cannot be read as it is described, an answer is none of the task's labels, or the grammar
            cannot make as many records.
    """
    if source.seeds:
        rows = _from_files(source, domain, part_group, base_dir)
    elif domain.items is not None:
        rows = _from_grammar(source, domain, part_group, limit)
    else:
        reason = f"domain {domain.name!r} has no grammar, and the source names no files."
        raise SourceError(f"source {source.key}", reason, "Give `seeds` and `evaluation`.")
    taken: dict[tuple[str, str], int] = {}
    kept = []
    for row in rows:
        group = (row["task"], row["part"])
        taken[group] = taken.get(group, 0) + 1
        if limit is None or taken[group] <= limit:
            kept.append(row)
    return kept


def _json(value: Any) -> str:
    return canonical(value).decode()


def _from_grammar(
    source: SourceConfig, domain: Domain, part_group: Group, limit: int | None
) -> Iterator[dict[str, Any]]:
    assert domain.items is not None
    grammar = source.grammar or GrammarOptions()
    for name in task_names(source, domain):
        task = domain.task(name)
        for part in SEED_PARTS if part_group == "seed" else EVAL_PARTS:
            count = grammar.count(part) if limit is None else min(limit, grammar.count(part))
            items = domain.items(name, part, count, grammar.seed)
            try:
                for number, item in enumerate(islice(items, count), start=1):
                    yield {
                        "task": name,
                        "part": part,
                        "messages": [message("user", item.text)],
                        "answer": item.answer,
                        "rationale": item.rationale,
                        "source_id": f"grammar:{domain.name}/{name}@{task.version}",
                        "source_revision": f"seed {grammar.seed}",
                        "source_row": number,
                        "licence": domain.licence,
                        "subject_key": item.subject_key,
                        "language": "en",
                        "skeleton": item.skeleton,
                        "composition": item.composition,
                        "facts": _json(dict(item.facts)),
                        "meta": "{}",
                    }
            except ValueError as error:
                step = f"Ask for fewer with `grammar.{part}`, or widen the grammar."
                raise SourceError(f"source {source.key}, task {name}", f"{error}.", step) from error


def _from_files(source: SourceConfig, domain: Domain, part_group: Group, base_dir: Path) -> Iterator[dict[str, Any]]:
    tasks = {task.name: task for task in task_specs(source, domain, base_dir)}
    examined: list[tuple[DataFile, dict[str, Any]]] = []
    if part_group == "evaluation":
        files = [data for data in source.evaluation if data.task in tasks]
        examined = _read(source, files, base_dir)
    if part_group == "seed" or source.split.validation:
        files = [data for data in source.seeds if data.task in tasks]
        read = _read(source, files, base_dir)
        parts = split.assign([row for _, row in read], source.split)
        wanted = SEED_PARTS if part_group == "seed" else EVAL_PARTS
        # Validation rows that a test file holds as well would let choices be made on the test set.
        given_away = split.names([row for _, row in examined]) if source.leaks == "drop" else set()
        for (data, row), part in zip(read, parts, strict=True):
            if part in wanted and not (given_away and split.names([row]) & given_away):
                yield _row(source, tasks[data.task], data, row, str(part))
    for data, row in examined:
        yield _row(source, tasks[data.task], data, row, data.part)


def _read(source: SourceConfig, files: list[DataFile], base_dir: Path) -> list[tuple[DataFile, dict[str, Any]]]:
    """Rows of files, contexts cut: what was cut off tells no two rows apart."""
    rows = [(data, row) for data in files for row in readers.read(data, base_dir)]
    if source.context_limit is None:
        return rows
    limit = source.context_limit
    return [(data, {**row, "context": row["context"] and row["context"][:limit]}) for data, row in rows]


def _row(source: SourceConfig, task: Task, data: DataFile, row: dict[str, Any], part: str) -> dict[str, Any]:
    answer = row["answer"]
    if task.kind == "label" and answer is not None:
        answer = answer.strip()
        if answer not in task.labels:
            place = readers.place_of(data, row["row"])
            reason = f"the answer {answer[:80]!r} is none of the {len(task.labels)} labels of task {task.name!r}."
            raise SourceError(place, reason, nearest(answer, task.labels))
    return {
        "task": task.name,
        "part": part,
        "messages": [message(*turn) for turn in row.get("turns") or [("user", row["input"])]],
        "context": row["context"],
        "choices": row["choices"],
        "answer": answer,
        "rationale": row["rationale"],
        "source_id": readers.source_id(data),
        # A digest of the file would be exact, but then one edited line would change every record's identity.
        "source_revision": data.revision or "",
        "source_row": row["row"],
        "licence": data.licence,
        "subject_key": row["subject_key"],
        "annotator": row["annotator"],
        "language": row["language"] or data.language,
        "facts": "{}",
        "meta": _json({"id": row["id"]} if row["id"] is not None else {}),
    }
