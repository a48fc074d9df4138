"""Expansion: new inputs in the manner of the seeds, then answered (Xu et al. 2024, section 3.1.2).

`self_instruct` shows a few seeds and asks for more of their sort (Wang et al. 2023); what is too like a seed or
another is for the duplicate filters to drop. `evolve` rewrites a seed, in depth or in breadth, as often as
`generations` says, and every generation stays in the data (Evol-Instruct, Xu et al. 2023); a rewriting that changed
nothing, says nothing or talks about the rewriting is eliminated, as there.

Seeds are of D_U, or of D_G where asked for: never of a part that anybody is examined on.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from distill_dagster.config.models import Strict
from distill_dagster.errors import ConfigError
from distill_dagster.knowledge import _answers, _near, _replies
from distill_dagster.knowledge._answers import NewInput
from distill_dagster.knowledge._labels import bare
from distill_dagster.knowledge.base import Answer, Harvest, KindBase, Material, Question, Rounds, Row
from distill_dagster.knowledge.prompts import conversation

Seed = Mapping[str, Any]
Operation = Literal["constrain", "deepen", "concretise", "reason", "broaden"]

#: What the rewriter is told. All but the last evolve in depth, the last in breadth.
OPERATIONS: dict[Operation, str] = {
    "constrain": "Make it harder by adding one more condition that has to be met.",
    "deepen": "Make it harder by asking more deeply into the same matter.",
    "concretise": "Replace general words by concrete ones: particular cases, names, figures.",
    "reason": "Make it so that more steps of reasoning are needed to answer it.",
    "broaden": "Write another input of the same task and length on a rarer matter of the same field.",
}
#: Words of the prompt that a rewriting has no reason to hold.
_LEAKED = ("rewritteninput", "giveninput", "rewrittenprompt", "givenprompt", "inputtorewrite")


class _Inputs(_replies.Reply):
    inputs: list[str]


class _Input(_replies.Reply):
    input: str


class Kind(KindBase):
    """New inputs from a few seeds at a time."""

    version = "1"

    class Params(Strict):
        method: Literal["self_instruct", "evolve"] = Field(
            "self_instruct", description="self_instruct: more of the seeds' sort; evolve: seeds rewritten"
        )
        share: float = Field(1.0, gt=0, le=1, description="Share of the seeds that new inputs start from")
        seeds: list[Literal["unlabeled", "gold"]] = Field(
            default_factory=lambda: ["unlabeled"], min_length=1, description="Parts of the seed set to start from"
        )
        exemplars: int = Field(3, ge=1, le=16, description="self_instruct: seeds shown in one prompt")
        inputs: int = Field(2, ge=1, le=50, description="self_instruct: new inputs asked for in one prompt")
        operations: list[Operation] = Field(
            default_factory=lambda: list(OPERATIONS), min_length=1, description="evolve: one of these for each seed"
        )
        generations: int = Field(1, ge=1, le=8, description="evolve: how often a seed is rewritten")
        samples: int = Field(1, ge=1, description="Prompts a seed; more than one needs a temperature above 0")
        temperature: Annotated[float, Field(ge=0)] | None = Field(
            None, description="Of the writing; the teacher's by default"
        )
        max_new_tokens: int = Field(512, ge=8, description="Room for what is written in one prompt")

    params: Params

    def styles(self) -> frozenset[str]:
        """The style of its method."""
        return frozenset({"expand" if self.params.method == "self_instruct" else "evolve"})

    def parts(self) -> frozenset[str]:
        """The parts that new inputs start from."""
        return frozenset(self.params.seeds)

    def rounds(self, material: Material) -> Rounds:
        """Write (several times, for `evolve`), then answer."""
        self._check(material)
        seeds = [
            *(material.seeds if "unlabeled" in self.params.seeds else ()),
            *(material.gold if "gold" in self.params.seeds else ()),
        ]
        harvest = Harvest()
        if self.params.method == "self_instruct":
            written = yield from self._more(material, seeds, harvest.candidates)
        else:
            written = yield from self._evolved(material, seeds, harvest.candidates)
        harvest.candidates += yield from _answers.answer_all("expansion", material, written)
        return harvest

    def _check(self, material: Material) -> None:
        temperature = self.params.temperature
        temperature = material.teacher.sampling.temperature if temperature is None else temperature
        if self.params.samples > 1 and temperature == 0:
            raise ConfigError(
                "knowledge.expansion.samples",
                f"{self.params.samples} samples at temperature 0 are one text, paid several times.",
                "Give expansion a `temperature` above 0, or ask for one sample.",
            )

    def _more(
        self, material: Material, seeds: Sequence[Seed], rows: list[Row]
    ) -> Generator[list[Question], list[Answer], list[NewInput]]:
        """Self-Instruct: the exemplars of a seed are its neighbours by hash, of the same task."""
        questions: list[Question] = []
        shown: list[list[Seed]] = []
        for task in material.tasks:
            own = [seed for seed in seeds if seed["task"] == task]
            near = _near.neighbours(own, self.params.exemplars - 1, f"expansion {task}")
            for seed in _near.share_of(own, self.params.share, "expansion"):
                group = [seed, *near[seed["record_id"]]]
                given = {"exemplars": [conversation(one) for one in group], "context": seed.get("context") or ""}
                refs = (("seed", seed["seed_no"]), *(("exemplar", one["seed_no"]) for one in group[1:]))
                for sample in range(self.params.samples):
                    questions.append(
                        self._writing(material, task, "expand", {"count": self.params.inputs}, given, refs, sample)
                    )
                    shown.append(group)
        answers = yield questions
        written: list[NewInput] = []
        for answer, group in zip(answers, shown, strict=True):
            origins = tuple(one["record_id"] for one in group)
            reply, failure = _replies.read(answer.response, _Inputs)
            texts = [text.strip() for text in reply.inputs if text.strip()] if reply else []
            if not texts:
                rows.append(_answers.failed("expansion", answer, failure or "empty", group[0], origins))
            seen = {bare(conversation(one)) for one in group}
            for text in texts[: self.params.inputs]:
                if bare(text) in seen:
                    rows.append(_answers.failed("expansion", answer, "copied", group[0], origins, text))
                    continue
                seen.add(bare(text))
                written.append(NewInput(text, answer.question.task, answer.call_no, group[0], origins))
        return written

    def _evolved(
        self, material: Material, seeds: Sequence[Seed], rows: list[Row]
    ) -> Generator[list[Question], list[Answer], list[NewInput]]:
        """Evol-Instruct: each generation rewrites what the one before it left."""
        chosen = _near.share_of([seed for seed in seeds if seed["task"] in material.tasks], self.params.share, "evolve")
        # A seed itself is generation 0, which no call wrote.
        pool = [
            (NewInput(conversation(seed), seed["task"], -1, seed, (seed["record_id"],)), sample)
            for seed in chosen
            for sample in range(self.params.samples)
        ]
        written: list[NewInput] = []
        for generation in range(1, self.params.generations + 1):
            questions = [self._rewriting(material, one, sample, generation) for one, sample in pool]
            answers = yield questions
            survivors: list[tuple[NewInput, int]] = []
            for (one, sample), answer in zip(pool, answers, strict=True):
                reply, failure = _replies.read(answer.response, _Input)
                text = reply.input.strip() if reply else ""
                failure = failure or _eliminated(text, one.text)
                if failure:
                    rows.append(_answers.failed("expansion", answer, failure, one.seed, one.origins, text or None))
                else:
                    survivors.append((replace(one, text=text, call_no=answer.call_no), sample))
            written += [one for one, _ in survivors]
            pool = survivors
        return written

    def _rewriting(self, material: Material, one: NewInput, sample: int, generation: int) -> Question:
        assert one.seed is not None
        operations = self.params.operations
        operation = operations[_near.point(one.seed["record_id"], f"evolve {generation} {sample}") % len(operations)]
        given = {"input": one.text, "context": one.seed.get("context") or ""}
        refs: _answers.Refs = (("seed", one.seed["seed_no"]),)
        refs = refs if one.call_no < 0 else (*refs, ("call", one.call_no))
        fixed = {"operation": OPERATIONS[operation]}
        return self._writing(material, one.task, "evolve", fixed, given, refs, sample)

    def _writing(
        self,
        material: Material,
        task: str,
        style: str,
        fixed: Mapping[str, Any],
        given: Mapping[str, Any],
        refs: _answers.Refs,
        sample: int,
    ) -> Question:
        room, temperature = self.params.max_new_tokens, self.params.temperature
        return _answers.working(
            material, task, style, fixed, given, refs, room=room, temperature=temperature, sample=sample
        )


def _eliminated(text: str, before: str) -> str | None:
    """Why a rewriting does not stay: it says nothing, it equals what it was made from, or it talks of the rewriting."""
    if not bare(text):
        return "empty"
    if bare(text) == bare(before):
        return "not_evolved"
    if any(words in bare(text) for words in _LEAKED):
        return "prompt_leaked"
    return None
