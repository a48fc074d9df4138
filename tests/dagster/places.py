"""A Dagster home and an MLflow store of a project's own, for as long as a test runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from pipeline.tiny import Tiny

from distill_dagster.lineage.engine import Made
from distill_dagster.resources.mlflow_tracking import local_uri


@contextmanager
def at_home(project: Tiny, tracking: str | None = None) -> Iterator[None]:
    """Point Dagster and MLflow at the project's state folder."""
    state = project.settings.state
    with pytest.MonkeyPatch.context() as patch:
        (state / "dagster").mkdir(parents=True, exist_ok=True)
        patch.setenv("DAGSTER_HOME", str(state / "dagster"))
        patch.setenv("MLFLOW_TRACKING_URI", tracking or local_uri(state))
        patch.setenv("DAGSTER_DISABLE_TELEMETRY", "yes")
        for name, value in project.environment.items():
            patch.setenv(name, value)
        yield


def run(project: Tiny, names: Sequence[str] = (), tracking: str | None = None) -> list[Made]:
    """Materialize artifacts through Dagster, in this process; what was made."""
    from distill_dagster.assets.launch import run_job

    made: list[Made] = []

    def silent(node: object) -> Any:
        return lambda done, total, note="": None

    with at_home(project, tracking):
        loaded = project.project()
        run_job(loaded, project.name, loaded.select(project.name, names), silent, made.append)
    return made
