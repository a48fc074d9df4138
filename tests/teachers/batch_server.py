"""A server with a provider's batch interface that misbehaves as told, and keeps its own bill.

It imports nothing of the package. A job is done after `looks` looks at it. `line(question, line)` may give a line in
place of the sound one, or None for no line. Answers are `answer to QUESTION`.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter

from aiohttp import web


class BatchServer:
    """A server on loopback in a thread of its own; use it as a context manager.

    Attributes:
        looks: How often a job is looked at until it is done.
        ends: How jobs end, in their order; `completed` afterwards.
        lost: How many answers to a new job get lost after it was taken.
        busy: How many requests are answered with 503 first.
        taken: Status with which a job is taken.
    """

    def __init__(self, looks=2, ends=(), lost=0, busy=0, line=None, reply=None, model="test-model"):
        self.looks, self.ends, self.lost, self.busy = looks, list(ends), lost, busy
        self.line, self.reply, self.model = line, reply, model
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, dict] = {}
        self.looked: Counter[str] = Counter()
        self.billed: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.port, self.taken = 0, 200

    @property
    def url(self) -> str:
        """Base address."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self):
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(20)

    async def _serve(self):
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=10**9)
        app.router.add_route("*", "/v1/{path:.*}", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._closing.wait()
        await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"].split("/")
        self.calls[f"{request.method} {path[0]}"] += 1
        self.headers.append(dict(request.headers))
        if self.busy > 0:
            self.busy -= 1
            return web.Response(status=503, text="later")
        if request.method == "POST" and path == ["files"]:
            form = await request.post()
            assert form["purpose"] == "batch"
            name = f"file-{len(self.files)}"
            self.files[name] = form["file"].file.read()
            return web.json_response({"id": name})
        if path[0] == "files":
            return web.Response(body=self.files[path[1]])
        if request.method == "POST":
            return await self._take(request)
        if len(path) == 1:
            names = list(reversed(self.jobs))
            start = names.index(request.query["after"]) + 1 if "after" in request.query else 0
            page = names[start : start + 2]  # small pages, whatever the limit
            more = start + 2 < len(names)
            return web.json_response({"data": [self.jobs[name] for name in page], "has_more": more})
        return web.json_response(self._look(path[1]))

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        assert body["endpoint"] == "/v1/chat/completions" and body["completion_window"] == "24h"
        name = f"batch-{len(self.jobs)}"
        self.jobs[name] = {"id": name, "status": "in_progress", **body}
        if self.lost > 0:
            self.lost -= 1
            request.transport.abort()
        return web.json_response(self.jobs[name], status=self.taken)

    def _look(self, name: str) -> dict:
        job = self.jobs[name]
        self.looked[name] += 1
        if self.looked[name] == self.looks:
            self._finish(job)
        return job

    def _finish(self, job: dict) -> None:
        job["status"] = self.ends.pop(0) if self.ends else "completed"
        if job["status"] == "failed":
            job["errors"] = {"data": [{"code": "invalid", "message": "line 1 is not to my liking"}]}
            return
        questions = [json.loads(line) for line in self.files[job["input_file_id"]].splitlines()]
        done = questions[: len(questions) // 2] if job["status"] == "expired" else questions
        sound, errors = [], []
        for entry in reversed(done):  # in no order that one could rely on
            text = entry["body"]["messages"][-1]["content"]
            line = self._sound(entry, text)
            if self.line is not None:
                line = self.line(text, line)
            if line is None:
                continue
            self.billed[text] += 1
            (sound if line.get("error") is None else errors).append(json.dumps(line))
        late = [entry for entry in questions if entry not in done]
        expired = {"code": "batch_expired", "message": "no time"}
        errors += [json.dumps({"custom_id": one["custom_id"], "response": None, "error": expired}) for one in late[1:]]
        for kind, lines in (("output", sound), ("error", errors)):
            if lines:
                self.files[f"{kind}-{job['id']}"] = "\n".join(lines).encode() + b"\n"
                job[f"{kind}_file_id"] = f"{kind}-{job['id']}"
        job["request_counts"] = {"total": len(questions), "completed": len(sound), "failed": len(errors)}

    def _sound(self, entry: dict, text: str) -> dict:
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": f"answer to {text}"}}
        body = {
            "id": "x",
            "model": self.model,
            "choices": [choice],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3},
        }
        if self.reply is not None:
            body = self.reply(entry["body"], body)
        return {"custom_id": entry["custom_id"], "response": {"status_code": 200, "body": body}, "error": None}
