"""Blocks found by name: one file, one class, one registry name.

A block of a package is a module that defines the given attribute; its registry name is the module's name.
Nothing is imported until a block is asked for, and adding a file is all it takes to add a block.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from distill_dagster.errors import ConfigError


def nearest(name: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'?`, or the list of known names where nothing is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(names) or 'none'}."


@cache
def names(package: str) -> tuple[str, ...]:
    """Registry names of a package's blocks: its modules, less `base` and private ones."""
    folder = importlib.import_module(package).__path__
    return tuple(
        sorted(m.name for m in pkgutil.iter_modules(folder) if m.name != "base" and not m.name.startswith("_"))
    )


@cache
def blocks(package: str, attribute: str) -> tuple[str, ...]:
    """Those of `names(package)` whose source defines `attribute`: what a person may write. Imports no block."""
    defines = re.compile(rf"^(?:class|def)\s+{attribute}\b|^{attribute}\s*[:=]", re.MULTILINE)
    folders = [Path(folder) for folder in importlib.import_module(package).__path__]

    def source(name: str) -> str:
        for folder in folders:
            for path in (folder / f"{name}.py", folder / name / "__init__.py"):
                if path.is_file():
                    return path.read_text(encoding="utf-8")
        return ""

    return tuple(name for name in names(package) if defines.search(source(name)))


def load(package: str, name: str, attribute: str, place: str) -> Any:
    """The block `name` of `package`.

    Raises:
        ConfigError: No such block; names `place` and the nearest one.
    """
    if name not in names(package):
        raise ConfigError(place, f"unknown {package.rsplit('.', 1)[-1]} block {name!r}.", nearest(name, names(package)))
    return getattr(importlib.import_module(f"{package}.{name}"), attribute)
