"""The package trl: is it there, is it new enough? Nothing heavy is imported to know."""

from __future__ import annotations

import importlib.metadata
import importlib.util

from distill_dagster.config.models import Recipe
from distill_dagster.config.trl_checks import refuse
from distill_dagster.errors import ModelError

#: The oldest release whose trainers have what is used here.
OLDEST = (1, 10)
INSTALL = "Install it: pip install 'distill-dagster[trl]'."


def require(recipe: Recipe, place: str) -> None:
    """Refuse a recipe for TRL's trainers that cannot run here; nothing where the built-in trainer runs it.

    Raises:
        ConfigError: The recipe asks for what they cannot do.
        ModelError: trl is not installed, or is older than `OLDEST`.
    """
    if recipe.trainer == "trl":
        refuse(recipe)
        version(place)


def version(place: str = "trainer: trl") -> str:
    """The version of trl. Raises ModelError as `require`."""
    try:
        if importlib.util.find_spec("trl") is None:
            raise ImportError("there is no such package")
        found = importlib.metadata.version("trl")
    except (ImportError, ValueError) as error:
        reason = f"`trainer: trl` needs the package trl, which cannot be imported ({error})."
        raise ModelError(place, reason, INSTALL) from error
    if tuple(int(part) for part in found.split(".")[:2]) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise ModelError(place, f"`trainer: trl` needs trl {wanted} or newer, and this is {found}.", INSTALL)
    return found
