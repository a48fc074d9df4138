"""What a student must show before it is deployed: a floor, and no regression against champions. What a data set must
show before a student is trained on it: few critical errors, by people who read a sample.

No regression means that the lower bound of candidate − reference, paired over the same items, lies above −δ, with
δ set beforehand, against the last champion and against the first. With too few items in common there is no bound, and
the gate does not pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean as mean
from typing import Any

from distill_dagster.config.models import GateOptions, ReviewOptions
from distill_dagster.evaluation.intervals import MIN_SUBJECTS, Bootstrap, difference_interval

Scores = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Finding:
    """One gate's outcome: `evidence` holds the numbers it was judged on."""

    gate: str
    passed: bool
    reason: str
    evidence: dict[str, Any]
    next_step: str = "Improve the student, or change the gate in the pipeline's YAML file."


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


def _shared(candidate: Scores, reference: Scores) -> tuple[list[tuple[float, float, str]], int]:
    """(candidate's score, reference's score, subject) of each item that both answered, and how many subjects."""
    other = {row["seed_record_id"]: row["score"] for row in reference}
    pairs = [
        (row["score"], other[row["seed_record_id"]], row["subject_key"] or row["seed_record_id"])
        for row in candidate
        if row["seed_record_id"] in other
    ]
    return pairs, len({subject for _, _, subject in pairs})


def comparable(candidate: Scores, reference: Scores) -> bool:
    """Do both have scores of the same items, of enough independent subjects for an interval?"""
    return _shared(candidate, reference)[1] >= MIN_SUBJECTS


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
    next_step = Finding.next_step
    for name, rows in references.items():
        shared, subjects = _shared(candidate, rows)
        evidence[name] = {"items": len(shared), "subjects": subjects}
        if subjects < MIN_SUBJECTS:
            worse.append(
                f"not comparable with the {name} champion: {len(shared)} shared items, of only {subjects} independent "
                f"subjects (at least {MIN_SUBJECTS} are needed)"
            )
            next_step = (
                "If the test set is another one than when the champion was examined, run the champion's configuration "
                "once with today's test set, then this one again; if its subjects are few, add test items."
            )
            continue
        own, other, keys = zip(*shared, strict=True)
        bound = difference_interval(own, other, keys, Bootstrap(level=level))
        evidence[name] |= {"difference": bound.value, "low": bound.low, "high": bound.high}
        if bound.low <= -options.delta:
            worse.append(
                f"against the {name} champion the difference is {bound.value:+.3f} "
                f"[{bound.low:+.3f}, {bound.high:+.3f}], and its lower bound must lie above {-options.delta:+.3f}"
            )
    reason = "; ".join(worse) or ("no worse than earlier champions" if references else "there is no earlier champion")
    return Finding("no_regression", not worse, reason, evidence, next_step)


def critical_errors(critical: Mapping[str, Any], options: ReviewOptions) -> Finding:
    """The upper bound of the share of critical errors lies below the largest one allowed.

    Args:
        critical: `all` and `tasks`, each with records, errors and their upper bound (evaluation/review.py).
        options: Holds the bound.
    """
    most = options.max_upper_bound
    if most is None:
        return Finding("critical_errors", True, "no bound was set", {})
    judged = {"all tasks": critical["all"]}
    if options.by_task:
        judged = {task: share for task, share in critical["tasks"].items() if options.critical_errors.get(task)}
    high = []
    for name, share in judged.items():
        if share["upper"] >= most:
            missing = f", {share['without a verdict']} without a verdict" if share["without a verdict"] else ""
            high.append(
                f"{name}: {share['critical']} critical errors in {share['records']} reviewed records{missing}; the "
                f"upper bound is {share['upper']:.4f} and must lie below {most:g}"
            )
    evidence = {name: {key: share[key] for key in ("records", "critical", "upper")} for name, share in judged.items()}
    reason = "; ".join(high) or "few enough critical errors"
    return Finding("critical_errors", not high, reason, {"bound": most, **evidence})
