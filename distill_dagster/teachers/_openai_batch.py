"""A teacher behind an API through the provider's batch interface: `endpoint.mode: batch`.

Questions of a window go up as one file, and come back when the provider has time, within its window of hours and at
its batch price. A killed run finds its jobs again and never sends them twice (_batch_jobs.py). Each line that comes
back is read as a reply of the ordinary interface is; what has no line has failed as `expired` or `no_answer`, and is
asked again by the next run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from distill_dagster.config.endpoint import EndpointOptions
from distill_dagster.errors import TeacherError
from distill_dagster.records.identity import digest
from distill_dagster.teachers import _openai_failures as failures
from distill_dagster.teachers import _openai_wire as wire
from distill_dagster.teachers._batch_jobs import ENDED, Jobs, Plan, Plans
from distill_dagster.teachers._openai_session import CHANGED, NEXT_STEP
from distill_dagster.teachers.base import Request, Response, request_key
from distill_dagster.teachers.openai import Backend

#: Told what a job is doing.
Report = Callable[[str], None]


class Batched:
    """An endpoint that is asked in batch jobs; for the journal, a teacher that takes large windows.

    Args:
        backend: The endpoint.
        endpoint: How it is asked.
        folder: Where plans of jobs are kept, beside the journal.
        namespace: Whose answers may be shared.
        report: Told what goes on while it waits.
        sleep: Waits so many seconds.
    """

    streams = True
    #: What a killed run had sent is found again and not paid for twice: a budget need not count it as lost.
    resumes = True

    def __init__(
        self,
        backend: Backend,
        endpoint: EndpointOptions,
        folder: Path,
        namespace: str,
        report: Report = lambda said: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.backend, self.options, self.namespace, self.report = backend, endpoint.batch, namespace, report
        self.identity, self.revision, self.sleep = backend.identity, backend.revision, sleep
        self.window = self.options.most
        whose = {"namespace": namespace, "teacher": self.identity, "revision": self.revision}
        self.plans = Plans(folder / digest(whose)[:32])
        parts = urlsplit(endpoint.url)
        base = parts.path.rstrip("/")
        self.base = urlunsplit(parts._replace(path=base))
        self.route = "/v1" + backend.wire.path

    def remember(self, served: Mapping[str, int]) -> None:
        """Be told which model strings earlier answers of this teacher came from."""
        self.backend.remember(served)

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[int, Response]]:
        """Answer every request, job by job.

        Raises:
            TeacherError: The server takes no jobs, refuses one as a whole, or another model answers.
        """
        keys = [request_key(self, request, self.namespace) for request in requests]
        left = {key: index for index, key in enumerate(keys)}
        jobs = Jobs(self.backend, self.base)
        at_work: list[Plan] = []
        for plan in self.plans.all():
            mine = [key for key in plan.keys if key in left]
            if not mine or plan.state == "refused":
                continue
            if plan.state == "open":
                at_work.append(plan)
                continue
            # A run that was killed had its answers on disk, but not in the journal. Its failures are asked again.
            for index, response in self._outcomes(plan, {key: left[key] for key in mine}, requests):
                if response.failure is None:
                    del left[keys[index]]
                    yield index, response
        for plan in at_work:
            # Its run ended before it knew of a job: it may have been sent.
            plan.job = plan.job or jobs.find(plan)
        under_way = {key for plan in at_work for key in plan.keys}
        fresh = [key for key in left if key not in under_way]
        at_work += [
            self.plans.new(fresh[start : start + self.options.most])
            for start in range(0, len(fresh), self.options.most)
        ]
        for plan in at_work:
            self._start(jobs, plan, left, requests)
        while at_work:
            plan = at_work.pop(0)
            state = self._wait(jobs, plan)
            mine = {key: left.pop(key) for key in plan.keys if key in left}
            answered = set()
            for index, response in self._outcomes(plan, mine, requests):
                answered.add(index)
                yield index, response
            missing = "expired" if state in ("expired", "cancelled") else "no_answer"
            for index in mine.values():
                if index not in answered:
                    yield index, failures.failed(missing, f"job {plan.job} ended as {state} without it")

    def _start(self, jobs: Jobs, plan: Plan, places: Mapping[str, int], requests: Sequence[Request]) -> None:
        """Have a job at the provider: the one that there is, or else a new one."""
        if plan.job is None:
            # An earlier run's plan may hold questions that nobody asks any more; they are left out.
            plan.keys = [key for key in plan.keys if key in places]
            lines = b"".join(self._line(key, requests[places[key]]) for key in plan.keys)
            plan.job = jobs.submit(plan, lines, self.route, self.options.completion_window)
        self.plans.save(plan)

    def _line(self, key: str, request: Request) -> bytes:
        body = {"custom_id": key, "method": "POST", "url": self.route, "body": self.backend.wire.body(request)}
        return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace") + b"\n"

    def _wait(self, jobs: Jobs, plan: Plan) -> str:
        """Wait until a job has ended and what came back is on disk; how it ended."""
        assert plan.job is not None
        while True:
            job = jobs.look(plan.job)
            state, counts = str(job.get("status")), job.get("request_counts") or {}
            done, total = (counts.get(name, 0) for name in ("completed", "total"))
            self.report(f"job {plan.job} is {state}, {done} of {total or len(plan.keys)}")
            if state in ENDED:
                break
            self.sleep(self.options.poll)
        if state == "failed":
            plan.state = "refused"
            self.plans.save(plan)
            errors = (job.get("errors") or {}).get("data") or [{}]
            raise TeacherError(
                f"teacher {self.identity}",
                f"the provider refused job {plan.job}: {errors[0].get('message', 'it does not say why')}.",
                NEXT_STEP,
            )
        self.plans.keep(plan, jobs.content(job))
        return state

    def _outcomes(
        self, plan: Plan, places: Mapping[str, int], requests: Sequence[Request]
    ) -> Iterator[tuple[int, Response]]:
        """Outcomes of a job that is on disk, of some of its questions, each once."""
        seen: set[str] = set()
        for line in self.plans.lines(plan):
            try:
                entry = json.loads(line)
                key = entry["custom_id"]
            except (ValueError, KeyError, TypeError):
                continue  # what cannot be told whose it is counts as no answer
            if key not in places or key in seen:
                continue
            seen.add(key)
            response = self._response(entry, requests[places[key]])
            if response.failure is None and (change := self.backend.change(response.served_model)):
                raise TeacherError(f"teacher {self.identity}", change, CHANGED)
            yield places[key], response

    def _response(self, entry: Mapping[str, Any], request: Request) -> Response:
        """One line as the ordinary interface would have said it."""
        reply, error = entry.get("response"), entry.get("error")
        if isinstance(reply, dict) and isinstance(reply.get("status_code"), int):
            raw, status, key = json.dumps(reply.get("body")).encode(), reply["status_code"], self.backend.key()
            if status != 200:
                # The provider took the job, so the key is good.
                return failures.read_failure(status, raw, key=key, key_works=True)
            return failures.guarded(wire.read_answer(self.backend.wire, request, raw), raw, key)
        if isinstance(error, dict):
            expired = "expired" in str(error.get("code"))
            return failures.failed("expired" if expired else "server", f"{error.get('code')}: {error.get('message')}")
        return failures.failed("malformed", "a line with neither response nor error")
