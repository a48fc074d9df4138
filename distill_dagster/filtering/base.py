"""What a filter rule is: it looks at a whole batch of candidates and says keep or drop, with a reason and a score.

A rule is one file with one class `Rule`; its registry name is the file's name. Rules are pure: the looks depend on
the batch, the context and the parameters only, so a version of the filtered data set can be made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from distill_dagster.config.models import Strict
from distill_dagster.domains.base import Task, Verdict
from distill_dagster.filtering._review import Ruling
from distill_dagster.filtering._text import fold
from distill_dagster.records.messages import joined, rest_of, text_of

KEPT, DROPPED, FAILED, REFUSED = "keep", "drop", "failed", "refused"


@dataclass(frozen=True, slots=True)
class Look:
    """One rule's look at one candidate.

    Attributes:
        verdict: `keep` or `drop`.
        reason: A code of a word or two; what is counted in the funnel is `rule.reason`, or the rule alone.
        score: What was measured, in the rule's own unit.
        threshold: The bound the score was held against.
        detail: Evidence for a reader: a twin, the item that was matched, the verifier's words.
        twin: Number of the candidate that stands in for this one, where it is a duplicate.
        rewrite: A kept candidate is kept as the rule's `rewrite` makes it.
    """

    verdict: Literal["keep", "drop"] = "keep"
    reason: str = ""
    score: float | None = None
    threshold: float | None = None
    detail: str | None = None
    twin: int | None = None
    rewrite: bool = False


KEEP = Look()


class EvalText(NamedTuple):
    """The input of one evaluation item, and what it shows beside it: what no training example may resemble."""

    record_id: str
    task: str
    text: str
    origin: str = ""
    rest: str = ""


@dataclass(frozen=True)
class Context:
    """What rules may know beside the candidates.

    Attributes:
        tasks: Tasks by name.
        seeds: SEED rows by `seed_no`.
        evaluation: Inputs of every evaluation set of the domain.
        verify: The domain's verifier, `verify(task, facts, output)`, or None.
        inputs: The raw input of candidates that were not made from a seed's own input, by `candidate_no`.
        folder: Folder of the pipeline's YAML file; paths in rules are relative to it.
        reviews: What people ruled, by the candidate's record id.
        unreviewed: What becomes of a candidate that nobody ruled on.
        ratings: A judge's scores by criterion, by seed record id, task and answer.
    """

    tasks: Mapping[str, Task]
    seeds: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    evaluation: Sequence[EvalText] = ()
    verify: Callable[[str, Mapping[str, Any], str], Verdict] | None = None
    inputs: Mapping[int, str] = field(default_factory=dict)
    folder: Path | None = None
    reviews: Mapping[str, Ruling] = field(default_factory=dict)
    unreviewed: Literal["keep", "drop"] = "keep"
    ratings: Mapping[tuple[str | None, str, str | None], dict[str, list[float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Candidates that a rule looks at, in the order of their numbers.

    Attributes:
        table: Rows of the CANDIDATE table.
        inputs: What was asked, without the template around it.
        seeds: The seed row whose input was asked, or None where the input is not a seed's.
        dropped: Whether an earlier rule dropped the row. A dropped row never stands in for another one.
        rests: What was shown beside the input, context and choices; empty for most. One input with two of them is two
            questions.
    """

    table: pa.Table
    inputs: list[str]
    seeds: list[Mapping[str, Any] | None]
    dropped: np.ndarray
    rests: list[str]

    def __len__(self) -> int:
        return self.table.num_rows

    def column(self, name: str) -> list[Any]:
        """A column as Python values."""
        return self.table.column(name).to_pylist()

    @cached_property
    def numbers(self) -> list[int]:
        """The `candidate_no` of each row."""
        return self.column("candidate_no")

    @cached_property
    def asked(self) -> list[str]:
        """The input with what was shown beside it: what makes two questions the same."""
        return [joined(text, rest) for text, rest in zip(self.inputs, self.rests, strict=True)]

    def take(self, rows: np.ndarray) -> Batch:
        """The batch of some rows."""
        return Batch(
            table=self.table.take(pa.array(rows, pa.int64())),
            inputs=[self.inputs[row] for row in rows.tolist()],
            seeds=[self.seeds[row] for row in rows.tolist()],
            dropped=self.dropped[rows],
            rests=[self.rests[row] for row in rows.tolist()],
        )

    def survivors_first(self) -> tuple[np.ndarray, int]:
        """Row order with the rows still alive in front, and how many they are."""
        order = np.argsort(self.dropped, kind="stable")
        return order, int((~self.dropped).sum())


def make_batch(table: pa.Table, context: Context) -> Batch:
    """The batch of a CANDIDATE table: each row with its seed and its raw input.

    A row's input is the context's where it gives one; the seed's where the row's user text holds it; the user text
    otherwise, and then the seed's facts do not apply to it. A written input keeps the context of its seed.
    """
    inputs: list[str] = []
    rests: list[str] = []
    seeds: list[Mapping[str, Any] | None] = []
    texts: dict[int, str] = {}
    columns = (table.column(name).to_pylist() for name in ("candidate_no", "seed_no", "messages"))
    for number, seed_no, messages in zip(*columns, strict=True):
        asked = text_of(messages or (), "user")
        seed = None if seed_no is None else context.seeds.get(seed_no)
        if number in context.inputs:
            inputs.append(context.inputs[number])
            rests.append("" if seed is None else seed.get("context") or "")
            seeds.append(None)
            continue
        if seed is not None and seed_no is not None:
            if seed_no not in texts:
                texts[seed_no] = text_of(seed["messages"])
            if _shown(asked, texts[seed_no], _last_user(seed)):
                inputs.append(texts[seed_no])
                rests.append(rest_of(seed))
                seeds.append(seed)
                continue
        inputs.append(asked)
        rests.append("")
        seeds.append(None)
    return Batch(table, inputs, seeds, np.zeros(table.num_rows, dtype=bool), rests)


def _shown(asked: str, *texts: str) -> bool:
    """Whether one of the texts stands in what was asked, also where a template wraps, escapes or capitalises it."""
    return any(text.strip() in asked for text in texts) or any(fold(text) in fold(asked) for text in texts)


def _last_user(seed: Mapping[str, Any]) -> str:
    users = [entry for entry in seed["messages"] if entry["role"] == "user"]
    return text_of(users[-1:]).strip() if users else "\0"


class RuleBase:
    """What rule classes share.

    Attributes:
        version: Bumped by a person when the rule's verdicts change. A rule that finds by what is installed
            says so in it once it has looked.
        Params: What the YAML block may say; unknown keys are refused.
    """

    version: str = "1"

    class Params(Strict):
        """No parameters."""

    def __init__(self, params: Any) -> None:
        self.params = params

    def outside(self, folder: Path | None) -> Mapping[str, Any]:
        """Identity of what the rule reads beside the records: model folders. Relative paths start at `folder`."""
        return {}

    def look(self, candidates: Batch, context: Context) -> list[Look]:
        """One look for each candidate, in order."""
        raise NotImplementedError

    def rewrite(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The CANDIDATE row as it is to be kept, where a look asked for it. Later rules still look at the original."""
        raise NotImplementedError
