"""One measured run of `<pipeline>/teacher_outputs` of a generated project; prints one line of JSON.

    python benchmarks/teacher_asset.py SYSTEM URL COUNT IN_FLIGHT FOLDER STARTED

`asset` materializes it and what it needs through Dagster and MLflow, as `distill-dagster run` does; `core` through the
plain stages, as `run --no-dagster` does. STARTED is the time (`time.time()`) at which this process was asked for.

What the line holds, in seconds: `asking`, the call of the journal, from nothing known to every answer on disk; `stage`,
all of `teacher_outputs`, with the gate and its sealed tables; `upstream`, the stages before it; `start`, from STARTED
until the project is read; `definitions`, Dagster's own; `mirror`, writing to MLflow; `run`, what Dagster's run takes
beside all of these.
"""

from __future__ import annotations

import time

HERE_AT = time.time()

import json  # noqa: E402 - the clock is read before anything is imported
import os  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from teacher_worker import prompt  # noqa: E402

SOURCE = """\
kind: source
domain: generic
name: clauses
define: [{name: advise, kind: text, max_new_tokens: 64}]
prompts: [{task: advise, style: short, user: '{{ input }}'}]
seeds: [{path: seeds.jsonl, columns: {input: text, id: id}, licence: CC0-1.0, task: advise}]
evaluation: [{path: test.jsonl, columns: {input: text, answer: answer}, licence: CC0-1.0, task: advise}]
split: {teacher: 0, gold: 0, unlabeled: 1, validation: 0}
"""
TEACHER = """\
kind: teacher
name: loopback
backend: openai
model: bench
revision: "1"
prompt_style: short
sampling: {temperature: 0.0, max_new_tokens: 64}
endpoint: {url: URL, max_in_flight: IN_FLIGHT}
"""
PIPELINE = """\
kind: pipeline
source: clauses
teacher: loopback
student: {base: "preset:nano", vocabulary: 300}
"""
WANTED = ["seed_set", "prompt_set", "teacher_model", "teacher_outputs"]


def write_project(config: Path, url: str, count: int, in_flight: int) -> None:
    """The YAML files and the seeds: every seed an input of D_U, without an answer."""
    config.mkdir(parents=True)
    (config / "source.yaml").write_text(SOURCE, "utf-8")
    teacher = TEACHER.replace("URL", url).replace("IN_FLIGHT", str(in_flight))
    (config / "teacher.yaml").write_text(teacher, "utf-8")
    (config / "pipeline.yaml").write_text(PIPELINE, "utf-8")
    rows = [{"id": str(number), "text": prompt(number)} for number in range(count)]
    (config / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    test = {"text": "An item that has nothing to do with any of the questions", "answer": "Nothing"}
    (config / "test.jsonl").write_text(json.dumps(test) + "\n", "utf-8")


class Clock:
    """Seconds and processor seconds spent in functions, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    def around(self, owner: Any, attribute: str, name: str) -> None:
        """Measure every call of a function from now on."""
        inner: Callable[..., Any] = getattr(owner, attribute)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start, cpu = time.perf_counter(), time.process_time()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
                self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - cpu

        setattr(owner, attribute, timed)


def main(system: str, url: str, count: int, in_flight: int, folder: Path, started: float) -> dict[str, Any]:
    """Run it; the figures."""
    config = folder / "assets_config"
    write_project(config, url, count, in_flight)
    os.environ |= {"DISTILL_STORE": str(folder / "store"), "DISTILL_STATE": str(folder / "state")}
    written = time.time()

    from distill_dagster.lineage.engine import Made, Services, silent
    from distill_dagster.settings import Settings
    from distill_dagster.stages.project import Project
    from distill_dagster.teachers import _openai_session  # noqa: F401 - as in teacher_worker.py: no part of asking
    from distill_dagster.teachers.journal import Journal

    clock = Clock()
    clock.around(Journal, "ask", "asking")
    project = Project(Settings.from_environment(config))
    nodes = project.select("clauses", WANTED)
    made: list[Made] = []
    read = time.time()
    if system == "asset":
        from distill_dagster.assets import launch
        from distill_dagster.resources.mlflow_tracking import MlflowTracking

        imported = time.time()
        clock.around(launch, "project_definitions", "definitions")
        clock.around(MlflowTracking, "mirror", "mirror")
        launch.run_job(project, "clauses", nodes, lambda node: silent, made.append)
    else:
        imported = read
        made = project.run(nodes, Services(project.state))
    ended = time.time()
    by_name = {one.node.key[1]: one for one in made}
    outputs = by_name.pop("teacher_outputs")
    stages = sum(one.seconds for one in made)
    definitions = clock.seconds.get("definitions", 0.0) + imported - read
    mirror = clock.seconds.get("mirror", 0.0)
    return {
        "answered": outputs.record["notes"]["calls"]["asked"] - outputs.record["notes"]["calls"]["failed"],
        "seconds": clock.seconds["asking"],
        "cpu": clock.cpu["asking"],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "parts": {
            "asking": clock.seconds["asking"],
            "stage": outputs.seconds,
            "upstream": stages - outputs.seconds,
            "start": HERE_AT - started + read - written,
            "definitions": definitions,
            "mirror": mirror,
            "run": ended - read - stages - definitions - mirror,
        },
    }


if __name__ == "__main__":
    system, url, count, in_flight, folder, started = sys.argv[1:]
    print(json.dumps(main(system, url, int(count), int(in_flight), Path(folder), float(started))))
