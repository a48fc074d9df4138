"""What the command line shows: progress bars, status and audit tables."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.tree import Tree

from distill_dagster.lineage.audit import Audit
from distill_dagster.lineage.engine import Made
from distill_dagster.lineage.engine import Progress as Report
from distill_dagster.lineage.graph import Node
from distill_dagster.lineage.status import State
from distill_dagster.lineage.trace import Trace
from distill_dagster.stages.estimate import Estimate, Range
from distill_dagster.storage.store import key_text
from distill_dagster.teachers.prices import money

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def any_encoding() -> None:
    """A sign that the output's encoding does not have is printed as `?`, and ends no run half way."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


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
        lacks = "" if made.reused else failed(made.record["notes"])
        self.progress.console.print(
            f"[green]✓[/] {key_text(made.node.key):<36} {made.version.version[:12]}  {word}{lacks}"
        )


def failed(notes: Mapping[str, Any]) -> str:
    """How many questions of a run have no answer, and why; empty where all have one."""
    classes = notes.get("failures")
    if not classes:
        return ""
    count, asked = sum(classes.values()), notes["calls"]["asked"] + notes["calls"]["reused"]
    said = ", ".join(f"{name} {number:,}" for name, number in sorted(classes.items()))
    return f", [red]{count:,} of {asked:,} failed ({escape(said)})[/]"


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
    for title in ("artifact", "version", "made", "records", "files"):  # narrow: with "files hashed" names were cut
        table.add_column(title, justify="right" if title in ("records", "files") else "left", overflow="fold")
    for link in audit.links:
        hashed = "-" if link["files"] is None else str(link["files"])
        records = f"{link['records']:,}" if link["records"] else "-"
        table.add_row(plain(link["artifact"]), plain(link["version"][:12]), plain(link["made"]), records, hashed)
    return table


def verdict(title: str, problems: Sequence[str]) -> str:
    """One verdict with its problems."""
    if not problems:
        return f"[green]{title:<13} clean[/]"
    lines = "\n".join(f"  - {plain(problem)}" for problem in problems)
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


#: Control and direction-changing characters, which a record could use to write elsewhere on a terminal.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """A record's text as it may be printed: no markup is read in it, and no control character is sent."""
    return escape(_CONTROLS.sub("\ufffd", text))


_FATES = {"keep": "[green]kept[/]", "drop": "[red]dropped[/]", None: "[dim]not filtered yet[/]"}


def trace_tree(made: Trace) -> Tree:
    """A record and all that hangs on it, from the seeds down to the students."""
    tree = Tree(f"[bold]{made.kind}[/] {made.record_id}", guide_style="dim")
    versions = tree.add("[bold]read from[/]")
    for role, name in made.versions.items():
        versions.add(f"{role}: {plain(name)}")
    seeds = tree.add(f"[bold]seeds[/] ({len(made.seeds)})")
    for row in made.seeds:
        place = (
            f"{row['source_id'] or '?'} row {row['source_row']}" if row["source_row"] is not None else row["source_id"]
        )
        facts = (row["task"], row["part"], place, f"licence {row['licence'] or 'unknown'}")
        entry = seeds.add(_line(row["record_id"], facts))
        if row.get("dropped"):
            entry.add(f"[red]never entered the seed set:[/] {plain(row['dropped'])}")
        _text(entry, row)
    calls = tree.add(f"[bold]teacher calls[/] ({len(made.calls)})")
    for row in made.calls:
        who = f"{row['teacher']}@{(row['revision'] or '?')[:12]}"
        tokens = f"{row['input_tokens'] or 0} + {row['output_tokens'] or 0} tokens"
        entry = calls.add(
            _line(row["request_key"][:32], (who, row["status"], row["finish_reason"], tokens, _cost(row)))
        )
        if row["served_model"]:
            entry.add(f"served as {plain(row['served_model'])}")
        if row["sent_at"]:
            entry.add(f"sent {plain(row['sent_at'])}, answered {plain(row['received_at'] or 'never')}")
    candidates = tree.add(f"[bold]candidates[/] ({len(made.candidates)})")
    for row in made.candidates:
        entry = candidates.add(
            _line(row["record_id"], (row["task"], row["kind"], f"sample {row['sample']}", *_who(row)))
        )
        entry.add(_fate(row))
        _ballot(entry, row)
        _text(entry, row)
    examples = tree.add(f"[bold]examples[/] ({len(made.examples)})")
    for row in made.examples:
        licence = f"licence {row['licence'] or 'unknown'}"
        entry = examples.add(
            _line(row["record_id"], (row["task"], row["origin"], f"weight {row['weight']:g}", licence))
        )
        _text(entry, row)
    students = tree.add(f"[bold]models that learned from it[/] ({len(made.students)})")
    for row in made.students:
        entry = students.add(_line(f"{row['artifact']}@{row['version'][:12]}", (f"through {row['through']}",)))
        for alias in row["aliases"]:
            entry.add(f"{plain(alias['alias'])} since {alias['since']}{'' if alias['now'] else ', no more'}")
    if not made.shown:
        tree.add("[dim]record text is not shown: the source does not say `show_records: true`[/]")
    return tree


def _who(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Which of several teachers a candidate is of."""
    return (f"teacher {row['teacher']}",) if row.get("teacher") else ()


def _ballot(entry: Tree, row: Mapping[str, Any]) -> None:
    """What each teacher said, where a candidate is what most of them said."""
    for vote in row.get("votes") or ():
        stand = f"failed: {vote['failure']}" if vote["failure"] else "agrees" if vote["agrees"] else "differs"
        said = f": {vote['answer']}" if vote.get("answer") is not None else ""
        entry.add(f"{plain(vote['teacher'])} {plain(stand)}{plain(said)}")


def dropped_tree(made: Trace) -> Tree:
    """What became of a record, and what each rule saw."""
    tree = Tree(f"[bold]{made.kind}[/] {made.record_id}", guide_style="dim")
    for row in made.seeds:
        if row.get("dropped"):
            tree.add(f"[red]never entered the seed set:[/] {plain(row['dropped'])}")
    for row in made.candidates:
        who = "".join(f", {plain(one)}" for one in _who(row))
        entry = tree.add(f"{_fate(row)}  [dim]{plain(row['task'])}, candidate {row['record_id']}{who}[/]")
        _ballot(entry, row)
        if row["looks"]:
            entry.add(_looks(row["looks"]))
    if not made.candidates:
        parts = ", ".join(sorted({row["part"] for row in made.seeds if row.get("part")}))
        gold = any(row["origin"] == "gold" for row in made.examples)
        why = (
            "it is gold, and an example as it stands"
            if gold
            else f"no teacher was asked about it (part: {parts or '?'})"
        )
        tree.add(f"[dim]{why}[/]")
    tree.add("[dim]" + plain(", ".join(made.versions.values())) + "[/]")
    return tree


def _looks(looks: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    shown = any(look.get("detail") for look in looks)
    for title in ("rule", "version", "verdict", "reason", "score", "threshold", *(("evidence",) if shown else ())):
        table.add_column(title, justify="right" if title in ("score", "threshold") else "left")
    for look in looks:
        numbers = ["-" if look[name] is None else f"{look[name]:.4g}" for name in ("score", "threshold")]
        colour = "red" if look["verdict"] == "drop" else "green"
        cells = [plain(look["rule"]), plain(look["version"]), f"[{colour}]{plain(look['verdict'])}[/]"]
        evidence = [plain(look.get("detail") or "")] if shown else []
        table.add_row(*cells, plain(look["reason"] or ""), *numbers, *evidence)
    return table


def _fate(row: Mapping[str, Any]) -> str:
    fate = _FATES.get(row["verdict"]) or f"[red]{plain(row['verdict'])}[/]"
    reason = f": {plain(row['reason'])}" if row["reason"] else ""
    if row["verdict"] is None and row["failure"]:
        reason = f", {plain(row['status'])}: {plain(row['failure'])}"
    twin = row["twin"]
    if twin:
        reason += f" of {twin['record_id']}, similarity {twin['similarity']:.3f}"
    return fate + reason


def _line(name: str, facts: Sequence[str | None]) -> str:
    return f"{plain(name)}  [dim]{plain(', '.join(fact for fact in facts if fact))}[/]"


def _cost(row: Mapping[str, Any]) -> str:
    if row["reused"]:
        return f"paid before in {row['paid_in']}" if row["paid_in"] else "paid before"
    return f"cost {(row['cost_micros'] or 0) / 1e6:.6f}"


def _text(entry: Tree, row: Mapping[str, Any], most: int = 2000) -> None:
    if row.get("text"):
        said = row["text"] if len(row["text"]) <= most else row["text"][:most] + " …"
        entry.add(plain(said))


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def __str__(self) -> str:
        seconds = time.monotonic() - self.start
        return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def estimate_table(estimate: Estimate) -> Table:
    """What would be asked: low, likely and high of tokens and cost, a stage a row."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for title in ("questions", "answered", "to ask", "tokens read", "tokens written", "cost"):
        if title != "cost" or estimate.currency:
            table.add_column(title, justify="right")

    def figures(found: Range) -> str:
        return "0" if found.high == 0 else " / ".join(f"{value:,}" for value in found)

    for part in estimate.parts:
        counts = [f"{count:,}" for count in (part.questions, part.answered, part.to_ask)]
        row = [escape(part.name), *counts, figures(part.input_tokens), figures(part.output_tokens)]
        if estimate.currency and part.cost_micros is not None:
            row.append(" / ".join(money(value, estimate.currency) for value in part.cost_micros))
        table.add_row(*row)
    return table


def estimate_notes(estimate: Estimate) -> Iterator[str]:
    """What a reader of an estimate must know."""
    yield "low / likely / high; nothing was sent"
    if estimate.unfitted:
        yield "the teacher is fitted first, so nothing is known of its answers, and tokens are guessed from bytes"
    if estimate.earlier:
        yield f"likely answers are as long as the {estimate.earlier:,} that this teacher gave so far, on average"
    if estimate.later:
        names = ", ".join(estimate.later)
        yield f"not counted: further rounds of {names}, which depend on answers that are not there yet"
    if estimate.currency and len(estimate.parts) > 1:
        totals = [sum(part.cost_micros[at] for part in estimate.parts if part.cost_micros) for at in range(3)]
        yield "in all: " + " / ".join(money(total, estimate.currency) for total in totals)
