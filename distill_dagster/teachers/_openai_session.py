"""A connection to an endpoint at work: an event loop in a thread of its own, fed and emptied from outside.

The thread that owns the journal never waits for the network, and the loop never waits for the disk. A request counts
against the ceiling until its outcome is on disk, so a killed process has paid for at most so many in vain.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from distill_dagster.errors import TeacherError
from distill_dagster.teachers import _openai_failures as failures
from distill_dagster.teachers import _openai_wire as wire
from distill_dagster.teachers import addresses
from distill_dagster.teachers._limits import BREAKER, Gate, Stop
from distill_dagster.teachers.base import Request, Response

if TYPE_CHECKING:
    from distill_dagster.teachers.openai import Backend

NEXT_STEP = "What was answered is kept; mend the cause and run again to go on from there."
CHANGED = "Declare a new `revision` to begin anew with it, or set `served_model: warn` to go on."
#: Seconds that what is on the wire has to come back when the work ends: it is paid for.
GRACE = 5.0


class Judged(AbstractResolver):
    """Gives the addresses that were judged, so that a name cannot lead elsewhere between judgement and connection."""

    def __init__(self, checked: addresses.Checked) -> None:
        self._checked = checked

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The judged addresses of the one host there is."""
        if host.casefold().rstrip(".") != self._checked.host:
            raise OSError(f"{host} was not judged")
        return [
            ResolveResult(
                hostname=host,
                host=text,
                port=port,
                family=socket.AF_INET6 if ":" in text else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for text in self._checked.addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


class OpenAISession:
    """A `teachers.base.Session`; made by `Backend.session`.

    Raises:
        TeacherError: The key's environment variable is not set, or holds no key.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend, self.wire = backend, backend.wire
        self._place = f"teacher {backend.identity}"
        self._key = backend.key()
        self._checked = addresses.check(backend.address, backend.allow_hosts, backend.egress_class)
        self._rng = random.Random()
        self._inbox: deque[tuple[int, Request]] = deque()
        self._out: deque[tuple[int, Response]] = deque()
        self._arrived = threading.Condition()
        self._fatal: BaseException | None = None
        self._ended = False
        self._put = self._retries = self._forbidden = 0
        self._tasks: set[asyncio.Task] = set()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="teacher", daemon=True)
        self._thread.start()
        ready.wait()

    # --- the outside ----------------------------------------------------------------------------------------------

    def room(self) -> int:
        """How many more questions it wants now: a whole group, or none, so that few commits record them as sent."""
        ceiling = self.backend.max_in_flight
        return ceiling - len(self._inbox) if len(self._inbox) <= ceiling // 2 else 0

    def put(self, questions: Sequence[tuple[int, Request]]) -> None:
        """Hand over questions, each with its ticket."""
        self._put += len(questions)
        self._inbox.extend(questions)
        self._call(self._wake.set)

    def take(self, timeout: float | None) -> list[tuple[int, Response]]:
        """Outcomes that have come; waits for the first one, or `timeout` seconds."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._out or self._ended, timeout)
            taken = list(self._out)
            self._out.clear()
            if not taken and self._ended and self._fatal is not None:
                raise self._fatal
        return taken

    def settled(self, count: int) -> None:
        """So many outcomes that were taken are on disk."""
        self._call(self._gate.settled, count)

    def retry_after(self, response: Response, tries: int) -> float | None:
        """Seconds until a failed question may be asked again; None where another attempt would mend nothing."""
        if response.failure not in failures.RETRIABLE or tries >= self.backend.attempts:
            return None
        return min(30.0, self.backend.pause * 2.0 ** (tries - 1)) * self._rng.uniform(0.5, 1.0)

    def retry_allowed(self) -> bool:
        """Take one repeated request from the budget: a share of the questions, and a few for small runs."""
        if self._retries >= self.backend.retry_budget(self._put - self._retries):
            return False
        self._retries += 1
        return True

    def withdraw(self, grace: float = 0.0) -> list[int]:
        """End the work, with so many seconds for what is on the wire; tickets that never were."""
        self._call(self._end, grace)
        with self._arrived:  # not by `join`: one that Ctrl-C breaks off takes the thread for ended
            self._arrived.wait_for(lambda: self._ended)
        self._thread.join()
        return [ticket for ticket, _ in self._inbox]

    # --- the loop's side ------------------------------------------------------------------------------------------

    def _call(self, function, *arguments) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop has ended; `take` says why
            pass

    def _run(self, ready: threading.Event) -> None:
        try:
            asyncio.run(self._main(ready))
        except BaseException as error:  # whatever it is, the asking thread must hear of it
            self._fatal = self._fatal or error
        finally:
            with self._arrived:
                self._ended = True
                self._arrived.notify_all()
            ready.set()

    def _end(self, grace: float) -> None:
        if self._stop.is_set() and grace <= 0:  # what is on the wire has its time already, and shall have no more
            for task in self._tasks:
                task.cancel()
        self._grace = grace
        self._stop.set()

    async def _main(self, ready: threading.Event) -> None:
        backend = self.backend
        self._loop = asyncio.get_running_loop()
        self._wake, self._stop, self._grace = asyncio.Event(), asyncio.Event(), GRACE
        self._gate = Gate(
            backend.max_in_flight,
            requests_per_minute=backend.requests_per_minute,
            tokens_per_minute=backend.tokens_per_minute,
            patience=backend.patience,
            base=backend.pause,
        )
        backend.gate = self._gate
        tasks = self._tasks
        async with self._connect() as client:
            ready.set()
            dispatcher = asyncio.create_task(self._dispatch(client, tasks))
            stop = asyncio.create_task(self._stop.wait())
            await asyncio.wait((dispatcher, stop), return_when=asyncio.FIRST_COMPLETED)
            dispatcher.cancel()
            if tasks and self._grace > 0:
                await asyncio.wait(tasks, timeout=self._grace)
            for task in (stop, *tasks):
                task.cancel()
            fault, *_ = await asyncio.gather(dispatcher, stop, *tasks, return_exceptions=True)
        if isinstance(fault, Exception):
            raise fault

    def _connect(self) -> aiohttp.ClientSession:
        """The HTTP client: no proxy, cookie or credential that is not in the YAML file, and no redirect."""
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        if self._key is not None:
            bearer = self.backend.key_header.lower() == "authorization"
            headers[self.backend.key_header] = f"Bearer {self._key}" if bearer else self._key
        return aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=0, resolver=Judged(self._checked)),
            timeout=aiohttp.ClientTimeout(total=self.backend.deadline),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def _dispatch(self, client: aiohttp.ClientSession, tasks: set[asyncio.Task]) -> None:
        """Send questions in order, as the gate lets them."""
        while True:
            while not self._inbox:
                self._wake.clear()
                await self._wake.wait()
            ticket, request = self._inbox[0]
            body = json.dumps(self.wire.body(request), ensure_ascii=False).encode("utf-8", "replace")
            guess = len(body) / 4 + float(request.sampling.get("max_new_tokens") or 0)
            sent_at = await self._gate.enter(guess)
            self._inbox.popleft()
            task = asyncio.create_task(self._one(client, ticket, request, body, sent_at, guess))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _one(
        self, client: aiohttp.ClientSession, ticket: int, request: Request, body: bytes, sent_at: float, guess: float
    ) -> None:
        """One attempt: send, read, judge, tell the gate, and hand the outcome over."""
        try:
            response, asked = await self._ask(client, request, body)
            if response.failure is None and (change := self.backend.change(response.served_model)):
                response = failures.failed("wrong_model", change, response.served_model)
                self._fail(TeacherError(self._place, change, CHANGED))
            self._gate.back()
            if self._gate.tokens:
                self._gate.tokens.correct(response.input_tokens + response.output_tokens - guess)
            self._hand_over(ticket, response)
            self._judge(response, sent_at, asked)
        except Exception as error:  # a fault of this code: the run must end, not wait for a ticket that is lost
            self._fail(error)

    async def _ask(self, client: aiohttp.ClientSession, request: Request, body: bytes) -> tuple[Response, float | None]:
        """The response to one request, and the seconds that the server asks to wait."""
        try:
            async with client.post(self.backend.address, data=body, allow_redirects=False) as reply:
                raw = await self._read(reply)
                if raw is None:
                    said = f"status {reply.status}, over {self.backend.max_body} bytes"
                    return failures.failed("oversized", said), None
                if reply.headers.get("Content-Encoding", "identity").lower() != "identity":
                    return failures.failed("malformed", "a compressed reply, which was not asked for"), None
                if reply.status == 200:
                    return self._answer(request, raw), None
                return self._failure(reply.status, reply.headers, raw)
        except TimeoutError:
            return failures.failed("timeout", f"no whole answer within {self.backend.deadline:g} seconds"), None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            said = failures.hidden(f"{type(error).__name__}: {error}".encode("utf-8", "replace"), self._key)
            return failures.failed("connection", said.decode()), None

    async def _read(self, reply: aiohttp.ClientResponse) -> bytes | None:
        """The body; None where it is longer than allowed."""
        most = self.backend.max_body
        if reply.content_length is not None:
            return await reply.read() if reply.content_length <= most else None
        parts, size = [], 0
        async for part in reply.content.iter_any():
            size += len(part)
            if size > most:
                return None
            parts.append(part)
        return b"".join(parts)

    def _answer(self, request: Request, raw: bytes) -> Response:
        return failures.guarded(wire.read_answer(self.wire, request, raw), raw, self._key)

    def _failure(self, status: int, headers: Mapping[str, str], raw: bytes) -> tuple[Response, float | None]:
        """The class of a reply whose status is not 200, and the seconds that it asks to wait."""
        asked = failures.retry_after(headers)
        if asked is None and status in failures.BUSY:
            asked = failures.retry_said(raw)
        # With a key that was good for answers, a 403 is about the question. It may have been withdrawn since an earlier
        # run, though: then every question meets one.
        if status == 403 and not self._gate.ever_answered:
            self._forbidden += 1
        key_works = self._gate.ever_answered or (self.backend.has_answered and self._forbidden < BREAKER)
        return failures.read_failure(status, raw, asked, self._key, key_works), asked

    def _judge(self, response: Response, sent_at: float, asked: float | None) -> None:
        """Tell the gate what an outcome means, and end the work where going on is of no use."""
        failure = response.failure
        try:
            if failure is None:
                self._gate.answered()
            elif failure in failures.FATAL:
                self._fail(self.backend.fatal(failure, response.detail or ""))
            elif failure == "rate_limited" or asked is not None:
                self._gate.busy(sent_at, asked)
            elif failure in failures.RETRIABLE and failure != "empty":
                self._gate.fault(failure)
            elif failure == "used_up" and not self.backend.has_answered:
                self._gate.in_vain(failure)
            else:
                self._gate.alive()
        except Stop as stop:
            said = f"{stop}. The last failure: {response.detail or failure}."
            self._fail(TeacherError(self._place, said, NEXT_STEP))

    def _hand_over(self, ticket: int, response: Response) -> None:
        with self._arrived:
            self._out.append((ticket, response))
            self._arrived.notify()

    def _fail(self, error: BaseException) -> None:
        """End the work with an error, once what is on the wire has had its time."""
        with self._arrived:
            if self._fatal is None:
                self._fatal = error
        self._stop.set()
