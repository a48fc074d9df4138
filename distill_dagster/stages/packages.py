"""Are the packages there that a run's trainings will need? Asked before its teacher is, who may have to be paid."""

from __future__ import annotations

from collections.abc import Iterable

from distill_dagster.lineage.engine import Node
from distill_dagster.lineage.status import status
from distill_dagster.stages.project import Project
from distill_dagster.storage.names import key_text

TRAINED = ("student_checkpoint", "control_checkpoint")


def require(project: Project, nodes: Iterable[Node]) -> None:
    """Refuse a run on this machine whose trainings could not begin; what is fresh needs nothing.

    Raises:
        ModelError: A package of an extra is not installed, or too old; names the artifact and the extra.
        TrainingError: bitsandbytes does not work here, and a recipe needs it.
        ConfigError: A recipe asks for what its trainer cannot do.
    """
    from distill_dagster.training import adapters
    from distill_dagster.training.trl import library

    recipes = {
        node.key: project.pipelines[node.key[0]].config.training for node in nodes if node.key[1] in TRAINED
    }  # fmt: skip
    wanted = {key for key, recipe in recipes.items() if recipe.adapter is not None or recipe.trainer != "builtin"}
    if not wanted:
        return
    fresh = {state.key for state in status(project.nodes, project.store) if state.fresh}
    for key in sorted(wanted - fresh):
        adapters.require(recipes[key], key_text(key))
        library.require(recipes[key], key_text(key))
