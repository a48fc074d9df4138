"""What is said of a model folder that transformers cannot load, or not whole."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from distill_dagster.errors import ModelError
from distill_dagster.models.folder import read_json


def unloadable(path: Path, error: Exception, reason: str, next_step: str) -> ModelError:
    """What is said where transformers cannot load a folder; of quantized weights, that they are."""
    said = read_json(path / "config.json").get("quantization_config")
    if not isinstance(said, dict):
        return ModelError(str(path), reason, next_step)
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ModelError(
        str(path),
        f"its weights are quantized ({said.get('quant_method')}), and they cannot be read here ({first}).",
        "Name the unquantized model that it was made from.",
    )


def require_weights(path: Path, missing: Iterable[str]) -> None:
    """ModelError where a folder lacks weights of its model: transformers draws them at random, each time anew."""
    names = sorted(missing)
    if names:
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        raise ModelError(
            str(path),
            f"its weights lack {', '.join(names[:6])}{more}, which would be drawn at random.",
            "Copy all its weight files and their index again, or save the whole model as its `architectures` in "
            "config.json say.",
        )
