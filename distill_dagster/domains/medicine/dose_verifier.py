"""Verifier of `dose`: works the monograph again from its numbers, apart from the code that wrote the text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from distill_dagster.domains.base import Verdict

#: Spellings of a unit and its size in micrograms; tablets stay as they are.
_SIZES = {
    "mg": 1000,
    "milligram": 1000,
    "milligrams": 1000,
    "microgram": 1,
    "micrograms": 1,
    "mcg": 1,
    "µg": 1,
    "μg": 1,
    "g": 1_000_000,
}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zµμ]*)(?: (?:per|a|each) (?:dose|day))?")


class _Refer(Exception):
    """The monograph gives no dose for this patient."""


def _need(patient: Mapping[str, Any], name: str) -> Fraction:
    if patient.get(name) is None:
        raise _Refer(f"{name} is not given")
    return Fraction(patient[name])


def _by_edges(rule: Mapping[str, Any], value: Fraction, upper_included: bool) -> Any:
    """The dose of the band that a value falls in; only the middle band of weights includes its upper edge."""
    edges, doses = rule["edges"], rule["doses"]
    if value < edges[0]:
        return doses[0]
    if len(edges) == 1:
        return doses[1]
    inside = value <= edges[1] if upper_included else value < edges[1]
    return doses[1] if inside else doses[2]


def _right(facts: Mapping[str, Any]) -> tuple[Fraction, str]:
    """Number and unit that the monograph gives. Raises `_Refer` with the reason where it gives none."""
    rule, patient = facts["rule"], facts["patient"]
    if patient["age"] < 18:
        raise _Refer("under 18")
    if patient["illness"] == facts["refer_in"]:
        raise _Refer(f"{facts['refer_in']} is to be referred")
    kind, unit = rule["kind"], rule["unit"]
    if kind == "bands":
        return Fraction(_by_edges(rule, _need(patient, rule["basis"]), True)), unit
    if kind == "renal":
        dose = _by_edges(rule, _need(patient, "clearance"), False)
        if dose is None:
            raise _Refer("clearance is below the cut-off")
        return Fraction(dose), unit
    if kind == "per_kg":
        dose = Fraction(rule["rate"]) * _need(patient, rule["basis"])
        return (Fraction(rule["cap"]) if dose > rule["cap"] else dose), unit
    if kind == "daily":
        if rule["asks"] == "single":
            return Fraction(rule["dose"]), unit
        times = rule["times"] if _need(patient, "clearance") >= rule["edge"] else 1
        return Fraction(rule["dose"]) * times, unit
    if kind == "split":
        return Fraction(rule["daily"], rule["parts"] if rule["asks"] == "single" else 1), unit
    if kind == "tablets":
        count = Fraction(_by_edges(rule, _need(patient, rule["basis"]), True), rule["strength"])
        if count.denominator != 1:
            raise _Refer("no whole number of tablets")
        return count, "tablets"
    raise KeyError(kind)


def verify(facts: Mapping[str, Any], output: str) -> Verdict:
    """Whether the output is the dose, in any spelling of the same amount, or refer where nothing else is right."""
    said = " ".join(output.lower().replace(",", "").split()).rstrip(".")
    try:
        number, unit = _right(facts)
    except _Refer as reason:
        return Verdict(said == "refer", f"refer: {reason}")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        return Verdict(None, f"the facts hold no usable monograph: {error!r}")
    wanted = f"{number} {unit}"
    match = _AMOUNT.fullmatch(said)
    if not match:
        return Verdict(False, f"by the monograph: {wanted}")
    amount, spelled = Fraction(match[1]), match[2]
    if unit == "tablets":
        same = spelled in ("", "tablet", "tablets") and amount == number
    else:
        same = spelled in _SIZES and amount * _SIZES[spelled] == number * _SIZES[unit]
    return Verdict(True) if same else Verdict(False, f"by the monograph: {wanted}")
