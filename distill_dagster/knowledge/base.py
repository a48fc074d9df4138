"""What a kind of knowledge is: questions for a teacher made from seeds, and candidates made from its answers.

A kind is one file with one class `Kind`; its registry name is the file's name. Kinds do not ask: the journal does,
between `requests` and `candidates`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import ValidationError

from distill_dagster.config.models import Block, Strict, TeacherConfig
from distill_dagster.config.registry import load, nearest
from distill_dagster.domains.base import Task
from distill_dagster.errors import ConfigError
from distill_dagster.teachers.base import Request, Response

PACKAGE = "distill_dagster.knowledge"

Prompts = Mapping[tuple[str, str], Mapping[str, Any]]


@dataclass(frozen=True)
class Material:
    """What a kind may read.

    Attributes:
        tasks: Tasks by name.
        seeds: SEED rows the teacher is to work on (for labeling: part `unlabeled`).
        prompts: PROMPT rows by task and style.
        teacher: The teacher's configuration: prompt style and sampling.
    """

    tasks: Mapping[str, Task]
    seeds: Sequence[Mapping[str, Any]]
    prompts: Prompts
    teacher: TeacherConfig


@dataclass(frozen=True)
class Question:
    """One request and what it was made of.

    Attributes:
        request: What the teacher is asked.
        task: The task it belongs to.
        prompt: `record_id` of the prompt row it was rendered from.
        refs: What it read, as CALL_INPUT has it: `(kind, ref_no)`, `("seed", 17)` for instance.
        notes: Whatever the kind wants back with the answer.
    """

    request: Request
    task: str
    prompt: str
    refs: tuple[tuple[str, int], ...]
    notes: Mapping[str, Any] = field(default_factory=dict)


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

    def requests(self, material: Material) -> list[Question]:
        """The questions, in an order that the material alone decides."""
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
