"""The call journal: no answer is paid for twice.

Every question has a key (`teachers.base.request_key`). A known key is answered from the journal. Any other is
claimed, recorded as sent, asked, and recorded with its answer; all of that is on disk before the answer is used. A
process that is killed leaves attempts without an outcome: they may have been paid for in vain, and are reported.
Failures are recorded with their class and asked again next time; responses that are not well formed are put aside.

What a teacher may say about itself, beside the protocol:

`window`
    How many questions it takes at a time (512).
`streams`
    Whether its answers are committed as they arrive (False). Otherwise a window is committed as a whole, so that
    after a kill the same batches are asked again, and batched arithmetic gives the same answers.
`session()`
    A continuous feed in place of windows (`teachers.base.StreamingTeacher`): no question waits for a batch, each
    attempt is recorded, and failed questions are asked again last, as the teacher allows.
`remember(served)`
    Is told which model strings earlier answers came from.
`cost_micros(response)`
    The price of an answer in millionths of the currency (0). Answers of a teacher with a price are committed as
    they arrive.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill_dagster.errors import DistillError, LeaseError
from distill_dagster.teachers._feed import Feed
from distill_dagster.teachers._journal import Asked, Attempt, Entry, JournalStore, Settled, utc_now
from distill_dagster.teachers._journal_sqlite import SqliteStore
from distill_dagster.teachers.base import Request, Response, Teacher, TokenLogprob, request_key

WINDOW = 512
#: Answers that stream are committed at this many, or after this many seconds.
GROUP, SECONDS = 64, 0.25
FINISH_REASONS = ("stop", "length", "refusal", "content_filter")

Progress = Callable[[int, int], None]
#: Is told of outcomes once they are on disk, failed ones that will be asked again among them.
Watch = Callable[[Sequence[Settled]], None]


@dataclass(frozen=True, slots=True)
class CallInfo:
    """What the journal knows of one question, beside its response.

    Attributes:
        key: Journal key.
        reused: Nothing was paid for it here: the answer is from another run, or from an identical question of the
            same call. Where another run answered after a failed attempt here was paid for, it is not reused.
        sent_at: When the attempt was sent that was answered or failed; UTC, ISO 8601.
        received_at: When its outcome came.
        cost_micros: What was paid here, in millionths of the currency; 0 where reused.
    """

    key: str
    reused: bool
    sent_at: str
    received_at: str
    cost_micros: int = 0


class Journal:
    """A journal on a store: an SQLite file by default.

    Args:
        path: The SQLite file; made with its folder where it is missing.
        store: Another store in its place.
        patience: Seconds to wait while another live process asks the same questions and none is answered.

    Raises:
        StoreError: The file cannot be opened or written, is no journal, or is of a newer format.
    """

    def __init__(self, path: str | Path, store: JournalStore | None = None, patience: float = 3600.0) -> None:
        self.store: JournalStore = SqliteStore(Path(path)) if store is None else store
        self.patience = patience

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back what is claimed and close the store."""
        self.store.close()

    def possibly_paid(self, namespace: str | None = None) -> list[Attempt]:
        """Attempts that were sent and whose outcome nobody knows: they may have been paid for in vain."""
        return self.store.lost(namespace)

    def spent(self) -> int:
        """Micro-units paid through this journal object; equals the sum over the infos it gave, where all went well."""
        return self.store.spent()

    def served(self, teacher: str) -> dict[str, int]:
        """How many answers each model gave that the teacher's server named."""
        return self.store.served(teacher)

    def ask(
        self,
        teacher: Teacher,
        requests: Sequence[Request],
        namespace: str,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> tuple[list[Response], list[CallInfo]]:
        """Answers to questions, in their order, asking the teacher only what the journal does not know.

        Args:
            teacher: Who answers.
            requests: Questions; identical ones are asked once.
            namespace: Whose answers may be shared: a client, a matter, a study.
            progress: Called with the number of questions answered and their total.
            watch: Called with outcomes as they are recorded, before the progress that they make.

        Returns:
            One response and one info a question. A failed question has a response whose `failure` is set.

        Raises:
            LeaseError: Another process keeps the last questions claimed beyond `patience`.
            StoreError: The journal cannot be written. What was committed stays.
            Exception: Whatever the teacher raises.
        """
        keys = [request_key(teacher, request, namespace) for request in requests]
        questions: dict[str, Request] = {}
        for key, request in zip(keys, requests, strict=True):
            questions.setdefault(key, request)
        found = self.store.known(list(questions))
        asking = Asking(self.store, teacher, namespace, Counter(keys), len(keys), progress, watch)
        asking.done(found)
        if remember := getattr(teacher, "remember", None):
            remember(self.store.served(teacher.identity))
        self._settle(asking, {key: request for key, request in questions.items() if key not in found}, found)
        responses: list[Response] = []
        infos: list[CallInfo] = []
        listed: set[str] = set()
        for key in keys:
            entry = asking.fresh.get(key) or found[key]
            reused = (key not in asking.fresh and not asking.paid[key]) or key in listed
            listed.add(key)
            responses.append(entry.response)
            infos.append(CallInfo(key, reused, entry.sent_at, entry.received_at, 0 if reused else asking.paid[key]))
        return responses, infos

    def _settle(self, asking: Asking, questions: dict[str, Request], found: dict[str, Entry]) -> None:
        """Settle every question, by asking or by waiting for whoever asks it already."""
        waiting = list(questions)
        deadline = time.monotonic() + self.patience
        while waiting:
            round_of = self._fed if hasattr(asking.teacher, "session") else self._in_windows
            later = round_of(asking, {key: questions[key] for key in waiting}, found)
            if len(later) < len(waiting):
                deadline = time.monotonic() + self.patience
            elif time.monotonic() > deadline:
                key, holder = next(iter(later.items()))
                raise LeaseError(
                    f"journal key {key[:16]}",
                    f"{len(later)} questions are being asked by {holder}.",
                    "Wait for it to finish, or stop it, and run again.",
                )
            waiting = [key for key in waiting if key in later]
            if waiting:
                time.sleep(0.2)

    def _fed(self, asking: Asking, questions: dict[str, Request], found: dict[str, Entry]) -> dict[str, str]:
        """Feed questions to a session; what others ask already, with their names."""
        feed = Feed(asking, questions)
        try:
            feed.run()
        finally:
            found.update(feed.known)
        return feed.held

    def _in_windows(self, asking: Asking, questions: dict[str, Request], found: dict[str, Entry]) -> dict[str, str]:
        """Ask window by window; what others ask already, with their names."""
        keys = list(questions)
        later: dict[str, str] = {}
        for start in range(0, len(keys), asking.window):
            part = keys[start : start + asking.window]
            claim = self.store.claim(part)
            found.update(claim.known)
            asking.done(claim.known)
            later.update(claim.held)
            mine = {key: questions[key] for key in part if key in claim.mine}
            try:
                if mine:
                    asking.window_of(mine)
            finally:
                self.store.release(mine)
        return later


class Asking:
    """One call of `Journal.ask` at work."""

    def __init__(
        self,
        store: JournalStore,
        teacher: Teacher,
        namespace: str,
        weight: Counter[str],
        total: int,
        progress: Progress | None,
        watch: Watch | None = None,
    ) -> None:
        self.store, self.teacher, self.namespace = store, teacher, namespace
        self.weight, self.total, self.progress, self.watch = weight, total, progress, watch
        self.price: Callable[[Response], int] | None = getattr(teacher, "cost_micros", None)
        self.streams = bool(getattr(teacher, "streams", False)) or self.price is not None
        self.window = max(1, int(getattr(teacher, "window", WINDOW)))
        self.fresh: dict[str, Entry] = {}
        #: Micro-units paid here, by key, failed attempts included.
        self.paid: Counter[str] = Counter()
        self.count = 0

    def done(self, keys: dict[str, Entry] | Sequence[str]) -> None:
        """Count questions as answered and say so."""
        self.count += sum(self.weight[key] for key in keys)
        if self.progress and keys:
            self.progress(self.count, self.total)

    def window_of(self, questions: dict[str, Request]) -> None:
        """Ask one window: record it as sent, ask, record the outcomes."""
        keys = list(questions)
        teacher = self.teacher
        attempts = self.store.sent([Asked(key, self.namespace, teacher.identity, teacher.revision) for key in keys])
        waiting = set(range(len(keys)))
        ready: list[Settled] = []
        flushed = time.monotonic()
        try:
            for index, response in teacher.ask(list(questions.values())):
                if index not in waiting:
                    raise DistillError(
                        f"teacher {teacher.identity}",
                        f"it answered question {index!r} of {len(keys)}, which is not open.",
                        "A backend yields every index once.",
                    )
                waiting.remove(index)
                ready.append(self.settled(attempts[index], keys[index], response))
                self.done([keys[index]])
                if self.streams and (len(ready) >= GROUP or time.monotonic() - flushed > SECONDS):
                    self._flush(ready)
                    flushed = time.monotonic()
        except BaseException:
            if self.streams:
                self._flush(ready)
            raise
        silent = Response("", "error", "", 0, 0, failure="no_answer")
        ready += [self.settled(attempts[index], keys[index], silent) for index in sorted(waiting)]
        self._flush(ready)

    def _flush(self, ready: list[Settled]) -> None:
        if ready:
            self.commit(ready)
            ready.clear()

    def commit(self, outcomes: Sequence[Settled]) -> None:
        """Put outcomes on disk."""
        for entry in self.store.settled(outcomes):
            self.fresh[entry.key] = entry
        for outcome in outcomes:
            self.paid[outcome.key] += outcome.cost_micros
        if self.watch is not None:
            self.watch(outcomes)

    def settled(self, attempt: int, key: str, response: Response) -> Settled:
        """The outcome of an attempt as the journal records it; what is not well formed is put aside."""
        now = utc_now()
        fault = _fault(response)
        if fault is not None:
            raw = repr(response).encode("utf-8", "backslashreplace")
            bad = Response("", "error", _string(getattr(response, "served_model", "")), 0, 0, failure="malformed")
            return Settled(attempt, key, "malformed", bad, now, 0, raw, fault)
        cost = int(self.price(response)) if self.price else 0
        if response.failure == "malformed":
            return Settled(attempt, key, "malformed", response, now, cost, None, response.detail)
        return Settled(attempt, key, "failed" if response.failure else "answered", response, now, cost)


def _fault(response: Response) -> str | None:
    """What is wrong with the form of a response; None where it is well formed."""
    if not isinstance(response, Response):
        return f"not a response but {type(response).__name__}"
    if response.failure is not None:
        return None if isinstance(response.failure, str) and response.failure else "a failure without a class"
    if not isinstance(response.text, str) or _string(response.text) != response.text:
        return "the text is not Unicode text"
    if not isinstance(response.served_model, str):
        return f"served_model is {response.served_model!r}"
    if response.finish_reason not in FINISH_REASONS:
        return f"finish_reason is {response.finish_reason!r}"
    for name in ("input_tokens", "output_tokens"):
        count = getattr(response, name)
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count < 2**63:
            return f"{name} is {count!r}"
    if response.logprobs is not None and not all(isinstance(entry, TokenLogprob) for entry in response.logprobs):
        return "logprobs are no token log-probabilities"
    return None


def _string(text: object) -> str:
    """Text without lone surrogates, which no file can hold."""
    return str(text).encode("utf-8", "replace").decode("utf-8")
