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
        sampling: What shapes the answer: `max_new_tokens`, `temperature`, `top_p`, `stop`, `seed`; where a backend
            offers it, `response_schema` (JSON Schema of the answer) and `top_logprobs` (how many to keep a token).
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
class TokenLogprob:
    """One token of an answer with its log-probability (natural), and the likeliest alternatives with theirs."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Response:
    """One answer.

    Attributes:
        finish_reason: stop, length, refusal, content_filter or error.
        failure: Class of a failed call; None for an answer.
        detail: What was wrong, in a few words; never part of an answer.
        logprobs: One entry a token of the text, where they were asked for.
    """

    text: str
    finish_reason: str
    served_model: str
    input_tokens: int
    output_tokens: int
    failure: str | None = None
    detail: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None


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


class Session(Protocol):
    """A teacher at work that takes questions while it answers others: no batch waits for its slowest member.

    A ticket is the number of one attempt. What was put is sent as limits allow; `settled` says that so many outcomes
    are on disk. No more attempts are ever on the wire or unsettled than the teacher's `max_in_flight`.
    """

    def room(self) -> int:
        """How many more questions it wants now."""
        ...

    def put(self, questions: Sequence[tuple[int, Request]]) -> None:
        """Hand over questions, each with its ticket."""
        ...

    def take(self, timeout: float | None) -> list[tuple[int, Response]]:
        """Outcomes that have come, in any order; waits for the first one, or `timeout` seconds.

        Raises:
            TeacherError: The teacher cannot go on. All outcomes were taken before.
        """
        ...

    def settled(self, count: int) -> None:
        """So many outcomes that were taken are on disk."""
        ...

    def retry_after(self, response: Response, tries: int) -> float | None:
        """Seconds until a question that failed for the `tries`-th time may be asked again; None: not again."""
        ...

    def retry_allowed(self) -> bool:
        """Take one repeated request from the budget, if there is one left."""
        ...

    def withdraw(self, grace: float = 0.0) -> list[int]:
        """End the work, with so many seconds for what is on the wire; returns the tickets that never were there.

        What came back can be taken afterwards. A call that was broken off, by Ctrl-C, may be followed by another one
        with less grace.
        """
        ...


class StreamingTeacher(Teacher, Protocol):
    """A teacher with a continuous feed."""

    def remember(self, served: Mapping[str, int]) -> None:
        """Be told which model strings earlier answers of this teacher came from, and how many each."""
        ...

    def session(self) -> Session:
        """Start to work; the session must be ended by `withdraw`."""
        ...


def request_key(teacher: Teacher, request: Request, namespace: str) -> str:
    """Journal key: the namespace, the declared teacher, and the canonical question. 64 hex digits."""
    return digest(
        {"namespace": namespace, "teacher": teacher.identity, "revision": teacher.revision, "body": request.body()}
    )
