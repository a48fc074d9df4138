"""Feature: answers together with the teacher's probabilities (Xu et al. 2024, section 3.1.4).

Each seed is answered as in labeling, and the server is asked for the likeliest tokens at every place of its answer
with their log-probabilities. They become rows of the table `feature`, beside the candidates, with the mass of all
other tokens; `teacher_signals` reads them for students whose tokens are the same strings. An answer without them is
kept as a candidate of failure `no_logprobs`: the call was paid, and nobody is to take it for what was asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from distill_dagster.config.models import Strict
from distill_dagster.knowledge import _answers
from distill_dagster.knowledge.base import Harvest, KindBase, Material, Rounds, Row
from distill_dagster.teachers.base import TokenLogprob

#: Mass of all other tokens is at least this: servers round.
LEAST = 1e-9


class Kind(KindBase):
    """One question a seed, with log-probabilities."""

    version = "1"

    class Params(Strict):
        top: int = Field(5, ge=1, le=20, description="Likeliest tokens to keep at each place of an answer")

    params: Params

    def captures(self) -> bool:
        """It does."""
        return True

    def rounds(self, material: Material) -> Rounds:
        """One question a seed."""
        questions = []
        for seed in material.seeds:
            question = _answers.answering(material, seed["task"], seed, (("seed", seed["seed_no"]),))
            sampling = {**question.request.sampling, "top_logprobs": self.params.top}
            questions.append(replace(question, request=replace(question.request, sampling=sampling)))
        answers = yield questions
        harvest = Harvest()
        for seed, answer in zip(material.seeds, answers, strict=True):
            shown = _answers.student_reads(material, seed["task"], seed)
            row = _answers.answered("feature", material, answer, seed, shown)
            said = answer.response.logprobs
            if row["status"] == "ok" and not said:
                row = _answers.failed("feature", answer, "no_logprobs", seed)
            harvest.candidates.append(row)
            if row["status"] == "ok":
                harvest.features.append(
                    {
                        "seed_record_id": seed["record_id"],
                        "call_no": answer.call_no,
                        "task": seed["task"],
                        "answer": row["answer"],
                        "tokens": tokens(said or ()),
                    }
                )
        return harvest


def tokens(said: Sequence[TokenLogprob]) -> list[Row]:
    """Tokens of an answer as the table keeps them: log-probabilities in nats, `rest` the log of all other mass.

    The token that was said counts among the likeliest, also where the server does not list it among them.
    """
    found = []
    for one in said:
        top = dict(one.top)
        top.setdefault(one.token, one.logprob)
        listed = sorted(top.items(), key=lambda entry: (-entry[1], entry[0]))
        rest = math.log(max(LEAST, 1.0 - math.fsum(math.exp(value) for _, value in listed)))
        alternatives = [{"token": token, "logprob": value} for token, value in listed]
        found.append({"token": one.token, "logprob": one.logprob, "top": alternatives, "rest": rest})
    return found
