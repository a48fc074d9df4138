"""What a journal's store keeps and promises. SQLite is one; any database with transactions can be another."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple, Protocol

from distill_dagster.teachers.base import Response, TokenLogprob

Outcome = Literal["sent", "answered", "failed", "malformed", "unknown"]


def utc_now() -> str:
    """The time in UTC, ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def dump_logprobs(logprobs: tuple[TokenLogprob, ...] | None) -> str | None:
    """Log-probabilities as JSON text, `[[token, logprob, [[token, logprob], ...]], ...]`; None for none."""
    if logprobs is None:
        return None
    rows = [[entry.token, entry.logprob, entry.top] for entry in logprobs]
    return json.dumps(rows, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def load_logprobs(text: str | None) -> tuple[TokenLogprob, ...] | None:
    """What `dump_logprobs` wrote."""
    if text is None:
        return None
    return tuple(TokenLogprob(token, value, tuple((t, v) for t, v in top)) for token, value, top in json.loads(text))


@dataclass(frozen=True, slots=True)
class Entry:
    """A settled question: its response (a failed one carries `failure`), its times, and what it cost."""

    key: str
    response: Response
    sent_at: str
    received_at: str
    cost_micros: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about to be sent."""

    key: str
    namespace: str
    teacher: str
    revision: str


@dataclass(frozen=True, slots=True)
class Settled:
    """The outcome of an attempt. `raw` and `detail` are what is put aside of a malformed response."""

    attempt: int
    key: str
    outcome: Outcome
    response: Response
    received_at: str
    cost_micros: int
    raw: bytes | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One sending of a question, in order of `number`."""

    number: int
    key: str
    namespace: str
    teacher: str
    revision: str
    sent_at: str
    outcome: str
    failure: str | None


class Account(NamedTuple):
    """Calls, tokens and money, spent or allowed; None where nothing limits them. Tokens are those of answers."""

    calls: int | None
    tokens: int | None
    cost_micros: int | None


class Usage(NamedTuple):
    """How long a teacher's questions and answers have been: their number, and mean tokens of each."""

    answers: int
    input_tokens: float
    output_tokens: float


class Claim(NamedTuple):
    """Who has which key: `mine` may be asked here, `held` are being asked by a named holder, `known` have answers."""

    mine: frozenset[str]
    held: dict[str, str]
    known: dict[str, Entry]


class JournalStore(Protocol):
    """Durable storage of a journal. Every method that changes something is one transaction, on disk when it returns.

    A store object is one holder: what it claims is its own until it gives it back, or is found dead.
    """

    def known(self, keys: Sequence[str]) -> dict[str, Entry]:
        """The answers among `keys`; failures are no answers."""
        ...

    def claim(self, keys: Sequence[str]) -> Claim:
        """Claim what is neither answered nor held by a live holder; a dead holder's claims pass on."""
        ...

    def release(self, keys: Iterable[str]) -> None:
        """Give claims back; attempts still without an outcome become `unknown`."""
        ...

    def sent(self, questions: Sequence[Asked]) -> list[int]:
        """Record questions as sent; returns the numbers of the attempts."""
        ...

    def settled(self, results: Sequence[Settled]) -> list[Entry]:
        """Record outcomes and give their claims back. An answer that another holder recorded first stands."""
        ...

    def attempts(self, namespace: str | None = None, outcome: str | None = None) -> list[Attempt]:
        """All attempts, or those of one outcome, in order."""
        ...

    def lost(self, namespace: str | None = None) -> list[Attempt]:
        """Attempts of no living holder that have no outcome."""
        ...

    def spent(self) -> int:
        """Micro-units paid by this store object's own attempts."""
        ...

    def account(self, teacher: str, namespace: str) -> Account:
        """What holders other than this one have had of a teacher, those that are gone included."""
        ...

    def paid(self, keys: Sequence[str]) -> int:
        """Micro-units paid for these questions, whenever and by whomever, failed attempts included."""
        ...

    def usage(self, teacher: str, namespace: str) -> Usage:
        """What earlier answers of a teacher were like."""
        ...

    def served(self, teacher: str) -> dict[str, int]:
        """Answers by the model that a teacher's server named."""
        ...

    def close(self) -> None:
        """Give all claims back and close."""
        ...
