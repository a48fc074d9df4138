"""The words of a report: names of arms, numbers as they are printed, and the one sentence that each verdict allows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

AUTHORED_NOTICE = (
    "The records are authored and the models were trained from nothing: this report shows that the mechanism works. "
    "It is no evidence of legal, medical or financial competence."
)

#: Verdicts, with the words that stand on a report.
VERDICTS = {
    "helped": "Distillation helped",
    "budget": "Not beyond a larger budget",
    "no_help": "Did not help",
    "not_informative": "Not informative",
    "not_measured": "Not measured",
}

_TITLES = {
    "student": "Student",
    "teacher": "Teacher",
    "linear_teacher": "Baseline, teacher data",
    "linear_gold": "Baseline, gold data",
    "all_gold": "Gold for all of D_U",
    "self_training": "Self-training on D_U",
}
_MEANINGS = {
    "student": "the distilled model: a small gold set, and the teacher's answers to inputs it had no answers for",
    "teacher": "the model that is learned from",
    "linear_teacher": "no network; the data the teacher was fitted on (D_T): word counts for labels, else nearest seed",
    "linear_gold": "no network; the small gold set (D_G): word counts for labels, else nearest seed",
    "all_gold": "the student's twin: gold answers to every input that the teacher was asked, a ceiling",
    "self_training": "the student's twin: the control's own answers to those inputs, no teacher",
}


def multiple(arm: str) -> int | None:
    """Budget of a control arm as a multiple of the student's, None for other arms."""
    if arm == "control":
        return 1
    head, _, tail = arm.partition("control_")
    return int(tail) if head == "" and tail.isdigit() else None


def arm_title(arm: str) -> str:
    """An arm's name for people."""
    times = multiple(arm)
    if times is not None:
        return "Control, same budget" if times == 1 else f"Control, {times}× budget"
    return _TITLES.get(arm, arm.replace("_", " ").capitalize())


def arm_meaning(arm: str) -> str:
    """What an arm was given, in half a sentence."""
    times = multiple(arm)
    if times is not None:
        budget = "the same training tokens" if times == 1 else f"{times} times the training tokens"
        return f"the student's twin: the gold set alone, no teacher, {budget}"
    if arm.startswith("teacher_"):
        return "one of the teachers that vote, by itself"
    return _MEANINGS.get(arm, "a further arm named in the pipeline's YAML")


def arm_order(arms: Iterable[str]) -> list[str]:
    """Arms as a report lists them: baseline and teacher, baseline and controls, further arms, the student last."""

    def rank(arm: str) -> tuple[int, int, str]:
        fixed = {"linear_teacher": 0, "teacher": 1, "linear_gold": 2, "student": 9}
        times = multiple(arm)
        return (3, times, arm) if times is not None else (fixed.get(arm, 5), 0, arm)

    return sorted(arms, key=rank)


def number(value: float | None, digits: int = 3) -> str:
    """A score, or a dash where there is none."""
    return "–" if value is None else f"{value + 0.0:.{digits}f}"


def ratio(value: float) -> str:
    """A share of the gap: two digits, more where two would print zero for something that is not."""
    return next((f"{value:.{n}f}" for n in (2, 3, 4) if value == 0 or round(value, n) != 0), f"{value:.1e}")


def interval(estimate: Mapping[str, Any] | None, digits: int = 3) -> str:
    """`0.617 [0.592, 0.641]`, with dashes where there are too few subjects for bounds."""
    if estimate is None:
        return "–"
    low, high = number(estimate["low"], digits), number(estimate["high"], digits)
    return f"{number(estimate['value'], digits)} [{low}, {high}]"


def ratio_interval(estimate: Mapping[str, Any] | None) -> str:
    """`0.62 [0.55, 0.69]`."""
    if estimate is None:
        return "–"
    return f"{ratio(estimate['value'])} [{ratio(estimate['low'])}, {ratio(estimate['high'])}]"


def _all_of(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def times_list(multiples: Iterable[int]) -> str:
    """`2× and 4×`."""
    return _all_of([f"{times}×" for times in multiples])


def reason_linear(kind: str, difference: Mapping[str, Any] | None) -> str:
    """Why a task teaches nothing: word counts, or the nearest seed, do as well as the teacher."""
    name = "linear baseline" if kind == "label" else "nearest-seed baseline"
    return f"the teacher does not beat the {name} (teacher minus baseline is {interval(difference)})"


def reason_gap(difference: Mapping[str, Any]) -> str:
    """Why a gap cannot be divided by."""
    if difference["high"] < 0:
        return f"the control is better than the teacher (t−k is {interval(difference)})"
    return f"the t−k interval includes 0: teacher minus control is {interval(difference)}"


def sentence(task: Mapping[str, Any]) -> str:
    """The verdict of a task in one or two plain sentences."""
    verdict, reasons = task["verdict"], task["reasons"]
    if verdict == "not_measured":
        return f"Not measured: {_all_of(reasons)}."
    if verdict == "not_informative":
        return f"Not informative, because {_all_of(reasons)}."
    gap, above = task["gap"]["1"], task["student_minus_control"]
    if verdict == "no_help":
        if above["1"]["high"] < 0:
            return f"Distillation did not help: the student is worse than its control, by {interval(above['1'])}."
        return f"Distillation did not help: student minus control is {interval(above['1'])}."
    control, teacher = (number(task["arms"][arm]["value"], 2) for arm in ("control_1", "teacher"))
    closed = f"Distillation closed {ratio_interval(gap)} of the gap between control ({control}) and teacher ({teacher})"
    if verdict == "budget":
        equal = [int(times) for times, estimate in above.items() if estimate["low"] <= 0]
        return (
            f"{closed} at the same budget, but the student is not clearly better than a control at "
            f"{times_list(equal)} the budget (student minus control is {interval(above[str(equal[0])])}): no claim."
        )
    return f"{closed}."


def overall_sentence(tasks: list[Mapping[str, Any]]) -> str:
    """All tasks in one sentence."""
    groups: dict[str, list[str]] = {}
    for task in tasks:
        groups.setdefault(task["verdict"], []).append(task["title"])
    helped = [t for t in tasks if t["verdict"] == "helped"]
    parts = []
    if helped:
        closed = _all_of([f"{t['title']} {ratio(t['gap']['1']['value'])}" for t in helped])
        parts.append(f"Distillation closed part of the gap in {len(helped)} of {len(tasks)} tasks ({closed})")
    for verdict, words in (
        ("budget", "no clear gain over a control with a larger budget in"),
        ("no_help", "it did not help in"),
        ("not_informative", "not informative:"),
        ("not_measured", "not measured:"),
    ):
        if verdict in groups:
            parts.append(f"{words} {_all_of(groups[verdict])}")
    text = "; ".join(parts) or "No task was examined"
    return text[0].upper() + text[1:] + "."
