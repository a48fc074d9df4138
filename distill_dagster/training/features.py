"""What terms about a teacher's layers share: asking both models for them, learned parameters, means over positions.

Such a term has a method `bind`, called once before training with the shapes of both models. It says which layers to
keep, and asks for the parameters that are learned beside the student: they are optimised with it, lie in its
checkpoints, and are no part of the model that comes out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from distill_dagster.config.strict import Strict
from distill_dagster.errors import TrainingError
from distill_dagster.training.layer_map import UNIFORM, LayerMap, resolve
from distill_dagster.training.objectives.base import Need, Positions

if TYPE_CHECKING:
    import torch

    from distill_dagster.training.data import Example
    from distill_dagster.training.forward import Forward
    from distill_dagster.training.layers import Heads, Layers, Shape, Watch

#: A learned parameter of a name and a shape.
Learned = Callable[[str, tuple[int, int]], "torch.Tensor"]
#: The teacher itself, in memory: its layers are not stored.
NEED = Need("live", 0, 1.0)


class LayerParams(Strict):
    """What every such term may say."""

    layers: LayerMap = Field(UNIFORM, description="uniform, last, or teacher layers by student layer: {1: 2, 2: 4}")
    positions: Literal["all", "answer"] = Field(
        "all", description="all: every token, the prompt's too; answer: where a token of the answer is predicted"
    )


class LayerTerm:
    """What the terms on layers have in common: parameters, the map of layers, what their means are over.

    Each gives `Params`, and a `bind` that fills `map` with teacher layers by student layer.
    """

    need = NEED
    Params: type[LayerParams]
    params: Any

    def __init__(self, params: Any = None) -> None:
        self.params = params or self.Params()  # pyright: ignore[reportCallIssue]
        self.map: dict[int, int] = {}

    def units(self, examples: Sequence[Example]) -> float:
        """What its mean over some examples is divided by."""
        return units(examples, self.params.positions)

    def watch_heads(self, student: Shape, teacher: Shape, name: str, *, maps: bool) -> tuple[Watch, Watch]:
        """Map layers whose attention both models show, and keep it.

        Raises:
            TrainingError: Layers that a model does not have, or attention that cannot be read (`need_heads`).
        """
        from distill_dagster.training.layers import Watch

        self.map = resolve(self.params.layers, student, teacher, name, lowest=1)
        need_heads(student, list(self.map), name, maps=maps)
        need_heads(teacher, list(self.map.values()), name, maps=maps)
        return Watch(heads=frozenset(self.map)), Watch(heads=frozenset(self.map.values()))


def bind(
    terms: Mapping[str, tuple[float, Any]], forward: Forward, signals: Sequence[Any], seed: int
) -> dict[str, torch.Tensor]:
    """Have both models keep the layers that terms ask for; the parameters to learn, by name.

    Args:
        terms: Weight and objective by name; those without `bind` are left alone.
        forward: The student's forward pass.
        signals: What a teacher says; one of them holds it in memory (`LiveTeacher`).
        seed: Seed of the recipe.

    Raises:
        TrainingError: No teacher in memory, or layers and heads that the models do not have.
    """
    asking = {name: term for name, (weight, term) in terms.items() if weight and hasattr(term, "bind")}
    if not asking:
        return {}
    teacher = next((source for source in signals if source.name == "live" and hasattr(source, "forward")), None)
    if teacher is None:
        raise TrainingError(
            f"training.objective.{next(iter(asking))}",
            "it learns from a teacher's layers, and there is no teacher in memory that shows them.",
            "Train through a pipeline with a local teacher, or give `train` a LiveTeacher.",
        )
    import torch

    from distill_dagster.training.layers import shape

    shapes = shape(forward.model), shape(teacher.forward.model)
    found: dict[str, torch.Tensor] = {}
    for name, term in asking.items():

        def learned(key: str, size: tuple[int, int], name: str = name) -> torch.Tensor:
            full = f"objective.{name}.{key}"
            return found.setdefault(full, torch.nn.Parameter(draw(full, size, seed).to(forward.model.device)))

        mine, theirs = term.bind(*shapes, learned)
        forward.look(mine)
        teacher.forward.look(theirs)
    return found


def draw(name: str, size: tuple[int, int], seed: int) -> torch.Tensor:
    """Initial values of a matrix, out × in, normal with standard deviation 1/√in, decided by name and seed alone."""
    import numpy
    import torch

    word = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16], "big")
    values = numpy.random.Generator(numpy.random.Philox(key=word)).standard_normal(size) * size[1] ** -0.5
    return torch.from_numpy(values.astype(numpy.float32))


def layers_of(positions: Positions) -> tuple[Layers, Layers]:
    """The layers of student and teacher for a batch.

    Raises:
        TrainingError: They were not kept: the term was not bound.
    """
    live = positions.signals.get("live")
    mine, theirs = positions.layers, live.said.layers if live is not None else None
    if mine is None or theirs is None:
        raise TrainingError(
            f"records {', '.join(positions.record_ids[:4])}",
            "a term about layers found none of student or teacher.",
            "Train through a pipeline, or give `train` a LiveTeacher.",
        )
    if mine.weights.shape != theirs.weights.shape:
        raise TrainingError(
            f"records {', '.join(positions.record_ids[:4])}",
            "student and teacher do not read the same tokens at the same places.",
            "Give both the same tokenizer, or use `divergence` or `sft`.",
        )
    return mine, theirs


def weights_of(positions: Positions, which: str) -> torch.Tensor:
    """Weight of each place of the rows in the mean over positions, B × T; they add up to 1."""
    mine = layers_of(positions)[0]
    weights = mine.answer if which == "answer" else mine.weights
    return weights / weights.sum()


def units(examples: Sequence[Example], which: str) -> float:
    """What the mean over the positions of some examples is divided by."""
    if which == "answer":
        return math.fsum(weight for example in examples for weight in example.weights[1:])
    return math.fsum(max(example.weights, default=0.0) * len(example.ids) for example in examples)


def need_heads(shape: Shape, layers: Sequence[int], place: str, *, maps: bool) -> None:
    """Whether the attention of some layers can be read, and with `maps` whether it is an ordinary softmax.

    Raises:
        TrainingError: It cannot, or is not.
    """
    for number in layers:
        if number not in shape.heads:
            raise TrainingError(
                f"training.objective.{place}",
                f"layer {number} of {shape.name} gives no queries and keys: its attention implementation is "
                f"{shape.attention!r}, and they can be read with sdpa or eager.",
                "Use the objective `hidden`, or a model whose attention transformers computes.",
            )
        if maps and number not in shape.plain:
            raise TrainingError(
                f"training.objective.{place}",
                f"the attention of layer {number} of {shape.name} ({shape.attention!r}) is more than a softmax of "
                "scaled products, so its maps cannot be computed again.",
                "Use the objective `relation` or `hidden`.",
            )


def seen_by_both(student: Heads, teacher: Heads) -> torch.Tensor:
    """Whether a position may see another in both models, B × 1 × T × T."""
    return student.seen & teacher.seen


def log_maps(scores: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Logarithms of the softmax over what is seen, … × T × T; very low and without gradient elsewhere."""
    from distill_dagster.training.layers import FAR

    return scores.masked_fill(~seen, FAR).log_softmax(-1)


def kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """KL(P‖Q) over the last dimension, in nats."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)
