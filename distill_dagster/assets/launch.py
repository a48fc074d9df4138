"""Running a pipeline's job in this process, against the project's own Dagster instance."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from distill_dagster.assets import base
from distill_dagster.assets.build import project_definitions
from distill_dagster.automation import job_name
from distill_dagster.errors import ConfigError, DistillError
from distill_dagster.lineage.engine import Made, Progress
from distill_dagster.lineage.graph import Node
from distill_dagster.resources.mlflow_tracking import local_uri
from distill_dagster.stages.project import Project

CHECK_EVENT = "ASSET_CHECK_EVALUATION"
#: A Ctrl-C inside a step, as Dagster names it or as it came.
INTERRUPTED = (dg.DagsterExecutionInterruptedError.__name__, KeyboardInterrupt.__name__)

INSTANCE_FILE = """\
# The project's own Dagster instance: everything stays on this machine.
telemetry:
  enabled: false
nux:
  enabled: false
run_monitoring:
  enabled: true
  free_slots_after_run_end_seconds: 60
concurrency:
  pools:
    granularity: run
"""


def dagster_home(state: Path) -> Path:
    """Make the project's Dagster home where it is missing, and make it the home of this process.

    Raises:
        ConfigError: DAGSTER_HOME is not the absolute path of a folder that is there.
        OSError: The project's own home cannot be written.
    """
    home = state / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        (home / "dagster.yaml").write_text(INSTANCE_FILE, encoding="utf-8")
    defaults = {
        "DAGSTER_HOME": str(home),
        "MLFLOW_TRACKING_URI": local_uri(state),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
    }
    for name, value in defaults.items():  # an empty variable is as if unset
        os.environ[name] = os.environ.get(name) or value
    found = Path(os.environ["DAGSTER_HOME"]).expanduser()
    if not (found.is_absolute() and found.is_dir()):
        reason = f"{os.environ['DAGSTER_HOME']!r} is not the absolute path of a folder that is there."
        raise ConfigError("DAGSTER_HOME", reason, f"Make the folder, or unset it: then it is {home}.")
    return found


@contextmanager
def _sinks(progress: Callable[[Node], Progress], made: Callable[[Made], None]) -> Iterator[list[DistillError]]:
    errors: list[DistillError] = []
    base.progress_sink, base.made_sink, base.error_sink = progress, made, errors.append
    try:
        yield errors
    finally:
        base.progress_sink = base.made_sink = base.error_sink = None


def run_job(
    project: Project,
    pipeline: str,
    nodes: Sequence[Node],
    progress: Callable[[Node], Progress],
    made: Callable[[Made], None],
    tags: dict[str, str] | None = None,
) -> None:
    """Materialize nodes of a pipeline through Dagster, checks included.

    Args:
        project: The project.
        pipeline: Whose job.
        nodes: What to materialize.
        progress: Gives each node's progress report.
        made: Told of every materialization.
        tags: Run tags.

    Raises:
        DistillError: A stage failed, or a blocking check did not pass; the message is the stage's own.
        KeyboardInterrupt: A person stopped it.
    """
    dagster_home(project.state)
    definitions = project_definitions(project)
    job = definitions.resolve_job_def(job_name(project, pipeline))
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with _sinks(progress, made) as errors, dg.DagsterInstance.get() as instance:
        result = job.execute_in_process(
            run_config=quiet,
            instance=instance,
            asset_selection=[base.asset_key(project, node.key) for node in nodes],
            tags={"distill/trigger": "cli", **(tags or {})},
            raise_on_error=False,
        )
    if result.success:
        return
    if errors:
        raise errors[0]
    found: list[Any] = [e.event_specific_data for e in result.all_events if e.event_type_value == CHECK_EVENT]
    for check in found:
        if not check.passed and check.blocking:
            said = {name: entry.value for name, entry in check.metadata.items()}
            counts = ", ".join(f"{name}: {value}" for name, value in said.items() if isinstance(value, int))
            raise DistillError(
                check.asset_key.to_user_string(),
                f"the blocking check {check.check_name!r} has not passed: {said.get('reason', counts)}.",
                said.get("next", "The run in the UI has the check's numbers."),
            )
    for event in result.all_events:
        if event.is_step_failure and (error := event.step_failure_data.error) is not None:
            while error.cause is not None:  # Dagster's own wrapping says only which step it was
                error = error.cause
            if error.cls_name in INTERRUPTED:
                raise KeyboardInterrupt
            step = event.step_key or pipeline
            raise DistillError(step, error.message.strip(), "The run in the UI has the traceback.")
    raise DistillError(pipeline, "the run failed, and no step or check of it says why.", "See the run in the UI.")
