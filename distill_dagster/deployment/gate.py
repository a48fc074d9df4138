"""What a student must show before it is deployed: a floor, and no regression against champions.

No regression means that the lower bound of candidate − reference, paired over the same items, lies above −δ, with
δ set beforehand, against the last champion and against the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean as mean
from typing import Any

from distill_dagster.config.models import GateOptions
from distill_dagster.evaluation.intervals import Bootstrap, difference_interval

Scores = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Finding:
    """One gate's outcome: `evidence` holds the numbers it was judged on."""

    gate: str
    passed: bool
    reason: str
    evidence: dict[str, Any]


def floor(report: Mapping[str, Any], options: GateOptions, candidate: Scores) -> Finding:
    """Every task with a floor reaches it, and the mean score beats mean chance by the margin.

    Args:
        report: Content of the evaluation report, for tasks and chance.
        options: Floors and margin.
        candidate: `item_score` rows of the weights that would be served; a report of several seeds tells their mean.
    """
    low: list[str] = []
    scores = {
        task["name"]: mean(row["score"] for row in candidate if row["task"] == task["name"]) for task in report["tasks"]
    }
    evidence: dict[str, Any] = {}
    for task in report["tasks"]:
        score = scores[task["name"]]
        evidence[task["name"]] = {"score": score, "floor": options.floor.get(task["name"])}
        if score < options.floor.get(task["name"], 0.0):
            low.append(f"{task['name']} scores {score:.3f}, its floor is {options.floor[task['name']]:.3f}")
    overall, chance = mean(scores.values()), report["overall"]["chance"]
    evidence["overall"] = {"score": overall, "chance": chance, "margin": options.floor_over_chance}
    if overall < chance + options.floor_over_chance:
        low.append(f"the mean score {overall:.3f} does not beat chance {chance:.3f} by {options.floor_over_chance:.3f}")
    return Finding("floor", not low, "; ".join(low) or "every floor is reached", evidence)


def no_regression(candidate: Scores, references: Mapping[str, Scores], options: GateOptions, level: float) -> Finding:
    """The candidate is not worse than any reference by δ or more.

    Args:
        candidate: `item_score` rows of the student arm.
        references: The same of earlier champions, by a name such as `last` and `first`.
        options: Holds δ.
        level: Confidence level of the interval.
    """
    worse: list[str] = []
    evidence: dict[str, Any] = {"delta": options.delta}
    own = {row["seed_record_id"]: row for row in candidate}
    for name, rows in references.items():
        other = {row["seed_record_id"]: row["score"] for row in rows}
        shared = [key for key in own if key in other]
        if not shared:
            evidence[name] = {"items": 0}
            continue
        bound = difference_interval(
            [own[key]["score"] for key in shared],
            [other[key] for key in shared],
            [own[key]["subject_key"] or key for key in shared],
            Bootstrap(level=level),
        )
        evidence[name] = {"items": len(shared), "difference": bound.value, "low": bound.low, "high": bound.high}
        if bound.low <= -options.delta:
            worse.append(
                f"against the {name} champion the difference is {bound.value:+.3f} "
                f"[{bound.low:+.3f}, {bound.high:+.3f}], and its lower bound must lie above {-options.delta:+.3f}"
            )
    reason = "; ".join(worse) or ("no worse than earlier champions" if references else "there is no earlier champion")
    return Finding("no_regression", not worse, reason, evidence)
