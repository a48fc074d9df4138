"""Self-knowledge: several samples of one model, of which the right ones stay (Xu et al. 2024, section 3.1.6).

Rejection sampling (STaR, Zelikman et al. 2022; RFT, Yuan et al. 2023): the student before training, or the teacher,
answers each seed several times at a temperature. Which samples are right is the `verifier` rule's to say, among the
filters, so that every sample that goes has its decision; with `undecided: drop` only what was found right stays.
"""

from __future__ import annotations

from pydantic import Field

from distill_dagster.config.models import Strict
from distill_dagster.knowledge import _answers
from distill_dagster.knowledge.base import Harvest, KindBase, Material, Rounds, Who


class Kind(KindBase):
    """Samples of a model on the seeds."""

    version = "1"

    class Params(Strict):
        of: Who = Field("student", description="student: the pipeline's student before training; or the teacher")
        samples: int = Field(4, ge=1, le=256, description="Answers a seed")
        temperature: float = Field(0.7, gt=0, description="Of the samples")

    params: Params

    def asks(self) -> frozenset[Who]:
        """Whose samples they are."""
        return frozenset({self.params.of})

    def rounds(self, material: Material) -> Rounds:
        """One question for each seed and sample, seed by seed."""
        answers = yield [
            _answers.answering(
                material,
                seed["task"],
                seed,
                (("seed", seed["seed_no"]),),
                sample=sample,
                who=self.params.of,
                temperature=self.params.temperature,
            )
            for seed in material.seeds
            for sample in range(self.params.samples)
        ]
        rows = []
        for at, seed in enumerate(material.seeds):
            shown = _answers.student_reads(material, seed["task"], seed)
            for answer in answers[at * self.params.samples : (at + 1) * self.params.samples]:
                rows.append(_answers.answered("self_knowledge", material, answer, seed, shown))
        return Harvest(rows)
