"""A report for people: Markdown for Dagster's metadata, tables for a terminal; the page and the pictures stand beside.

Arms are rows and tasks are columns, because a domain has few tasks and a protocol many arms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from distill_dagster.evaluation.figures import gap_figure, loss_figure, score_figure
from distill_dagster.evaluation.page import to_html
from distill_dagster.evaluation.protocol import Report
from distill_dagster.evaluation.table import footnote, rows

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["gap_figure", "loss_figure", "score_figure", "to_html", "to_markdown", "to_rich"]


def _blocks(tasks: Sequence[Any], width: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(tasks), width):
        yield tasks[start : start + width]


def _escape(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no link; intervals keep their brackets."""
    for sign in "\\`*<>|":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.replace("](", "]\\(").replace("://", ":\\//").split())


def to_markdown(report: Report) -> str:
    """The report as Markdown: the sentence of every task, the tables, the notice."""
    content = report.content
    lines = [f"**{_escape(content['overall']['sentence'])}**", ""]
    if content["notice"]:
        lines += [f"> {_escape(content['notice'])}", ""]
    for task in content["tasks"]:
        lines.append(f"- **{_escape(task['title'])}**: {_escape(' '.join([task['sentence'], *task['notes']]))}")
    for tasks in _blocks(content["tasks"], 4):
        titles = [_escape(task["title"]) for task in tasks]
        lines += ["", f"| | {' | '.join(titles)} |", "|---" + "|---:" * len(tasks) + "|"]
        lines += [f"| {title} | {' | '.join(_escape(cell) for cell in cells)} |" for title, cells in rows(tasks)]
    return "\n".join([*lines, "", _escape(footnote(content)), ""])


_STYLES = {"helped": "green", "budget": "yellow", "no_help": "red", "not_informative": "dim", "not_measured": "dim"}


def to_rich(report: Report) -> Group:
    """The report for a terminal 80 columns wide: tables of three tasks, a line for each task, the notice."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    content = report.content
    parts: list[Any] = []
    for tasks in _blocks(content["tasks"], 3):
        table = Table(title=Text(content["title"], style="bold"), title_justify="left", pad_edge=False, box=None)
        table.add_column("", no_wrap=True)
        for task in tasks:
            table.add_column(Text(task["title"]), justify="right")
        for title, cells in rows(tasks, digits=2):
            strong = title == "Student" or title.startswith("Gap closed")
            table.add_row(Text(title), *[Text(cell) for cell in cells], style="bold" if strong else None)
        parts += [table, Text()]
    for task in content["tasks"]:
        line = Text(f"{task['title']}: ", style="bold")
        line.append(" ".join([task["sentence"], *task["notes"]]), style=_STYLES[task["verdict"]])
        parts.append(line)
    parts += [Text(), Text(footnote(content), style="dim")]
    if content["notice"]:
        parts.append(Padding(Text(content["notice"], style="italic"), (1, 0, 0, 0)))
    return Group(*parts)
