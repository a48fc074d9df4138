"""What a teacher backend is: questions in, answers out, in any order, without raising for a single bad answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from distill_dagster.records.identity import digest


@dataclass(frozen=True)
class Request:
    """One question.

    Attributes:
        messages: `[{role, content}]`, text only.
        sampling: What shapes the answer: `max_new_tokens`, `temperature`, `top_p`, `stop`, `seed`.
        sample: Index among several samples of one question.
        record: What a recorded teacher looks the answer up by; None for teachers that read the messages.
    """

    messages: tuple[Mapping[str, str], ...]
    sampling: Mapping[str, Any] = field(default_factory=dict)
    sample: int = 0
    record: Mapping[str, str] | None = None

    def body(self) -> dict[str, Any]:
        """Everything in the question that can change the answer, as JSON."""
        body = {"messages": [dict(m) for m in self.messages], "sampling": dict(self.sampling), "sample": self.sample}
        return body if self.record is None else {**body, "record": dict(self.record)}


@dataclass(frozen=True)
class Response:
    """One answer. `finish_reason` is stop, length, refusal or error; `failure` names the class of a failed call."""

    text: str
    finish_reason: str
    served_model: str
    input_tokens: int
    output_tokens: int
    failure: str | None = None


class Teacher(Protocol):
    """A backend, bound to one model.

    `identity` and `revision` are the declared names that enter the journal's key; where a model folder is local,
    its revision is the digest of its files.
    """

    identity: str
    revision: str

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[int, Response]]:
        """Yield `(index, response)` for every request, as they are answered."""
        ...


def request_key(teacher: Teacher, request: Request, namespace: str) -> str:
    """Journal key: the namespace, the declared teacher, and the canonical question. 64 hex digits."""
    return digest(
        {"namespace": namespace, "teacher": teacher.identity, "revision": teacher.revision, "body": request.body()}
    )
