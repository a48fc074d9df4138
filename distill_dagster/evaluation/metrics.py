"""How one answer is scored: a number from 0 to 1 per item.

`label` and `text` are exact match after normalisation, `verified` is the verifier's verdict where it has one.
`token_f1` (Rajpurkar et al. 2016, SQuAD) stands beside exact match where partial credit is wanted; no verdict uses it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distill_dagster.domains.base import Task, Verdict
from distill_dagster.errors import DistillError, PluginError

Verify = Callable[[str, Mapping[str, Any], str], Verdict]

_SPACE = re.compile(r"\s+")
_EDGE = " \t\"'`“”‘’*"
_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—−", "-"))


def normalise(text: str | None) -> str:
    """Text as answers are compared: NFKC, case-folded, plain dashes, single spaces, no outer quotes or final stop."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text or "").casefold()).translate(_DASHES)
    plain = _SPACE.sub(" ", folded).strip(_EDGE)
    while plain.endswith((".", "!", ";")):
        plain = plain[:-1].strip(_EDGE)
    return plain


def match_label(output: str | None, labels: Sequence[str]) -> str | None:
    """The label an output names, or None. Underscores and spaces are the same; nothing else is guessed."""
    wanted = normalise(output).replace("_", " ")
    for label in labels:
        if normalise(label).replace("_", " ") == wanted:
            return label
    return None


def token_f1(output: str | None, gold: str | None) -> float:
    """Harmonic mean of token precision and recall after normalisation; 1 where both are empty."""
    said, true = normalise(output).split(), normalise(gold).split()
    if not said or not true:
        return float(said == true)
    shared = sum((Counter(said) & Counter(true)).values())
    return 2 * shared / (len(said) + len(true))


def score(
    kind: str,
    output: str | None,
    gold: str | None,
    labels: Sequence[str] = (),
    facts: Mapping[str, Any] | str | None = None,
    verify: Verify | None = None,
    task: str = "",
) -> float:
    """Score of one answer, 0 or 1.

    Args:
        kind: `label`, `text` or `verified`.
        output: What the model said; None (no answer) scores 0.
        gold: The canonical answer.
        labels: Classes of a label task. An output that is none of them scores 0, whatever the gold is.
        facts: The generator's numbers, a mapping or JSON text; without them a verifier is not asked.
        verify: `Domain.verify`; where its verdict is None, exact match decides.
        task: Task name, handed to the verifier.

    Raises:
        PluginError: The verifier raised.
        DistillError: Unknown kind.
    """
    if kind not in ("label", "text", "verified"):
        raise DistillError(f"task {task!r}", f"unknown kind {kind!r}.", "Known: label, text, verified.")
    if output is None:
        return 0.0
    if kind == "label" and labels:
        said = match_label(output, labels)
        return float(said is not None and said == match_label(gold, labels))
    if kind == "verified" and verify is not None and facts:
        known = json.loads(facts) if isinstance(facts, str) else facts
        try:
            verdict = verify(task, known, output)
        except Exception as error:
            raise PluginError(
                f"verifier of task {task!r}",
                f"raised {type(error).__name__}: {error}.",
                "A verifier returns Verdict(None) where it cannot tell; mend it in the domain plugin.",
            ) from error
        if verdict.ok is not None:
            return float(verdict.ok)
    if kind == "label":
        return float(normalise(output).replace("_", " ") == normalise(gold).replace("_", " "))
    return float(normalise(output) == normalise(gold))


def score_all(
    task: Task,
    outputs: Sequence[str | None],
    golds: Sequence[str | None],
    facts: Sequence[Mapping[str, Any] | str | None] | None = None,
    verify: Verify | None = None,
) -> list[float]:
    """`score` over the items of one task, in order. ValueError where the lengths differ."""
    rows = zip(outputs, golds, facts if facts is not None else [None] * len(outputs), strict=True)
    return [score(task.kind, output, gold, task.labels, fact, verify, task.name) for output, gold, fact in rows]
