"""What `check` finds: a place in a file, what is wrong there, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill_dagster.errors import ConfigError

Key = tuple[str | int, ...]


def dotted(key: Iterable[str | int]) -> str:
    """`('filtering', 2, 'name')` as `filtering[2].name`."""
    text = ""
    for step in key:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


@dataclass(frozen=True, order=True)
class Problem:
    """One fault.

    Attributes:
        file: The YAML file, or the folder where no single file is at fault.
        line: Line in it from 1; 0 where the fault is of the whole file.
        key: Dotted key, empty for the whole file.
        reason: What is wrong, with the value.
        hint: What to write instead; may be empty.
    """

    file: Path
    line: int
    key: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{relative(self.file)}:{self.line}" if self.line else relative(self.file)
        return (
            f"{place}: " + (f"{self.key}: " if self.key else "") + self.reason + (f" {self.hint}" if self.hint else "")
        )


def relative(path: Path) -> str:
    """The path as seen from the working directory, where it lies below it."""
    absolute = os.path.abspath(path)
    here = os.path.relpath(absolute) if os.path.splitdrive(absolute)[0] == os.path.splitdrive(os.getcwd())[0] else ".."
    return str(path) if here.startswith("..") else here


class ProjectError(ConfigError):
    """All problems of a configuration folder at once; `problems` lists them."""

    def __init__(self, folder: Path, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in the configuration"
        super().__init__(
            relative(folder),
            count + "".join(f"\n  {problem}" for problem in problems),
            "\nMend the files and run `distill-dagster check`.",
        )
