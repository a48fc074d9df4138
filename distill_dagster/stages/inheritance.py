"""What a training record inherits from the seeds behind it: licence, source, and whom it is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: Licence of what a teacher wrote from topics alone: nobody's record is behind it, the teacher's terms are.
WRITTEN = "LicenseRef-teacher-output"


class Inheritance:
    """Seeds by record id, and what is made from them.

    A record made from several seeds, or with the help of passages, is under the licences of all of them (an SPDX
    expression joined by `AND`), and about all their subjects. It is safe in training: every seed of D_U and D_G is
    disjoint by subject from what anybody is examined on, and so is any set of them.
    """

    def __init__(self, seeds: Iterable[Mapping[str, Any]]) -> None:
        self._seeds = {seed["record_id"]: seed for seed in seeds}

    def of(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """`licence`, `source_id` and `subject_key` of a CANDIDATE or COMPARISON row."""
        own = [row["seed_record_id"]] if row["seed_record_id"] is not None else []
        seeds = [self._seeds[record] for record in row.get("origins") or own]
        if not seeds:
            return {"licence": WRITTEN, "source_id": row.get("kind"), "subject_key": None}
        licences = sorted({*(seed["licence"] for seed in seeds if seed["licence"]), *(row.get("licences") or ())})
        if len(licences) > 1:
            licences = [f"({licence})" if " " in licence else licence for licence in licences]
        return {
            "licence": " AND ".join(licences) or None,
            "source_id": _joined(seeds, "source_id"),
            "subject_key": _joined(seeds, "subject_key"),
        }


def _joined(seeds: Iterable[Mapping[str, Any]], column: str) -> str | None:
    """The one value, or all of them in a line each."""
    return "\n".join(sorted({seed[column] for seed in seeds if seed[column] is not None})) or None
