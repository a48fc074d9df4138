"""How a note says that a finding has a status: clauses by status, kind of finding and voice.

Slots: {f} findings joined by "and", {o} by "or"; {s} she or he, {h} her or his; {p} a relative or another person;
{is} {was} agree with the number of findings; {t} a time in the past, {n} one to come.
"""

from __future__ import annotations

STATUSES = ("present", "absent", "past", "family", "planned", "hypothetical", "uncertain", "other_person")

#: Status to voice to clauses, for symptoms and illnesses. Voices: `she` (full sentence, cue first), `note` (no
#: subject, cue first), `tail` (finding first).
CONDITION_CLAUSES: dict[str, dict[str, tuple[str, ...]]] = {
    "present": {
        "she": ("{s} reports {f}", "{s} has {f}", "{s} reports no change in {o}"),
        "note": ("reports {f}", "has {f}", "no change in {o}"),
        "tail": ("{f} {is} present", "{f} {is} reported"),
    },
    "absent": {
        "she": ("{s} denies {o}", "{s} has no {o}", "{s} reports no {o}"),
        "note": ("denies {o}", "has no {o}", "no {o}"),
        "tail": ("{f} {is} absent", "{f} {is} denied"),
    },
    "past": {
        "she": ("{s} had {f} {t}", "{s} no longer has {o}", "{s} had {f}, now resolved"),
        "note": ("had {f} {t}", "no longer has {o}", "had {f}, now resolved"),
        "tail": ("{f} resolved {t}", "{f} {is} no longer present"),
    },
    "family": {
        "she": ("{h} {p} has {f}", "{h} {p} had {f} {t}", "{h} {p} is known to have {f}"),
        "note": ("{p} has {f}", "{p} had {f} {t}", "{p} is known to have {f}"),
        "tail": ("{f} {is} present in {h} {p}", "{f} {is} known in {h} {p}"),
    },
    "hypothetical": {
        "she": ("{s} should return if {s} has {o}", "{s} will call if there is {o}", "if {o} occurs, {s} will call"),
        "note": ("to return if {o} occurs", "will call if there is {o}", "if {o} occurs, to return"),
        "tail": ("{o}, if present later, should be reported", "{o} would be a reason to return"),
    },
    "uncertain": {
        "she": ("{s} may have {o}", "it is unclear whether {s} has {o}", "{s} is not sure about {o}"),
        "note": ("may have {o}", "unclear whether there is {o}", "possible {o}"),
        "tail": ("{o} may be present", "{o} cannot be ruled out"),
    },
}
CONDITION_CLAUSES["other_person"] = CONDITION_CLAUSES["family"]

#: The same for courses of treatment. Only these can be planned.
MEASURE_CLAUSES: dict[str, dict[str, tuple[str, ...]]] = {
    "present": {
        "she": ("{s} is having {f}", "{s} now has {f}"),
        "note": ("is having {f}", "now has {f}"),
        "tail": ("{f} {is} under way", "{f} {is} now given"),
    },
    "absent": {
        "she": ("{s} is not having {o}", "{s} has no {o}"),
        "note": ("is not having {o}", "no {o}"),
        "tail": ("{f} {is} not under way", "{f} {is} not given"),
    },
    "past": {
        "she": ("{s} had {f} {t}", "{s} no longer has {o}"),
        "note": ("had {f} {t}", "no longer has {o}"),
        "tail": ("{f} ended {t}", "{f} {is} no longer given"),
    },
    "family": {
        "she": ("{h} {p} has {f}", "{h} {p} had {f} {t}"),
        "note": ("{p} has {f}", "{p} had {f} {t}"),
        "tail": ("{f} {is} under way in {h} {p}", "{f} {was} given to {h} {p}"),
    },
    "planned": {
        "she": ("{s} will start {f} {n}", "{s} is booked for {f}", "the plan is to start {f} {n}"),
        "note": ("will start {f} {n}", "is booked for {f}", "plan is to start {f} {n}"),
        "tail": ("{f} {is} booked", "{f} will start {n}"),
    },
    "hypothetical": {
        "she": ("{s} would start {f} if {s} gets worse", "if {s} gets worse, {s} will start {f}"),
        "note": ("would start {f} if worse", "if worse, will start {f}"),
        "tail": ("{f} would start only if {s} gets worse", "{f} will start only if {s} gets worse"),
    },
    "uncertain": {
        "she": ("{s} may be having {o}", "it is unclear whether {s} has {o}", "{s} is not sure about {o}"),
        "note": ("may be having {o}", "unclear whether having {o}"),
        "tail": ("{o} may be under way", "whether {f} {is} under way is unclear"),
    },
}
MEASURE_CLAUSES["other_person"] = MEASURE_CLAUSES["family"]

TIMES_PAST = ("two years ago", "ten years ago", "last year")
TIMES_NEXT = ("next week", "next month")
