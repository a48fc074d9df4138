"""What a kind of knowledge is: questions for a teacher made from seeds, and candidates made from its answers.

A kind is one file with one class `Kind`; its registry name is the file's name. Kinds do not ask: the journal does. A
kind that asks once has `requests` and `candidates`; one whose questions depend on earlier answers has `rounds`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import ValidationError

from distill_dagster.config.models import Block, Strict, TeacherConfig
from distill_dagster.config.registry import load, nearest
from distill_dagster.domains.base import Task, Verdict
from distill_dagster.errors import ConfigError
from distill_dagster.knowledge._passages import Passages
from distill_dagster.teachers.base import Request, Response

PACKAGE = "distill_dagster.knowledge"

Prompts = Mapping[tuple[str, str], Mapping[str, Any]]
#: Who answers: the pipeline's teacher, or its student before training.
Who = Literal["teacher", "student"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Material:
    """What a kind may read.

    Attributes:
        tasks: Tasks by name.
        seeds: SEED rows of D_U, which the teacher is to work on.
        gold: SEED rows of D_G, where a kind of the pipeline reads them.
        passages: Looks up what the domain has to say about an input.
        verify: The domain's verifier: task, the generator's own facts, an answer. None where it has none.
        prompts: PROMPT rows by task and style.
        teacher: The teacher's configuration: prompt style and sampling.
    """

    tasks: Mapping[str, Task]
    seeds: Sequence[Mapping[str, Any]]
    prompts: Prompts
    teacher: TeacherConfig
    gold: Sequence[Mapping[str, Any]] = ()
    passages: Passages = field(default_factory=Passages)
    verify: Callable[[str, Mapping[str, Any], str], Verdict] | None = None


@dataclass(frozen=True)
class Question:
    """One request and what it was made of.

    Attributes:
        request: What the teacher is asked.
        task: The task it belongs to.
        prompt: `record_id` of the prompt row it was rendered from.
        refs: What it read, as CALL_INPUT has it: `(kind, ref_no)`, `("seed", 17)` for instance.
        notes: Whatever the kind wants back with the answer.
        who: Whom it is put to.
    """

    request: Request
    task: str
    prompt: str
    refs: tuple[tuple[str, int], ...]
    notes: Mapping[str, Any] = field(default_factory=dict)
    who: Who = "teacher"


@dataclass(frozen=True)
class Answer:
    """A question with what came back, and the number of the call in the CALL table."""

    question: Question
    response: Response
    call_no: int


@dataclass
class Harvest:
    """What a kind makes of its answers: rows of the tables of those names."""

    candidates: list[Row] = field(default_factory=list)
    judgements: list[Row] = field(default_factory=list)
    comparisons: list[Row] = field(default_factory=list)
    features: list[Row] = field(default_factory=list)
    ratings: list[Row] = field(default_factory=list)


#: Yields the questions of a round, is sent their answers in the same order, and returns what came of all.
Rounds = Generator[list[Question], list[Answer], Harvest]


class KindBase:
    """What knowledge kinds share.

    Attributes:
        version: Bumped by a person when the questions or the candidates change.
        Params: What the YAML block may say; unknown keys are refused.
    """

    version: ClassVar[str] = "1"

    class Params(Strict):
        """No parameters."""

    def __init__(self, params: Any) -> None:
        self.params = params

    def styles(self) -> frozenset[str]:
        """Prompt styles it needs beside the two that every task has."""
        return frozenset()

    def parts(self) -> frozenset[str]:
        """Parts of the seed set it reads: unlabeled, gold. Never one that a model is examined on."""
        return frozenset({"unlabeled"})

    def asks(self) -> frozenset[Who]:
        """Whom it asks."""
        return frozenset({"teacher"})

    def retrieves(self) -> bool:
        """Whether it shows passages of the domain."""
        return False

    def verifies(self) -> bool:
        """Whether it takes the verdicts of the domain's verifier."""
        return False

    def compares(self) -> bool:
        """Whether it holds answers against each other, for the artifact `preference_pairs`."""
        return False

    def captures(self) -> bool:
        """Whether it keeps log-probabilities of answers, for the artifact `teacher_signals`."""
        return False

    def rounds(self, material: Material) -> Rounds:
        """Question and answer, as often as the kind needs.

        The questions of a round depend on the material and the earlier answers alone, in content and order.
        """
        answers = yield self.requests(material)
        questions, responses = [one.question for one in answers], [one.response for one in answers]
        return Harvest(self.candidates(material, questions, responses, answers[0].call_no if answers else 0))

    def requests(self, material: Material) -> list[Question]:
        """The questions of a kind that asks once, in an order that the material alone decides."""
        raise NotImplementedError

    def candidates(
        self, material: Material, questions: Sequence[Question], responses: Sequence[Response], first_call: int = 0
    ) -> list[dict[str, Any]]:
        """CANDIDATE rows of the answers; question number n is call number `first_call` + n."""
        raise NotImplementedError


def load_kind(block: Block, place: str = "knowledge") -> KindBase:
    """A kind with its parameters.

    Raises:
        ConfigError: An unknown kind, an unknown parameter or a value it may not have.
    """
    here = f"{place}.{block.name}"
    try:
        kind = load(PACKAGE, block.name, "Kind", place)
    except AttributeError as error:
        raise ConfigError(here, "this is not a kind of knowledge.", "A kind's file defines `class Kind`.") from error
    try:
        return kind(kind.Params(**block.params))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(step) for step in first["loc"])
        hint = nearest(name, kind.Params.model_fields) if first["type"] == "extra_forbidden" else ""
        raise ConfigError(f"{here}.{name}", f"{first['msg']} (value {first['input']!r}).", hint) from error
