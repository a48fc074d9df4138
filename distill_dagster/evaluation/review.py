"""What people's verdicts amount to: agreement, the share of critical errors with its upper bound, disagreements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from distill_dagster.evaluation.agreement import agreement

Row = Mapping[str, Any]

#: Confidence of the one-sided bound on the share of critical errors.
LEVEL = 0.95
#: Records on which reviewers differ that are listed.
MOST = 20


def upper_bound(errors: int, records: int, level: float = LEVEL) -> float:
    """One-sided upper bound of a proportion (Clopper and Pearson 1934), exact; 1 where there is no record."""
    from scipy.stats import binomtest

    if records == 0:
        return 1.0
    found = binomtest(errors, records, alternative="less").proportion_ci(level, "exact")
    return float(found.high)


def figures(
    verdicts: Sequence[Row],
    rulings: Mapping[str, Any],
    reasons: Mapping[str, str | None],
    critical_errors: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Counts, agreement, critical errors and disagreements.

    Args:
        verdicts: VERDICT rows, one a record and reviewer.
        rulings: What was ruled, by candidate record id.
        reasons: Why each candidate of this data set was dropped, None where it was kept, by record id.
        critical_errors: The errors that count, by task.

    The share of critical errors is that among the reviewed records which every rule but review itself keeps: what it
    says of those is what it says of the unread ones beside them. A sampled record that came back without a verdict
    counts as one with an error, so an unfinished review cannot pass.
    """
    tasks = {row["candidate_record_id"]: row["task"] for row in verdicts}
    units: dict[str, dict[str, str]] = {}
    reviewers: dict[str, Counter[str]] = {}
    for row in verdicts:
        reviewers.setdefault(row["reviewer"], Counter())[row["verdict"]] += 1
        if row["verdict"] != "blank":
            units.setdefault(row["candidate_record_id"], {})[row["reviewer"]] = row["verdict"]
    found = agreement(list(units.values()))
    standing = [record for record in tasks if record in reasons and _by_machine(reasons[record])]
    dropped = [record for record in tasks if record in reasons and record in rulings and record not in set(standing)]
    disputed = [record for record in sorted(units) if len(set(units[record].values())) > 1]
    return {
        "reviewers": {name: dict(sorted(counts.items())) for name, counts in sorted(reviewers.items())},
        "records": {
            "reviewed": len(rulings),
            "accepted": sum(one.verdict == "accept" for one in rulings.values()),
            "rejected": sum(one.verdict == "reject" for one in rulings.values()),
            "not in this data set": sum(record not in reasons for record in tasks),
        },
        "agreement": None if found is None else asdict(found),
        "critical": {
            "all": _share(standing, rulings),
            "tasks": {
                task: _share([record for record in standing if tasks[record] == task], rulings)
                for task in sorted(critical_errors)
            },
        },
        "dropped": {"reviewed": len(dropped), "accepted": sum(rulings[one].verdict == "accept" for one in dropped)},
        "disputed": len(disputed),
        "disagreements": [
            {
                "record": record,
                "task": tasks[record],
                "verdicts": dict(sorted(units[record].items())),
                "ruling": f"{rulings[record].verdict}: {rulings[record].reason}",
            }
            for record in disputed[:MOST]
        ],
    }


def _by_machine(reason: str | None) -> bool:
    """Whether every rule but review itself keeps a record."""
    return reason is None or reason.partition(".")[0] == "human_review"


def _share(records: Sequence[str], rulings: Mapping[str, Any]) -> dict[str, Any]:
    """Critical errors among records, with the upper bound."""
    blank = sum(record not in rulings for record in records)
    errors = Counter(error for record in records if record in rulings for error in set(rulings[record].critical))
    critical = sum(bool(rulings[record].critical) for record in records if record in rulings)
    count = len(records)
    return {
        "records": count,
        "critical": critical,
        "without a verdict": blank,
        "errors": dict(sorted(errors.items())),
        "rate": critical / count if count else None,
        "upper": upper_bound(critical + blank, count),
    }
