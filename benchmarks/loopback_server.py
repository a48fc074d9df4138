"""An OpenAI-compatible test server on loopback with seeded latency and counters. It imports nothing of the package.

Run as `python benchmarks/loopback_server.py [--latency 0.2 --tail 1.0 --share 0.05 --seed 7]`; its first line of output
is its port. `GET /counters` tells what it saw; `POST /reset` starts anew, and takes another latency as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random

from aiohttp import web


class Server:
    """Answers every chat question after a latency that the seed and the question decide."""

    def __init__(self, latency: float, tail: float, share: float, seed: int) -> None:
        self.settings = {"latency": latency, "tail": tail, "share": share, "seed": seed}
        self.forget()

    def forget(self) -> None:
        """Start the counters anew."""
        self.requests = self.in_flight = self.most_in_flight = 0

    def wait(self, question: str) -> float:
        """Seconds that this question takes."""
        drawn = random.Random(f"{self.settings['seed']}/{question}").random()
        return self.settings["tail"] if drawn < self.settings["share"] else self.settings["latency"]

    async def answer(self, request: web.Request) -> web.Response:
        """`POST /v1/chat/completions`."""
        body = await request.json()
        # Bespoke Curator first sends a question without a message, to see what is there.
        question = body["messages"][-1]["content"] if body["messages"] else ""
        self.requests += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if seconds := self.wait(question):
                await asyncio.sleep(seconds)
        finally:
            self.in_flight -= 1
        message = {"role": "assistant", "content": f"An answer to: {question}"}
        reply = {
            "id": f"chatcmpl-{self.requests}",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
            "usage": {"prompt_tokens": 20, "completion_tokens": 12, "total_tokens": 32},
        }
        return web.Response(body=json.dumps(reply).encode(), content_type="application/json")

    async def counters(self, _: web.Request) -> web.Response:
        """`GET /counters`."""
        return web.json_response({"requests": self.requests, "most_in_flight": self.most_in_flight, **self.settings})

    async def reset(self, request: web.Request) -> web.Response:
        """`POST /reset`."""
        self.settings.update(await request.json())
        self.forget()
        return web.json_response(self.settings)


async def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("latency", 0.2), ("tail", 1.0), ("share", 0.05)):
        parser.add_argument(f"--{name}", type=float, default=default)
    parser.add_argument("--seed", type=int, default=7)
    server = Server(**vars(parser.parse_args()))
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.answer)
    app.router.add_get("/counters", server.counters)
    app.router.add_post("/reset", server.reset)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
