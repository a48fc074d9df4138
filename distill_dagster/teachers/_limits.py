"""How fast a teacher may be asked: adaptive concurrency, rates, pauses and a circuit breaker, behind one gate.

Concurrency follows AIMD (additive increase, multiplicative decrease: Chiu and Jain 1989): one cut for a burst of "too
many requests", one more place for a round of answers. All of it runs in one event loop; nothing here waits on a lock.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

#: Failures in a row, without one answer, that open the circuit.
BREAKER = 20
LONGEST_PAUSE = 60.0


class Rate:
    """At most so many units in any minute, spread over it (generic cell rate algorithm).

    Args:
        per_minute: Units a minute.
        clock: Monotonic seconds.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        # A burst of a second's worth keeps up with late timers; the rest of the minute is spread to make up for it.
        burst = max(1.0, per_minute // 60)
        self.seconds = 60.0 / (per_minute - burst + 1)
        self.slack = (burst - 1) * self.seconds
        self.until = 0.0

    def wait(self) -> float:
        """Seconds until the next unit may be taken."""
        return max(0.0, self.until - self.slack - self.clock())

    def take(self, units: float = 1.0) -> None:
        """Count units as used now."""
        self.until = max(self.until, self.clock()) + units * self.seconds

    def correct(self, units: float) -> None:
        """More (or, below 0, fewer) units were used than were taken."""
        self.until += units * self.seconds


class Stop(Exception):
    """No use in asking on: the reason in words."""


class Gate:
    """Lets requests onto the wire.

    Args:
        ceiling: Most requests on the wire and unsettled together.
        requests_per_minute: Rate of requests, or None.
        tokens_per_minute: Rate of tokens, or None.
        patience: Seconds without an answer after the first failure until `Stop`.
        base: Seconds of the shortest pause.
        rng: Jitter.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        ceiling: int,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        patience: float = 300.0,
        base: float = 0.5,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ceiling, self.patience, self.base, self.clock = ceiling, patience, base, clock
        self.rng = rng or random.Random()
        self.requests = Rate(requests_per_minute, clock) if requests_per_minute else None
        self.tokens = Rate(tokens_per_minute, clock) if tokens_per_minute else None
        self.limit = float(ceiling)
        self.wire = self.unsettled = self.most = 0
        self.cuts = self.opened = 0
        self._changed = asyncio.Event()
        self._cut_at = -1.0
        self._bursts = self._opens = 0
        self._pause_until = 0.0
        self._open_until = 0.0
        self._faults = self._vain = 0
        self._troubled_since: float | None = None
        self.ever_answered = False

    # --- on the way out -------------------------------------------------------------------------------------------

    async def enter(self, tokens: float) -> float:
        """Wait until one more request of about so many tokens may go; the time at which it went."""
        while (wait := self.wait()) != 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass
        if self.requests:
            self.requests.take()
        if self.tokens:
            self.tokens.take(tokens)
        self.wire += 1
        self.most = max(self.most, self.wire)
        return self.clock()

    def wait(self) -> float | None:
        """Seconds until a request may go; 0: now; None: not before something else ends."""
        # A circuit that was open lets one request through, to see whether the server is back.
        allowed = 1 if self._faults >= BREAKER else int(self.limit)
        if self.wire >= allowed or self.wire + self.unsettled >= self.ceiling:
            return None
        waits = [rate.wait() for rate in (self.requests, self.tokens) if rate]
        return max(0.0, self._pause_until - self.clock(), self._open_until - self.clock(), *waits)

    # --- on the way back ------------------------------------------------------------------------------------------

    def back(self) -> None:
        """A request left the wire; its outcome is not settled yet."""
        self.wire -= 1
        self.unsettled += 1
        self._changed.set()

    def settled(self, count: int) -> None:
        """So many outcomes are on disk."""
        self.unsettled -= count
        self._changed.set()

    def answered(self) -> None:
        """An answer: room for one more a round, and an end to pauses and faults."""
        self.limit = min(float(self.ceiling), self.limit + 1.0 / self.limit)
        self.ever_answered = True
        self._bursts = 0
        self.alive()

    def alive(self) -> None:
        """The server did its work, be the outcome an answer or not."""
        self._faults = self._opens = 0
        self._troubled_since = None
        self._open_until = 0.0

    def busy(self, sent_at: float, asked: float | None) -> None:
        """The server has too much to do, and may have asked for a pause of so many seconds.

        Raises:
            Stop: It asks for a longer pause than anyone waits, or has answered nothing for too long.
        """
        now = self.clock()
        if asked is not None and asked > self.patience:
            raise Stop(f"the server asks to wait {asked:.0f} seconds")
        if sent_at > self._cut_at:  # what was on the wire at the last cut says nothing about the new limit
            self._cut_at = now
            self.limit = max(1.0, self.limit / 2)
            self.cuts += 1
            if asked is None:
                self._pause_until = max(self._pause_until, now + self.delay(self._bursts))
                self._bursts += 1
        if asked is not None:
            self._pause_until = max(self._pause_until, now + asked)
        self._trouble(now, "too many requests")

    def fault(self, failure: str) -> None:
        """The server did not do its work: broken, silent, or talking nonsense.

        Raises:
            Stop: Nothing was ever answered, or nothing for too long.
        """
        now = self.clock()
        self._faults += 1
        if self._faults >= BREAKER:
            if not self.ever_answered and failure in ("connection", "wrong_model", "malformed"):
                raise Stop(f"the first {self._faults} requests all failed ({failure})")
            if now >= self._open_until:  # what was on the wire when it opened does not open it again
                self.opened += 1
                self._opens += 1
                self._open_until = now + self.delay(self._opens)
        self._trouble(now, failure)

    def in_vain(self, failure: str) -> None:
        """The server did its work, and was paid for what is no answer.

        Raises:
            Stop: So it went with the first requests, and nothing was ever answered.
        """
        self.alive()
        self._vain += 1
        if self._vain >= BREAKER and not self.ever_answered:
            raise Stop(f"the first {self._vain} requests all failed ({failure})")

    def delay(self, times: int) -> float:
        """Seconds of the pause after so many failures: doubling, with jitter, never above a minute."""
        return min(LONGEST_PAUSE, self.base * 2.0 ** min(times, 16)) * self.rng.uniform(0.5, 1.0)

    def _trouble(self, now: float, what: str) -> None:
        if self._troubled_since is None:
            self._troubled_since = now
        elif now - self._troubled_since > self.patience:
            raise Stop(f"no answer for {now - self._troubled_since:.0f} seconds ({what})")
