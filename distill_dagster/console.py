"""What the command line shows: progress bars, status and audit tables."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from distill_dagster.lineage.audit import Audit
from distill_dagster.lineage.engine import Made
from distill_dagster.lineage.engine import Progress as Report
from distill_dagster.lineage.graph import Node
from distill_dagster.lineage.status import State
from distill_dagster.storage.store import key_text

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class Bars:
    """A progress bar a stage, and a line for each version made."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.made: list[Made] = []

    def sink(self, node: Node) -> Report:
        """The progress report of one stage."""
        for task in self.progress.task_ids:
            self.progress.remove_task(task)
        bar = self.progress.add_task(key_text(node.key), total=None, note="")

        def report(done: int, total: int | None, note: str = "") -> None:
            self.progress.update(bar, completed=done, total=total, note=escape(note))

        return report

    def done(self, made: Made) -> None:
        """Print what a stage made."""
        self.made.append(made)
        word = "[dim]known already[/]" if made.reused else f"made in {made.seconds:.1f} s"
        self.progress.console.print(f"[green]✓[/] {key_text(made.node.key):<36} {made.version.version[:12]}  {word}")


@contextmanager
def bars() -> Iterator[Bars]:
    """Progress bars on the terminal while the block runs."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=out, transient=True) as progress:
        yield Bars(progress)


_COLOURS = {"fresh": "green", "stale": "red", "downstream": "yellow", "missing": "dim"}


def status_table(states: Sequence[State]) -> Table:
    """How every artifact stands."""
    table = Table(box=None, pad_edge=False)
    for title in ("artifact", "state", "version", "why"):
        table.add_column(title)
    for state in states:
        colour = _COLOURS[state.state]
        version = state.version[:12] if state.version else "-"
        table.add_row(key_text(state.key), f"[{colour}]{state.state}[/]", version, escape(state.reason))
    return table


def audit_table(audit: Audit) -> Table:
    """The chain of versions, the deployed one first."""
    table = Table(box=None, pad_edge=False)
    for title in ("artifact", "version", "made", "records", "files hashed"):
        table.add_column(title, justify="right" if title in ("records", "files hashed") else "left")
    for link in audit.links:
        hashed = "-" if link["files"] is None else str(link["files"])
        records = f"{link['records']:,}" if link["records"] else "-"
        table.add_row(link["artifact"], link["version"][:12], link["made"], records, hashed)
    return table


def verdict(title: str, problems: Sequence[str]) -> str:
    """One verdict with its problems."""
    if not problems:
        return f"[green]{title:<13} clean[/]"
    lines = "\n".join(f"  - {escape(problem)}" for problem in problems)
    return f"[red]{title:<13} {len(problems)} found[/]\n{lines}"


def facts(values: Mapping[str, object]) -> Table:
    """Names and values, one a line."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in values.items():
        shown = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
        table.add_row(f"[dim]{escape(name)}[/]", escape(shown))
    return table


def finding(ok: bool, name: str, says: str, error: float, allowed: float) -> str:
    """One line of an examination."""
    mark = "[green]ok[/]  " if ok else "[red]FAIL[/]"
    return f"{mark} {escape(name):<18} {escape(says)} [dim](off by {error:.1e}, at most {allowed:.0e})[/]"


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def __str__(self) -> str:
        seconds = time.monotonic() - self.start
        return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
