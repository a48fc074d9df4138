"""Adapter folders: low-rank matrices (LoRA) beside a reference to the base that they were trained on.

Such a folder holds `adapter_model.safetensors` and `adapter_config.json` as peft writes them, the base's `config.json`
and tokenizer, and `base.json`: the base's digest, and where it lies as seen from here. It loads as the merged model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_dagster.errors import ModelError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONFIG, WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"


def library(place: str = "adapter") -> Any:
    """The package peft.

    Raises:
        ModelError: It is not installed; names the extra.
    """
    try:
        import peft
    except ImportError as error:
        reason = f"adapters need the package peft, which cannot be imported ({error})."
        raise ModelError(place, reason, "Install it: pip install 'distill-dagster[peft]'.") from error
    return peft


def is_adapter(folder: str | Path) -> bool:
    """Does the folder hold an adapter and not a whole model?"""
    return (Path(folder) / CONFIG).is_file()


def reference(folder: str | Path) -> dict[str, Any]:
    """What an adapter folder says of its base: `digest`, `path`, and the artifact it was.

    Raises:
        ModelError: There is no such file, or it cannot be read.
    """
    path = Path(folder) / BASE
    try:
        found = json.loads(path.read_text("utf-8"))
        assert isinstance(found["digest"], str)
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        reason = f"an adapter says here which base it belongs to, and this cannot be read ({error})."
        raise ModelError(str(path), reason, "Take the adapter from the store again, or merge it elsewhere.") from error
    return found


def base_of(folder: str | Path, base: str | Path | None = None) -> Path:
    """The folder of an adapter's base, checked to be the one that it was trained on.

    Args:
        folder: The adapter's folder.
        base: Where the base lies; by default where `base.json` says.

    Raises:
        ModelError: There is no such folder, or it holds another model; names both digests.
    """
    from distill_dagster.models import folder as folders

    said = reference(folder)
    if base is None and not said.get("path"):
        raise ModelError(str(folder), "it does not say where its base lies.", f"Give the base {said['digest']}.")
    path = Path(base) if base is not None else (Path(folder) / said["path"]).resolve()
    if not path.is_dir():
        known = said.get("artifact")
        where = f" It was {known}@{said.get('version')}." if known else ""
        raise ModelError(
            str(folder),
            f"its base is not at {path}.{where}",
            f"Put the base with digest {said['digest']} there, or train with `adapter: {{save: merged}}`.",
        )
    digest = folders.digest(path)
    if digest != said["digest"]:
        raise ModelError(
            str(folder),
            f"it was trained on a base with digest {said['digest']}, and {path} has digest {digest}.",
            "Give the base that it was trained on.",
        )
    return path


def load(folder: str | Path, base: str | Path | None = None) -> PreTrainedModel:
    """The base of an adapter folder with the adapter merged into it, fp32, in evaluation mode.

    Raises:
        ModelError: As `base_of`; or peft is missing, or cannot read the adapter.
    """
    from distill_dagster.models import folder as folders

    path = folders.check(folder)
    peft = library(str(path))
    model = folders.load_model(base_of(path, base))
    try:
        tuned = peft.PeftModel.from_pretrained(model, str(path), use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise ModelError(str(path), f"peft cannot read the adapter ({error}).", "Train it again.") from error
    return tuned.merge_and_unload().eval()


def save(
    tensors: Mapping[str, torch.Tensor],
    options: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    base: Path,
    said: Mapping[str, Any] | None = None,
) -> Path:
    """Write an adapter folder; the same adapter, base and tokenizer give the same bytes.

    Args:
        tensors: The adapter's weights by peft's names.
        options: The fields of `adapter_config.json` that peft needs to build it again.
        tokenizer: The base's tokenizer.
        folder: Where.
        base: The base's folder.
        said: What else `base.json` says: `path` from here to the base, `artifact`, `version`.
    """
    from safetensors.torch import save_file

    from distill_dagster.models import folder as folders

    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), path / WEIGHTS, metadata={"format": "pt"})
    for name, content in (
        (CONFIG, dict(options)),
        (BASE, {"digest": folders.digest(base), **(said or {})}),
        ("config.json", json.loads((base / "config.json").read_text("utf-8"))),
    ):
        (path / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    folders.save_tokenizer(tokenizer, path)
    return path
