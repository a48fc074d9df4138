"""`distill-dagster plan`: memory and time of training, before anything is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from distill_dagster import console

if TYPE_CHECKING:
    from distill_dagster.stages.plan import Plan

app = typer.Typer()

Config = Annotated[Path | None, typer.Option("--config", help="Folder of the YAML files.")]


@app.command()
def plan(
    pipeline: Annotated[str, typer.Argument(help="Name of a pipeline.")],
    dry_run: Annotated[bool, typer.Option(help="Train two steps with random weights, and measure.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = None,
) -> None:
    """Memory and time of training the student, from its architecture alone; downloads nothing."""
    from distill_dagster.settings import Settings
    from distill_dagster.stages.plan import plan as look_ahead
    from distill_dagster.stages.project import Project

    found = look_ahead(Project(Settings.from_environment(config)), pipeline, dry_run)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=1))
        return
    console.out.print(_table(found))
    for note in _notes(found):
        console.out.print(note, soft_wrap=True)


def _table(found: Plan) -> Table:
    sizes, counts = found.sizes, found.sizes.counts
    table = Table(box=None, pad_edge=False)
    for title in ("", "estimated"):
        table.add_column(title, justify="right" if title else "left")
    rows = [
        ("parameters", f"{counts.total:,}"),
        ("trained", f"{sizes.trained:,}"),
        ("weights", _bytes(sizes.weights)),
        ("gradients", _bytes(sizes.gradients)),
        ("optimizer", _bytes(sizes.optimizer)),
        ("activations", _bytes(sizes.activations)),
        ("logits", _bytes(sizes.logits)),
        ("peak", _bytes(sizes.peak)),
        ("a step", _time(found.seconds)),
        (f"{found.steps:,} steps", _time(found.seconds * found.steps)),
    ]
    if found.control_steps:
        rows.append((f"controls, {found.control_steps:,} steps", _time(found.seconds * found.control_steps)))
    for row in rows:
        table.add_row(*row)
    return table


def _notes(found: Plan):
    from distill_dagster.stages.plan import fits

    sort = f", a classifier of {found.labels} labels" if found.labels else ""
    yield f"[dim]{found.base}, as {found.read} describes it{sort}; nothing was downloaded[/]"
    yield (
        f"[dim]at most, for records of max_length; time at {found.rate / 1e9:.0f} GFLOP/s, "
        "which this machine gave just now[/]"
    )
    if fits(found) is False:
        yield f"[yellow]only {_bytes(found.available)} are free here[/]: lower batch_tokens, or use `adapter`"
    if found.measured is not None:
        one = found.measured
        part = "" if one.layers == found.sizes.counts.layers else f" with {one.layers} layers, for lack of memory"
        yield (
            f"measured on random weights{part}: peak {_bytes(one.peak)} (estimated {_bytes(one.expected_peak)}), "
            f"{_time(one.seconds)} a step (estimated {_time(one.expected_seconds)})"
        )


def _bytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _time(seconds: float) -> str:
    if seconds >= 7200:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 300 else f"{seconds:.3g} s"
