"""Exporting `filtered_dataset` for other trainers."""

from __future__ import annotations

import json
from pathlib import Path

from distill_dagster.lineage.engine import head_version
from distill_dagster.records.messages import as_chat
from distill_dagster.stages.project import Project
from distill_dagster.storage.atomic import write_bytes
from distill_dagster.storage.store import Version


def chat_lines(version: Version) -> list[dict[str, object]]:
    """Examples as `{"messages": [{role, content}], ...}`, with the ids that lead back to the store."""
    return [
        {
            "messages": as_chat(row["messages"]),
            "task": row["task"],
            "origin": row["origin"],
            "record_id": row["record_id"],
            "licence": row["licence"],
        }
        for row in version.table("example").to_pylist()
    ]


def to_chat_jsonl(version: Version, target: Path) -> int:
    """Write chat JSON Lines, which TRL, Axolotl (`chat_template`) and LLaMA-Factory (`sharegpt`, openai tags) read."""
    lines = chat_lines(version)
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_bytes(target, data.encode())
    return len(lines)


def to_hugging_face(version: Version, target: Path) -> int:
    """Save a Hugging Face data set folder for `datasets.load_from_disk`."""
    import datasets

    rows = datasets.Dataset.from_list(chat_lines(version))
    rows.save_to_disk(str(target))
    return len(rows)


def export(project: Project, pipeline: str, target: Path) -> int:
    """Export the newest filtered data set of a pipeline; the target's name decides the form.

    Raises:
        GateError: People who read a sample found too many critical errors in it, or nobody has read one yet.
    """
    from distill_dagster.errors import StoreError
    from distill_dagster.stages import review

    owner = project.pipeline(pipeline).data
    found = head_version(project.store, (owner, "filtered_dataset"))
    if found is None:
        raise StoreError(
            f"{owner}/filtered_dataset", "it was never materialized.", f"Run `distill-dagster run {owner}`."
        )
    review.require_released(*found)
    return to_chat_jsonl(found[0], target) if target.suffix == ".jsonl" else to_hugging_face(found[0], target)
