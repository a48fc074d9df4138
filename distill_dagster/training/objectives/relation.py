"""Relations between positions inside a layer's attention, made like the teacher's; widths and heads may differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distill_dagster.errors import TrainingError
from distill_dagster.training.features import (
    NEED,
    LayerParams,
    Learned,
    kl,
    layers_of,
    log_maps,
    need_heads,
    seen_by_both,
    units,
    weights_of,
)
from distill_dagster.training.layer_map import LAST, LayerMap, resolve
from distill_dagster.training.objectives.base import Positions

if TYPE_CHECKING:
    import torch

    from distill_dagster.training.data import Example
    from distill_dagster.training.layers import Heads, Shape, Watch

Part = Literal["query", "key", "value"]


class Objective:
    """MiniLMv2 (Wang et al. 2021): mean over mapped layers, parts and relation heads of the weighted mean over
    positions of KL(teacher ‖ student), in nats, of softmax(X·Xᵀ / √d) over the positions seen.

    X is the part (queries, keys or values) of all attention heads side by side, T × width, cut into as many relation
    heads for both models, of size d = width / heads each. The paper adds the three parts; here they are averaged, and
    a causal model's positions relate to what they may see. Queries and keys are taken as they enter attention.
    """

    need = NEED

    class Params(LayerParams):
        """What a recipe may say."""

        layers: LayerMap = Field(LAST, description="uniform, last, or teacher layers by student layer: {2: 5}")
        parts: list[Part] = Field(["query", "key", "value"], min_length=1, description="Which relations count")
        heads: int = Field(0, ge=0, description="Relation heads; 0: as many as the student has attention heads")

    def __init__(self, params: Params | None = None) -> None:
        self.params = params or self.Params()  # pyright: ignore[reportCallIssue]
        self.map: dict[int, int] = {}
        self.heads: dict[int, int] = {}

    def bind(self, student: Shape, teacher: Shape, learned: Learned) -> tuple[Watch, Watch]:
        """Layers to keep of student and teacher.

        Raises:
            TrainingError: Parts that cannot be read, or a width that the relation heads do not divide.
        """
        from distill_dagster.training.layers import Watch

        self.map = resolve(self.params.layers, student, teacher, "relation", lowest=1)
        need_heads(student, list(self.map), "relation", maps=False)
        need_heads(teacher, list(self.map.values()), "relation", maps=False)
        for mine, theirs in self.map.items():
            count = self.heads[mine] = self.params.heads or student.heads[mine][0]
            for whose, (heads, key_heads, size, value_size) in (
                ("student", student.heads[mine]),
                ("teacher", teacher.heads[theirs]),
            ):
                widths = {"query": heads * size, "key": key_heads * size, "value": key_heads * value_size}
                for part in self.params.parts:
                    if widths[part] % count:
                        raise TrainingError(
                            "training.objective.relation.heads",
                            f"{count} relation heads do not divide the {whose}'s {part} width of {widths[part]}.",
                            "Give `heads` that divide the widths of both models.",
                        )
        return Watch(heads=frozenset(self.map)), Watch(heads=frozenset(self.map.values()))

    def units(self, examples: Sequence[Example]) -> float:
        """What its mean over some examples is divided by."""
        return units(examples, self.params.positions)

    def __call__(self, positions: Positions) -> torch.Tensor:
        """The term's value."""
        import torch

        mine, theirs = layers_of(positions)
        weights = weights_of(positions, self.params.positions)
        values = []
        for number, other in self.map.items():
            student, teacher = mine.heads[number], theirs.heads[other]
            seen = seen_by_both(student, teacher)
            for part in self.params.parts:
                log_q, log_p = (log_maps(relations(one, part, self.heads[number]), seen) for one in (student, teacher))
                values.append((kl(log_p, log_q).mean(1) * weights).sum())
        return torch.stack(values).mean()


def relations(heads: Heads, part: Part, count: int) -> torch.Tensor:
    """Scaled products of a part with itself, B × count × T × T, not masked."""
    states = getattr(heads, part).float().transpose(1, 2).flatten(2).unflatten(-1, (count, -1)).transpose(1, 2)
    return states @ states.transpose(2, 3) * states.shape[-1] ** -0.5
