"""Mirrors that break half way, and what MLflow's own settings of a process are afterwards."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pipeline import tiny
from pipeline.tiny import Tiny

from distill_dagster.lineage.engine import Made, head_version
from distill_dagster.resources import mlflow_tracking
from distill_dagster.resources.mlflow_tracking import MlflowTracking, local_uri

pytestmark = pytest.mark.needs_torch


@pytest.fixture(scope="module")
def with_tables(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A project whose MLflow has its tables, which take seconds to make, and the mirror of another artifact."""
    made = tiny.parcels(tmp_path_factory.mktemp("mirror") / "parcels")
    made.run(["seed_set", "prompt_set"])
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert "/runs/" in mirror(made, "prompt_set")
    return made


@pytest.fixture
def seeded(with_tables: Tiny, tmp_path: Path) -> Tiny:
    return with_tables.copy(tmp_path / "parcels")


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """MLflow's settings of this process, put back afterwards."""
    import mlflow
    from mlflow.tracking._model_registry import utils

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(utils, "_registry_uri", None)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
    yield
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]


def mirror(project: Tiny, artifact: str = "seed_set") -> str:
    """Mirror an artifact's head; what Dagster is told."""
    loaded = project.project()
    found = head_version(loaded.store, (project.name, artifact))
    assert found is not None
    version, run = found
    made = Made(loaded.nodes[project.name, artifact], version, run, version.run(run)["action"], True, 0.1)
    return str(MlflowTracking().mirror(loaded, made, "a run")["mlflow"].value)


def runs(project: Tiny) -> list:
    from mlflow import MlflowClient

    client = MlflowClient(local_uri(project.settings.state))
    experiment = client.get_experiment_by_name(f"distill/{project.name}")
    return client.search_runs([experiment.experiment_id], "tags.`distill.artifact` = 'parcels/seed_set'")


@pytest.mark.parametrize("step", ["log_batch", "log_inputs", "set_terminated"])
def test_a_mirror_that_broke_half_way_is_made_anew(seeded: Tiny, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    from mlflow import MlflowClient

    def broken(*_args: object, **_more: object) -> None:
        raise ConnectionError("the server went away")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, broken)
        assert mirror(seeded).startswith("not mirrored: ConnectionError")
    assert "/runs/" in mirror(seeded)
    (one,) = runs(seeded)
    assert one.info.status == "FINISHED" and one.data.metrics and one.inputs.dataset_inputs
    again = mirror(seeded)
    assert again.endswith(one.info.run_id) and len(runs(seeded)) == 1


def test_a_process_without_settings_has_none_afterwards(seeded: Tiny) -> None:
    import mlflow

    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    assert "/runs/" in mirror(seeded)
    assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri()) == before and not mlflow.is_tracking_uri_set()
    assert "MLFLOW_TRACKING_URI" not in os.environ and "MLFLOW_REGISTRY_URI" not in os.environ
    mirror(seeded)
    assert len(runs(seeded)) == 1, "the second mirror went elsewhere"


def test_a_users_own_settings_stay(seeded: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    theirs, registry = (f"sqlite:///{tmp_path / name}" for name in ("theirs.db", "registry.db"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    mlflow.set_tracking_uri(theirs)
    mlflow.set_registry_uri(registry)
    monkeypatch.setattr(MlflowTracking, "uri", lambda self, state: local_uri(state))
    assert "/runs/" in mirror(seeded)
    assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri()) == (theirs, registry)
    assert os.environ["MLFLOW_TRACKING_URI"] == theirs and os.environ["MLFLOW_REGISTRY_URI"] == registry


def test_the_environment_of_the_user_stays_and_may_change(seeded: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    theirs = local_uri(seeded.settings.state)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", theirs)
    mirror(seeded)
    assert os.environ["MLFLOW_TRACKING_URI"] == theirs == mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///another.db")
    assert mlflow.get_tracking_uri() == "sqlite:///another.db"


@pytest.mark.slow
def test_models_are_registered_where_the_environment_says(
    parcels: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    registry = f"sqlite:///{tmp_path / 'far' / 'registry.db'}"
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", registry)
    assert "/runs/" in mirror(parcels, "deployed_student")
    tracking = local_uri(parcels.settings.state)
    version = MlflowClient(tracking, registry).get_model_version_by_alias("distill_parcels", "champion")
    assert version.tags["distill.version"] == parcels.versions()["parcels/deployed_student"]
    assert not MlflowClient(tracking, tracking).search_registered_models()


def test_two_mirrors_of_one_run_make_one(seeded: Tiny) -> None:
    from concurrent.futures import ThreadPoolExecutor

    mirror(seeded)
    with ThreadPoolExecutor(1) as other:
        loaded = seeded.project()
        found = head_version(loaded.store, ("parcels", "seed_set"))
        assert found is not None
        with mlflow_tracking.lease(loaded.state / "leases", f"mlflow/{found[1]}"):
            waiting = other.submit(mirror, seeded)
            with pytest.raises(TimeoutError):
                waiting.result(0.5)
        assert "/runs/" in waiting.result(60)
    assert len(runs(seeded)) == 1
