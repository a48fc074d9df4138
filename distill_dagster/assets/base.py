"""What every asset of a stage has in common: key, group, code version, materialization, metadata.

An asset file names its artifact, its kinds and what a person wants to see of it; the work is one core function.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg

from distill_dagster.errors import DistillError
from distill_dagster.lineage.engine import Made, Progress, Services, materialize
from distill_dagster.lineage.graph import Node
from distill_dagster.resources.mlflow_tracking import MlflowTracking
from distill_dagster.resources.training_process import TrainingProcess
from distill_dagster.stages.project import Project
from distill_dagster.storage.store import Key, key_text

#: What a person wants to see of a materialization.
Describe = Callable[[Project, Made], Mapping[str, Any]]

#: A command line puts its progress bar here; the UI gets a log line every few seconds instead.
progress_sink: Callable[[Node], Progress] | None = None
#: A command line is told here what was made.
made_sink: Callable[[Made], None] | None = None
#: A command line is told here why a stage failed, since Dagster keeps the words and loses the error.
error_sink: Callable[[DistillError], None] | None = None

LOG_EVERY_SECONDS = 5.0
#: How long a step waits for another run that is making the same artifact: pipelines of one source share the source's
#: assets, those of one data half a teacher's answers as well. A lease dies with its holder, so only work is waited for.
WAIT_SECONDS = 6 * 3600.0


def asset_key(project: Project, key: Key) -> dg.AssetKey:
    """The Dagster key of an artifact, below the project's prefix."""
    prefix = [part for part in project.settings.prefix.split("/") if part]
    return dg.AssetKey([*prefix, *key])


def stage_asset(
    project: Project,
    node: Node,
    *,
    group: str,
    kinds: set[str],
    owners: list[str],
    describe: Describe,
    tags: Mapping[str, str] | None = None,
    pool: str | None = None,
) -> dg.AssetsDefinition:
    """The asset of a node.

    Args:
        project: Config, domains and store.
        node: What the asset makes.
        group: Group in the UI.
        kinds: Icons in the UI.
        owners: E-mail addresses or `team:...`.
        describe: Metadata of a materialization.
        tags: More tags.
        pool: Concurrency pool.
    """

    @dg.asset(
        key=asset_key(project, node.key),
        deps=sorted({asset_key(project, parent.key) for parent in node.edges}),
        code_version=node.code_version,
        group_name=group,
        kinds=kinds,
        owners=owners,
        description=node.title,
        tags={"distill/owner": node.key[0], "distill/artifact": node.key[1], **(tags or {})},
        pool=pool,
    )
    def stage(
        context: dg.AssetExecutionContext, distill_tracking: MlflowTracking, distill_training: TrainingProcess
    ) -> dg.MaterializeResult:
        made = _materialize(project, node, context, distill_training)
        metadata = {
            **common_metadata(project, made),
            **describe(project, made),
            **distill_tracking.mirror(project, made, context.run.run_id),
        }
        if made_sink is not None:
            made_sink(made)
        return dg.MaterializeResult(data_version=dg.DataVersion(made.version.version), metadata=metadata)

    return stage


def _materialize(project: Project, node: Node, context: dg.AssetExecutionContext, training: TrainingProcess) -> Made:
    progress = progress_sink(node) if progress_sink is not None else _logged(context)
    services = Services(
        state=project.state,
        progress=progress,
        tags={"dagster_run": context.run.run_id},
        training_session=lambda: training.session(context),
        wait=WAIT_SECONDS,
    )
    try:
        made = materialize(node, project.store, services)
        project.after(made)
    except DistillError as error:
        if error_sink is not None:
            error_sink(error)
        raise dg.Failure(description=str(error), metadata={"place": error.place, "next": error.next_step}) from error
    word = "known already" if made.reused else f"made in {made.seconds:.1f} s"
    context.log.info(f"{key_text(node.key)} is version {made.version.version[:12]}, {word}")
    return made


def _logged(context: dg.AssetExecutionContext) -> Progress:
    logged = 0.0
    #: Since when a count has been going on, from which number, to which total, and how far it was.
    since, first, of, before = time.monotonic(), 0, None, 0

    def report(done: int, total: int | None, note: str = "") -> None:
        nonlocal logged, since, first, of, before
        now = time.monotonic()
        if total != of or done < before:  # another round counts anew; what was known before it began took no time
            since, first, of = now, done, total
        before = done
        if now - logged < LOG_EVERY_SECONDS:
            return
        logged = now
        if total and done > first:
            left = (now - since) / (done - first) * (total - done)
            context.log.info(f"{note}: {done:,} of {total:,}, about {left:.0f} s left")
        elif total:
            context.log.info(f"{note}: {done:,} of {total:,}")
        else:
            context.log.info(f"{note}: {done:,}" if done else note)

    return report


def common_metadata(project: Project, made: Made) -> dict[str, Any]:
    """What every materialization shows: version, place, time, counts."""
    counts = made.record["notes"].get("counts", {})
    rows = [entry["rows"] for entry in made.version.manifest["tables"].values()]
    metadata: dict[str, Any] = {
        "data_version": made.version.version,
        "reused": made.reused,
        "dagster/uri": str(made.version.place),
        "seconds": round(made.seconds, 2),
        "run": made.run,
        **{name: value for name, value in counts.items() if isinstance(value, (int, float))},
    }
    if rows:
        metadata["dagster/row_count"] = max(rows)
    if incomplete := made.record.get("incomplete"):
        metadata["incomplete"] = incomplete
    for name, value in counts.items():
        if isinstance(value, Mapping):
            metadata[name] = dg.MetadataValue.md(counts_table(name, value))
    return metadata


def counts_table(title: str, values: Mapping[str, Any]) -> str:
    """A small Markdown table of counts."""
    lines = [f"| {title} | count |", "|---|---:|"]
    lines += [f"| {name.replace('|', '/')} | {value:,} |" for name, value in values.items()]
    return "\n".join(lines)


def sample_table(columns: list[str], rows: Sequence[Mapping[str, Any]], width: int = 400) -> dg.TableMetadataValue:
    """Sample records as a table; long texts are cut. Only for sources that say `show_records: true`."""
    cut = [
        {column: str(row.get(column) if row.get(column) is not None else "")[:width] for column in columns}
        for row in rows
    ]
    schema = dg.TableSchema(columns=[dg.TableColumn(column, "string") for column in columns])
    return dg.MetadataValue.table([dg.TableRecord(row) for row in cut], schema=schema)


def picture(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A small PNG as Markdown metadata."""
    import base64

    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})")


def teachers_table(teachers: Mapping[str, Mapping[str, Any]]) -> str:
    """A row a teacher, as a Markdown table."""
    titles = list(dict.fromkeys(title for found in teachers.values() for title in found))
    lines = ["| teacher | " + " | ".join(title.replace("_", " ") for title in titles) + " |"]
    lines.append("|---|" + "---:|" * len(titles))
    for name, found in teachers.items():
        lines.append(f"| {name} | " + " | ".join(f"{found.get(title, 0):,}" for title in titles) + " |")
    return "\n".join(lines)
