"""A teacher around a teacher: everything that is not said otherwise is asked of the one inside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from distill_dagster.teachers.base import Request, Response, Teacher


class Wrapper:
    """Passes everything on to the teacher inside, so that the journal sees its window, its session and its name."""

    def __init__(self, teacher: Teacher) -> None:
        self.inner = teacher
        self.identity, self.revision = teacher.identity, teacher.revision

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[int, Response]]:
        """Yield what the teacher inside yields."""
        yield from self.inner.ask(requests)

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # asked before it is set, by copy
            raise AttributeError(name)
        return getattr(self.inner, name)
