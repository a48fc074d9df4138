"""`seed_set`: the records a teacher is fitted on, gold for the student, and inputs to be labelled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from distill_dagster.config.models import DataFile
from distill_dagster.domains import readers, sampler
from distill_dagster.errors import SourceError
from distill_dagster.filtering._undeclared import undeclared
from distill_dagster.lineage import laws
from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Node
from distill_dagster.records import tables
from distill_dagster.stages import leakage
from distill_dagster.stages.context import SourceContext

VERSION = "2"


def node(source: SourceContext) -> Node:
    """The node `<source>/seed_set`."""
    return Node(
        key=(source.key, "seed_set"),
        version=VERSION,
        parents=(),
        config={**source.identity("prompts"), **source.compared()},
        outside=lambda: outside(source),
        make=lambda job: make(job, source),
        title="Seed records in three disjoint parts: teacher (D_T), gold (D_G), unlabeled (D_U)",
    )


def outside(source: SourceContext) -> Mapping[str, Any]:
    """Digests of the data files; a hub set is pinned by its revision already."""
    return {"files": readers.digests(_files(source), source.folder)}


def _files(source: SourceContext) -> list[DataFile]:
    return [*source.config.seeds, *source.config.evaluation]


def make(job: Job, source: SourceContext) -> None:
    """Sample or read the seed records, drop or refuse what leaks from the evaluation set, and check the splits."""
    job.progress(0, None, "reading seed records")
    table = tables.build("seed", sampler.records(source.config, source.domain, "seed", source.folder, source.limit))
    if table.num_rows == 0:
        raise SourceError(f"{source.key}/seed_set", "the source has no seed records.", "Check `seeds` or `grammar`.")
    if source.config.leaks == "drop":
        table = _without_leaks(job, source, table)
    readers.unchanged(_files(source), source.folder, job.outside["files"])
    laws.disjoint(f"{source.key}/seed_set", table, ("messages", "subject_key", "skeleton", "composition"))
    job.draft.write_table("seed", table, by="part")
    job.notes["undeclared_teacher"] = undeclared(table, show=source.config.show_records)
    job.notes["counts"] = {
        "records": table.num_rows,
        "parts": laws.counts(table["part"].to_pylist()),
        "tasks": laws.counts(table["task"].to_pylist()),
        "subjects": len({value for value in table["subject_key"].to_pylist() if value is not None}),
        "licences": laws.counts(table["licence"].to_pylist()),
    }


def _without_leaks(job: Job, source: SourceContext, table: pa.Table) -> pa.Table:
    """Drop seeds that stand in the evaluation set, each with its reason in a side table."""
    rows = sampler.records(source.config, source.domain, "evaluation", source.folder, source.limit)
    found = leakage.leaking_rows(table, tables.build("seed", rows))
    decisions = [
        {
            "candidate_no": number,
            "record_id": table["record_id"][number].as_py(),
            "seed_no": table["seed_no"][number].as_py(),
            "task": table["task"][number].as_py(),
            "verdict": "drop",
            "reason": f"leak_{reason}",
            "looks": [],
        }
        for number, reason in sorted(found.items())
    ]
    job.draft.write_table("decision", tables.build("decision", decisions), side=True)
    job.notes["dropped"] = laws.counts(entry["reason"] for entry in decisions)
    kept = [row for number, row in enumerate(table.to_pylist()) if number not in found]
    laws.conserved(f"{source.key}/seed_set", table.num_rows, len(kept), job.notes["dropped"], 0)
    return tables.build("seed", [{**row, "seed_no": number} for number, row in enumerate(kept)])
