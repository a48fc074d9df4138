"""What the numbers of a task allow to be said: informative or not and why, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distill_dagster.evaluation import wording
from distill_dagster.evaluation.intervals import MIN_SUBJECTS
from distill_dagster.evaluation.sample import Sample, plain

#: Budgets beside the student's own that a claim needs.
CLAIM_MULTIPLES = (2, 4)


def judge(kind: str, sample: Sample, control: str) -> dict[str, Any]:
    """Differences, gaps, verdict, reasons and notes of one task.

    Args:
        kind: The task's kind, which names its baseline.
        sample: Its measured arms.
        control: `off` where no control was wanted.
    """
    have = sample.names
    multiples = sorted(times for arm in have if (times := wording.multiple(arm)) is not None)
    above = {str(m): sample.difference("student", f"control_{m}") for m in multiples if "student" in have}
    below = {str(m): sample.difference("teacher", f"control_{m}") for m in multiples if "teacher" in have}
    gaps = {m: sample.gap(f"control_{m}") for m in below if m in above}
    linear = sample.difference("teacher", "linear_teacher") if {"teacher", "linear_teacher"} <= set(have) else None
    result: dict[str, Any] = {
        "teacher_minus_control": {m: plain(value) for m, value in below.items()},
        "student_minus_control": {m: plain(value) for m, value in above.items()},
        "teacher_minus_linear": plain(linear),
    }

    missing, reasons = [], []
    if control == "off":
        missing.append("the control is switched off (control: off)")
    elif 1 not in multiples:
        missing.append("no control at the student's own budget")
    missing += [f"no {arm} scores" for arm in ("teacher", "student") if arm not in have]
    few = sample.units < MIN_SUBJECTS
    if not missing:
        if few:
            reasons.append(f"there are only {sample.units} independent subjects (at least {MIN_SUBJECTS} are needed)")
        if linear is None:
            reasons.append("no linear baseline was measured on the teacher's data")
        elif not few and linear.low <= 0:
            reasons.append(wording.reason_linear(kind, plain(linear)))
        if not few and gaps.get("1") is None:
            reasons.append(wording.reason_gap(result["teacher_minus_control"]["1"]))
    informative = not missing and not reasons
    result["informative"] = informative
    result["reasons"] = missing or reasons
    result["gap"] = {m: plain(value) if informative else None for m, value in gaps.items()}
    if missing:
        result["verdict"] = "not_measured"
    elif reasons:
        result["verdict"] = "not_informative"
    elif above["1"].low <= 0:
        result["verdict"] = "no_help"
    else:
        result["verdict"] = "budget" if any(value.low <= 0 for value in above.values()) else "helped"
    unmeasured = [times for times in CLAIM_MULTIPLES if times not in multiples]
    result["claim"] = result["verdict"] == "helped" and not unmeasured
    result["notes"] = _notes(result, sample, unmeasured)
    return result


def _notes(result: Mapping[str, Any], sample: Sample, unmeasured: Sequence[int]) -> list[str]:
    notes = []
    if result["verdict"] == "helped" and unmeasured:
        notes.append(
            f"The control at {wording.times_list(unmeasured)} the budget was not measured, so this is no claim: "
            "the control may have been starved."
        )
    if {"student", "linear_gold"} <= set(sample.names) and sample.units >= MIN_SUBJECTS:
        over = sample.difference("student", "linear_gold")
        if over.low <= 0:
            notes.append(
                "The student does not beat the baseline without a network on the same gold data "
                f"(difference {wording.interval(plain(over))})."
            )
    if result["informative"]:
        for times, gap in result["gap"].items():
            if gap is None:
                notes.append(f"At {times}× the budget the control reaches the teacher: no gap is left to divide by.")
    return notes
