"""Injection: the input gives the model orders instead of being material, or the answer obeys one.

A seed may come from anybody, and a teacher that reads "ignore all previous instructions" may do so. The first half
looks at inputs for what speaks to the model (Perez and Ribeiro 2022; Greshake et al. 2023), the second at answers for
the very words that the input orders it to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from distill_dagster.config.models import Strict
from distill_dagster.filtering._orders import orders, read, signs
from distill_dagster.filtering._text import words
from distill_dagster.filtering.base import Batch, Context, Look, RuleBase

#: Inputs that must hold the same words before they can be the wording of the data set.
MANY = 3


class Rule(RuleBase):
    """Drops candidates whose input addresses the model, and those whose answer repeats what it was ordered to say.

    The score is that of the input: 0 where nothing speaks to the model, near 1 where an order of that kind or a forged
    turn, delimiter, message or verdict stands in it. English, Chinese, German, French and Spanish are known.
    """

    version = "1"

    class Params(Strict):
        threshold: float = Field(0.6, gt=0, le=1, description="Drop inputs that score at least this")
        answers: bool = Field(True, description="Drop answers that repeat words which their input orders to say")
        phrases: list[str] = Field(default_factory=list, description="Further phrases that no input may hold, as text")

        @field_validator("phrases")
        @classmethod
        def _say_something(cls, phrases: list[str]) -> list[str]:
            if not all(read(phrase).strip() for phrase in phrases):
                raise ValueError("an empty phrase stands in every input; leave it out")
            return phrases

    params: Params

    def look(self, candidates: Batch, context: Context) -> list[Look]:
        """Reasons: instructs (the input), obeys (the answer). `detail` names the signs and their words."""
        own = [re.escape(read(phrase)) for phrase in self.params.phrases]
        pattern = re.compile("|".join(own)) if own else None
        bound = self.params.threshold
        known: dict[str, tuple[float, dict[str, str]]] = {}
        looks: list[Look] = []
        suspects: dict[int, list[list[str]]] = {}
        columns = [candidates.column(name) for name in ("task", "answer", "rationale")]
        rows = zip(candidates.inputs, candidates.seeds, *columns, strict=True)
        for at, (asked, seed, task, answer, rationale) in enumerate(rows):
            shown = _shown(asked, seed)
            if shown not in known:
                known[shown] = signs(shown, pattern)
            score, found = known[shown]
            detail = "; ".join(f"{name}: {said}" for name, said in found.items()) or None
            if score >= bound:
                looks.append(Look("drop", "instructs", score, bound, detail))
                continue
            looks.append(Look(score=score, threshold=bound, detail=detail))
            # An answer that was offered is nothing that somebody slipped in.
            offered = (
                *(context.tasks[task].labels if task in context.tasks else ()),
                *((seed or {}).get("choices") or ()),
            )
            if self.params.answers and answer not in offered:
                if obeyed := _obeyed(shown, f"{answer or ''}\n{rationale or ''}"):
                    suspects[at] = obeyed
        alive = [at for at, look in enumerate(looks) if look.verdict == "keep" and not candidates.dropped[at]]
        for at, payload in _rare(candidates, alive, suspects).items():
            looks[at] = Look("drop", "obeys", looks[at].score, bound, f"ordered to say: {' '.join(payload)[:60]}")
        return looks


def _shown(asked: str, seed: Mapping[str, Any] | None) -> str:
    """What of the record the model was shown: the input, and the text that it is about."""
    more = [seed.get("context") or "", *(seed.get("choices") or ())] if seed else []
    return "\n".join([asked, *(text for text in more if text)])


def _obeyed(shown: str, said: str) -> list[list[str]]:
    """The words that a text orders to say and that were said, where they are long enough to tell."""
    found: list[list[str]] = []
    answer: str | None = None
    for payload, quoted in orders(shown):
        wanted = words(payload)
        if len("".join(wanted)) < (4 if quoted or not payload.isascii() else 6):
            continue
        if answer is None:
            answer = _line(words(read(said)))
        if _line(wanted) in answer:
            found.append(wanted)
    return found


def _rare(candidates: Batch, alive: list[int], suspects: Mapping[int, list[list[str]]]) -> dict[int, list[str]]:
    """Those of the suspects whose words are usual nowhere: what others say unasked, or are all asked, was not obeyed.

    Answers to inputs that hold the words themselves say nothing of what is usual: one attack may stand in many seeds.
    Words that most inputs hold are the wording of the data set. Rows that are dropped already have no say.
    """
    wanted = {_line(payload) for payloads in suspects.values() for payload in payloads}
    if not wanted:
        return {}
    holding: dict[str, set[str]] = {line: set() for line in wanted}
    usual: set[str] = set()
    answers = candidates.column("answer")
    asked = {candidates.inputs[at]: _line(words(read(candidates.inputs[at]))) for at in alive}
    for at in alive:
        text, said = candidates.inputs[at], _line(words(read(answers[at] or "")))
        for line in wanted:
            if line in asked[text]:
                holding[line].add(text)
            elif line in said:
                usual.add(line)
    usual |= {line for line, texts in holding.items() if len(texts) >= MANY and 2 * len(texts) > len(asked)}
    kept = {at: [one for one in payloads if _line(one) not in usual] for at, payloads in suspects.items()}
    return {at: payloads[0] for at, payloads in kept.items() if payloads}


def _line(some: list[str]) -> str:
    """Words as a text in which whole words are found."""
    return f" {' '.join(some)} "
