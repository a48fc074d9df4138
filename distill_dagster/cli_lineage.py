"""Commands that read what is sealed, and need neither Dagster nor MLflow: audit, trace, why-dropped, gc."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from distill_dagster import console
from distill_dagster.errors import DistillError

app = typer.Typer()
gc_app = typer.Typer(help="Delete versions that nobody needs.", no_args_is_help=True)
app.add_typer(gc_app, name="gc")

Config = Annotated[Path | None, typer.Option("--config", help="Folder of the YAML files.")]


@app.command()
def audit(
    subject: Annotated[str, typer.Argument(help="PIPELINE@ALIAS, or a weights folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    offline: Annotated[bool, typer.Option(help="Only the folder: do not look into the store.")] = False,
) -> None:
    """Walk the chain of versions behind a student, re-hashing every file; needs neither Dagster nor MLflow.

    Exit codes: 0 clean, 1 policy, 2 integrity, 3 evidence incomplete.
    """
    from distill_dagster.lineage.audit import audit_alias, audit_folder
    from distill_dagster.settings import Settings
    from distill_dagster.storage.store import Store

    settings = Settings.from_environment()
    store = Store(settings.store, settings.namespace, settings.prefix)
    if Path(subject).is_dir():
        result = audit_folder(Path(subject), None if offline or not store.base.exists() else store)
    else:
        name, _, alias = subject.partition("@")
        result = audit_alias(store, name, alias or "champion")
    if as_json:
        typer.echo(json.dumps({**vars(result), "exit_code": result.exit_code}, indent=1))
    else:
        console.out.print(console.audit_table(result))
        licences = ", ".join(f"{name}: {count:,}" for name, count in sorted(result.licences.items()))
        console.out.print(
            f"\n{result.files_hashed} files hashed; licences of the records: {licences or 'none known'}\n"
        )
        for title, problems in (
            ("integrity", result.integrity),
            ("completeness", result.completeness),
            ("policy", result.policy),
        ):
            console.out.print(console.verdict(title, problems), soft_wrap=True)
        for hole in result.holes:
            console.out.print(f"[yellow]unknown[/]  {hole}", soft_wrap=True)
    raise typer.Exit(result.exit_code)


@app.command()
def trace(
    record: Annotated[
        list[str], typer.Argument(metavar="[PIPELINE] RECORD", help="A record id or its beginning; in one pipeline.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = None,
) -> None:
    """From a record both ways: seed, teacher calls, candidates with their decisions, examples, students.

    A record is named by the id of a seed, a candidate or an example, or by the beginning of one. Text is shown where
    the source says `show_records: true`.
    """
    _trace(record, as_json, config, console.trace_tree)


@app.command("why-dropped")
def why_dropped(
    record: Annotated[
        list[str], typer.Argument(metavar="[PIPELINE] RECORD", help="A record id or its beginning; in one pipeline.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = None,
) -> None:
    """Why a record is no example: each rule's look, with score and threshold, and what stands in for a duplicate."""
    _trace(record, as_json, config, console.dropped_tree)


def _trace(words: list[str], as_json: bool, config: Path | None, page: Any) -> None:
    from distill_dagster.lineage.trace import trace as follow
    from distill_dagster.settings import Settings
    from distill_dagster.stages.project import Project
    from distill_dagster.storage.store import Store

    if len(words) > 2:
        raise DistillError("RECORD", f"{len(words)} words were given.", "Write [PIPELINE] RECORD.")
    settings = Settings.from_environment(config)
    try:
        sources = Project(settings).sources.values()
        shown = {source.key for source in sources if source.config.show_records}
    except DistillError as error:  # the tables answer without it; only what may be shown is not known
        console.err.print(f"[yellow]no record text[/]  {escape(str(error))}", soft_wrap=True)
        shown = set[str]()
    store = Store(settings.store, settings.namespace, settings.prefix, cache=settings.state / "cache")
    found = follow(store, words[-1], words[0] if len(words) == 2 else None, shown.__contains__)
    if as_json:
        typer.echo(json.dumps([made.as_json() for made in found], indent=1))
        return
    for made in found:
        console.out.print(page(made))


@gc_app.command("plan")
def gc_plan(
    keep_last: Annotated[int, typer.Option(help="Newest versions to keep of each artifact.", min=1)] = 3,
    pin: Annotated[list[str] | None, typer.Option(help="OWNER/ARTIFACT@VERSION to keep; may be repeated.")] = None,
) -> None:
    """Show what `gc apply` would delete."""
    from distill_dagster.lineage import gc

    typer.echo(gc.describe(_garbage(keep_last, pin)[1]))


@gc_app.command("apply")
def gc_apply(
    keep_last: Annotated[int, typer.Option(help="Newest versions to keep of each artifact.", min=1)] = 3,
    pin: Annotated[list[str] | None, typer.Option(help="OWNER/ARTIFACT@VERSION to keep; may be repeated.")] = None,
) -> None:
    """Delete what `gc plan` shows."""
    from distill_dagster.lineage import gc

    store, garbage, leases = _garbage(keep_last, pin)
    typer.echo(gc.describe(garbage))
    typer.echo(f"{gc.apply(store, garbage, leases=leases):,} bytes freed")


def _garbage(keep_last: int, pin: list[str] | None) -> tuple[Any, Any, Path]:
    from distill_dagster.lineage import gc
    from distill_dagster.settings import Settings
    from distill_dagster.storage.store import Store

    settings = Settings.from_environment()
    store = Store(settings.store, settings.namespace, settings.prefix)
    return store, gc.plan(store, keep_last, frozenset(pin or [])), settings.state / "leases"
