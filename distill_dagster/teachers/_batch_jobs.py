"""A provider's batch jobs: what is kept of them on this machine, and the few calls of the interface.

A plan is written before anything is uploaded, with the keys of its questions; its name goes into the job's metadata.
So a process that was killed, or that never heard whether its job was taken, finds the job again: by its id on disk, or
by its plan's name among the provider's jobs. What came back is kept beside the plan before it is used.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import aiohttp

from distill_dagster.errors import TeacherError
from distill_dagster.storage.atomic import make_folder, write_bytes
from distill_dagster.storage.faults import fault_point
from distill_dagster.teachers import _openai_failures as failures
from distill_dagster.teachers import addresses
from distill_dagster.teachers._openai_session import NEXT_STEP, Judged
from distill_dagster.teachers.base import Response

if TYPE_CHECKING:
    from distill_dagster.teachers.openai import Backend

#: Key of a job's metadata that holds its plan's name.
MARK = "distill_dagster_plan"
#: What a provider calls a job that has come to an end.
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
#: Pages of the provider's list of jobs that are searched for a plan, of 100 jobs each.
PAGES = 100


@dataclass
class Plan:
    """A job, from before it is sent.

    Attributes:
        name: Its mark in the job's metadata.
        keys: Keys of its questions.
        job: The provider's id of it; None where nobody knows whether there is one.
        state: `open`, `done` (what came back is on disk) or `refused` (the provider took none of it).
        created: When it was made, in seconds of the epoch.
    """

    name: str
    keys: list[str]
    job: str | None = None
    state: str = "open"
    created: float = 0.0


class Plans:
    """The plans of one teacher in one namespace, a file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> list[Plan]:
        """Every plan, oldest first."""
        found = [Plan(**json.loads(path.read_text("utf-8"))) for path in self.folder.glob("*.json")]
        return sorted(found, key=lambda plan: (plan.created, plan.name))

    def new(self, keys: Sequence[str]) -> Plan:
        """A plan for some questions, on disk."""
        plan = Plan(uuid.uuid4().hex, list(keys), created=time.time())
        self.save(plan)
        return plan

    def save(self, plan: Plan) -> None:
        """Put a plan on disk."""
        make_folder(self.folder)
        write_bytes(self.folder / f"{plan.name}.json", json.dumps(asdict(plan)).encode())
        fault_point(f"batch.{plan.state}")

    def keep(self, plan: Plan, lines: bytes) -> None:
        """Put what came back on disk, and then that it is there."""
        write_bytes(self.folder / f"{plan.name}.jsonl", lines)
        plan.state = "done"
        self.save(plan)

    def lines(self, plan: Plan) -> Iterator[bytes]:
        """What came back, a line an outcome."""
        yield from (self.folder / f"{plan.name}.jsonl").read_bytes().splitlines()


class Jobs:
    """The batch interface of an endpoint.

    Args:
        backend: The endpoint: address, key, limits.
        base: Its base address.
    """

    def __init__(self, backend: Backend, base: str) -> None:
        self.backend, self.base = backend, base
        self._key = backend.key()
        self._checked = addresses.check(backend.address, backend.allow_hosts, backend.egress_class)

    def submit(self, plan: Plan, lines: bytes, route: str, window: str) -> str:
        """Upload questions and start a job; its id. Where it is not known whether one was taken, it is looked for.

        Raises:
            TeacherError: The server takes none.
        """
        form = {"purpose": "batch", "file": lines}
        file = str(self._json("POST", "/files", form=form)["id"])
        fault_point("batch.uploaded")
        body = {
            "input_file_id": file,
            "endpoint": route,
            "completion_window": window,
            "metadata": {MARK: plan.name},
        }
        for tries in range(self.backend.attempts):
            status, raw, failure = self._once("POST", "/batches", body=body)
            if failure is None:
                try:
                    return str(json.loads(raw)["id"])
                except (ValueError, KeyError, TypeError):
                    failure = failures.failed("malformed", f"not a job: {raw[:120]!r}")
            elif failure.failure not in failures.RETRIABLE:
                raise self._error("POST", "/batches", failure)
            # The job may have been taken though the answer was lost: asking again would pay for it twice.
            if (found := self.find(plan)) is not None:
                return found
            if tries + 1 == self.backend.attempts:
                raise self._error("POST", "/batches", failure)
            self._pause(tries)
        raise AssertionError("attempts is at least 1")

    def find(self, plan: Plan) -> str | None:
        """Id of the job that carries a plan's mark, or None."""
        after = None
        for _ in range(PAGES):
            query = {"limit": 100, **({"after": after} if after else {})}
            page = self._json("GET", f"/batches?{urlencode(query)}")
            jobs = [job for job in page.get("data") or () if isinstance(job, dict)]
            for job in jobs:
                if (job.get("metadata") or {}).get(MARK) == plan.name:
                    return str(job["id"])
            if not page.get("has_more") or not jobs:
                return None
            after = str(jobs[-1]["id"])
        return None

    def look(self, job: str) -> dict[str, Any]:
        """What the provider says of a job."""
        return self._json("GET", f"/batches/{job}")

    def content(self, job: Mapping[str, Any]) -> bytes:
        """Lines of a job's answers and of its errors."""
        files = [job.get(name) for name in ("output_file_id", "error_file_id")]
        return b"\n".join(self._raw("GET", f"/files/{file}/content", large=True) for file in files if file)

    # --- one call -------------------------------------------------------------------------------------------------

    def _json(self, method: str, path: str, **given: Any) -> dict[str, Any]:
        raw = self._raw(method, path, **given)
        try:
            found = json.loads(raw)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._error(method, path, failures.failed("malformed", f"not a JSON object: {raw[:120]!r}"))
        return found

    def _raw(self, method: str, path: str, **given: Any) -> bytes:
        """The body of an answer; what may mend by itself is tried again. Not for what must happen once alone."""
        for tries in range(self.backend.attempts):
            _, raw, failure = self._once(method, path, **given)
            if failure is None:
                return raw
            if failure.failure not in failures.RETRIABLE or tries + 1 == self.backend.attempts:
                raise self._error(method, path, failure)
            self._pause(tries)
        raise AssertionError("attempts is at least 1")

    def _pause(self, tries: int) -> None:
        time.sleep(min(30.0, self.backend.pause * 2.0**tries))

    def _error(self, method: str, path: str, failure: Response) -> TeacherError:
        said = failure.detail or failure.failure or ""
        if failure.failure in failures.FATAL and failure.failure != "not_found":
            return self.backend.fatal(failure.failure, said)
        return TeacherError(f"teacher {self.backend.identity}", f"{method} {path.split('?')[0]}: {said}.", NEXT_STEP)

    def _once(
        self, method: str, path: str, body: Any = None, form: Mapping[str, Any] | None = None, large: bool = False
    ) -> tuple[int, bytes, Response | None]:
        """One request in a thread of its own, since whoever asks may have an event loop already."""
        found: list[Any] = []

        def work() -> None:
            try:
                found.append(asyncio.run(self._send(method, path, body, form, large)))
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=work, name="batch", daemon=True)
        thread.start()
        thread.join()
        (outcome,) = found
        if isinstance(outcome, TimeoutError):
            return 0, b"", failures.failed("timeout", f"no answer within {self.backend.deadline:g} seconds")
        if isinstance(outcome, (aiohttp.ClientError, OSError, ValueError)):
            raw = f"{type(outcome).__name__}: {outcome}".encode("utf-8", "replace")
            said = failures.hidden(raw, self._key).decode()
            return 0, b"", failures.failed("connection", said)
        if isinstance(outcome, BaseException):
            raise outcome
        status, raw = outcome
        if not 200 <= status < 300:
            return status, raw, failures.read_failure(status, raw, key=self._key)
        # A placeholder for a key is found in any file of answers, and hides nothing.
        return status, failures.hidden(raw, self._key if len(self._key or "") >= failures.SECRET else None), None

    async def _send(
        self, method: str, path: str, body: Any, form: Mapping[str, Any] | None, large: bool
    ) -> tuple[int, bytes]:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._key is not None:
            bearer = self.backend.key_header.lower() == "authorization"
            headers[self.backend.key_header] = f"Bearer {self._key}" if bearer else self._key
        data = None
        if form is not None:
            data = aiohttp.FormData()
            for name, value in form.items():
                if isinstance(value, bytes):
                    data.add_field(name, value, filename="questions.jsonl", content_type="application/jsonl")
                else:
                    data.add_field(name, value)
        # A file of thousands of questions or answers takes longer than one of them.
        seconds = self.backend.deadline * (10 if form is not None or large else 1)
        async with (
            aiohttp.ClientSession(
                headers=headers,
                connector=aiohttp.TCPConnector(resolver=Judged(self._checked)),
                timeout=aiohttp.ClientTimeout(total=seconds),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            ) as client,
            client.request(method, self.base + path, json=body, data=data, allow_redirects=False) as reply,
        ):
            return reply.status, await reply.read()
