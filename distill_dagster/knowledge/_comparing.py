"""From verdicts to comparisons of answers: a judge's, two at a time both ways round or by scores, or a verifier's.

Every seed ends in at least one COMPARISON row, whose verdict is `ok` (with a winner), `tie`, `same_answer`,
`order_bias` (the two ways round disagree) or `failed` (with the class of what went wrong).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, cycle
from typing import Any, Literal

from distill_dagster.knowledge import _replies
from distill_dagster.knowledge.base import Answer, Harvest, Question, Rounds, Row

Seed = Mapping[str, Any]


@dataclass(frozen=True)
class Judged:
    """A seed with its answers.

    Attributes:
        seed: SEED row.
        messages: What a student is shown.
        answers: The calls.
        texts: What they said, labels in their own writing.
    """

    seed: Seed
    messages: list[dict[str, Any]]
    answers: Sequence[Answer]
    texts: Sequence[str]

    def usable(self) -> list[int]:
        """Answers that say something, each text once."""
        found: dict[str, int] = {}
        for at, (answer, text) in enumerate(zip(self.answers, self.texts, strict=True)):
            if answer.response.failure is None and text.strip():
                found.setdefault(text, at)
        return sorted(found.values())

    def too_few(self, method: str) -> Row:
        """The row of a seed whose answers leave nothing to compare."""
        failures = [answer.response.failure for answer in self.answers if answer.response.failure]
        row = self.row(method, 0, 1)
        if self.usable() and not failures:
            return {**row, "verdict": "same_answer"}
        return {**row, "verdict": "failed", "failure": failures[0] if failures else "empty"}

    def row(self, method: str, first: int, second: int) -> Row:
        """The columns that every comparison has."""
        return {
            "seed_no": self.seed["seed_no"],
            "seed_record_id": self.seed["record_id"],
            "task": self.seed["task"],
            "method": method,
            "messages": self.messages,
            "first": self.texts[first],
            "second": self.texts[second],
            "first_call_no": self.answers[first].call_no,
            "second_call_no": self.answers[second].call_no,
            "first_finish_reason": self.answers[first].response.finish_reason,
            "second_finish_reason": self.answers[second].response.finish_reason,
        }

    def rating(self, judged: int, criterion: str, score: float) -> Row:
        """The RATING row of an answer's score."""
        return {
            "seed_record_id": self.seed["record_id"],
            "task": self.seed["task"],
            "answer": self.texts[judged],
            "criterion": criterion,
            "score": score,
        }

    def judgement(self, answer: Answer, method: str, judged: int, failure: str | None, **columns: Any) -> Row:
        """The columns that every judgement has."""
        return {
            "call_no": answer.call_no,
            "judged_call_no": self.answers[judged].call_no,
            "seed_record_id": self.seed["record_id"],
            "task": self.seed["task"],
            "method": method,
            "status": "ok" if failure is None else "failed",
            "failure": failure,
            **columns,
        }


class Which(_replies.Marked):
    """A pairwise verdict."""

    winner: Literal["first", "second", "tie"]


class Scores(_replies.Marked):
    """Ratings by criterion."""

    scores: dict[str, int]


def compared(judged: Sequence[Judged], which: Callable[[Judged, int, int], Question]) -> Rounds:
    """Every two answers of a seed, asked both ways round."""
    harvest = Harvest()
    pairs: list[tuple[Judged, int, int]] = []
    for one in judged:
        usable = one.usable()
        if len(usable) < 2:
            harvest.comparisons.append(one.too_few("compare"))
        pairs += [(one, first, second) for first, second in combinations(usable, 2)]
    answers = yield [which(one, *order) for one, first, second in pairs for order in ((first, second), (second, first))]
    for at, (one, first, second) in enumerate(pairs):
        seen: list[int | None] = []
        failures: list[str] = []
        for answer, order in zip(answers[2 * at : 2 * at + 2], ((first, second), (second, first)), strict=True):
            reply, failure = _replies.read(answer.response, Which, answer.question.notes["mark"])
            winner = reply.winner if reply else None
            other = one.answers[order[1]].call_no
            harvest.judgements.append(
                one.judgement(answer, "compare", order[0], failure, other_call_no=other, winner=winner)
            )
            if failure:
                failures.append(failure)
            seen.append({"first": order[0], "second": order[1]}.get(winner or ""))
        row = one.row("compare", first, second)
        if failures:
            harvest.comparisons.append({**row, "verdict": "failed", "failure": failures[0]})
        elif seen[0] != seen[1]:
            harvest.comparisons.append({**row, "verdict": "order_bias"})
        elif seen[0] is None:
            harvest.comparisons.append({**row, "verdict": "tie"})
        else:
            harvest.comparisons.append({**row, "verdict": "ok", "winner": "first" if seen[0] == first else "second"})
    return harvest


def rated(
    judged: Sequence[Judged],
    score: Callable[[Judged, int], Question],
    criteria: Sequence[str],
    scale: tuple[int, int],
    margin: float,
) -> Rounds:
    """Every answer of a seed by itself; the best against the worst, where `margin` lies between them."""
    harvest = Harvest()
    answers = yield [score(one, at) for one in judged for at in one.usable()]
    waiting = iter(answers)
    for one in judged:
        means: dict[int, float] = {}
        failures: list[str] = []
        usable = one.usable()
        for at in usable:
            answer = next(waiting)
            reply, failure = _replies.read(answer.response, Scores, answer.question.notes["mark"])
            if reply and (set(reply.scores) != set(criteria) or not _within(reply.scores.values(), scale)):
                reply, failure = None, "not_per_schema"
            if reply is None:
                failures.append(failure or "not_per_schema")
                harvest.judgements.append(one.judgement(answer, "rate", at, failures[-1]))
                continue
            means[at] = sum(reply.scores.values()) / len(criteria)
            harvest.judgements += [
                one.judgement(answer, "rate", at, None, criterion=name, score=float(reply.scores[name]))
                for name in criteria
            ]
            harvest.ratings += [one.rating(at, name, float(reply.scores[name])) for name in criteria]
        if len(usable) < 2:
            harvest.comparisons.append(one.too_few("rate"))
        elif len(means) < 2:
            row = one.row("rate", usable[0], usable[1])
            harvest.comparisons.append({**row, "verdict": "failed", "failure": failures[0]})
        else:
            # Of equal scores the earlier sample is the better one: the order of the samples decides nothing else.
            best = min(means, key=lambda at: (-means[at], at))
            worst = max(means, key=lambda at: (-means[at], at))
            row = {**one.row("rate", best, worst), "first_score": means[best], "second_score": means[worst]}
            clear = means[best] - means[worst] >= margin - 1e-9
            harvest.comparisons.append(
                {**row, "verdict": "ok", "winner": "first"} if clear else {**row, "verdict": "tie"}
            )
    return harvest


def verified(judged: Sequence[Judged], right: Callable[[Judged, str], bool | None]) -> Harvest:
    """Every wrong answer of a seed against a right one, in turn; `tie` where all that is known is right, or wrong."""
    harvest = Harvest()
    for one in judged:
        usable = one.usable()
        known = {at: right(one, one.texts[at]) for at in usable}
        good, bad = ([at for at in usable if known[at] is verdict] for verdict in (True, False))
        if len(usable) < 2:
            harvest.comparisons.append(one.too_few("verify"))
        elif not good or not bad:
            harvest.comparisons.append({**one.row("verify", usable[0], usable[1]), "verdict": "tie"})
        else:
            for best, worst in zip(cycle(good), bad, strict=False):
                row = {**one.row("verify", best, worst), "first_score": 1.0, "second_score": 0.0}
                harvest.comparisons.append({**row, "verdict": "ok", "winner": "first"})
    return harvest


def _within(scores: Any, scale: tuple[int, int]) -> bool:
    return all(scale[0] <= score <= scale[1] for score in scores)
