"""Distil language models as versioned, auditable Dagster assets."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill_dagster.assets.build import build_definitions, merge_definitions
    from distill_dagster.stages.project import Project

__version__ = "0.1.0"
__all__ = ["Project", "build_definitions", "merge_definitions"]


def __getattr__(name: str) -> Any:
    """Public names are imported when they are used: the core must import without Dagster."""
    if name in ("build_definitions", "merge_definitions"):
        from distill_dagster.assets import build

        return getattr(build, name)
    if name == "Project":
        from distill_dagster.stages.project import Project

        return Project
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
