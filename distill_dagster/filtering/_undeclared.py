"""An undeclared teacher: human records that a chatbot wrote, found by who hands them in.

Unintended distillation is a fault of human data: one annotator pastes a model's text. Two things give that away: stock
phrases that models favour (Kobak et al. 2025 counted them in abstracts), and a style that departs from what the other
annotators write for the same tasks (function words and punctuation, as in stylometry since Mosteller and Wallace 1964).

Both are permutation tests: were the texts of a task dealt out among its annotators at random, how often would one of
them stand out as far? Holm's correction (1979) over annotators and tests keeps the chance of any false name at
`level`. People do have styles of their own, and with many texts any difference is significant, so a name also needs a
difference that matters: several times what the others show among themselves. Who is named is taken out, and the rest
is tested again, so that one paster hides neither a second nor behind an innocent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from distill_dagster.filtering._text import fold, words

#: Words and turns that chatbots use far more often than people do.
STOCK = (
    "delv(?:e|es|ed|ing)",
    "tapestry",
    "a testament to",
    "it(?:'s| is) (?:important|worth|crucial|essential) to (?:note|remember|mention)",
    "it(?:'s| is) worth (?:noting|mentioning)",
    "navigat(?:e|ing) the complexit(?:y|ies)",
    "in today's (?:fast-paced )?world",
    "as an ai(?: language)? model",
    "i hope this (?:helps|email finds you well)",
    "(?:certainly|absolutely|of course)! (?:here|let)",
    "here(?:'s| is) (?:a|the|an) (?:step-by-step|breakdown|comprehensive)",
    "let(?:'s| us) break (?:this|it) down",
    "in conclusion,",
    "in summary,",
    "overall, (?:the|it|this)",
    "plays? a (?:crucial|vital|pivotal|significant) role",
    "underscor(?:e|es|ed|ing)",
    "multifaceted",
    "intricate(?:ly|cies)?",
    "showcas(?:e|es|ed|ing)",
    "pivotal",
    "meticulous(?:ly)?",
    "leverag(?:e|es|ed|ing)",
    "foster(?:s|ed|ing)? (?:a|an)",
    "furthermore,",
    "moreover,",
    "ensur(?:e|es|ing) that",
    "a wide (?:range|array) of",
    "feel free to",
    "let me know if you",
    "seamless(?:ly)?",
    "holistic(?:ally)?",
    "embark(?:s|ed|ing)? on",
    "nuanced",
    "realm of",
)
_STOCK = re.compile(r"(?<!\w)(?:" + "|".join(STOCK) + r")(?!\w)")
_SENTENCE = re.compile(r"[.!?\u3002\uff01\uff1f]+(?:\s|$)|\n")
_COMMON = frozenset(
    [
        "the",
        "of",
        "and",
        "to",
        "in",
        "a",
        "is",
        "that",
        "it",
        "for",
        "on",
        "with",
        "as",
        "are",
        "be",
        "this",
        "was",
        "by",
    ]
)
_PERSON = frozenset(["i", "we", "my", "our", "me", "us", "you", "your"])
_LIST = re.compile(r"^\s*(?:[-*\u2022]|\d+[.)])\s", re.M)

#: Fewer words are a label or a number, not prose.
PROSE = 5
#: Texts of one annotator and task that are looked at, chosen by hash.
MOST = 300
#: An annotator with fewer texts is not judged.
LEAST = 8
DRAWS = 1999
#: Fewer annotators are compared by stock phrases alone.
HANDS = 5
#: What a difference must be to matter: stock phrases in this many times the others' share of texts; a distance of this
#: many standard deviations (root mean square over the features), and this many times the largest of the others', both
#: less what chance alone makes of as many texts.
TIMES, DISTANCE, APART = 2.0, 0.3, 1.9


@dataclass(frozen=True)
class _Sample:
    """Texts to compare: stratum and annotator of each by number, whether it has a stock phrase, ranks of its style."""

    task: np.ndarray
    who: np.ndarray
    marked: np.ndarray
    style: np.ndarray

    def without(self, who: int) -> _Sample:
        keep = self.who != who
        return _Sample(self.task[keep], self.who[keep], self.marked[keep], self.style[keep])


def undeclared(table: pa.Table, level: float = 0.05, show: bool = True) -> dict[str, Any]:
    """Annotators, or sources where no annotator is given, whose texts look like a model's.

    Args:
        table: SEED rows; those with prose as answer or rationale are looked at.
        level: Chance of naming anybody where the texts are dealt out at random.
        show: Give annotators by name; otherwise by the first 8 hex digits of the name's SHA-256.

    Returns:
        `named`: annotators with the reason; `groups`: of each, `texts`, `marked` (share with a stock phrase),
        `marked_p`, `distance` (of its style from the others', in standard deviations) and `style_p`, both corrected,
        null where nothing could be tested; `phrases`: how often each stock phrase occurs; `texts`.
    """
    texts, tasks, groups = _prose(table)
    names = sorted(set(groups))
    phrases: dict[str, int] = {}
    for text in texts:
        for found in _STOCK.findall(_folded(text)):
            phrases[found] = phrases.get(found, 0) + 1
    told: dict[str, Any] = {
        "texts": len(texts),
        "phrases": dict(sorted(phrases.items(), key=lambda at: (-at[1], at[0]))),
    }
    if not texts:
        return told | {"groups": [], "named": []}
    sample = _sample(texts, tasks, [names.index(group) for group in groups])
    rows = [_row(sample, number) for number in range(len(names))]
    named: dict[int, str] = {}
    while True:
        first = not named
        found, tests = _step(sample, level)
        if first:
            for number, test in tests.items():
                rows[number] |= test
        if found is None:
            break
        number, reason = found
        named[number] = reason
        if not first:
            rows[number] |= tests[number]
        sample = sample.without(number)
    shown = [_name(name, show) for name in names]
    told["groups"] = [{"group": name, **row} for name, row in zip(shown, rows, strict=True)]
    told["named"] = [{"group": shown[number], "reason": reason} for number, reason in named.items()]
    return told


def _prose(table: pa.Table) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """Prose of each record, its task, and who handed it in."""
    picked: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    columns = ("record_id", "task", "source_id", "annotator", "answer", "rationale", "choices")
    for row in table.select(columns).to_pylist():
        text = "\n".join(part for part in (row["rationale"], None if row["choices"] else row["answer"]) if part)
        if len(words(text)) >= PROSE:
            group = (row["task"], row["source_id"] or "", row["annotator"] or "")
            picked.setdefault(group, []).append((hashlib.sha256(row["record_id"].encode()).hexdigest(), text))
    texts, tasks, groups = list[str](), list[str](), list[tuple[str, str]]()
    for (task, source, annotator), found in sorted(picked.items()):
        for _, text in sorted(found)[:MOST]:
            texts.append(text)
            tasks.append(task)
            groups.append((source, annotator))
    return texts, tasks, groups


def _sample(texts: Sequence[str], tasks: Sequence[str], who: Sequence[int]) -> _Sample:
    order = {name: at for at, name in enumerate(sorted(set(tasks)))}
    task = np.array([order[name] for name in tasks], dtype=np.int64)
    style = np.array([features(text) for text in texts], dtype=float).reshape(len(texts), -1)
    for number in range(len(order)):
        mine = np.flatnonzero(task == number)
        style[mine] = np.apply_along_axis(_ranks, 0, style[mine])
    marked = np.array([_STOCK.search(_folded(text)) is not None for text in texts], dtype=float)
    return _Sample(task, np.array(who, dtype=np.int64), marked, style)


def _folded(text: str) -> str:
    return fold(text).replace("\u2019", "'")


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, ties averaged, with mean 0 and the standard deviation 1 of a uniform distribution."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return ((last - (count - 1) / 2)[place] - (len(values) + 1) / 2) / len(values) * np.sqrt(12)


def features(text: str) -> list[float]:
    """Style of a text: lengths, punctuation, function words, lists; nothing of what it is about."""
    said = words(text)
    count = max(1, len(said))
    sentences = [part for part in _SENTENCE.split(text) if part.strip()]
    lines = text.count("\n") + 1

    def rate(signs: str) -> float:
        return sum(text.count(sign) for sign in signs) / count

    return [
        float(np.log(count)),
        sum(map(len, said)) / count,
        float(np.log(count / max(1, len(sentences)))),
        rate(",\uff0c"),
        rate(":;\uff1a\uff1b"),
        rate("\u2014\u2013-"),
        rate("()[]\uff08\uff09"),
        rate("!?\uff01\uff1f"),
        rate("\"'\u2019\u201c\u201d"),
        rate("*#_`$=+/<>"),
        len(_LIST.findall(text)) / lines,
        lines / count,
        sum(character.isdigit() for character in text) / max(1, len(text)),
        sum(character.isupper() for character in text) / max(1, len(text)),
        len(set(said[:50])) / max(1, len(said[:50])),
        sum(word in _COMMON for word in said) / count,
        sum(word in _PERSON for word in said) / count,
        float(text.rstrip()[-1:] in ".!?\u3002"),
    ]


def _row(sample: _Sample, number: int) -> dict[str, Any]:
    mine = sample.marked[sample.who == number]
    share = round(float(mine.mean()), 4) if len(mine) else None
    return {"texts": len(mine), "marked": share, "marked_p": None, "distance": None, "style_p": None}


def _step(sample: _Sample, level: float) -> tuple[tuple[int, str] | None, dict[int, dict[str, Any]]]:
    """Test every annotator against the others: the one to name with the reason, and what was measured of each."""
    judged = [number for number in np.unique(sample.who).tolist() if (sample.who == number).sum() >= LEAST]
    keep = np.isin(sample.who, judged)
    sample = _Sample(sample.task[keep], sample.who[keep], sample.marked[keep], sample.style[keep])
    pairs = {(task, who) for task, who in zip(sample.task.tolist(), sample.who.tolist(), strict=True)}
    if len(judged) < 2 or len(pairs) == len({task for task, _ in pairs}):  # nobody else wrote for the same task
        return None, {}
    member = np.searchsorted(judged, sample.who)
    marks, distance = _measure(sample, member, len(judged))
    chance = np.random.default_rng(0)
    above_marks, above_style, noise = np.ones(len(judged)), np.ones(len(judged)), np.zeros(len(judged))
    for _ in range(DRAWS):
        dealt = _dealt(sample.task, member, chance)
        drawn_marks, drawn_distance = _measure(sample, dealt, len(judged))
        above_marks += drawn_marks >= marks - 1e-12
        above_style += drawn_distance >= distance - 1e-12
        noise += drawn_distance**2 / DRAWS
    distance = np.sqrt(np.maximum(0, distance**2 - noise))
    corrected = _holm(np.concatenate([above_marks, above_style]) / (DRAWS + 1))
    marked_p, style_p = corrected[: len(judged)], corrected[len(judged) :]
    tests = {
        number: {
            "marked_p": round(float(marked_p[at]), 4),
            "distance": round(float(distance[at]), 4),
            "style_p": round(float(style_p[at]), 4),
        }
        for at, number in enumerate(judged)
    }
    best: tuple[float, int, str] | None = None
    for at, number in enumerate(judged):
        others = member != at
        share, rest = sample.marked[~others].mean(), sample.marked[others].mean()
        next_one = float(np.delete(distance, at).max())
        reasons = []
        if marked_p[at] <= level and share >= TIMES * rest:
            reasons.append(f"stock phrases in {share:.0%} of the texts, {rest:.0%} among the others")
        # Among few annotators nobody can say which style is the usual one.
        if len(judged) >= HANDS and style_p[at] <= level and distance[at] >= max(DISTANCE, APART * next_one):
            reasons.append(
                f"its style lies {distance[at]:.2f} standard deviations from the others', theirs at most {next_one:.2f}"
            )
        if reasons and (best is None or distance[at] > best[0]):
            best = (float(distance[at]), number, "; ".join(reasons))
    return (None if best is None else best[1:]), tests


def _dealt(task: np.ndarray, member: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """The texts dealt out anew: each annotator keeps the number of texts in each task."""
    order = np.lexsort((chance.random(len(task)), task))
    dealt = np.empty_like(member)
    dealt[np.argsort(task, kind="stable")] = member[order]
    return dealt


def _measure(sample: _Sample, member: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each annotator: share of marked texts less the others', and distance of the mean style from the others'."""
    sizes = np.bincount(member, minlength=count).astype(float)
    rest = len(member) - sizes
    marked = np.bincount(member, sample.marked, minlength=count)
    marks = marked / sizes - (marked.sum() - marked) / rest
    # One annotator a column: a product is several times faster than adding up by number.
    chosen = np.zeros((len(member), count))
    chosen[np.arange(len(member)), member] = 1
    sums = chosen.T @ sample.style
    shift = sums / sizes[:, None] - (sums.sum(axis=0) - sums) / rest[:, None]
    return marks, np.sqrt((shift**2).mean(axis=1))


def _holm(chances: np.ndarray) -> np.ndarray:
    """Holm's step-down correction."""
    order = np.argsort(chances, kind="stable")
    stepped = np.maximum.accumulate(chances[order] * np.arange(len(chances), 0, -1))
    corrected = np.empty(len(chances))
    corrected[order] = np.minimum(stepped, 1)
    return corrected


def _name(group: tuple[str, str], show: bool) -> str:
    source, annotator = group
    if annotator and not show:
        annotator = hashlib.sha256(annotator.encode()).hexdigest()[:8]
    return " / ".join(part for part in (source, annotator) if part) or "unknown"
