"""`eval_set`: validation records, on which every choice is made, and test records, whose reads are counted."""

from __future__ import annotations

from distill_dagster.config.models import DataFile
from distill_dagster.domains import readers, sampler
from distill_dagster.errors import SourceError
from distill_dagster.filtering._undeclared import undeclared
from distill_dagster.lineage import laws
from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Node
from distill_dagster.records import tables
from distill_dagster.stages.context import SourceContext

VERSION = "1"


def node(source: SourceContext) -> Node:
    """The node `<source>/eval_set`."""
    reads_seeds = _reads_seeds(source)
    config = source.identity("prompts", *(() if reads_seeds else ("seeds", "split")))
    if reads_seeds:
        config |= source.compared()
    if source.config.grammar is not None:
        grammar = source.config.grammar
        config["grammar"] = {"seed": grammar.seed, "validation": grammar.validation, "test": grammar.test}
    return Node(
        key=(source.key, "eval_set"),
        version=VERSION,
        parents=(),
        config=config,
        outside=lambda: {"files": readers.digests(_files(source), source.folder)},
        make=lambda job: make(job, source),
        title="Evaluation records in two parts: validation (D_val) and test (D_test)",
    )


def _reads_seeds(source: SourceContext) -> bool:
    return bool(source.config.seeds) and source.config.split.validation > 0


def _files(source: SourceContext) -> list[DataFile]:
    return [*source.config.evaluation, *(source.config.seeds if _reads_seeds(source) else ())]


def make(job: Job, source: SourceContext) -> None:
    """Sample or read the evaluation records."""
    job.progress(0, None, "reading evaluation records")
    rows = sampler.records(source.config, source.domain, "evaluation", source.folder, source.limit)
    readers.unchanged(_files(source), source.folder, job.outside["files"])
    table = tables.build("seed", rows)
    if table.num_rows == 0:
        raise SourceError(
            f"{source.key}/eval_set", "the source has no evaluation records.", "Check `evaluation` or `grammar`."
        )
    laws.disjoint(f"{source.key}/eval_set", table, ("messages", "subject_key", "skeleton", "composition"))
    job.draft.write_table("seed", table, by="part")
    job.notes["undeclared_teacher"] = undeclared(table, show=source.config.show_records)
    job.notes["counts"] = {
        "records": table.num_rows,
        "parts": laws.counts(table["part"].to_pylist()),
        "tasks": laws.counts(table["task"].to_pylist()),
    }
