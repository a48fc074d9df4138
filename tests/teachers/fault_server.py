"""An OpenAI-compatible server that misbehaves as told, and keeps its own bill. It imports nothing of the package.

What happens to a request hangs on the seed, the question and how often it was asked, so a run can be repeated. Answers
are `answer to QUESTION`, where the question is the last message.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from aiohttp import web

STATUS = {"429": 429, "429_seconds": 429, "429_date": 429, "500": 500, "502": 502, "503": 503, "529": 529}
#: Every way to misbehave.
FAULTS = (
    *STATUS,
    "stall",
    "truncated",
    "cut_off",
    "invalid",
    "html",
    "empty_choices",
    "wrong_model",
    "drip",
    "reset",
    "reset_after",
    "huge",
    "huge_chunked",
)
HUGE = 50_000_000


class FaultServer:
    """A server on loopback in a thread of its own; use it as a context manager.

    Args:
        faults: Share of requests that meet each fault.
        seed: Decides which.
        latency: Seconds an answer takes.
        model: What it says it serves.
        script: Faults of the first requests in their order ("" is none), whatever `faults` says.
        reply: Changes a reply before it is sent: `reply(body, question)` gets the sound reply.
    """

    def __init__(self, faults=None, seed=0, latency=0.0, model="test-model", script=(), reply=None, status=None):
        self.faults, self.seed, self.latency, self.model = dict(faults or {}), seed, latency, model
        self.script, self.reply, self.status = list(script), reply, status
        #: Questions whose answer was made, and so charged, whether or not it arrived.
        self.billed: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        self.bodies: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.in_flight = self.most_in_flight = 0
        self.port = 0
        #: Set by the test to let requests through that were held by `hold`.
        self.hold: threading.Event | None = None

    @property
    def url(self) -> str:
        """Base address."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def requests(self) -> int:
        """Requests so far."""
        return len(self.bodies)

    def __enter__(self):
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(20)

    async def _serve(self):
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=10**9)
        app.router.add_post("/{path:.*}", self._handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._closing.wait()
        await runner.cleanup()

    def _fault(self, question: str) -> str:
        if self.script:
            return self.script.pop(0)
        draw = random.Random(f"{self.seed}/{question}/{self.asked[question]}").random()
        for fault, share in self.faults.items():
            draw -= share
            if draw < 0:
                return fault
        return ""

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        question = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        fault = self._fault(question)
        self.asked[question] += 1
        self.met[fault] += 1
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.paths.append(request.path)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            while self.hold is not None and not self.hold.is_set():
                await asyncio.sleep(0.005)
            if self.latency:
                await asyncio.sleep(self.latency)
            return await self._answer(request, body, question, fault)
        finally:
            self.in_flight -= 1

    async def _answer(self, request, body, question, fault) -> web.StreamResponse:
        if self.status is not None:
            status, text = self.status
            return web.Response(status=status, text=text.replace("{authorization}", str(dict(request.headers))))
        if fault in STATUS:
            headers = {}
            if fault == "429_seconds":
                headers["Retry-After"] = "0.05"
            if fault == "429_date":
                headers["Retry-After"] = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)
            return web.Response(status=STATUS[fault], text='{"error": {"message": "later"}}', headers=headers)
        if fault == "reset":
            request.transport.abort()
            return web.Response()
        self.billed[question] += 1
        raw = json.dumps(self._sound(body, question, "another-model" if fault == "wrong_model" else self.model))
        if fault == "stall":
            await asyncio.sleep(3600)
        if fault == "reset_after":
            request.transport.abort()
            return web.Response()
        if fault == "truncated":
            return web.Response(text=raw[: len(raw) // 2], content_type="application/json")
        if fault == "invalid":
            return web.Response(text=raw.replace(":", "=", 3), content_type="application/json")
        if fault == "html":
            return web.Response(text=f"<html><body>{raw}</body></html>", content_type="text/html")
        if fault == "empty_choices":
            return web.Response(text=json.dumps({**json.loads(raw), "choices": []}), content_type="application/json")
        if fault in ("drip", "cut_off", "huge", "huge_chunked"):
            return await self._by_hand(request, raw.encode(), fault)
        return web.Response(text=raw, content_type="application/json")

    async def _by_hand(self, request, raw: bytes, fault: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        if fault != "huge_chunked":
            response.content_length = HUGE if fault == "huge" else len(raw)
        await response.prepare(request)
        try:
            if fault == "cut_off":
                await response.write(raw[: len(raw) // 2])
                request.transport.abort()
            elif fault == "drip":
                for at in range(len(raw)):
                    await response.write(raw[at : at + 1])
                    await asyncio.sleep(0.2)
            else:
                for _ in range(HUGE // 100_000):
                    await response.write(b" " * 100_000)
        except ConnectionError:  # the client went away, as it should
            pass
        return response

    def _sound(self, body, question: str, model: str) -> dict:
        text = f"answer to {question}"
        choice = {"index": 0, "finish_reason": "stop"}
        choice |= {"text": text} if "prompt" in body else {"message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": len(question.split()), "completion_tokens": len(text.split())}
        sound = {"id": "x", "object": "chat.completion", "model": model, "choices": [choice], "usage": usage}
        return self.reply(body, sound) if self.reply else sound
