"""Checkpoints of a run: weights and optimizer as safetensors, the rest as JSON, put in place by one rename."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_dagster.storage.atomic import store_error, sync_file, sync_folder
from distill_dagster.storage.faults import fault_point

if TYPE_CHECKING:
    import torch

PREFIX = "step-"


@dataclass
class Checkpoint:
    """A run after some step: tensors by name, and what JSON can hold."""

    weights: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    state: dict[str, Any]


def write(folder: Path, step: int, checkpoint: Checkpoint) -> Path:
    """Put a checkpoint beside the earlier one, then remove the earlier one.

    Raises:
        StoreError: The folder cannot be written, or the disk is full; the earlier checkpoint stays.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    final, temporary = folder / f"{PREFIX}{step:08d}", folder / f".{PREFIX}{step:08d}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        fault_point("checkpoint.write")
        save_file(checkpoint.weights, temporary / "model.safetensors")
        save_file(checkpoint.optimizer, temporary / "optimizer.safetensors")
        (temporary / "state.json").write_text(json.dumps(checkpoint.state, sort_keys=True), encoding="utf-8")
        fault_point("checkpoint.fsync")
        for path in temporary.iterdir():
            sync_file(path)
        sync_folder(temporary)
        fault_point("checkpoint.rename")
        temporary.rename(final)
        sync_folder(folder)
        fault_point("checkpoint.done")
    except SafetensorError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise store_error(OSError(28 if "No space" in str(error) else 5, str(error)), final) from error
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise store_error(error, final) from error
    for old in folder.glob(f"{PREFIX}*"):
        if old != final:
            _remove(old)
    return final


def newest(folder: Path, fingerprint: str) -> Checkpoint | None:
    """The last checkpoint of the run that `fingerprint` describes; checkpoints of other runs are removed, torn ones,
    and what a kill left of one that was being written or removed."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for left in folder.glob(f".{PREFIX}*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    for path in sorted(folder.glob(f"{PREFIX}*"), reverse=True):
        state = _state(path)
        if state.get("fingerprint") == fingerprint:
            try:
                weights, optimizer = (load_file(path / f"{name}.safetensors") for name in ("model", "optimizer"))
            except SafetensorError:
                pass  # Torn (a copy, a full disk, a dying one): the run begins again, or it could never be run again.
            else:
                return Checkpoint(weights, optimizer, state)
        _remove(path)
    return None


def _state(path: Path) -> dict[str, Any]:
    """What a checkpoint says; nothing where a part of it is gone or torn, as if it were another run's."""
    if not all((path / name).is_file() for name in ("model.safetensors", "optimizer.safetensors")):
        return {}
    try:
        found = json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remove(path: Path) -> None:
    """Remove a checkpoint; a kill meanwhile leaves nothing that looks like one."""
    away = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(away, ignore_errors=True)
    try:
        path.rename(away)
    except OSError:
        away = path  # Where it cannot be moved it is removed in its place.
    shutil.rmtree(away, ignore_errors=True)
