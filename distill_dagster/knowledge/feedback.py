"""Feedback: a teacher judges answers, or the domain's verifier does (Xu et al. 2024, section 3.1.5).

Each seed is answered several times, by the student before training or by the teacher, and the answers are judged:

`compare`
    two at a time, asked both ways round, since judges favour a place (Zheng et al. 2023). Only a verdict that holds
    both ways makes a preference.
`rate`
    one at a time, on named criteria (UltraFeedback, Cui et al. 2024). The best is preferred to the worst where their
    mean scores differ by `margin`.
`verify`
    by the domain's verifier, without a judge: a right answer is preferred to a wrong one (as in Pang et al. 2024).
`critique`
    the first answer is criticised and then revised (Madaan et al. 2023); the revision is a candidate.

A verdict is one JSON object of the expected shape that repeats the mark of its prompt's fences. Anything else is a
failure with its class, and never a verdict.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from distill_dagster.config.models import Name, Strict
from distill_dagster.errors import ConfigError
from distill_dagster.knowledge import _answers, _replies
from distill_dagster.knowledge._comparing import Judged, compared, rated, verified
from distill_dagster.knowledge.base import Answer, Harvest, KindBase, Material, Question, Rounds, Who

Seed = Mapping[str, Any]


class _Critique(_replies.Marked):
    critique: str = Field(min_length=1)


class Kind(KindBase):
    """Judged answers."""

    version = "2"

    class Params(Strict):
        method: Literal["compare", "rate", "verify", "critique"] = Field(
            "compare", description="How answers are judged; verify: by the domain's verifier, without a judge"
        )
        of: Who = Field("teacher", description="Whose answers: the teacher's, or the student's before training")
        samples: int = Field(2, ge=1, le=8, description="Answers a seed; `critique` judges the first alone")
        temperature: float = Field(0.7, ge=0, description="Of the answers that are judged; a judge answers at 0")
        criteria: dict[Name, str] = Field(
            default_factory=lambda: {
                "correctness": "Is it right?",
                "completeness": "Is everything there that was asked for?",
                "form": "Is it in the form that was asked for, and nothing besides?",
            },
            min_length=1,
            description="rate: criteria by name, each with the question it asks",
        )
        scale: tuple[int, int] = Field((1, 5), description="rate: lowest and highest score", strict=False)
        margin: float = Field(0.5, gt=0, description="rate: least difference of mean scores that is a preference")
        judge_tokens: int = Field(256, ge=8, description="Room for a verdict or critique")

        @model_validator(mode="after")
        def _can_be_judged(self) -> Kind.Params:
            if self.scale[0] >= self.scale[1]:
                raise ValueError("`scale` goes from a lower to a higher number")
            if self.method != "critique" and (self.samples < 2 or self.temperature == 0):
                raise ValueError(f"`{self.method}` needs at least 2 samples at a temperature above 0")
            return self

    params: Params

    def styles(self) -> frozenset[str]:
        """The style of its method, and that of the revision; a verifier reads no prompt."""
        if self.params.method == "verify":
            return frozenset()
        return frozenset({"critique", "revise"} if self.params.method == "critique" else {self.params.method})

    def asks(self) -> frozenset[Who]:
        """The teacher judges, unless a verifier does; the one who is judged is asked as well."""
        judge: frozenset[Who] = frozenset() if self.params.method == "verify" else frozenset({"teacher"})
        judged: frozenset[Who] = frozenset({self.params.of})
        return judge | judged

    def verifies(self) -> bool:
        """Where the verifier is the judge."""
        return self.params.method == "verify"

    def compares(self) -> bool:
        """All but a critique do."""
        return self.params.method != "critique"

    def rounds(self, material: Material) -> Rounds:
        """Answers, then verdicts on them; after a critique the revision."""
        count = 1 if self.params.method == "critique" else self.params.samples
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
            for sample in range(count)
        ]
        judged = [
            Judged(
                seed,
                _answers.student_reads(material, seed["task"], seed),
                answers[at * count : (at + 1) * count],
                [
                    _answers.labelled(material, seed["task"], seed, answer.response)
                    for answer in answers[at * count : (at + 1) * count]
                ],
            )
            for at, seed in enumerate(material.seeds)
        ]
        if self.params.method == "critique":
            return (yield from self._revised(material, judged))
        if self.params.method == "verify":
            return verified(judged, _verifier(material))
        if self.params.method == "compare":
            return (yield from compared(judged, lambda one, first, second: self._which(material, one, first, second)))
        return (
            yield from rated(
                judged,
                lambda one, at: self._score(material, one, at),
                tuple(self.params.criteria),
                self.params.scale,
                self.params.margin,
            )
        )

    def _which(self, material: Material, one: Judged, first: int, second: int) -> Question:
        """Which of two answers is better, in this order?"""
        given = {**_answers.about(one.seed), "first": one.texts[first], "second": one.texts[second]}
        return self._judging(material, one, "compare", {}, given, [first, second])

    def _score(self, material: Material, one: Judged, at: int) -> Question:
        """How good is an answer, criterion by criterion?"""
        low, high = self.params.scale
        fixed = {"criteria": dict(self.params.criteria), "low": low, "high": high}
        return self._judging(material, one, "rate", fixed, {**_answers.about(one.seed), "answer": one.texts[at]}, [at])

    def _judging(
        self,
        material: Material,
        one: Judged,
        style: str,
        fixed: Mapping[str, Any],
        given: Mapping[str, Any],
        judged: Sequence[int],
    ) -> Question:
        refs = (("seed", one.seed["seed_no"]), *(("judged", one.answers[at].call_no) for at in judged))
        room = self.params.judge_tokens
        return _answers.working(material, one.seed["task"], style, fixed, given, refs, room=room, temperature=0.0)

    def _revised(self, material: Material, judged: Sequence[Judged]) -> Rounds:
        """A critique of each first answer, then the answer mended."""
        harvest = Harvest()
        standing: list[Judged] = []
        for one in judged:
            (answer,) = one.answers
            failure = answer.response.failure or (None if one.texts[0].strip() else "empty")
            if failure:
                harvest.candidates.append(_answers.failed("feedback", answer, failure, one.seed))
            else:
                standing.append(one)
        answers = yield [
            self._judging(material, one, "critique", {}, {**_answers.about(one.seed), "answer": one.texts[0]}, [0])
            for one in standing
        ]
        revisions: list[tuple[Judged, Question]] = []
        for one, answer in zip(standing, answers, strict=True):
            reply, failure = _replies.read(answer.response, _Critique, answer.question.notes["mark"])
            harvest.judgements.append(_judgement(one, answer, reply.critique if reply else None, failure))
            if reply is None:
                harvest.candidates.append(_answers.failed("feedback", answer, failure or "empty", one.seed))
                continue
            revisions.append((one, self._revising(material, one, answer, reply.critique)))
        answers = yield [question for _, question in revisions]
        for (one, _), answer in zip(revisions, answers, strict=True):
            harvest.candidates.append(_answers.answered("feedback", material, answer, one.seed, one.messages))
        return harvest

    def _revising(self, material: Material, one: Judged, critic: Answer, critique: str) -> Question:
        task = one.seed["task"]
        given = {**_answers.about(one.seed), "answer": one.texts[0], "critique": critique}
        refs = (("seed", one.seed["seed_no"]), ("call", one.answers[0].call_no), ("call", critic.call_no))
        room = material.teacher.sampling.max_new_tokens or material.tasks[task].max_new_tokens
        return _answers.working(material, task, "revise", {}, given, refs, room=room)


def _verifier(material: Material) -> Callable[[Judged, str], bool | None]:
    """Is this answer to a seed right? None where nobody can tell."""
    verify = material.verify
    if verify is None:
        raise ConfigError(
            "knowledge.feedback.method",
            "`verify` needs a verifier, and this domain has none.",
            "Use `method: compare`, or a domain with a verifier.",
        )

    def right(one: Judged, text: str) -> bool | None:
        facts = json.loads(one.seed["facts"]) if one.seed.get("facts") else None
        return verify(one.seed["task"], facts, text).ok if facts else None

    return right


def _judgement(one: Judged, answer: Answer, text: str | None, failure: str | None) -> dict[str, Any]:
    return {
        "call_no": answer.call_no,
        "judged_call_no": one.answers[0].call_no,
        "seed_record_id": one.seed["record_id"],
        "task": one.seed["task"],
        "method": "critique",
        "text": text,
        "status": "ok" if failure is None else "failed",
        "failure": failure,
    }
