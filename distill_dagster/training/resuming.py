"""Where a training run stands: written as a checkpoint, and taken up again by the very same run alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from distill_dagster.config.models import identity
from distill_dagster.records.identity import digest
from distill_dagster.training import checkpoint, metrics

if TYPE_CHECKING:
    from distill_dagster.training.data import Example
    from distill_dagster.training.frame import Frame


def fingerprint(run: Frame) -> str:
    """What a checkpoint must agree with: initial weights, data and recipe."""
    whole = hashlib.sha256()
    # Those that stay frozen, too, and those that are learned beside the model.
    for name, parameter in {**dict(run.model.named_parameters()), **run.parameters}.items():
        whole.update(name.encode())
        whole.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    _read(whole, run.examples)
    said: dict[str, Any] = {"recipe": identity(run.recipe), "data": whole.hexdigest()}
    if run.world.size > 1:
        said["processes"] = run.world.size
    if run.signals:
        said["signals"] = {source.name: source.digest for source in run.signals}
    if run.rewards is not None:
        said["rewards"] = run.rewards.digest
    return digest(said)


def judged_by(run: Frame, validation: Sequence[Example]) -> str:
    """The fingerprint of a run that stops early: its lowest loss so far is of these records and no others."""
    whole = hashlib.sha256()
    _read(whole, validation)
    return digest({"run": run.fingerprint, "validation": whole.hexdigest()})


def _read(whole: Any, examples: Sequence[Example]) -> None:
    for example in examples:
        said_of: list[Any] = [example.record_id, example.ids, example.weights]
        if example.side is not None:
            said_of += [example.side.pair, example.side.chosen]
        if example.label is not None:
            said_of += [example.label, example.text]
        whole.update(json.dumps(said_of).encode())


def save(run: Frame) -> None:
    """Write a checkpoint: weights, optimizer, counters, random state, what the feed keeps."""
    if not run.world.first:
        return
    named = {id(parameter): name for name, parameter in run.parameters.items()}
    moments = {
        f"{named[id(parameter)]}/{key}": value.detach().to("cpu", copy=True)
        for parameter, entry in run.optimizer.state.items()
        for key, value in entry.items()
    }
    state = {
        "fingerprint": run.fingerprint,
        "step": run.step,
        "tokens": run.tokens,
        "learned": run.learned,
        "elapsed": run.elapsed,
        "means": run.means.sums,
        "feed": run.feed.state(),
    }
    if run.stopping:
        state["early_stop"] = run.stopping.state()
        moments |= run.stopping.tensors()
    weights = {name: parameter.detach().to("cpu", copy=True) for name, parameter in run.parameters.items()}
    moments["random"] = torch.get_rng_state()
    if run.world.device.type == "cuda":
        moments["random_cuda"] = torch.cuda.get_rng_state(run.world.device)
    checkpoint.write(run.folder, run.step, checkpoint.Checkpoint(weights, moments, state))


@torch.no_grad()
def resume(run: Frame) -> int:
    """Go on where the last checkpoint of this very run stands; the step it stands at, or 0."""
    if not run.world.first:
        run.world.wait()  # The first has removed what belongs to other runs.
    found = checkpoint.newest(run.folder, run.fingerprint)
    if run.world.first:
        metrics.rewind(run.log, int(found.state["step"]) if found else 0)
        run.world.wait()
    if found is None:
        return 0
    for name, parameter in run.parameters.items():
        parameter.copy_(found.weights[name])
        kept = {key.rsplit("/", 1)[1]: value for key, value in found.optimizer.items() if key.startswith(f"{name}/")}
        # AdamW counts its steps on the CPU, unless one kernel does it all.
        counted = parameter.device if run.optimizer.defaults.get("fused") else torch.device("cpu")
        run.optimizer.state[parameter] = {
            key: value.to(counted if key == "step" else parameter.device) for key, value in kept.items()
        }
    torch.set_rng_state(found.optimizer["random"])
    if "random_cuda" in found.optimizer and run.world.device.type == "cuda":
        torch.cuda.set_rng_state(found.optimizer["random_cuda"], run.world.device)
    if run.stopping:
        run.stopping.restore(found.state.get("early_stop") or {}, found.optimizer)
    run.feed.restore(found.state.get("feed") or {})
    run.step, run.tokens, run.learned = (int(found.state[key]) for key in ("step", "tokens", "learned"))
    run.elapsed = float(found.state["elapsed"])
    run.means = metrics.Means(found.state["means"])
    return run.step
