"""A budget in front of a teacher: nothing is sent that might not be affordable, and the run stops resumably.

Before a question is sent, the worst it can cost is set aside: every byte of its text as a token, and an answer of
`max_new_tokens`. What is spent, what is set aside for questions on their way, and the next question must fit the
limit together, so a limit is never passed by what one process sends. Two processes see what the other has paid, not
what it has on its way. Attempts whose outcome nobody knows, after a kill, may have been paid for: they count at the
worst that they can have cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distill_dagster.config.models import BudgetOptions
from distill_dagster.errors import BudgetError
from distill_dagster.teachers._journal import Account, JournalStore
from distill_dagster.teachers._wrapper import Wrapper
from distill_dagster.teachers.base import Request, Response, Teacher, request_key
from distill_dagster.teachers.prices import MICRO, Priced, money

#: Tokens a chat template may add to a message, and to a conversation.
A_MESSAGE = 16
#: Room for an answer where a request names none.
NO_LIMIT = 4096
#: What others have spent is read again before each window, or after so many questions of a continuous feed.
REFRESH = 512
NOTHING = Account(0, 0, 0)


def worst_tokens(request: Request) -> tuple[int, int]:
    """The most tokens a question can hold, and its answer. A token is at least one byte of text."""
    read = sum(len(message["content"].encode("utf-8", "replace")) + A_MESSAGE for message in request.messages)
    return read + A_MESSAGE, int(request.sampling.get("max_new_tokens") or NO_LIMIT)


class Budgeted(Wrapper):
    """A teacher with a limit on calls, tokens or money, counted over everything it was ever asked in a namespace.

    `begin` must be called before each `Journal.ask`. A question that is not affordable is recorded as failed with
    class `not_sent`, and a BudgetError ends the call when everything that was sent has come back.
    """

    streams = True

    def __init__(self, teacher: Teacher, options: BudgetOptions) -> None:
        super().__init__(teacher)
        self.options = options
        self.tariff = teacher.tariff if isinstance(teacher, Priced) else None
        self.limit = Account(
            options.calls, options.tokens, None if options.money is None else round(options.money * MICRO)
        )
        self._store: JournalStore | None = None
        self._namespace = ""
        self._others, self._own, self._open = NOTHING, NOTHING, NOTHING
        self._unknown = NOTHING
        self._largest, self._since = NOTHING, 0
        self._waiting: dict[str, int] = {}

    def begin(self, store: JournalStore, requests: Sequence[Request], namespace: str) -> None:
        """Look up what has been spent, and which questions are still to be asked."""
        self._store, self._namespace = store, namespace
        self._own, self._open = NOTHING, NOTHING
        questions = {request_key(self.inner, request, namespace): request for request in requests}
        self._unknown = self._of_unknown_outcome(store, questions)
        for key in store.known(list(questions)):
            del questions[key]
        worst = [self._worst(request) for request in questions.values()]
        self._waiting = {key: entry.cost_micros or 0 for key, entry in zip(questions, worst, strict=True)}
        self._largest = Account(*(max((entry[at] or 0 for entry in worst), default=0) for at in range(3)))
        self._refresh()

    def _of_unknown_outcome(self, store: JournalStore, questions: Mapping[str, Request]) -> Account:
        """The worst that attempts of unknown outcome can have cost; one of another question counts as the largest here.

        A teacher that finds what a killed run had sent (`resumes`) pays for none of it again.
        """
        if getattr(self.inner, "resumes", False):
            return NOTHING
        lost = [attempt.key for attempt in store.lost(self._namespace) if attempt.teacher == self.identity]
        if not lost:
            return NOTHING
        worst = {key: self._worst(request) for key, request in questions.items()}
        other = Account(*(max((entry[at] or 0 for entry in worst.values()), default=0) for at in range(3)))
        return _sum(NOTHING, *(worst.get(key, other) for key in lost))

    # --- questions ------------------------------------------------------------------------------------------------

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[int, Response]]:
        """Ask as many at a time as surely fit; those that do not are not sent, and end the run.

        Raises:
            BudgetError: Not even one more question fits.
        """
        self._refresh()
        start = 0
        while start < len(requests):
            stop, aside = start, NOTHING
            while stop < len(requests) and self._fits(_sum(aside, self._worst(requests[stop]))):
                aside, stop = _sum(aside, self._worst(requests[stop])), stop + 1
            if stop == start:
                for index in range(start, len(requests)):
                    yield index, Response("", "error", "", 0, 0, failure="not_sent")
                raise self._error()
            for index, response in self.inner.ask(requests[start:stop]):
                self._came(requests[start + index], response)
                yield start + index, response
            start = stop

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        # A teacher with a continuous feed keeps it; its session asks the budget how much room there is.
        return (lambda: _Session(found(), self)) if name == "session" else found

    def _worst(self, request: Request) -> Account:
        read, written = worst_tokens(request)
        return Account(1, read + written, self.tariff.cost(read, written) if self.tariff else 0)

    def _fits(self, more: Account) -> bool:
        spent = _sum(self._others, self._own, self._unknown, self._open, more)
        return all(limit is None or (used or 0) <= limit for used, limit in zip(spent, self.limit, strict=True))

    def _sent(self, count: int) -> None:
        self._since += count
        if self._since >= REFRESH:
            self._refresh()

    def _came(self, request: Request, response: Response) -> None:
        # The journal looks at the form of a response later; what is malformed here counts as a call alone.
        read, written = (_count(getattr(response, name, 0)) for name in ("input_tokens", "output_tokens"))
        self._own = _sum(self._own, Account(1, read + written, self.tariff.cost(read, written) if self.tariff else 0))
        if getattr(response, "failure", "") is None:
            self._waiting.pop(request_key(self.inner, request, self._namespace), None)

    def _refresh(self) -> None:
        assert self._store is not None
        self._since = 0
        self._others = self._store.account(self.identity, self._namespace)

    def _error(self) -> BudgetError:
        spent = _sum(self._others, self._own, self._unknown)
        worst = sum(self._waiting.values())
        left = f"{len(self._waiting):,} question{'s are' if len(self._waiting) != 1 else ' is'} left to ask"
        if self.tariff is not None:
            left += f", for at most {money(worst, self.tariff.currency)}"
        unknown = self._unknown.calls or 0
        counted = f" (of them {unknown:,} of unknown outcome, at the worst they can have cost)" if unknown else ""
        return BudgetError(
            f"teacher {self.identity}",
            f"the next question might pass its budget: {'; '.join(self._account(spent))}{counted}. {left}.",
            "Raise its `budget` and run again: what is answered is kept, and not paid for twice.",
        )

    def _account(self, spent: Account) -> Iterator[str]:
        if self.limit.calls is not None:
            yield f"{spent.calls:,} of {self.limit.calls:,} calls are made"
        if self.limit.tokens is not None:
            yield f"{spent.tokens:,} of {self.limit.tokens:,} tokens are used"
        if self.limit.cost_micros is not None and self.tariff is not None:
            currency = self.tariff.currency
            yield f"{money(spent.cost_micros or 0, currency)} of {money(self.limit.cost_micros, currency)} are spent"


class _Session:
    """A teacher's session that wants no more questions than the budget has room for."""

    def __init__(self, session: Any, budget: Budgeted) -> None:
        self._session, self._budget = session, budget
        self._open: dict[int, Request] = {}
        self._starved = False

    def room(self) -> int:
        """How many more questions it wants, each as large as the largest one."""
        budget, wanted = self._budget, self._session.room()
        fits, aside = 0, budget._largest
        while fits < wanted and budget._fits(aside):
            fits, aside = fits + 1, _sum(aside, budget._largest)
        self._starved = fits < wanted
        return fits

    def put(self, questions: Sequence[tuple[int, Request]]) -> None:
        """Hand over questions, and set aside the worst they can cost."""
        for ticket, request in questions:
            self._open[ticket] = request
            self._budget._open = _sum(self._budget._open, self._budget._worst(request))
        self._budget._sent(len(questions))
        self._session.put(questions)

    def take(self, timeout: float | None) -> Sequence[tuple[int, Response]]:
        """Outcomes that have come.

        Raises:
            BudgetError: Nothing is on its way, and not even one more question fits.
        """
        results = self._session.take(timeout)
        for ticket, response in results:
            request = self._close(ticket)
            if request is not None:
                self._budget._came(request, response)
        if not results and not self._open and self._starved:
            raise self._budget._error()
        return results

    def withdraw(self, grace: float = 0.0) -> Sequence[int]:
        """End the work; what never was on the wire costs nothing."""
        never = self._session.withdraw(grace)
        for ticket in never:
            self._close(ticket)
        return never

    def _close(self, ticket: int) -> Request | None:
        request = self._open.pop(ticket, None)
        if request is not None:
            self._budget._open = _sum(self._budget._open, self._budget._worst(request), sign=-1)
        return request

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _sum(first: Account, *others: Account, sign: int = 1) -> Account:
    return Account(*((first[at] or 0) + sign * sum(other[at] or 0 for other in others) for at in range(3)))
