"""Any OpenAI-compatible endpoint as a teacher: chat or plain completions, over aiohttp.

Questions are fed continuously, so that no batch waits for its slowest member (teachers/_feed.py does that for the
journal). Limits, pauses and the circuit breaker are in _limits.py, the protocol in _openai_wire.py, the classes of
failures in _openai_failures.py, the connection in _openai_session.py.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from distill_dagster.config.egress import EndpointClass, class_of_address
from distill_dagster.config.endpoint import EndpointOptions
from distill_dagster.errors import TeacherError
from distill_dagster.teachers._limits import Gate
from distill_dagster.teachers._openai_wire import Wire
from distill_dagster.teachers.base import Request, Response, Session

#: Repeated requests that a run of any size may spend.
FEW = 10


class Backend:
    """A model behind an API that answers.

    Args:
        model: The name that the server knows it by.
        endpoint: Address, limits, retries; see `EndpointOptions`.
        identity: Declared name of the teacher; with `revision` it enters the journal's key.
        revision: Declared revision; where nothing is declared, something that the address is part of.
        egress_class: Where questions go; by default what the address says. It bounds what the name may resolve to.
        pause: Seconds of the shortest pause after a failure.

    Raises:
        TeacherError: `endpoint.response_schema` is no JSON Schema.
    """

    #: Answers are committed as they come, and a session of it is fed continuously.
    streams = True

    def __init__(
        self,
        model: str,
        *,
        endpoint: EndpointOptions,
        identity: str,
        revision: str = "",
        egress_class: EndpointClass | None = None,
        pause: float = 0.5,
    ) -> None:
        self.identity, self.revision, self.pause = identity, revision, pause
        self.pins = endpoint.served_model == "pin"
        self.max_in_flight, self.window = endpoint.max_in_flight, endpoint.max_in_flight
        self.requests_per_minute, self.tokens_per_minute = endpoint.requests_per_minute, endpoint.tokens_per_minute
        self.deadline, self.patience, self.max_body = endpoint.deadline, endpoint.patience, endpoint.max_body_bytes
        self.attempts, self.retry_share = endpoint.attempts, endpoint.retry_share
        self.key_env, self.key_header = endpoint.api_key_env, endpoint.api_key_header
        #: The gate of the newest session, for whoever wants to see how it went.
        self.gate: Gate | None = None
        self._served: set[str] = set()
        self.wire = Wire(
            model,
            endpoint.kind,
            tuple(endpoint.serves),
            _checked(endpoint.response_schema, identity),
            endpoint.top_logprobs,
            endpoint.token_limit_field,
            frozenset(endpoint.omit),
            endpoint.extra,
        )
        parts = urlsplit(endpoint.url)
        self.allow_hosts = tuple(endpoint.allow_hosts)
        self.egress_class: EndpointClass = egress_class or class_of_address(endpoint.url)
        self.address = urlunsplit(parts._replace(path=parts.path.rstrip("/") + self.wire.path))

    def __repr__(self) -> str:
        return f"Backend({self.wire.model!r}, identity={self.identity!r})"

    # --- asking ---------------------------------------------------------------------------------------------------

    def session(self) -> Session:
        """Start to work: a thread with connections of its own.

        Raises:
            TeacherError: The key's environment variable is not set, or holds no key.
            ConfigError: The address may not be connected to; see teachers/addresses.py.
        """
        from distill_dagster.teachers._openai_session import OpenAISession

        return OpenAISession(self)

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[int, Response]]:
        """Answer every request, in the order in which answers come; failed ones are asked again last.

        Raises:
            TeacherError: The server cannot go on answering anybody.
        """
        session = self.session()
        fresh, waiting = deque(range(len(requests))), set(range(len(requests)))
        again: list[tuple[float, int, Response]] = []
        tries = dict.fromkeys(waiting, 0)
        try:
            while waiting:
                room, now = session.room(), time.monotonic()
                hand_out = [fresh.popleft() for _ in range(min(room, len(fresh)))]
                if not fresh:
                    for entry in [entry for entry in again if entry[0] <= now]:
                        again.remove(entry)
                        if session.retry_allowed():
                            hand_out.append(entry[1])
                        else:
                            waiting.remove(entry[1])
                            yield entry[1], entry[2]
                session.put([(index, requests[index]) for index in hand_out])
                due = min((entry[0] for entry in again), default=None) if not fresh else None
                for index, response in session.take(None if due is None else max(0.0, due - now)) if waiting else ():
                    session.settled(1)
                    tries[index] += 1
                    wait = session.retry_after(response, tries[index]) if response.failure else None
                    if wait is None:
                        waiting.remove(index)
                        yield index, response
                    else:
                        again.append((time.monotonic() + wait, index, response))
        finally:
            session.withdraw()

    # --- what a session asks of it --------------------------------------------------------------------------------

    def remember(self, served: Mapping[str, int]) -> None:
        """Be told which model strings earlier answers of this teacher came from."""
        self._served |= {name for name in served if name}

    @property
    def has_answered(self) -> bool:
        """Did it ever answer, here or, as far as it was told, in an earlier run?"""
        return bool(self._served)

    def change(self, served: str) -> str | None:
        """Why an answer of this model may not be used: `served_model: pin`, and earlier answers came from another."""
        if self.pins and self._served and served not in self._served:
            known = ", ".join(repr(name) for name in sorted(self._served))
            return f"earlier answers came from {known}, and now the server answers as {served!r}."
        self._served.add(served)
        return None

    def retry_budget(self, questions: int) -> int:
        """Most repeated requests for so many questions."""
        return FEW + int(self.retry_share * questions)

    def key(self) -> str | None:
        """The secret, read from its environment variable when it is needed, and never kept here."""
        if self.key_env is None:
            return None
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            raise TeacherError(
                f"teacher {self.identity}",
                f"the environment variable {self.key_env} is not set, and `api_key_env` names it.",
                f"Set it, for example `export {self.key_env}=...`, and run again.",
            )
        if not key.isascii() or not key.isprintable():
            raise TeacherError(
                f"teacher {self.identity}",
                f"what stands in {self.key_env} cannot be sent: it holds signs that are not printable ASCII.",
                "Set it to the key alone.",
            )
        return key

    def fatal(self, failure: str, detail: str) -> TeacherError:
        """The error that stops a run, for a failure that every question would meet."""
        named = f"the key in {self.key_env}" if self.key_env else "a request without a key (no `api_key_env`)"
        host = urlsplit(self.address).netloc
        reason, next_step = {
            "auth": (f"{host} does not accept {named}", "Check the key and what it may use, and run again."),
            "quota": (f"{host} answers no more for {named}", "Pay or wait; then run again to go on from there."),
            "not_found": (
                f"{host} has no {urlsplit(self.address).path}, or no model {self.wire.model!r}",
                "Check `endpoint.url` and `model`.",
            ),
            "redirect": (
                f"{host} answers with a redirect, which is not followed with a key in hand",
                "Put the final address into `endpoint.url`.",
            ),
        }[failure]
        return TeacherError(f"teacher {self.identity}", f"{reason} ({detail}).", next_step)


def _checked(schema: Mapping[str, Any] | None, identity: str) -> Mapping[str, Any] | None:
    if schema is None:
        return None
    import jsonschema

    try:
        jsonschema.Draft202012Validator.check_schema(dict(schema))
    except jsonschema.SchemaError as error:
        raise TeacherError(
            f"teacher {identity}, endpoint.response_schema", f"no JSON Schema: {error.message}.", "Mend it."
        ) from None
    return schema
