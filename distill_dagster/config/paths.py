"""Paths as YAML files write them: relative to the file, with `${NAME}` and `${NAME:-default}` from the environment.

Configs keep the text as it was written, so that an action key does not depend on where a machine keeps its data.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from distill_dagster.errors import ConfigError

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_INSIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


def expand(text: str, place: str, environment: Mapping[str, str] | None = None) -> str:
    """The text with its variables replaced; an empty variable counts as unset, as `:-` does in a shell.

    Raises:
        ConfigError: A variable without a default is not set, or `${...}` is not a name.
    """
    known = os.environ if environment is None else environment

    def value(match: re.Match[str]) -> str:
        inside = _INSIDE.fullmatch(match.group(1))
        if inside is None:
            raise ConfigError(place, f"{match.group(0)!r} is not a variable.", "Write ${NAME} or ${NAME:-default}.")
        found = known.get(inside.group(1)) or inside.group(2)
        if found is None:
            raise ConfigError(
                place,
                f"the environment variable {inside.group(1)} is not set.",
                f"Set it, or give a default: ${{{inside.group(1)}:-../data}}.",
            )
        return found

    return _VARIABLE.sub(value, text)


def resolve(text: str, base_dir: Path, place: str = "path") -> Path:
    """The absolute path of a text in a YAML file that lies in `base_dir`; `~` is the home folder."""
    return Path(os.path.abspath(base_dir / Path(expand(text, place)).expanduser()))


def is_folder(model: str) -> bool:
    """Does a model's name mean a folder? Hub ids are `owner/name`; folders start with `.`, `/`, `~` or `${`."""
    return model.startswith((".", "/", "~", "${"))
