"""One measured run of one system, in a process of its own; prints one line of JSON.

    python benchmarks/teacher_worker.py SYSTEM URL COUNT IN_FLIGHT FOLDER

`bare` is aiohttp alone: no persistence, no checks, no retries. `ours` is the backend behind the journal, from nothing
known to every answer on disk.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from pathlib import Path


def prompt(number: int) -> str:
    """A question of ordinary length."""
    return (
        f"Question {number}: does clause {number % 97} of the contract let the tenant end it early, and at what notice?"
    )


def bare(url: str, count: int, in_flight: int, folder: Path) -> int:
    """What HTTP alone takes: one session, a fixed number of workers."""
    import aiohttp

    async def work() -> int:
        numbers = iter(range(count))
        answers: dict[int, str] = {}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:

            async def worker() -> None:
                for number in numbers:
                    body = {
                        "model": "bench",
                        "messages": [{"role": "user", "content": prompt(number)}],
                        "temperature": 0.0,
                        "max_tokens": 64,
                    }
                    async with client.post(f"{url}/chat/completions", json=body) as reply:
                        answers[number] = (await reply.json())["choices"][0]["message"]["content"]

            await asyncio.gather(*(worker() for _ in range(in_flight)))
        return len(answers)

    return asyncio.run(work())


def ours(url: str, count: int, in_flight: int, folder: Path) -> int:
    """The `openai` backend through the journal."""
    from distill_dagster.config.endpoint import EndpointOptions
    from distill_dagster.teachers.base import Request
    from distill_dagster.teachers.journal import Journal
    from distill_dagster.teachers.openai import Backend

    endpoint = EndpointOptions(url=url, max_in_flight=in_flight)
    teacher = Backend("bench", endpoint=endpoint, identity="bench", revision="1")
    sampling = {"temperature": 0.0, "max_new_tokens": 64}
    requests = [Request(({"role": "user", "content": prompt(number)},), sampling) for number in range(count)]
    with Journal(folder / "journal.sqlite") as journal:
        responses, _ = journal.ask(teacher, requests, "bench")
    return sum(response.failure is None and bool(response.text) for response in responses)


SYSTEMS = {"bare": bare, "ours": ours}

if __name__ == "__main__":
    name, url, count, in_flight, folder = sys.argv[1:]
    if name == "ours":  # what a process imports once is no part of asking
        import distill_dagster.teachers._openai_session
        import distill_dagster.teachers.journal
        import distill_dagster.teachers.openai  # noqa: F401
    else:
        import aiohttp  # noqa: F401
    start, cpu = time.perf_counter(), time.process_time()
    answered = SYSTEMS[name](url, int(count), int(in_flight), Path(folder))
    result = {
        "answered": answered,
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(result))
