"""Relations between positions inside a layer's attention, made like the teacher's; widths and heads may differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distill_dagster.errors import TrainingError
from distill_dagster.training.features import (
    LayerParams,
    LayerTerm,
    Learned,
    kl,
    layers_of,
    log_maps,
    seen_by_both,
    weights_of,
)
from distill_dagster.training.layer_map import LAST, LayerMap
from distill_dagster.training.objectives.base import Positions

if TYPE_CHECKING:
    import torch

    from distill_dagster.training.layers import Heads, Shape, Watch

Part = Literal["query", "key", "value"]


class Objective(LayerTerm):
    """MiniLMv2 (Wang et al. 2021): mean over mapped layers, parts and relation heads of the weighted mean over
    positions of KL(teacher ‖ student), in nats, of softmax(X·Xᵀ / √d) over the positions seen.

    X is the part (queries, keys or values) of all attention heads side by side, T × width, cut into as many relation
    heads for both models, of size d = width / heads each. The paper adds the three parts; here they are averaged, and
    a causal model's positions relate to what they may see. Queries and keys are taken as they enter attention.
    """

    class Params(LayerParams):
        """What a recipe may say."""

        layers: LayerMap = Field(LAST, description="uniform, last, or teacher layers by student layer: {2: 5}")
        parts: list[Part] = Field(["query", "key", "value"], min_length=1, description="Which relations count")
        heads: int = Field(0, ge=0, description="Relation heads; 0: as many as the student has attention heads")

    params: Params

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        self.heads: dict[int, int] = {}

    def bind(self, student: Shape, teacher: Shape, learned: Learned) -> tuple[Watch, Watch]:
        """Layers to keep of student and teacher.

        Raises:
            TrainingError: Parts that cannot be read, or a width that the relation heads do not divide.
        """
        watched = self.watch_heads(student, teacher, "relation", maps=False)
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
        return watched

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
