"""Covenant: a ratio and its test on a small statement whose definitions are given.

The statement carries what makes such tests go wrong: two years, lines that do not belong, parentheses as minus,
mixed units, averages, a ratio that only fails before rounding, a missing line, a divisor that is not positive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import Any

from distill_dagster.domains.base import Item, PromptTemplate, Task
from distill_dagster.domains.finance.words import company, sentence

UNDETERMINED = "cannot be determined"


@dataclass(frozen=True)
class Ratio:
    """A covenant ratio: signed lines above and below the bar, the direction of the test and usual limits in tenths."""

    name: str
    top: tuple[tuple[int, str], ...]
    bottom: tuple[tuple[int, str], ...]
    formula: str
    bound: str
    limits: tuple[int, ...]


RATIOS = {
    "gearing": Ratio(
        "Gearing", ((1, "debt"),), ((1, "equity"),), "{debt} / closing equity", "at most", (10, 15, 20, 25)
    ),
    "net-gearing": Ratio(
        "Net gearing",
        ((1, "debt"), (-1, "cash")),
        ((1, "equity"),),
        "({debt} less closing cash) / closing equity",
        "at most",
        (10, 15, 20, 25),
    ),
    "leverage": Ratio(
        "Leverage",
        ((1, "debt"),),
        ((1, "operating profit"), (1, "depreciation")),
        "{debt} / EBITDA (operating profit plus depreciation)",
        "at most",
        (20, 25, 30, 35),
    ),
    "interest-cover": Ratio(
        "Interest cover", ((1, "operating profit"),), ((1, "interest"),), "operating profit / interest", "at least",
        (15, 20, 25, 30),
    ),
    "debt-service": Ratio(
        "Debt service cover",
        ((1, "operating cash flow"),),
        ((1, "interest"), (1, "repayments")),
        "operating cash flow / (interest plus repayments)",
        "at least",
        (10, 15, 20),
    ),
    "current-ratio": Ratio(
        "Current ratio",
        ((1, "current assets"),),
        ((1, "current liabilities"),),
        "closing current assets / closing current liabilities",
        "at least",
        (10, 15, 20),
    ),
}  # fmt: skip

#: Lines that stand beside those of the ratio.
EXTRA_LINES = ("wages", "rent", "goodwill", "dividends", "cash", "interest", "depreciation")

#: Kinds of case, and the ratios they can happen to.
CASES: dict[str, tuple[str, ...]] = {
    "plain": tuple(RATIOS),
    "equal": tuple(RATIOS),
    "near": tuple(RATIOS),
    "negative-top": ("net-gearing", "interest-cover", "debt-service"),
    "units": ("gearing", "leverage", "interest-cover", "current-ratio"),
    "average": ("gearing", "net-gearing", "leverage"),
    "opening-missing": ("gearing", "net-gearing", "leverage"),
    "missing": tuple(RATIOS),
    "divisor": ("gearing", "net-gearing", "leverage", "interest-cover"),
}

#: How often each kind of case is drawn.
_CASE_BAG = ("plain",) * 44 + ("equal",) * 5 + ("near",) * 12 + ("negative-top",) * 7 + ("units",) * 12
_CASE_BAG += ("average",) * 7 + ("opening-missing",) * 2 + ("missing",) * 6 + ("divisor",) * 5

#: Divisors that keep the sums small, and tenths of a ratio that they divide evenly.
_DIVISORS = (2, 4, 5, 8, 10, 20)

BLOCKS = ("terms-figures-rules", "figures-terms-rules", "rules-terms-figures", "terms-rules-figures",
          "figures-rules-terms", "rules-figures-terms")  # fmt: skip
VOICES = ("limit-last", "limit-first", "clause")
LINES = ("spaced", "colons", "list", "of")
COLUMNS = ("one", "new-old", "old-new")

SKELETONS = ["/".join(parts) for parts in product(BLOCKS, VOICES, LINES, COLUMNS)]

RULES = (
    "(2) means minus 2. Test unrounded, report one decimal. "
    "Line missing or divisor not positive: cannot be determined.",
    "Report one decimal, test unrounded. (2) means minus 2. "
    "Divisor not positive or line missing: cannot be determined.",
    "Cannot be determined if a line is missing or the divisor not positive. Test unrounded, report one decimal. "
    "(2) means minus 2.",
)

TASK = Task(
    name="covenant",
    kind="verified",
    title="Covenant test",
    description="A ratio as the text defines it, to one decimal, and whether the covenant is passed or breached.",
    max_new_tokens=16,
)

TEMPLATES = (
    PromptTemplate(
        task="covenant",
        style="full",
        system="You test a covenant of a fictional borrower. Use only the definition, the figures and the rules that "
        "are given. Nothing here is financial advice.\n"
        "Answer with the ratio to one decimal and pass or breach, and write nothing else: 2.5 | pass\n"
        "Where the rules say so, answer: cannot be determined",
        user="{{ input }}\n\nResult:",
    ),
    PromptTemplate(task="covenant", style="short", user="covenant:\n{{ input }}"),
)


#: Per line its value by year; None where the statement says "n/a".
Lines = dict[str, dict[int, int | None]]


@dataclass(frozen=True)
class _Target:
    """What an item is to come out as: the two sums, the ratio in tenths and the test's outcome."""

    top: int
    bottom: int
    tenths: int
    passed: bool
    top_unit: str = ""
    bottom_unit: str = ""


def _pairs(limit: int, side: int) -> list[tuple[int, int]]:
    """(top, divisor) pairs whose ratio in tenths lies up to 15 below (-1), on (0) or above (1) the limit."""
    tenths = [limit] if side == 0 else [limit + side * step for step in range(1, 16)]
    return [(d * r // 10, d) for d in _DIVISORS for r in tenths if r > 0 and d * r % 10 == 0]


def _mixed(limit: int, side: int) -> list[tuple[int, int, str, str]]:
    """Sums in mixed units: (top, divisor, unit of the top, unit of the divisor), thousands in whole hundreds."""
    made = []
    for r in range(max(1, limit - 10), limit) if side < 0 else range(limit + 1, limit + 11):
        made += [(n, 100 * (100 * n // r), "million", "thousand") for n in range(1, 6) if 100 * n % r == 0]
        made += [(100 * r * m, m, "thousand", "million") for m in (1, 2) if r % 5 == 0]
    return made


_LIMITS = (10, 15, 20, 25, 30, 35)
_MIXED = {(limit, side): _mixed(limit, side) for limit in _LIMITS for side in (-1, 1)}
_PAIRS = {(limit, side): _pairs(limit, side) for limit in _LIMITS for side in (-1, 0, 1)}


def _target(rng: Random, ratio: Ratio, case: str, limit: int) -> _Target:
    at_most = ratio.bound == "at most"
    if case == "near":
        sign, bottom = rng.choice((-1, 1)), 50 if limit % 10 else rng.choice((25, 50))
        return _Target(bottom * limit // 10 + sign, bottom, limit, passed=(sign < 0) == at_most)
    if case == "negative-top":
        bottom = rng.choice(_DIVISORS)
        tenths = rng.choice([r for r in range(5, 26) if bottom * r % 10 == 0])
        return _Target(-bottom * tenths // 10, bottom, -tenths, passed=at_most)
    side = 0 if case == "equal" else rng.choice((-1, 1))
    passed = side == 0 or (side < 0) == at_most
    if case == "units":
        top, bottom, above, below = rng.choice(_MIXED[limit, side])
        tenths = top * 10_000 // bottom if above == "million" else top // (100 * bottom)
        return _Target(top, bottom, tenths, passed, above, below)
    top, bottom = rng.choice(_PAIRS[limit, side])
    if case == "divisor":
        bottom = 0 if ratio.name == "Interest cover" or rng.random() < 0.2 else -bottom
    return _Target(top, bottom, top * 10 // bottom if bottom > 0 else 0, passed)


def _spread(rng: Random, total: int, parts: tuple[tuple[int, str], ...]) -> dict[str, int]:
    """Values of the lines whose signed sum is `total`."""
    if len(parts) == 1:
        return {parts[0][1]: total}
    (_, first), (sign, second) = parts
    if sign < 0:
        low = 1 - min(0, total)
        taken = low + rng.randrange(9)
        return {first: total + taken, second: taken}
    if first == "operating profit" and (total <= 1 or rng.random() < 0.25):
        taken = max(1, total) + 1 + rng.randrange(5)
        return {first: total - taken, second: taken}
    step = 100 if total >= 200 and total % 100 == 0 else 1
    taken = step * (1 + rng.randrange(total // step - 1))
    return {first: total - taken, second: taken}


def _nearby(rng: Random, value: int) -> int:
    """Another value of like size and sign, for the year that is not asked about."""
    step = 100 if value and value % 100 == 0 else 1
    size = max(2, abs(value) // step)
    other = step * (size + rng.choice((-1, 1)) * (1 + rng.randrange(max(1, size // 3))))
    return other if value >= 0 else -other


def _number(value: int | None) -> str:
    if value is None:
        return "n/a"
    return f"({-value:,})" if value < 0 else f"{value:,}"


def _terms(ratio: Ratio, voice: str, limit: int, averaged: bool, year: int) -> str:
    formula = ratio.formula.format(debt="debt averaged over both year-ends" if averaged else "closing debt")
    wanted = f"{ratio.bound} {limit / 10:.1f}"
    if voice == "limit-last":
        return f"{ratio.name} = {formula}; {wanted} in FY{year}."
    if voice == "limit-first":
        return f"{sentence(wanted)} in FY{year}: {ratio.name.lower()}, that is {formula}."
    return f"For FY{year}, {ratio.name.lower()} ({wanted}) = {formula}."


def _figures(lines: Lines, units: dict[str, str], years: list[int], style: str, head: str) -> str:
    shown = []
    for name, values in lines.items():
        unit = f" in {units[name]}" if len(set(units.values())) > 1 else ""
        between = {"spaced": " ", "colons": ": ", "list": " ", "of": " of "}[style]
        shown.append(f"{name}{unit}{between}{' / '.join(_number(values[year]) for year in years)}")
    if style == "list":
        return f"{head}:\n" + "\n".join(f"- {line}" for line in shown) + "\n"
    return f"{head}: {('; ' if style == 'spaced' else ', ').join(shown)}."


def _rationale(ratio: Ratio, lines: dict[str, int | None], target: _Target, limit: int, case: str) -> str:
    if case == "missing":
        gone = [name for _, name in ratio.top + ratio.bottom if lines.get(name) is None]
        return f"{gone[0]} is not given"
    if case == "opening-missing":
        return "the opening debt is not given"
    if case == "divisor":
        return f"divisor {target.bottom} is not positive"
    units = [f" {unit}" if unit else "" for unit in (target.top_unit, target.bottom_unit)]
    exact = f"{target.top}{units[0]} / {target.bottom}{units[1]} = "
    exact += f"{target.top / target.bottom:.2f}" if case == "near" else f"{target.tenths / 10:.1f}"
    return f"{exact}; {ratio.bound} {limit / 10:.1f}: {'pass' if target.passed else 'breach'}"


def _lines(rng: Random, ratio: Ratio, case: str, target: _Target, year: int, other: int, columns: str) -> Lines:
    """Per line of the ratio its value in the tested year and in the other one."""
    averaged = case in ("average", "opening-missing")
    values = _spread(rng, target.top, ratio.top) | _spread(rng, target.bottom, ratio.bottom)
    lines: Lines = {}
    for name, value in values.items():
        lines[name] = {year: value, other: _nearby(rng, value)}
        if averaged and name == "debt":
            gap = rng.choice((-1, 1)) * (1 + rng.randrange(max(1, min(9, value - 1))))
            lines[name] = {year: value + gap, other: value - gap}
    if case == "missing":
        gone = rng.choice(tuple(values))
        if columns == "one" and rng.random() < 0.5:
            del lines[gone]
        else:
            lines[gone][year] = None
    elif case == "opening-missing":
        lines["debt"][other] = None
    elif not averaged and rng.random() < 0.12:
        lines[rng.choice(tuple(values))][other] = None
    return lines


def draw(rng: Random, skeleton: str, subject: int) -> Item:
    """One statement with its covenant: the case first, then figures that lead to it."""
    blocks, voice, style, columns = skeleton.split("/")
    case = rng.choice(_CASE_BAG)
    if case in ("average", "opening-missing") and columns == "one":
        case = "plain" if case == "average" else "missing"
    key = rng.choice(CASES[case])
    ratio = RATIOS[key]
    limit = rng.choice(ratio.limits)
    target = _target(rng, ratio, case, limit)
    averaged = case in ("average", "opening-missing")
    latest = rng.choice((2031, 2032))
    back = columns != "one" and not averaged and rng.random() < 0.3
    year, other = (latest - 1, latest) if back else (latest, latest - 1)

    lines = _lines(rng, ratio, case, target, year, other, columns)
    base = rng.choice(("thousand", "million"))
    units = {name: f"EUR {target.top_unit or base}" for _, name in ratio.top}
    units |= {name: f"EUR {target.bottom_unit or base}" for _, name in ratio.bottom}
    unfit = [name for _, name in ratio.top + ratio.bottom] + (["cash"] if key == "current-ratio" else [])
    extras: list[str] = []
    for _ in range(1 + (rng.random() < 0.25)):
        name = rng.choice([extra for extra in EXTRA_LINES if extra not in extras and extra not in unfit])
        extras.append(name)
        size = 2 + rng.randrange(4 if name == "interest" else 40)
        lines[name] = {year: size, other: _nearby(rng, size)}
        units[name] = f"EUR {base}"
    order = list(lines)
    rng.shuffle(order)
    lines = {name: lines[name] for name in order}
    units = {name: units[name] for name in order}

    years = {"one": [latest], "new-old": [latest, latest - 1], "old-new": [latest - 1, latest]}[columns]
    unit = "" if len(set(units.values())) > 1 else f" in {next(iter(units.values()))}"
    head = f"{company(rng)}, {' / '.join(f'FY{shown}' for shown in years)}{unit}"
    made = {
        "terms": _terms(ratio, voice, limit, averaged, year),
        "figures": _figures(lines, units, years, style, head),
        "rules": rng.choice(RULES),
    }
    text = " ".join(made[block] for block in blocks.split("-")).replace("\n ", "\n").strip()
    answer = UNDETERMINED
    if case not in ("missing", "opening-missing", "divisor"):
        answer = f"{target.tenths / 10:.1f} | {'pass' if target.passed else 'breach'}"
    facts: Mapping[str, Any] = {
        "top": [[sign, name] for sign, name in ratio.top],
        "bottom": [[sign, name] for sign, name in ratio.bottom],
        "averaged": ["debt"] if averaged else [],
        "bound": ratio.bound,
        "limit": f"{limit / 10:.1f}",
        "year": f"FY{year}",
        "lines": {
            name: {"unit": units[name], **{f"FY{shown}": values[shown] for shown in sorted(years)}}
            for name, values in lines.items()
        },
    }
    now = {name: values[year] for name, values in lines.items()}
    return Item(
        text=text,
        answer=answer,
        skeleton=skeleton,
        composition="+".join(
            [key, case, f"{limit}", "pass" if target.passed else "breach", *extras, base, "back" if back else "now"]
        ),
        subject_key=f"borrower-{subject:04d}",
        facts=facts,
        rationale=_rationale(ratio, now, target, limit, case),
    )
