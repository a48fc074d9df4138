"""Hidden states of chosen layers, made like the teacher's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distill_dagster.training.features import LayerParams, LayerTerm, Learned, layers_of, weights_of
from distill_dagster.training.layer_map import resolve
from distill_dagster.training.objectives.base import Positions

if TYPE_CHECKING:
    import torch

    from distill_dagster.training.layers import Shape, Watch


class Objective(LayerTerm):
    """Mean over the mapped layers of the weighted mean over positions of a distance between the student's state
    s (H, or after a learned W·s, H') and the teacher's t (H').

    `mse` is ‖s − t‖² / H' (FitNets, Romero et al. 2015; TinyBERT, Jiao et al. 2020), in the square of the states'
    unit; `cosine` is 1 − cos(s, t) (DistilBERT, Sanh et al. 2019), from 0 to 2. Where widths differ, each pair of
    layers has its own W (H' × H), learned beside the student.
    """

    class Params(LayerParams):
        """What a recipe may say."""

        kind: Literal["mse", "cosine"] = Field("mse", description="mse: squared distance a component; cosine: angle")

    params: Params

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params)
        self.project: dict[int, torch.Tensor] = {}

    def bind(self, student: Shape, teacher: Shape, learned: Learned) -> tuple[Watch, Watch]:
        """Layers to keep of student and teacher."""
        from distill_dagster.training.layers import Watch

        self.map = resolve(self.params.layers, student, teacher, "hidden")
        for mine, theirs in self.map.items():
            if student.widths[mine] != teacher.widths[theirs]:
                self.project[mine] = learned(f"projection.{mine}", (teacher.widths[theirs], student.widths[mine]))
        return Watch(hidden=frozenset(self.map)), Watch(hidden=frozenset(self.map.values()))

    def __call__(self, positions: Positions) -> torch.Tensor:
        """The term's value."""
        import torch
        from torch.nn import functional

        mine, theirs = layers_of(positions)
        weights = weights_of(positions, self.params.positions)
        chosen = weights > 0
        values = []
        for number, other in self.map.items():
            student, teacher = mine.hidden[number][chosen].float(), theirs.hidden[other][chosen].float()
            if number in self.project:
                student = functional.linear(student, self.project[number])
            if self.params.kind == "mse":
                apart = (student - teacher).square().mean(-1)
            else:
                apart = 1 - functional.cosine_similarity(student, teacher, dim=-1)
            values.append((apart * weights[chosen]).sum())
        return torch.stack(values).mean()
