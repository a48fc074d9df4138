"""A continuous feed from the journal to a teacher that answers while it is still being asked.

Every attempt is on disk as sent before the teacher has it, and its outcome is on disk before it counts. Outcomes are
committed in whatever groups they come: while one commit is under way the next group gathers, so nothing waits for a
batch. The teacher says whether and when a failed question may be asked again; those come last.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from distill_dagster.errors import DistillError
from distill_dagster.teachers._journal import Asked, Entry, Settled
from distill_dagster.teachers.base import Request, Response, Session

if TYPE_CHECKING:
    from distill_dagster.teachers.journal import Asking

#: Questions claimed in one commit.
CLAIM = 512
#: Seconds that what is on the wire has to come back when the work breaks off: it is paid for.
GRACE = 5.0


class Feed:
    """One call of `Journal.ask` on its way through a session.

    Args:
        asking: The call: store, teacher, what is settled.
        questions: Requests by key.
    """

    def __init__(self, asking: Asking, questions: Mapping[str, Request]) -> None:
        self.asking, self.store, self.questions = asking, asking.store, questions
        self.fresh = deque(questions)
        self.ready: deque[str] = deque()
        self.again: list[tuple[float, str]] = []
        self.open: dict[int, str] = {}
        #: Outcomes that the session gave, until they are on disk.
        self.came: list[tuple[int, Response]] = []
        self.tries: Counter[str] = Counter()
        #: Keys that another holder asks, with its name.
        self.held: dict[str, str] = {}
        #: Answers that came from elsewhere meanwhile.
        self.known: dict[str, Entry] = {}

    def run(self) -> None:
        """Ask until every question is settled, known, or held by another.

        Raises:
            TeacherError: The teacher cannot go on. What was answered is committed.
        """
        session: Session = self.asking.teacher.session()  # pyright: ignore[reportAttributeAccessIssue]
        grace = 0.0
        try:
            self._work(session)
        except BaseException:  # Ctrl-C, or Dagster's end of a run, among them
            grace = GRACE
            raise
        finally:
            try:
                self._end(session, grace)
            finally:
                self.store.release(self.questions)

    def _end(self, session: Session, grace: float) -> None:
        try:
            never = session.withdraw(grace)
        except BaseException:  # a second Ctrl-C waits no more, and keeps what has come
            if grace > 0:
                self._end(session, 0.0)
            raise
        self._clear_up(session, never)

    def _work(self, session: Session) -> None:
        while True:
            self._hand_out(session)
            if not (self.open or self.fresh or self.ready or self.again):
                return
            self.came += session.take(self._until_due())
            self._settle(session)

    def _clear_up(self, session: Session, never: list[int]) -> None:
        """Settle what came back last, and record what was never sent as such."""
        try:
            self.came += session.take(0.0)
        except Exception:  # the session's own end, which `run` raises already
            pass
        late = {number: response for number, response in self.came if number in self.open}
        for number in never:
            if number in self.open:
                late[number] = Response("", "error", "", 0, 0, failure="not_sent")
        if late:
            self.asking.done([outcome.key for outcome in self._record(list(late.items()))])

    def _until_due(self) -> float | None:
        """Seconds until a failed question may be asked again; None while others come before it, or none waits."""
        if self.fresh or self.ready or not self.again:
            return None if self.open else 0.0
        # A question that is due may find no room yet; without anything under way only the session can say why.
        return max(0.05 if self.open else 0.0, self.again[0][0] - time.monotonic())

    def _hand_out(self, session: Session) -> None:
        room = session.room()
        while room > len(self.ready) and self.fresh:
            self._claim([self.fresh.popleft() for _ in range(min(CLAIM, len(self.fresh)))])
        keys = [self.ready.popleft() for _ in range(min(room, len(self.ready)))]
        if not self.fresh and not self.ready:
            keys += self._due(session, room - len(keys))
        if not keys:
            return
        teacher = self.asking.teacher
        numbers = self.store.sent(
            [Asked(key, self.asking.namespace, teacher.identity, teacher.revision) for key in keys]
        )
        self.open.update(zip(numbers, keys, strict=True))
        session.put([(number, self.questions[key]) for number, key in zip(numbers, keys, strict=True)])

    def _claim(self, keys: list[str]) -> None:
        claim = self.store.claim(keys)
        self.known.update(claim.known)
        self.asking.done(claim.known)
        self.held.update(claim.held)
        for key in (*claim.known, *claim.held):  # an earlier failure of this call is no longer its outcome
            self.asking.fresh.pop(key, None)
        self.ready.extend(key for key in keys if key in claim.mine)

    def _due(self, session: Session, room: int) -> list[str]:
        """Failed questions whose time has come; without a budget for them, their last failure stands."""
        now = time.monotonic()
        due: list[str] = []
        while self.again and len(due) < room and self.again[0][0] <= now:
            key = heapq.heappop(self.again)[1]
            if session.retry_allowed():
                due.append(key)
            else:
                self.asking.done([key])
        if due:  # the failure gave the claim back
            self._claim(due)
            self.ready.clear()
            due = [key for key in due if key not in self.known and key not in self.held]
        return due

    def _settle(self, session: Session) -> None:
        """Put outcomes on disk, and decide which questions are asked again."""
        if not self.came:
            return
        settled = self._record(self.came)
        self.came = []
        session.settled(len(settled))
        for outcome in settled:
            entry = self.asking.fresh[outcome.key]
            self.tries[outcome.key] += 1
            wait = None
            if entry.response.failure is not None:
                wait = session.retry_after(entry.response, self.tries[outcome.key])
            if wait is None:
                self.asking.done([outcome.key])
            else:
                heapq.heappush(self.again, (time.monotonic() + wait, outcome.key))

    def _record(self, results: list[tuple[int, Response]]) -> list[Settled]:
        settled: dict[int, Settled] = {}
        for number, response in results:
            if number not in self.open or number in settled:
                raise DistillError(
                    f"teacher {self.asking.teacher.identity}",
                    f"it answered attempt {number!r}, which is not open.",
                    "A session gives every ticket back once.",
                )
            settled[number] = self.asking.settled(number, self.open[number], response)
        self.asking.commit(list(settled.values()))
        for number in settled:  # not before it is on disk: a commit may be broken off
            del self.open[number]
        return list(settled.values())
