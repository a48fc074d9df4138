"""A dose from the monograph of an invented drug, or "refer" where the monograph does not allow one.

The patient has more numbers than the monograph needs (actual and ideal weight, creatinine clearance and eGFR) and
may have an illness that one monograph refers and another one does not mind: the rule decides what counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from random import Random
from typing import Any

from distill_dagster.domains.base import Item, PromptTemplate, Task
from distill_dagster.domains.medicine import dose_verifier, words
from distill_dagster.domains.medicine.dose_rules import RULES, Rule, plural

NAME = "dose"

verify = dose_verifier.verify

TASK = Task(
    name=NAME,
    kind="verified",
    title="Dose from a fictional monograph",
    description="The dose for one adult by the monograph of an invented drug, with weight bands, renal cut-offs, "
    "caps and tablets, or refer where the monograph gives none.",
    max_new_tokens=12,
)

TEMPLATES = (
    PromptTemplate(
        task=NAME,
        style="full",
        system="You apply the monograph of an invented drug to an invented patient. No such drug exists: this is an "
        "exercise in reading rules, for adults who are not pregnant, and no medical advice. Use nothing but the "
        "monograph in the text. Clearance is creatinine clearance by Cockcroft-Gault and is not the same as eGFR; "
        "actual and ideal weight differ.\n"
        "Answer refer if the monograph says so, or if a value that it needs is not given. Otherwise answer with "
        "number and unit only, as in: 40 mg, 40 micrograms, 2 tablets. Mind whether a single dose, a daily dose or "
        "a number of tablets is asked.",
        user="{{ input }}",
    ),
    PromptTemplate(task=NAME, style="short", user="dose:\n{{ input }}"),
)

DRUGS = ("wexolan", "quillar", "ombrid", "farrowel", "brindor", "tarquil", "hadrim", "dorqual")
#: Illnesses that a monograph may refer or not mind.
ILLNESSES = ("liver disease", "heart failure", "asthma", "epilepsy")

_HEADS = {
    "fictional": "Fictional drug {drug}, adults only. ",
    "monograph": "Monograph of fictional {drug}, adults only. ",
    "for": "{drug}, fictional, for adults. ",
}
_EXCEPTIONS = {
    "refer-first": "Refer: under 18, {bad}, needed value missing. No change: {fine}. ",
    "fine-first": "No change: {fine}. Refer: {bad}, under 18, needed value missing. ",
    "if": "If {bad}, under 18 or needed value missing, refer; if {fine}, no change. ",
}
_PATIENTS = {
    "weights-first": "Patient: {age} years{weights}{kidneys}{illness}. ",
    "kidneys-first": "Patient: {age} years{kidneys}{weights}{illness}. ",
    "illness-first": "Patient aged {age}{illness}{weights}{kidneys}. ",
    "illness-middle": "Patient aged {age}{weights}{illness}{kidneys}. ",
}
_ORDERS = {
    "rule-exception-patient": "{head}{rule}{exception}{patient}",
    "exception-rule-patient": "{head}{exception}{rule}{patient}",
    "patient-rule-exception": "{patient}{head}{rule}{exception}",
    "patient-exception-rule": "{patient}{head}{exception}{rule}",
}
_SWAPS = ("ideal-last", "ideal-first")

SKELETONS = tuple(
    "/".join(name for _, name in combo)
    for combo in product(*(list(enumerate(part)) for part in (_HEADS, _EXCEPTIONS, _PATIENTS, _ORDERS, _SWAPS)))
    if sum(index for index, _ in combo) % 2 == 0
)


def _causes(rule: Rule) -> tuple[str, ...]:
    """Why this rule may have to refer."""
    return ("young", "illness", *(("missing",) if rule.needs else ()), *(("cutoff",) if rule.cuts_off else ()))


def _measures(rng: Random) -> dict[str, int]:
    """Weights and kidney values that differ within a patient, but no more than they do in life."""
    ideal = 50 + 5 * rng.randrange(7)
    clearance = 16 + rng.randrange(80)
    return {
        "actual weight": ideal + rng.choice((-10, -5, 5, 10, 15, 20, 25, 30)),
        "ideal weight": ideal,
        "clearance": clearance,
        "egfr": max(10, clearance + rng.choice((-1, 1)) * (5 + rng.randrange(15))),
    }


def _values(rule: Rule, patient: Mapping[str, Any], both: bool, ideal_first: bool) -> tuple[list[str], list[str]]:
    """Weights and kidney values as the note says them; those that the rule has no use for only where `both`."""
    weights = [f"{name} {patient[name]} kg" for name in ("actual weight", "ideal weight") if patient[name]]
    kidneys = [f"clearance {patient['clearance']} mL/min"] if patient["clearance"] else []
    kidneys.append(f"eGFR {patient['egfr']}")
    if ideal_first:
        weights.reverse()
        kidneys.reverse()
    if not both and "weight" in rule.text:
        return weights, []
    if not both and "clearance" in rule.text:
        return [], kidneys
    return weights, kidneys


def draw(rng: Random, skeleton: str, subject: int) -> Item:
    """One case: rule, reason to refer and question first, until the part owns them, then the patient and wording."""
    head, exception, layout, order, swap = skeleton.split("/")
    refer = rng.random() < 0.12
    while True:
        rule = rng.choice(RULES)(rng)
        cause = rng.choice(_causes(rule)) if refer else ""
        bad = fine = rng.choice(ILLNESSES)
        while fine == bad:
            fine = rng.choice(ILLNESSES)
        illness = bad if cause == "illness" else rng.choice((fine, fine, ""))
        composition = f"{rule.composition}:{cause}:{bad}>{fine}>{illness}"
        if words.owned(NAME, composition, subject):
            break
    while True:
        patient: dict[str, Any] = {
            "age": 12 + rng.randrange(6) if cause == "young" else words.adult_age(rng),
            "illness": illness,
            **_measures(rng),
        }
        if cause == "missing":
            patient[rule.needs] = None
        worked = None if cause == "missing" else rule.work(patient)
        if cause in ("young", "illness", "missing") or (worked is None) == (cause == "cutoff"):
            break
    weights, kidneys = _values(rule, patient, rng.random() < 0.1, swap == "ideal-first")
    groups = {"weights": ", ".join(weights), "kidneys": ", ".join(kidneys), "illness": illness or "no illness"}
    said = _PATIENTS[layout].format(
        age=patient["age"], **{name: f", {text}" if text else "" for name, text in groups.items()}
    )
    body = _ORDERS[order].format(
        head=words.sentence(_HEADS[head].format(drug=rng.choice(DRUGS))),
        rule=rule.text,
        exception=_EXCEPTIONS[exception].format(bad=bad, fine=fine),
        patient=said,
    )
    if cause == "young":
        why = f"{patient['age']} is under 18"
    elif cause == "illness":
        why = f"{bad} is to be referred"
    elif cause == "missing":
        why = f"{rule.needs} is not given"
    else:
        why = rule.explain(patient)
    answer = "refer" if cause or worked is None else plural(worked, rule.unit)
    return Item(
        text=f"{body.strip()}\nQuestion: {rule.question}",
        answer=answer,
        skeleton=skeleton,
        composition=composition,
        subject_key=words.patient_key(subject),
        facts={"rule": rule.numbers, "refer_in": bad, "no_change_in": fine, "patient": patient},
        rationale=f"{why}, so {answer}",
    )
