"""Flags of a laboratory panel against the ranges that the laboratory itself prints.

Ranges differ from one report to the next and earlier values stand beside the current ones, so neither a remembered
range nor the first number after a name gives the flag.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import product
from random import Random
from typing import Any

from distill_dagster.domains.base import Item, PromptTemplate, Task, Verdict
from distill_dagster.domains.medicine import words

NAME = "lab_flags"

TASK = Task(
    name=NAME,
    kind="text",
    title="Flags of a laboratory panel",
    description="Which of the asked results lie below, within or above the ranges that the report itself gives.",
    max_new_tokens=32,
)

TEMPLATES = (
    PromptTemplate(
        task=NAME,
        style="full",
        system="You read invented laboratory reports about adults. Compare each asked current result with the range "
        "that the report itself gives in the same unit; use no other range. A result equal to a limit is normal. "
        "Earlier results do not count; L and H are the marks that some laboratories print "
        "themselves. The ranges are fictional; this is an exercise and no medical advice.\n"
        "Where results are asked by name, answer in the order asked, as in: sodium low, urea normal\n"
        "Where all out of range are asked, list those in the order of the report, as in: sodium low, urea high\n"
        "If none is out of range, answer: none",
        user="{{ input }}",
    ),
    PromptTemplate(task=NAME, style="short", user="flags:\n{{ input }}"),
)


@dataclass(frozen=True)
class Analyte:
    """An analyte with a usual adult range in units of its last printed digit; a laboratory shifts it a little."""

    name: str
    unit: str
    low: int
    high: int
    places: int = 0


ANALYTES = (
    Analyte("sodium", "mmol/L", 135, 145),
    Analyte("potassium", "mmol/L", 36, 50, 1),
    Analyte("chloride", "mmol/L", 97, 107),
    Analyte("bicarbonate", "mmol/L", 22, 29),
    Analyte("phosphate", "mmol/L", 8, 15, 1),
    Analyte("urea", "mmol/L", 25, 78, 1),
    Analyte("fasting glucose", "mmol/L", 40, 60, 1),
    Analyte("fasting glucose", "mg/dL", 72, 99),
    Analyte("creatinine", "µmol/L", 58, 106),
    Analyte("haemoglobin", "g/L", 128, 164),
    Analyte("haemoglobin", "g/dL", 128, 164, 1),
    Analyte("albumin", "g/L", 35, 50),
    Analyte("total protein", "g/L", 62, 81),
    Analyte("ferritin", "µg/L", 25, 240),
    Analyte("urate", "µmol/L", 190, 420),
    Analyte("lipase", "U/L", 13, 58),
)

_HEADERS = {
    "lab": "{lab}, adult ranges of this laboratory, limits included.",
    "report": "Report of {lab}. Adult ranges as printed, limits included.",
    "patient": "Patient aged {age}, {lab}, own adult ranges, limits included.",
    "bare": "Blood results, {lab}, adult ranges with limits included.",
}
_LABS = ("North Laboratory", "South Laboratory", "Hill Laboratory", "Lake Laboratory")
_ROWS = {
    "paren": "{name} {value} {unit}{mark}{earlier} ({low}-{high})",
    "colon": "{name}: {value} {unit}{mark}{earlier}, range {low}-{high}",
    "bracket": "{name} [{low}-{high}] {value} {unit}{mark}{earlier}",
    "first": "{name}, range {low}-{high} {unit}: {value}{mark}{earlier}",
    "was": "{name} was {value} {unit}{mark}{earlier} against {low}-{high}",
    "ref": "{name} {value}{mark}{earlier} ({low}-{high} {unit})",
}
_BREAKS = {"line": "\n", "semi": "; ", "stop": ". "}
_EARLIER = {"none": "", "before": " (before: {old})", "earlier": " (earlier {old})"}
_MARKS = {"plain": ("", "", ""), "marked": (" L", "", " H")}
_POINTERS = {"last": "{report}\nAsked: {asked}", "first": "Asked: {asked}\n{report}"}

SKELETONS = tuple(
    "/".join(name for _, name in combo)
    for combo in product(*(list(enumerate(part)) for part in (_HEADERS, _ROWS, _BREAKS, _EARLIER, _MARKS, _POINTERS)))
    if sum(i * w for (i, _), w in zip(combo, (1, 2, 1, 3, 2, 3), strict=True)) % 6 == 0
)

FLAGS = ("low", "normal", "high")
ALL = "all out of range"


def _print(number: int, places: int) -> str:
    return f"{number / 10:.1f}" if places else str(number)


def _value(rng: Random, flag: str, low: int, high: int) -> int:
    """A value with that flag: mostly well apart from the limits, sometimes next to one or on it."""
    width = high - low
    if flag == "normal":
        if rng.random() < 0.1:
            return rng.choice((low, high))
        return low + 1 + rng.randrange(width - 1)
    apart = 1 if rng.random() < 0.1 else max(2, width // 8) + rng.randrange(max(3, width // 3))
    return high + apart if flag == "high" else low - min(apart, max(1, low // 2))


def _flag(value: int, low: int, high: int) -> str:
    return "low" if value < low else "high" if value > high else "normal"


def _plan(rng: Random, count: int) -> tuple[list[Analyte], list[str], list[int]]:
    """Analytes without repeats, a flag for each, and the places asked about (none: all out of range)."""
    chosen: list[Analyte] = []
    while len(chosen) < count:
        analyte = rng.choice(ANALYTES)
        if analyte.name not in [other.name for other in chosen]:
            chosen.append(analyte)
    if rng.random() < 0.6:
        places = list(range(count))
        rng.shuffle(places)
        return chosen, [rng.choice(FLAGS) for _ in chosen], places[:2]
    flags = ["normal"] * count
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3))):
        flags[rng.randrange(count)] = rng.choice(("low", "high"))
    return chosen, flags, []


def draw(rng: Random, skeleton: str, subject: int) -> Item:
    """One panel: analytes and flags first, until the part owns what is asked, then ranges and values."""
    header, row, line_break, earlier, marks, pointer = skeleton.split("/")
    count = 3 + rng.randrange(2)
    while True:
        chosen, flags, places = _plan(rng, count)
        asked = places or [index for index, flag in enumerate(flags) if flag != "normal"]
        found = [f"{chosen[index].name}={flags[index]}" for index in places or range(count)]
        composition = f"{'named' if places else 'all'}:{count}:{'+'.join(found)}"
        if words.owned(NAME, composition, subject):
            break
    rows: list[str] = []
    results: list[dict[str, str]] = []
    for analyte, flag in zip(chosen, flags, strict=True):
        step = max(1, (analyte.high - analyte.low) // 10)
        low = analyte.low + rng.choice((-1, 0, 1)) * step
        high = analyte.high + rng.choice((-1, 0, 1)) * step
        value = _value(rng, flag, low, high)
        old = value
        while old == value:
            old = _value(rng, rng.choice(FLAGS), low, high)
        shown = {
            key: _print(number, analyte.places) for key, number in (("low", low), ("high", high), ("value", value))
        }
        mark = _MARKS[marks]
        rows.append(
            _ROWS[row].format(
                name=words.sentence(analyte.name) if line_break != "semi" or not rows else analyte.name,
                unit=analyte.unit,
                mark=mark[FLAGS.index(flag)],
                earlier=_EARLIER[earlier].format(
                    old=_print(old, analyte.places) + mark[FLAGS.index(_flag(old, low, high))]
                ),
                **shown,
            )
        )
        results.append({"analyte": analyte.name, "unit": analyte.unit, **shown})
    opening = _HEADERS[header].format(lab=rng.choice(_LABS), age=words.adult_age(rng))
    body = _BREAKS[line_break].join(rows)
    report = f"{opening}{chr(10) if line_break == 'line' else ' '}{body}{'' if line_break == 'line' else '.'}"
    names = [chosen[index].name for index in places]
    answer = ", ".join(f"{chosen[index].name} {flags[index]}" for index in asked) or "none"
    return Item(
        text=_POINTERS[pointer].format(report=report, asked=", ".join(names) or ALL),
        answer=answer,
        skeleton=skeleton,
        composition=composition,
        subject_key=words.patient_key(subject),
        facts={"results": results, "asked": names},
        rationale="; ".join(
            f"{result['analyte']} {result['value']} in {result['low']}-{result['high']} is {flag}"
            for result, flag in zip(results, flags, strict=True)
            if not names or result["analyte"] in names
        ),
    )


def verify(facts: Mapping[str, Any], output: str) -> Verdict:
    """Compare every result with its own range and hold the output against that; the order of results is free."""
    try:
        results = {
            result["analyte"]: [Decimal(result[key]) for key in ("low", "value", "high")] for result in facts["results"]
        }
        names = list(facts["asked"])
        right: dict[str, str] = {}
        for name in names or results:
            low, value, high = results[name]
            flag = "normal" if low <= value <= high else ("low" if value < low else "high")
            if names or flag != "normal":
                right[name] = flag
    except (KeyError, TypeError, ValueError, InvalidOperation) as error:
        return Verdict(None, f"the facts hold no usable panel: {error!r}")
    said: dict[str, str] = {}
    text = output.strip().rstrip(".").lower()
    for piece in [] if text == "none" else text.replace(";", ",").replace(" and ", ", ").split(","):
        name, _, flag = piece.strip().replace(":", "").replace(" is ", " ").rpartition(" ")
        if not name or name in said:
            return Verdict(False, f"{piece.strip()!r} is not 'analyte flag' or repeats one")
        said[name] = flag
    if said == right:
        return Verdict(True)
    wanted = ", ".join(f"{name} {flag}" for name, flag in right.items()) or "none"
    return Verdict(False, f"by the printed ranges: {wanted}")
