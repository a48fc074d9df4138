"""What training a pipeline's student would take: memory and time, from the configuration alone; nothing is downloaded.

The architecture comes from `student.architecture`, a preset, or the `config.json` of a model that lies here. A dry run
builds it with random weights, trains two steps, and puts what it measured beside the estimate.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill_dagster.config import paths
from distill_dagster.errors import ConfigError, TrainingError
from distill_dagster.lineage.engine import head_version
from distill_dagster.stages import initial_student
from distill_dagster.stages.context import PipelineContext
from distill_dagster.stages.project import Project
from distill_dagster.training import sizing

#: Of the memory that is free, how much a dry run may take.
SHARE = 0.8


@dataclass(frozen=True)
class Measured:
    """What a dry run took.

    Attributes:
        layers: Decoder layers that were built; fewer than the model's own where all do not fit.
        seconds: Of an optimizer step.
        peak: Of memory (bytes).
        expected_seconds: Of a step with these layers.
        expected_peak: With these layers.
    """

    layers: int
    seconds: float
    peak: int
    expected_seconds: float
    expected_peak: int


@dataclass(frozen=True)
class Plan:
    """Estimates for one student, and what a dry run measured.

    Attributes:
        base: The student's base as the YAML file names it.
        read: Where its architecture was read.
        sizes: Memory and arithmetic.
        rate: Matrix products of this machine, operations a second, at the recipe's threads; 0 on request.
        seconds: Of an optimizer step, estimated.
        steps: Optimizer steps of the student, and of its controls.
        control_steps: Of all controls together.
        available: Memory that is free here (bytes), or 0 where unknown.
        measured: What a dry run took, if there was one.
    """

    base: str
    read: str
    sizes: sizing.Sizes
    rate: float
    seconds: float
    steps: int
    control_steps: int
    available: int
    measured: Measured | None = None

    def as_json(self) -> dict[str, Any]:
        """The plan for scripts."""
        return asdict(self)


def plan(project: Project, name: str, dry_run: bool = False) -> Plan:
    """The plan of a pipeline's student.

    Raises:
        ConfigError: No such pipeline, or nothing here says what its student looks like.
        TrainingError: The dry run failed, or not even one layer fits into memory.
    """
    pipeline = project.pipeline(name)
    architecture, read = architecture_of(project, pipeline)
    recipe, control = pipeline.config.training, pipeline.config.control
    config = sizing.config_of(architecture, read)
    found = sizing.sizes(config, recipe)
    rate = sizing.speed(config, recipe.threads)
    here = Plan(
        base=pipeline.config.student.base,
        read=read,
        sizes=found,
        rate=rate,
        seconds=sizing.step_seconds(found, rate),
        steps=recipe.steps,
        control_steps=recipe.steps * sum(control.multiples) if control.mode == "auto" else 0,
        available=available(),
    )
    if not dry_run:
        return here
    measured = _measured(architecture, pipeline, here)
    return Plan(**{**vars(here), "measured": measured})


def architecture_of(project: Project, pipeline: PipelineContext) -> tuple[Mapping[str, Any], str]:
    """The configuration of the student's model, and where it was read.

    Raises:
        ConfigError: Nothing here says what the model looks like.
    """
    student = pipeline.config.student
    place = f"pipeline {pipeline.key}: student"
    if student.architecture is not None:
        path = paths.resolve(student.architecture, pipeline.folder, f"{place}.architecture")
        return _read(path, place), student.architecture
    if student.base.startswith("preset:"):
        return _of_preset(student.base, student.vocabulary), student.base
    if student.base.startswith(initial_student.FROM_PIPELINE):
        other = student.base.removeprefix(initial_student.FROM_PIPELINE).partition("@")[0]
        head = head_version(project.store, (other, "deployed_student"))
        if head is not None:
            return _read(head[0].local("model/config.json"), place), f"{other}/deployed_student"
    else:
        reference = initial_student.reference(pipeline)
        path = reference.folder / "config.json" if reference.folder is not None else _cached(reference)
        if path is not None:
            return _read(path, place), student.base
    raise ConfigError(
        place,
        f"nothing on this machine says what {student.base!r} looks like, and a plan downloads nothing.",
        "Give its config.json as `student.architecture`; examples/pretrained has one.",
    )


def _cached(reference: Any) -> Path | None:
    """A hub model's configuration in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(reference.text, "config.json", revision=reference.revision)
    return Path(found) if isinstance(found, str) else None


def _read(path: Path, place: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
        assert isinstance(found, dict) and "model_type" in found
    except (OSError, ValueError, AssertionError) as error:
        reason = f"{path} is no model configuration with a `model_type` ({error})."
        raise ConfigError(place, reason, "Copy the model's config.json.") from error
    return found


def _of_preset(name: str, vocabulary: int) -> dict[str, Any]:
    from distill_dagster.training import presets

    preset = presets.find(name)
    return {
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": preset.hidden,
        "num_hidden_layers": preset.layers,
        "num_attention_heads": preset.heads,
        "num_key_value_heads": preset.heads,
        "intermediate_size": preset.feed_forward,
        "max_position_embeddings": preset.context,
        "tie_word_embeddings": True,
    }


def available() -> int:
    """Memory that a new process may take here (bytes); 0 where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text("utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _measured(architecture: Mapping[str, Any], pipeline: PipelineContext, whole: Plan) -> Measured:
    """Train two steps in a process of its own, with as many layers as fit into memory."""
    recipe, place = pipeline.config.training, f"pipeline {pipeline.key}: dry run"
    config = sizing.config_of(architecture, place)
    layers, found = config.num_hidden_layers, whole.sizes
    while whole.available and found.peak > SHARE * whole.available:
        layers = layers * 3 // 4
        if not layers:
            raise TrainingError(
                place,
                f"not even one layer fits into {whole.available / 1e9:.1f} GB of free memory.",
                "Lower training.batch_tokens, or use `adapter`.",
            )
        found = sizing.sizes(sizing.config_of(architecture, place, layers), recipe)
    task = {
        "architecture": dict(architecture),
        "layers": layers if layers != config.num_hidden_layers else None,
        "recipe": recipe.model_dump(),
    }
    threads = str(recipe.threads)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "task.json"
        file.write_text(json.dumps(task), "utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "distill_dagster.training.dry_run", str(file)],
            env={**os.environ, "OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        killed = " It was killed: there was not enough memory." if done.returncode == -9 else ""
        raise TrainingError(
            place, f"it ended with {done.returncode}: {said}.{killed}", "Lower training.batch_tokens or max_length."
        )
    result = json.loads(done.stdout.strip().splitlines()[-1])
    return Measured(
        layers=result["layers"],
        seconds=result["seconds"],
        peak=result["peak_bytes"],
        expected_seconds=sizing.step_seconds(found, whole.rate),
        expected_peak=found.peak,
    )


def fits(found: Plan) -> bool | None:
    """Does the student's training fit into this machine's free memory? None where that is unknown."""
    return found.sizes.peak <= found.available if found.available else None
