"""Passages that a domain gives for an input, numbered as they are first shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distill_dagster.domains.base import Passage
from distill_dagster.errors import ConfigError

Find = Callable[[str, str, int], Sequence[Passage]]


class Passages:
    """Looks up passages and remembers each under one number.

    Args:
        find: The domain's `passages`, or None.
        domain: Its name, for messages.
    """

    def __init__(self, find: Find | None = None, domain: str = "") -> None:
        self._find, self._domain = find, domain
        self._numbers: dict[Passage, int] = {}

    def look_up(self, task: str, text: str, count: int) -> list[tuple[int, Passage]]:
        """At most `count` passages for an input, best first, each with its number.

        Raises:
            ConfigError: The domain has none to give.
        """
        if self._find is None:
            raise ConfigError(
                "knowledge: passages",
                f"domain {self._domain!r} gives no passages.",
                "Leave `passages` out, or give the domain a function `passages(task, input, count)`.",
            )
        found = list(self._find(task, text, count))[:count]
        return [(self._numbers.setdefault(passage, len(self._numbers)), passage) for passage in found]

    def rows(self) -> list[dict[str, Any]]:
        """PASSAGE rows of all that were shown, by number."""
        return [
            {"passage_no": number, "text": one.text, "source_id": one.source_id, "licence": one.licence or None}
            for one, number in self._numbers.items()
        ]
