"""What training a pipeline's student would take: memory and time, from the configuration alone; nothing is downloaded.

The architecture comes from `student.architecture`, a preset, or the `config.json` of a model that lies here: the
base's, or that of the teacher or the pipeline that the student starts from. A dry run builds it with random weights,
trains two steps, and puts what it measured beside the estimate.
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
from distill_dagster.config.recipe import Recipe
from distill_dagster.errors import ConfigError, TrainingError
from distill_dagster.lineage.engine import head_version
from distill_dagster.stages import classes, initial_student, teacher_model, training
from distill_dagster.stages.context import PipelineContext
from distill_dagster.stages.models import ModelReference
from distill_dagster.stages.project import Project
from distill_dagster.training import sizing

#: Of the memory that is free, how much a dry run may take.
SHARE = 0.8


@dataclass(frozen=True)
class Student:
    """The model that would be trained.

    Attributes:
        architecture: Its `config.json`.
        read: Where that was read.
        layers: How many of its layers the student gets; None: all.
        labels: Of a classifier; 0 for a model that writes.
    """

    architecture: Mapping[str, Any]
    read: str
    layers: int | None = None
    labels: int = 0

    def config(self, place: str, layers: int | None = None) -> Any:
        """Its configuration, or one with fewer layers still.

        Raises:
            ConfigError: transformers knows no such architecture.
        """
        return sizing.config_of(self.architecture, place, layers or self.layers, self.labels)


@dataclass(frozen=True)
class Measured:
    """What a dry run took.

    Attributes:
        layers: Layers that were built; fewer than the model's own where all do not fit.
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
        labels: Of the classifier's head; 0 for a model that writes.
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
    labels: int
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
        ConfigError: No such pipeline, nothing here says what its student looks like, or its recipe is for another sort
            of model.
        ModelError: The student is a classifier, and the pipeline's task is not for one; or its base has no such layers.
        TrainingError: The dry run failed, or not even one layer fits into memory.
    """
    pipeline = project.pipeline(name)
    student = student_of(project, pipeline)
    recipe, control = pipeline.config.training, pipeline.config.control
    _refuse(recipe, student, f"pipeline {pipeline.key}")
    config = student.config(student.read)
    found = sizing.sizes(config, recipe)
    rate = sizing.speed(config, recipe.threads)
    here = Plan(
        base=pipeline.config.student.base,
        read=student.read,
        labels=student.labels,
        sizes=found,
        rate=rate,
        seconds=sizing.step_seconds(found, rate),
        steps=recipe.steps,
        control_steps=recipe.steps * sum(control.multiples) if control.mode == "auto" else 0,
        available=available(),
    )
    if not dry_run:
        return here
    measured = _measured(student, pipeline, here)
    return Plan(**{**vars(here), "measured": measured})


def _refuse(recipe: Recipe, student: Student, place: str) -> None:
    """An error where training would refuse the recipe for this sort of model."""
    from distill_dagster.training import classify

    if student.labels:
        classify.refuse_text(recipe)
    elif recipe.linear_probe is not None:
        raise ConfigError(
            f"{place}: training.linear_probe",
            "it fits a classifier's head, and the student is a model that writes.",
            "Leave it out, or start from an encoder.",
        )


def student_of(project: Project, pipeline: PipelineContext) -> Student:
    """What would be trained.

    Raises:
        ConfigError: Nothing here says what the model looks like.
        ModelError: It is a classifier, and the pipeline's task is not for one; or it has no such layers.
    """
    options = pipeline.config.student
    place = f"pipeline {pipeline.key}: student"
    if options.architecture is not None:
        path = paths.resolve(options.architecture, pipeline.folder, f"{place}.architecture")
        return _fitting(_read(path, place), options.architecture, pipeline)
    if options.base.startswith(initial_student.FROM_PIPELINE):
        return _of_pipeline(project, pipeline, place)
    if options.base == initial_student.TEACHER:
        reference, vocabulary = _teacher(pipeline, place), teacher_model.VOCABULARY
    else:
        reference, vocabulary = initial_student.reference(pipeline), options.vocabulary
    if reference.preset is not None:
        return _fitting(_of_preset(reference.preset, vocabulary), reference.text, pipeline)
    path = _file(reference.folder) if reference.folder is not None else _cached(reference)
    if path is None:
        raise _unknown(reference.text, place)
    return _fitting(_read(path, place), reference.text, pipeline)


def _unknown(base: str, place: str) -> ConfigError:
    return ConfigError(
        place,
        f"nothing on this machine says what {base!r} looks like, and a plan downloads nothing.",
        "Give its config.json as `student.architecture`; examples/pretrained has one.",
    )


def _of_pipeline(project: Project, pipeline: PipelineContext, place: str) -> Student:
    """The student of another pipeline, as it was trained or as it would be; or an earlier one of its own."""
    base = pipeline.config.student.base
    other = base.removeprefix(initial_student.FROM_PIPELINE).partition("@")[0]
    head = head_version(project.store, (other, "deployed_student"))
    if head is not None:
        version, config = head[0], "model/config.json"
        path = version.local(config) if config in version.listed() else _file(training.weights(version))
        return _fitting(_read(path, place), f"{other}/deployed_student", pipeline)
    if other == pipeline.key:  # a warm start: there is none before the first
        raise _unknown(base, place)
    return student_of(project, project.pipeline(other))


def _teacher(pipeline: PipelineContext, place: str) -> ModelReference:
    """The model that the pipeline's teacher is, or is fitted from."""
    if not teacher_model.is_local(pipeline):
        raise ConfigError(
            f"{place}.base",
            f"teacher {pipeline.teacher.name!r} answers by backend {pipeline.teacher.backend!r}: no weights of it "
            "are here.",
            "Start the student from a preset, a folder or a hub id.",
        )
    return teacher_model.reference(pipeline)


def _fitting(architecture: Mapping[str, Any], read: str, pipeline: PipelineContext) -> Student:
    """A student of that architecture, with its layers and the labels of its head."""
    from distill_dagster.models import classifier, layers

    wanted, place = pipeline.config.student.layers, f"pipeline {pipeline.key}: student"
    labels = _labels(pipeline, place) if classifier.kind_of(architecture) != "causal" else 0
    kept = None
    if wanted is not None:
        total = sizing.config_of(architecture, read).get_text_config().num_hidden_layers
        kept = len(layers.chosen(wanted, total, f"{place}.layers"))
    return Student(architecture, read, kept, labels)


def _labels(pipeline: PipelineContext, place: str) -> int:
    """How many labels the student's head has; reads the seed files where they alone tell."""
    source = pipeline.source.config
    listed = {task.name: task.labels for task in source.define}
    asked = [data.hub for data in source.seeds if data.hub and listed.get(data.task, ()) is None]
    if asked:
        raise ConfigError(
            place,
            f"its labels are the answers in {asked[0]}, and a plan downloads nothing.",
            "List them as `labels` of the task, in `define` of the source.",
        )
    return len(classes.task_labels(pipeline, place))


def _file(folder: Path) -> Path:
    """The `config.json` of a model folder; of an adapter's base."""
    from distill_dagster.models import adapter

    return (adapter.base_of(folder) if adapter.is_adapter(folder) else folder) / "config.json"


def _cached(reference: ModelReference) -> Path | None:
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
    said = {
        "vocab_size": vocabulary,
        "hidden_size": preset.hidden,
        "num_hidden_layers": preset.layers,
        "num_attention_heads": preset.heads,
        "intermediate_size": preset.feed_forward,
        "max_position_embeddings": preset.context,
    }
    if presets.is_encoder(name):
        said |= {"type_vocab_size": 1, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        return {"model_type": "bert", **said}
    return {"model_type": "llama", **said, "num_key_value_heads": preset.heads, "tie_word_embeddings": True}


def available() -> int:
    """Memory that a new process may take here (bytes); 0 where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text("utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _measured(student: Student, pipeline: PipelineContext, whole: Plan) -> Measured:
    """Train two steps in a process of its own, with as many layers as fit into memory."""
    recipe, place = pipeline.config.training, f"pipeline {pipeline.key}: dry run"
    config = student.config(place)
    layers, found = config.num_hidden_layers, whole.sizes
    while whole.available and found.peak > SHARE * whole.available:
        layers = layers * 3 // 4
        if not layers:
            raise TrainingError(
                place,
                f"not even one layer fits into {whole.available / 1e9:.1f} GB of free memory.",
                "Lower training.batch_tokens, or use `adapter`.",
            )
        found = sizing.sizes(student.config(place, layers), recipe)
    task = {
        "architecture": dict(student.architecture),
        "layers": layers if layers != config.num_hidden_layers else student.layers,
        "labels": student.labels,
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
