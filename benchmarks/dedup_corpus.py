"""Short documents with known duplicates, made from the texts of a folder of real data; imports nothing of the package.

Three kinds of document: a *base* text, cut from the real ones and shuffled so that no two are near; a *copy* of a base
with a small edit, whose Jaccard similarity over word 3-shingles is 0.85 or more; and a *near miss*: a base in which
nothing but one number differs, which asks another question and must stay.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

#: Shares of the documents.
COPIES, MISSES = 0.2, 0.05
#: Words of a base text.
SHORTEST, LONGEST = 30, 45
ENDS = ("there", "again", "together", "indeed", "before", "later")


class Document(NamedTuple):
    """A text; for a copy or a near miss the place of its base."""

    text: str
    kind: str
    base: int


def pool(folder: Path) -> list[list[str]]:
    """Words of the inputs of every data set, text by text."""
    texts = []
    for path in sorted(folder.rglob("*.jsonl")):
        for line in path.read_text("utf-8").split("\n"):
            if not line:
                continue
            words = str(json.loads(line).get("input") or "").split()
            if len(words) >= 8 and " ".join(words).isascii():
                texts.append(words)
    return texts


def documents(folder: Path, count: int, seed: int = 0) -> Iterator[Document]:
    """`count` documents; a copy or near miss comes after its base."""
    rng = random.Random(seed)
    texts = pool(folder)
    recent: list[tuple[int, list[str]]] = []
    for number in range(count):
        chance = rng.random()
        if recent and chance < COPIES + MISSES:
            base, words = recent[rng.randrange(len(recent))]
            if chance < COPIES:
                yield Document(copied(rng, words), "copy", base)
            else:
                yield Document(missed(rng, words), "miss", base)
            continue
        words = based(rng, texts)
        # A number stands in every base, so that each can have a near miss; the last word, which copies lose, is none.
        words.append(rng.choice(ENDS))
        words.insert(rng.randrange(5, len(words) - 5), str(rng.randrange(1000, 10_000_000)))
        if len(recent) < 5000:
            recent.append((number, words))
        else:
            recent[rng.randrange(5000)] = (number, words)
        yield Document(" ".join(words), "base", number)


def based(rng: random.Random, texts: list[list[str]]) -> list[str]:
    """Pieces of real texts, four to seven words each: fluent enough, and no two alike."""
    words: list[str] = []
    wanted = rng.randint(SHORTEST, LONGEST)
    while len(words) < wanted:
        text = texts[rng.randrange(len(texts))]
        size = rng.randint(4, 7)
        start = rng.randrange(max(1, len(text) - size))
        words += text[start : start + size]
    return words


def copied(rng: random.Random, words: list[str]) -> str:
    """The same text with a word more or less at an end, another last word, or other case and punctuation."""
    kind = rng.randrange(4)
    if kind == 0:
        return " ".join([*words, rng.choice(["please", "thanks", "now", "today"])])
    if kind == 1:
        return " ".join(words[:-1])
    if kind == 2:
        return " ".join(words).upper() + "!"
    return " ".join([*words[:-1], "otherwise"])


def missed(rng: random.Random, words: list[str]) -> str:
    """The same text with another number."""
    at = next(place for place, word in enumerate(words) if re.fullmatch(r"\d{4,}", word))
    return " ".join([*words[:at], str(int(words[at]) + rng.randrange(1, 999)), *words[at + 1 :]])


def judged(documents: list[Document], dropped: set[int]) -> dict[str, float]:
    """Recall over the copies, and precision over what was dropped, with the near misses among it."""
    copies = {number for number, found in enumerate(documents) if found.kind == "copy"}
    misses = {number for number, found in enumerate(documents) if found.kind == "miss"}
    # Two copies of one base are duplicates of each other, so a tool may keep a copy and drop its base.
    allowed = copies | {documents[number].base for number in copies}
    wanted = len(copies)
    right = len(dropped & allowed)
    return {
        "recall": min(1.0, right / wanted) if wanted else 1.0,
        "precision": right / len(dropped) if dropped else 1.0,
        "near_misses_dropped": len(dropped & misses) / len(misses) if misses else 0.0,
    }
