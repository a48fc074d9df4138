"""Dosing rules of the invented monographs: numbers, wording, question and worked result of each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

DOSES = (5, 10, 15, 20, 25, 30, 40, 50, 60, 80)
BASES = ("actual weight", "ideal weight")
QUESTIONS = {"single": "single dose?", "daily": "daily dose?", "tablets": "tablets per dose?"}


@dataclass(frozen=True)
class Rule:
    """One monograph's dosing rule.

    Attributes:
        text: The rule as the monograph says it, ending in a space.
        composition: What the rule combines.
        numbers: The rule for the verifier.
        unit: `mg`, `micrograms` or `tablets`: unit of the answer.
        needs: Value of the patient without which there is no answer, or "".
        cuts_off: Whether the rule itself refers some patients.
        work: From a patient to a number, or None for refer.
        explain: From a patient to the reason in a few words.
    """

    text: str
    composition: str
    numbers: Mapping[str, Any]
    unit: str
    needs: str
    cuts_off: bool
    work: Callable[[Mapping[str, Any]], int | None]
    explain: Callable[[Mapping[str, Any]], str]

    @property
    def question(self) -> str:
        return QUESTIONS[self.numbers["asks"]]


def plural(number: int, unit: str) -> str:
    """`1 tablet`, `2 tablets`, `40 mg`."""
    return f"{number} {unit[:-1] if number == 1 and unit.endswith('s') else unit}"


def _unit(rng: Random) -> str:
    return rng.choice(("mg", "mg", "micrograms"))


def _rising(rng: Random, count: int) -> list[int]:
    doses = list(DOSES)
    rng.shuffle(doses)
    return sorted(doses[:count])


def bands(rng: Random) -> Rule:
    """A single dose by three bands of actual or ideal weight."""
    basis, unit = rng.choice(BASES), _unit(rng)
    low = rng.choice((55, 60, 65, 70))
    high = low + rng.choice((15, 20, 25))
    doses = _rising(rng, 3)

    def place(patient: Mapping[str, Any]) -> int:
        return 0 if patient[basis] < low else 1 if patient[basis] <= high else 2

    names = (f"under {low} kg", f"{low} to {high} kg", f"over {high} kg")
    return Rule(
        text=f"Single dose by {basis}, "
        + "; ".join(f"{name}: {dose} {unit}" for name, dose in zip(names, doses, strict=True))
        + ". ",
        composition=f"bands:{basis}:{unit}:{low}:{high}",
        numbers={"kind": "bands", "basis": basis, "edges": [low, high], "doses": doses, "unit": unit, "asks": "single"},
        unit=unit,
        needs=basis,
        cuts_off=False,
        work=lambda patient: doses[place(patient)],
        explain=lambda patient: f"{basis} {patient[basis]} kg is {names[place(patient)]}",
    )


def renal(rng: Random) -> Rule:
    """A single dose by creatinine clearance; the lowest tier is a dose or refer."""
    unit = _unit(rng)
    low, high = rng.choice((20, 25, 30)), rng.choice((50, 60, 70))
    refers = rng.random() < 0.5
    doses = _rising(rng, 2 if refers else 3)
    tiers = ([None] if refers else []) + doses

    def place(patient: Mapping[str, Any]) -> int:
        return 0 if patient["clearance"] < low else 1 if patient["clearance"] < high else 2

    names = (f"under {low}", f"{low} to {high - 1}", f"{high} or more")
    said = "; ".join(
        f"{name}: {'refer' if dose is None else f'{dose} {unit}'}"
        for name, dose in zip(reversed(names), reversed(tiers), strict=True)
    )
    return Rule(
        text=f"Single dose by clearance (Cockcroft-Gault, mL/min), {said}. ",
        composition=f"renal:{unit}:{low}:{high}:{refers}",
        numbers={"kind": "renal", "edges": [low, high], "doses": tiers, "unit": unit, "asks": "single"},
        unit=unit,
        needs="clearance",
        cuts_off=refers,
        work=lambda patient: tiers[place(patient)],
        explain=lambda patient: f"clearance {patient['clearance']} is {names[place(patient)]}",
    )


def per_kg(rng: Random) -> Rule:
    """A single dose per kilogram with a cap."""
    basis, unit = rng.choice(BASES), _unit(rng)
    rate = rng.choice((1, 2, 3))
    cap = rate * rng.choice((60, 70, 80, 90))
    return Rule(
        text=f"Single dose {rate} {plural(rate, unit).split()[1]} per kg {basis}, at most {cap} {unit}. ",
        composition=f"per_kg:{basis}:{unit}:{rate}:{cap}",
        numbers={"kind": "per_kg", "basis": basis, "rate": rate, "cap": cap, "unit": unit, "asks": "single"},
        unit=unit,
        needs=basis,
        cuts_off=False,
        work=lambda patient: min(cap, rate * patient[basis]),
        explain=lambda patient: f"{rate} x {patient[basis]} = {rate * patient[basis]} and at most {cap}",
    )


def daily(rng: Random) -> Rule:
    """A single dose and how often it is given, fewer times a day below a clearance; the dose or the day is asked."""
    unit, asks = _unit(rng), rng.choice(("single", "daily", "daily"))
    dose, often, edge = rng.choice((10, 20, 30, 40, 50)), rng.choice((2, 3, 4)), rng.choice((30, 40, 50, 60))

    def times(patient: Mapping[str, Any]) -> int:
        return 1 if patient["clearance"] < edge else often

    def explain(patient: Mapping[str, Any]) -> str:
        if asks == "single":
            return f"the single dose is {dose}"
        low = "under" if patient["clearance"] < edge else "not under"
        return f"clearance {patient['clearance']} is {low} {edge}, {times(patient)} x {dose} = {times(patient) * dose}"

    return Rule(
        text=f"Single dose {dose} {unit}, {often} times a day; once a day if clearance "
        f"(Cockcroft-Gault) is under {edge} mL/min. ",
        composition=f"daily:{asks}:{unit}:{dose}:{often}:{edge}",
        numbers={"kind": "daily", "dose": dose, "times": often, "edge": edge, "unit": unit, "asks": asks},
        unit=unit,
        needs="clearance" if asks == "daily" else "",
        cuts_off=False,
        work=lambda patient: dose if asks == "single" else dose * times(patient),
        explain=explain,
    )


def split(rng: Random) -> Rule:
    """A daily dose in equal parts; the part or the whole is asked."""
    unit, asks = _unit(rng), rng.choice(("single", "single", "daily"))
    parts = rng.choice((2, 3, 4))
    whole = parts * rng.choice((10, 20, 30, 40))
    numbers = {"kind": "split", "daily": whole, "parts": parts, "unit": unit, "asks": asks}
    return Rule(
        text=f"Daily dose {whole} {unit}, given as {parts} equal single doses. ",
        composition=f"split:{asks}:{unit}:{whole}:{parts}",
        numbers=numbers,
        unit=unit,
        needs="",
        cuts_off=False,
        work=lambda patient: whole if asks == "daily" else whole // parts,
        explain=lambda patient: f"{whole} a day" if asks == "daily" else f"{whole} / {parts} = {whole // parts}",
    )


def tablets(rng: Random) -> Rule:
    """Whole tablets for a dose by two bands of weight; refer where no whole number fits."""
    basis, unit = rng.choice(BASES), _unit(rng)
    edge, strength = rng.choice((60, 70, 80)), rng.choice((10, 20, 40))
    first = rng.choice((1, 2))
    doses = [strength * first, strength * (first + rng.choice((1, 2)))]
    uneven = rng.random() < 0.4
    if uneven:
        doses[rng.randrange(2)] += strength // 2

    def dose(patient: Mapping[str, Any]) -> int:
        return doses[0] if patient[basis] < edge else doses[1]

    return Rule(
        text=f"Single dose by {basis}, under {edge} kg: {doses[0]} {unit}; {edge} kg or more: {doses[1]} {unit}. "
        f"Whole tablets of {strength} {unit} only, otherwise refer. ",
        composition=f"tablets:{basis}:{unit}:{edge}:{strength}:{uneven}",
        numbers={
            "kind": "tablets",
            "basis": basis,
            "edges": [edge],
            "doses": doses,
            "strength": strength,
            "unit": unit,
            "asks": "tablets",
        },
        unit="tablets",
        needs=basis,
        cuts_off=uneven,
        work=lambda patient: None if dose(patient) % strength else dose(patient) // strength,
        explain=lambda patient: f"{basis} {patient[basis]} kg gives {dose(patient)}, tablets of {strength}",
    )


#: Kinds of rule by how often they are drawn.
RULES = (bands, bands, bands, renal, renal, renal, per_kg, per_kg, daily, daily, split, tablets, tablets)
