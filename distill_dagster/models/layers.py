"""A smaller model made of some layers of a larger one (DistilBERT, Sanh et al. 2019), of any architecture.

The layers are found by their shape in the module tree, not by a table of model names: the outermost list of as many
modules as the config counts layers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distill_dagster.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def spaced(total: int, count: int) -> list[int]:
    """`count` of `total` layers, evenly spaced, the first and the last among them: 6 of 12 are 0 2 4 7 9 11."""
    return [0] if count == 1 else [round(place * (total - 1) / (count - 1)) for place in range(count)]


def chosen(layers: int | Sequence[int] | None, total: int, place: str) -> list[int]:
    """Which layers an option means: all (None), so many evenly spaced, or those listed.

    Raises:
        ModelError: There are not so many.
    """
    if layers is None:
        return list(range(total))
    if isinstance(layers, int):
        if layers > total:
            raise ModelError(place, f"{layers} layers are wanted, and there are {total}.", "Lower student.layers.")
        return spaced(total, layers)
    beyond = [layer for layer in layers if layer >= total]
    if beyond:
        raise ModelError(
            place, f"there is no layer {beyond[0]}: it has {total}, from 0 to {total - 1}.", "Change student.layers."
        )
    return list(layers)


def count(model: PreTrainedModel) -> int:
    """Layers of a model."""
    return int(model.config.get_text_config().num_hidden_layers)


def where(model: PreTrainedModel) -> str:
    """Dotted name of the list that holds a model's layers.

    Raises:
        ModelError: There is none; for example where all layers share their weights (ALBERT).
    """
    from torch.nn import ModuleList

    total = count(model)
    lists = [
        (name.count("."), -sum(parameter.numel() for parameter in module.parameters()), name)
        for name, module in model.named_modules()
        if isinstance(module, ModuleList) and len(module) == total
    ]
    if not lists:
        raise ModelError(
            str(model.name_or_path or type(model).__name__),
            f"{type(model).__name__} has no list of its {total} layers to take some from.",
            "Start the student from a preset or another folder.",
        )
    return min(lists)[2]


def take(model: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """A model of the same class with these layers only, in this order; all other weights are the same."""
    import torch

    place, total = where(model), count(model)
    config: Any = copy.deepcopy(model.config)
    inner = config.get_text_config()
    for name, value in list(vars(inner).items()):
        # Some configs say of each layer what sort it is (`layer_types`).
        if "layer" in name and isinstance(value, list) and len(value) == total:
            setattr(inner, name, [value[layer] for layer in layers])
    inner.num_hidden_layers = len(layers)
    with torch.random.fork_rng(devices=[]):
        smaller = type(model)(config)
    source = model.state_dict()
    kept = {}
    for name in smaller.state_dict():
        rest = name.removeprefix(f"{place}.")
        if rest != name:
            number, _, tail = rest.partition(".")
            kept[name] = source[f"{place}.{layers[int(number)]}.{tail}"]
        else:
            kept[name] = source[name]
    smaller.load_state_dict(kept)
    if getattr(model, "generation_config", None) is not None:
        smaller.generation_config = copy.deepcopy(model.generation_config)
    return smaller.eval()
