"""What several reviewers said of a record, made into one ruling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

#: What a reviewer may say. A record that came back without a verdict is `blank`.
VERDICTS = ("accept", "reject", "unsure")
BLANK = "blank"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Ruling:
    """The verdict that counts.

    Attributes:
        verdict: accept or reject.
        reason: accepted, rejected, critical, unsure, or disputed where reviewers differ and nothing decides.
        score: Share of the reviewers who accept.
        detail: Who said what.
        critical: The critical errors that count, sorted.
    """

    verdict: Literal["accept", "reject"]
    reason: str
    score: float
    detail: str
    critical: tuple[str, ...] = ()


def rulings(rows: Iterable[Row], adjudication: str) -> dict[str, Ruling]:
    """A ruling for each record, by the id of its candidate; none for a record without a verdict.

    Args:
        rows: VERDICT rows, one a record and reviewer.
        adjudication: majority, strictest, or the reviewer who decides.
    """
    votes: dict[str, list[Row]] = {}
    for row in rows:
        if row["verdict"] != BLANK:
            votes.setdefault(row["candidate_record_id"], []).append(row)
    return {record: ruling(said, adjudication) for record, said in votes.items()}


def ruling(votes: Sequence[Row], adjudication: str) -> Ruling:
    """One ruling from at least one vote. Where nothing decides, the record is rejected: a doubt is not trained on.

    majority
        Accepted where more than half accept. A critical error counts where at least half found one.
    strictest
        Accepted where all accept. One reviewer's critical error counts.
    a name
        That reviewer's word. Where they gave none, it is accepted where all accept, as with strictest.
    """
    deciding = [vote for vote in votes if vote["reviewer"] == adjudication] or list(votes)
    said = Counter(vote["verdict"] for vote in deciding)
    finding = [vote for vote in deciding if vote["critical"]]
    if adjudication == "majority":
        accepted = 2 * said["accept"] > len(deciding)
        critical = 2 * len(finding) >= len(deciding)
    else:
        accepted = said["accept"] == len(deciding)
        critical = bool(finding)
    errors = tuple(sorted({error for vote in finding for error in vote["critical"]})) if critical else ()
    score = sum(vote["verdict"] == "accept" for vote in votes) / len(votes)
    detail = "; ".join(_said(vote) for vote in sorted(votes, key=lambda vote: vote["reviewer"]))
    if accepted:
        return Ruling("accept", "accepted", score, detail)
    if errors:
        return Ruling("reject", "critical", score, detail, errors)
    by_majority = adjudication == "majority" and 2 * said["reject"] > len(deciding)
    if by_majority or said["reject"] == len(deciding) or (adjudication == "strictest" and said["reject"]):
        return Ruling("reject", "rejected", score, detail)
    return Ruling("reject", "unsure" if said["unsure"] == len(deciding) else "disputed", score, detail)


def _said(vote: Row) -> str:
    errors = f" [{', '.join(vote['critical'])}]" if vote["critical"] else ""
    comment = f" ({vote['comment']})" if vote["comment"] else ""
    return f"{vote['reviewer']}: {vote['verdict']}{errors}{comment}"
