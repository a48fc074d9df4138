"""Mirroring materializations into MLflow: one run each, found by tag, with our own dataset digests.

MLflow is a projection: where it is down, the pipeline goes on and the mirror is made at the next materialization.
Its own dataset digest misses changes beyond the first rows, so the digest field carries ours.
"""

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from distill_dagster.lineage.engine import Made
from distill_dagster.stages.context import PipelineContext
from distill_dagster.stages.project import Project
from distill_dagster.storage.lease import lease
from distill_dagster.storage.store import key_text

log = logging.getLogger(__name__)

#: The tag that finds the MLflow run of one of our runs.
RUN_TAG = "distill.run"
#: How long one mirror waits for another of the same run.
MIRROR_SECONDS = 120.0


class MlflowTracking(dg.ConfigurableResource):
    """Where materializations are mirrored.

    `tracking_uri` defaults to MLFLOW_TRACKING_URI, then to a SQLite file under the project's state folder; models are
    registered there as well, or at MLFLOW_REGISTRY_URI. `ui` is the address that links point at, where the tracking URI
    is not itself one.
    """

    enabled: bool = True
    tracking_uri: str = ""
    ui: str = ""

    def uri(self, state: Path) -> str:
        """The tracking URI in force."""
        if self.tracking_uri:
            return self.tracking_uri
        return os.environ.get("MLFLOW_TRACKING_URI") or local_uri(state)

    def link(self, uri: str, experiment: str, run: str) -> str:
        """Address of a run's page."""
        base = (
            uri if uri.startswith("http") else self.ui or os.environ.get("DISTILL_MLFLOW_UI", "http://127.0.0.1:5000")
        )
        return f"{base.rstrip('/')}/#/experiments/{experiment}/runs/{run}"

    def mirror(self, project: Project, made: Made, dagster_run: str) -> dict[str, Any]:
        """Mirror one materialization; returns Dagster metadata. Never raises: MLflow is not the truth."""
        if not self.enabled:
            return {}
        try:
            return self._mirror(project, made, dagster_run)
        except Exception as error:
            log.warning("MLflow could not be reached, the run goes on: %s: %s", type(error).__name__, error)
            return {"mlflow": dg.MetadataValue.text(f"not mirrored: {type(error).__name__}")}

    def _mirror(self, project: Project, made: Made, dagster_run: str) -> dict[str, Any]:
        uri = self.uri(project.state)
        # Only the holder's own run may be unfinished meanwhile: any other is what a broken mirror left.
        alone = lease(project.state / "leases", f"mlflow/{made.run}", wait=MIRROR_SECONDS)
        with alone, _client(uri, os.environ.get("MLFLOW_REGISTRY_URI") or uri) as client:
            owner, artifact = made.node.key
            experiment = _experiment(client, f"distill/{owner}", uri, project.state)
            run_id = _find(client, experiment, made.run)
            if run_id is None:
                run_id = _log_run(client, experiment, made, dagster_run)
            if artifact == "deployed_student":
                self._register(client, experiment, run_id, project.pipelines[owner], project, made)
            return {"mlflow": dg.MetadataValue.url(self.link(uri, experiment, run_id))}

    def _register(
        self, client: Any, experiment: str, run_id: str, pipeline: PipelineContext, project: Project, made: Made
    ) -> None:
        """A LoggedModel, a registered version and the alias, unless this version already has them."""
        name = pipeline.config.deploy.model_name or f"distill_{pipeline.key}"
        tags = {
            "distill.version": made.version.version,
            "distill.run": made.run,
            "distill.artifact": key_text(made.node.key),
        }
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        known = [
            v
            for v in client.search_model_versions(f"name='{name}'")
            if v.tags.get("distill.version") == made.version.version
        ]
        if known:
            version = known[0].version
        else:
            model = _logged_model(client, experiment, run_id, name, made, tags)
            version = client.create_model_version(
                name, source=f"models:/{model}", run_id=run_id, tags=tags, model_id=model
            ).version
        if pipeline.config.deploy.enabled:
            client.set_registered_model_alias(name, pipeline.config.deploy.alias, version)


def local_uri(state: Path) -> str:
    """The SQLite tracking store of a project."""
    return f"sqlite:///{state / 'mlflow' / 'mlflow.db'}"


@contextmanager
def _client(uri: str, registry: str) -> Iterator[Any]:
    """An MLflow client with telemetry off; nothing of MLflow is imported before.

    A registry in a database asks the tracking server of the whole process for the model, so that one is ours meanwhile.
    Afterwards it is what it was, environment included.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    for place in (uri, registry):
        if place.startswith("sqlite:///"):
            Path(place.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    import mlflow
    from mlflow import MlflowClient

    for name in ("mlflow.store.db.utils", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)

    named = os.environ.get("MLFLOW_TRACKING_URI")
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(uri)
    try:
        yield MlflowClient(uri, registry)
    finally:
        # None where the environment says it: MLflow would else not see that change.
        mlflow.set_tracking_uri(before if before != named else None)  # pyright: ignore[reportArgumentType]
        if named is not None:  # MLflow writes and deletes the variable with each setting
            os.environ["MLFLOW_TRACKING_URI"] = named


def _experiment(client: Any, name: str, uri: str, state: Path) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    artifacts = (state / "mlflow" / "artifacts").as_uri() if uri.startswith("sqlite:///") else None
    return client.create_experiment(name, artifact_location=artifacts)


def _find(client: Any, experiment: str, run: str) -> str | None:
    """The MLflow run that mirrors one of ours; those that broke half way are deleted, to be made anew."""
    found = None
    for one in client.search_runs([experiment], filter_string=f"tags.`{RUN_TAG}` = '{run}'"):
        if one.info.status == "FINISHED":
            found = one.info.run_id
        else:
            client.delete_run(one.info.run_id)
    return found


def _log_run(client: Any, experiment: str, made: Made, dagster_run: str) -> str:
    """One finished MLflow run for one of our runs: tags, parameters, metrics, curves, dataset inputs."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    record, version = made.record, made.version
    tags = {
        RUN_TAG: made.run,
        "distill.artifact": key_text(made.node.key),
        "distill.data_version": version.version,
        "distill.action": made.action,
        "distill.commit": str(record["code"]["commit"]),
        "dagster.run": dagster_run,
        "mlflow.runName": f"{made.node.key[1]}@{version.version[:8]}",
    }
    run = client.create_run(experiment, tags=tags, run_name=tags["mlflow.runName"])
    run_id = run.info.run_id
    params = [Param(name[:250], str(value)[:500]) for name, value in sorted(_flat(record["config"]).items())][:100]
    stamp = run.info.start_time
    metrics = [
        Metric(_safe(name), float(value), stamp, 0)
        for name, value in _flat(record["notes"]).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    ]
    for name in record["side"]:
        if name.endswith("_metrics.jsonl"):
            stem = name.removesuffix("_metrics.jsonl")
            metrics += _curve(version.place / "runs" / made.run / name, stem, stamp)
    for start in range(0, max(len(metrics), 1), 900):
        client.log_batch(
            run_id,
            metrics=metrics[start : start + 900],
            params=params if start == 0 else [],
            tags=[RunTag("distill.seconds", f"{made.seconds:.1f}")],
        )
    inputs = []
    for parent in [
        *record["parents"],
        {"artifact": key_text(made.node.key), "version": version.version, "role": "made"},
    ]:
        source = json.dumps({"artifact": parent["artifact"], "data_version": parent["version"]})
        dataset = Dataset(name=parent["artifact"], digest=parent["version"][:32], source_type="distill", source=source)
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", parent["role"])]))
    client.log_inputs(run_id, inputs)
    client.set_terminated(run_id)
    return run_id


def _curve(path: Any, stem: str, stamp: int) -> list[Any]:
    from mlflow.entities import Metric

    points = []
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        for name, value in row.items():
            if name != "step" and isinstance(value, (int, float)) and math.isfinite(value):
                points.append(Metric(_safe(f"{stem}/{name}"), float(value), stamp + int(row["step"]), int(row["step"])))
    return points


def _logged_model(client: Any, experiment: str, run_id: str, name: str, made: Made, tags: dict[str, str]) -> str:
    """The LoggedModel of the served bytes; the weights stay in our store, which re-hashes them."""
    from mlflow.entities import LoggedModelStatus

    params = {"store_path": str(made.version.place), "data_version": made.version.version}
    model = client.create_logged_model(
        experiment, name=name, source_run_id=run_id, tags=tags, params=params, model_type="distilled-student"
    )
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return model.model_id


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, entry in value.items():
        path = f"{prefix}{name}"
        if isinstance(entry, Mapping):
            flat |= _flat(entry, f"{path}.")
        elif isinstance(entry, (list, tuple)):
            flat[path] = json.dumps(entry, default=str)
        else:
            flat[path] = entry
    return flat


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)[:250]
