"""The command line: `distill-dagster --help`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from distill_dagster import cli_lineage, cli_plan, cli_review, console
from distill_dagster.errors import DistillError

app = typer.Typer(
    name="distill-dagster",
    help="Distil language models as versioned, auditable Dagster assets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_lineage.app)
app.add_typer(cli_review.app)
app.add_typer(cli_plan.app)

Config = Annotated[Path | None, typer.Option("--config", help="Folder of the YAML files.")]

DEMOS = ("finance", "law", "medicine")


def _project(config: Path | None, limit: int | None = None) -> Any:
    from distill_dagster.settings import Settings
    from distill_dagster.stages.project import Project

    return Project(Settings.from_environment(config), limit)


@app.command()
def demo(
    domain: Annotated[str, typer.Option(help="finance, law, medicine, or all.")] = "finance", config: Config = None
) -> None:
    """Distil a student end to end and print whether it was worth it."""
    project = _project(config)
    names = [name for name in DEMOS if name in project.pipelines] if domain == "all" else [domain]
    if not names:
        raise DistillError(
            str(project.settings.config),
            f"it has none of the demo's pipelines: {', '.join(DEMOS)}.",
            "Name one of its own with `distill-dagster run`, or the demo's folder with --config.",
        )
    watch = console.Stopwatch()
    for name in names:
        console.out.rule(f"[bold]{name}")
        _run(project, name, [])
        _show_report(project, name)
    console.out.print(
        f"\nDone in {watch}. See the graph with [bold]make ui[/], the chain behind the student with "
        f"[bold]distill-dagster audit {names[0]}@champion[/]."
    )


@app.command()
def run(
    pipeline: Annotated[str, typer.Argument(help="Name of a pipeline.")],
    select: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these, by commas or repeated; +NAME: all it is made of too; NAME+: all made of it too."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="A pilot on N records a task and part, off the record.", min=1)
    ] = None,
    dagster: Annotated[bool, typer.Option(help="Through Dagster and MLflow, or the bare stages.")] = True,
    config: Config = None,
) -> None:
    """Materialize a pipeline, or some of its artifacts; what is known already is not made again."""
    project = _project(config, limit)
    _run(project, pipeline, select or [], dagster and limit is None)
    if not select:
        _show_report(project, pipeline)


def _run(project: Any, pipeline: str, select: list[str], dagster: bool = True) -> None:
    from distill_dagster.stages import packages

    nodes = project.select(pipeline, select)
    packages.require(project, nodes)
    try:
        with console.bars() as bars:
            if dagster:
                from distill_dagster.assets.launch import run_job

                run_job(project, pipeline, nodes, bars.sink, bars.done)
            else:
                from distill_dagster.lineage.engine import Services

                for node in nodes:
                    for made in project.run([node], Services(project.state, progress=bars.sink(node))):
                        bars.done(made)
            made = bars.made
    except KeyboardInterrupt:
        console.err.print("stopped; what was made and answered is kept, and the same command goes on from there")
        raise
    calls = [m.record["notes"].get("calls", {}) for m in made if not m.reused]
    asked, known = (sum(entry.get(name, 0) for entry in calls) for name in ("asked", "reused"))
    trained = sum(not m.reused and any(n.startswith("training") for n in m.record["notes"]) for m in made)
    console.out.print(
        f"[dim]{sum(not m.reused for m in made)} made, {sum(m.reused for m in made)} known already, "
        f"{asked:,} teacher calls{f', {known:,} answers known before' if known else ''}, {trained} trained[/]"
    )


def _newest_report(project: Any, pipeline: str) -> tuple[Any, Any] | None:
    """The newest report of a pipeline and the place of its page."""
    from distill_dagster.evaluation.protocol import Report
    from distill_dagster.lineage.engine import head_version

    found = head_version(project.store, (project.pipeline(pipeline).key, "eval_report"))
    if found is None:
        return None
    version, run_id = found
    text = version.local("report.json").read_text("utf-8")
    result = Report.from_json(text, version.run(run_id)["notes"].get("resources"))
    return result, version.place / "runs" / run_id / "report.html"


def _show_report(project: Any, pipeline: str) -> None:
    from distill_dagster.evaluation import report as reports

    found = _newest_report(project, pipeline)
    if found is not None:
        console.out.print(reports.to_rich(found[0]))
        console.out.print(f"\nThe full page: {found[1]}", soft_wrap=True)


@app.command()
def report(
    pipeline: Annotated[str, typer.Argument(help="Name of a pipeline.")],
    markdown: Annotated[bool, typer.Option(help="Print Markdown, for a wiki or an issue.")] = False,
    config: Config = None,
) -> None:
    """Print the newest evaluation report of a pipeline."""
    from distill_dagster.errors import StoreError
    from distill_dagster.evaluation import report as reports

    project = _project(config)
    found = _newest_report(project, pipeline)
    if found is None:
        raise StoreError(
            f"{pipeline}/eval_report", "it was never materialized.", f"Run `distill-dagster run {pipeline}`."
        )
    if markdown:
        typer.echo(reports.to_markdown(found[0]))
    else:
        _show_report(project, pipeline)


@app.command()
def check(config: Config = None) -> None:
    """Validate every YAML file: file, line, key, reason, and the nearest valid name."""
    from distill_dagster.config.check import check as examine
    from distill_dagster.settings import Settings

    problems = examine(Settings.from_environment(config).config)
    for problem in problems:
        console.out.print(str(problem), markup=False, soft_wrap=True)
    if problems:
        console.err.print(f"[red]{len(problems)} problem(s)[/]")
        raise typer.Exit(1)
    console.out.print("[green]every file is valid[/]")


@app.command()
def status(
    pipeline: Annotated[str | None, typer.Argument(help="Only what this pipeline needs.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = None,
) -> None:
    """What is stale, transitively, and why."""
    from distill_dagster.lineage.status import status as states_of
    from distill_dagster.storage.store import key_text

    project = _project(config)
    nodes = {n.key: n for n in project.needed(pipeline)} if pipeline else project.nodes
    states = states_of(nodes, project.store)
    if as_json:
        rows = [
            {"artifact": key_text(s.key), "state": s.state, "version": s.version, "reason": s.reason} for s in states
        ]
        typer.echo(json.dumps(rows, indent=1))
        return
    console.out.print(console.status_table(states))


@app.command()
def estimate(
    pipeline: Annotated[str, typer.Argument(help="Name of a pipeline.")],
    limit: Annotated[int | None, typer.Option(help="Of a pilot on N records a task and part.", min=1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = None,
) -> None:
    """Calls, tokens and cost of a run, low, likely and high, before anything is sent."""
    from dataclasses import asdict

    from distill_dagster.stages.estimate import estimate as look_ahead

    found = look_ahead(_project(config, limit), pipeline)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1))
    else:
        console.out.print(console.estimate_table(found))
        for note in console.estimate_notes(found):
            console.out.print(f"[dim]{note}[/]", soft_wrap=True)


@app.command()
def domains() -> None:
    """List the domain plugins, and those that could not be loaded."""
    from rich.table import Table

    from distill_dagster.domains.registry import discover

    found = discover()
    table = Table(box=None, pad_edge=False)
    for title in ("domain", "tasks", "what it teaches"):
        table.add_column(title)
    for domain in found:
        table.add_row(domain.name, ", ".join(task.name for task in domain.tasks), domain.description)
    console.out.print(table)
    for failure in found.failures:
        console.err.print(str(failure), markup=False, style="red")


@app.command()
def export(
    pipeline: Annotated[str, typer.Argument(help="Name of a pipeline.")],
    target: Annotated[Path, typer.Argument(help="A .jsonl file (chat), or a folder (Hugging Face data set).")],
    config: Config = None,
) -> None:
    """Export `filtered_dataset`: chat JSONL for TRL, Axolotl and LLaMA-Factory, or a Hugging Face data set."""
    from distill_dagster.stages.export import export as write

    count = write(_project(config), pipeline, target)
    console.out.print(f"{count:,} examples written to {target}", soft_wrap=True)


@app.command()
def schema(
    target: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("assets_config/schema.json"),
) -> None:
    """Write the JSON Schema of the YAML files, for editors."""
    from distill_dagster.config import json_schema

    json_schema.write(target)
    console.out.print(f"written: {target}")


@app.command()
def teacher(
    domain: Annotated[str, typer.Argument(help="A domain with a grammar.")],
    target: Annotated[Path | None, typer.Option(help="Folder for the models; the domain's own by default.")] = None,
) -> None:
    """Train the small teacher and base student that a domain ships (up to 30 minutes on two cores)."""
    from distill_dagster.stages.domain_models import make

    make(domain, target, lambda done, total, note="": console.out.print(f"[dim]{note} {done}/{total}[/]"))


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Examine this machine: what hardware there is, and whether every way to compute the loss agrees here."""
    from distill_dagster.training import doctor as examination

    hardware, findings = examination.hardware(), []
    if not as_json:
        console.out.print(console.facts(hardware))
    for finding in examination.examine():
        findings.append(finding)
        if not as_json:
            where = "" if finding.device == "cpu" else f" ({finding.device})"
            line = console.finding(finding.ok, finding.name + where, finding.says, finding.error, finding.allowed)
            console.out.print(line, soft_wrap=True)
    failed = sum(not finding.ok for finding in findings)
    if as_json:
        rows = [{**vars(finding), "ok": finding.ok} for finding in findings]
        typer.echo(json.dumps({"hardware": hardware, "checks": rows, "failed": failed}, indent=1))
    elif failed:
        console.err.print(f"[red]{failed} check(s) failed: a student trained here would not learn what it should.[/]")
    raise typer.Exit(1 if failed else 0)


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="Port of MLflow.")] = 5000,
    config: Config = None,
) -> None:
    """Start the Dagster UI, its daemon and MLflow, on this machine only."""
    from distill_dagster.serve import serve
    from distill_dagster.settings import Settings

    serve(Settings.from_environment(config), port, mlflow_port)


def main() -> None:
    """Entry point: errors are one clear message, not a traceback."""
    console.any_encoding()
    try:
        try:
            app()
        except OSError as error:
            from distill_dagster.storage.atomic import store_error

            raise store_error(error, error.filename or "distill-dagster") from error
    except DistillError as error:
        console.err.print(f"[red bold]error[/] {escape(error.place)}: {escape(error.reason)}", soft_wrap=True)
        if error.next_step:
            console.err.print(f"      {escape(error.next_step)}", soft_wrap=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
