"""Commands that read what is sealed, and need neither Dagster nor MLflow: audit, trace, why-dropped, gc."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
from rich.markup import escape

from distill_dagster import console
from distill_dagster.errors import DistillError, StoreError

app = typer.Typer()
gc_app = typer.Typer(help="Delete versions that nobody needs.", no_args_is_help=True)
app.add_typer(gc_app, name="gc")

Config = Annotated[Path | None, typer.Option("--config", help="Folder of the YAML files.")]


#: How `audit` ends where it was asked wrongly, since 2 is a verdict of it (EX_USAGE of sysexits.h).
USAGE = 64


class _AuditCommand(typer.core.TyperCommand):
    """A command whose usage errors have an exit code of their own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if getattr(error, "exit_code", None) == 2:  # click's UsageError; typer has a click of its own or not
                error.exit_code = USAGE  # pyright: ignore[reportAttributeAccessIssue]
            raise


@app.command(cls=_AuditCommand)
def audit(
    subject: Annotated[str, typer.Argument(help="PIPELINE@ALIAS, or a weights folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    offline: Annotated[bool, typer.Option(help="Only the folder: do not look into the store.")] = False,
) -> None:
    """Walk the chain of versions behind a student, re-hashing every file; needs neither Dagster nor MLflow.

    Exit codes: 0 clean, 1 policy, 2 integrity, 3 evidence incomplete, or none at all; 64 wrong usage.
    """
    try:
        result = _audited(subject, offline)
    except OSError as error:
        from distill_dagster.storage.atomic import store_error

        found = store_error(error, error.filename or subject)
        found.exit_code = 3
        raise found from error
    except StoreError as error:  # nothing was promoted, no lineage in the folder, no such store
        error.exit_code = 3
        raise
    if as_json:
        typer.echo(json.dumps({**vars(result), "exit_code": result.exit_code}, indent=1))
    else:
        console.out.print(console.audit_table(result))
        licences = console.plain(", ".join(f"{name}: {count:,}" for name, count in sorted(result.licences.items())))
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
            console.out.print(f"[yellow]unknown[/]  {console.plain(hole)}", soft_wrap=True)
    raise typer.Exit(result.exit_code)


def _audited(subject: str, offline: bool) -> Any:
    from distill_dagster.lineage.audit import audit_alias, audit_folder
    from distill_dagster.settings import Settings
    from distill_dagster.storage.store import Store

    settings = Settings.from_environment()
    store = Store(settings.store, settings.namespace, settings.prefix)
    if Path(subject).is_dir():
        return audit_folder(Path(subject), None if offline or not store.base.exists() else store)
    if os.sep in subject:
        error = DistillError(subject, "there is no such folder.", "Give PIPELINE@ALIAS, or a weights folder.")
        error.exit_code = USAGE
        raise error
    name, _, alias = subject.partition("@")
    return audit_alias(store, name, alias or "champion")


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
    work_days: Annotated[float, typer.Option(help="Days to keep the work folders of runs that failed.", min=0)] = 7.0,
) -> None:
    """Show what `gc apply` would delete."""
    from distill_dagster.lineage import gc

    _, garbage, work, _ = _garbage(keep_last, pin, work_days)
    typer.echo(gc.describe(garbage, work))


@gc_app.command("apply")
def gc_apply(
    keep_last: Annotated[int, typer.Option(help="Newest versions to keep of each artifact.", min=1)] = 3,
    pin: Annotated[list[str] | None, typer.Option(help="OWNER/ARTIFACT@VERSION to keep; may be repeated.")] = None,
    work_days: Annotated[float, typer.Option(help="Days to keep the work folders of runs that failed.", min=0)] = 7.0,
) -> None:
    """Delete what `gc plan` shows."""
    from distill_dagster.lineage import gc

    store, garbage, work, leases = _garbage(keep_last, pin, work_days)
    typer.echo(gc.describe(garbage, work))
    typer.echo(f"{gc.apply(store, garbage, leases, work):,} bytes freed")


def _garbage(keep_last: int, pin: list[str] | None, work_days: float) -> tuple[Any, Any, Any, Path]:
    from distill_dagster.lineage import gc
    from distill_dagster.settings import Settings
    from distill_dagster.storage.store import Store

    settings = Settings.from_environment()
    store = Store(settings.store, settings.namespace, settings.prefix)
    garbage = gc.plan(store, keep_last, frozenset(pin or []))
    return store, garbage, gc.abandoned(store, settings.state, work_days), settings.state / "leases"
