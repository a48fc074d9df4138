"""What needs no teacher and no network: chance, a linear model on word counts, the nearest seed's answer.

The baseline fitted on D_T stands beside the teacher and the one on D_G beside the student. A teacher that does not
beat the first has nothing to teach that a bag of words could not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from distill_dagster.evaluation.metrics import match_label, normalise


def chance(kind: str, labels: Sequence[str], answers: Sequence[str | None]) -> dict[str, float]:
    """Scores of guessing, from the gold answers of the examined items.

    Returns:
        `uniform`: 1 / classes. `stratified`: guessing by class frequency. `majority`: always the commonest class.
        All are 0 for tasks without classes.
    """
    if kind != "label":
        return {"uniform": 0.0, "stratified": 0.0, "majority": 0.0}
    counts = Counter(match_label(answer, labels) or normalise(answer) for answer in answers)
    total = sum(counts.values()) or 1
    shares = [count / total for count in counts.values()]
    return {
        "uniform": 1 / (len(labels) or len(counts) or 1),
        "stratified": sum(share * share for share in shares),
        "majority": max(shares, default=0.0),
    }


def _features(train: Sequence[str], test: Sequence[str]) -> tuple[Any, Any] | None:
    """TF-IDF of one- and two-word sequences, numbers and single letters included; None where there are no words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", sublinear_tf=True)
    try:
        fitted = vectorizer.fit_transform(train)
    except ValueError:
        return None
    return fitted, vectorizer.transform(test)


def _commonest(answers: Sequence[str]) -> str:
    counts = Counter(answers)
    return min(counts, key=lambda answer: (-counts[answer], answer))


def _check(train_texts: Sequence[str], train_answers: Sequence[str]) -> None:
    if len(train_texts) != len(train_answers):
        raise ValueError(f"{len(train_texts)} texts for {len(train_answers)} answers")
    if not train_texts:
        raise ValueError("a baseline needs at least one training text")


def linear(train_texts: Sequence[str], train_answers: Sequence[str], test_texts: Sequence[str]) -> list[str]:
    """Answers of a linear classifier (TF-IDF, one-against-rest support vectors, C = 1; no choice is made on data)."""
    _check(train_texts, train_answers)
    if not test_texts:
        return []
    features = _features(train_texts, test_texts)
    if features is None or len(set(train_answers)) == 1:
        return [_commonest(train_answers)] * len(test_texts)
    from sklearn.svm import LinearSVC

    model = LinearSVC(C=1.0, random_state=0, max_iter=5000)
    model.fit(features[0], list(train_answers))
    return [str(answer) for answer in model.predict(features[1])]


def nearest(train_texts: Sequence[str], train_answers: Sequence[str], test_texts: Sequence[str]) -> list[str]:
    """The answer of the most similar training text (TF-IDF cosine); the earliest one among equals."""
    _check(train_texts, train_answers)
    if not test_texts:
        return []
    features = _features(train_texts, test_texts)
    if features is None:
        return [_commonest(train_answers)] * len(test_texts)
    known, asked = features
    answers: list[str] = []
    for start in range(0, asked.shape[0], 256):
        similarity = (asked[start : start + 256] @ known.T).toarray()
        answers.extend(train_answers[int(index)] for index in similarity.argmax(axis=1))
    return answers


def baseline(
    kind: str, train_texts: Sequence[str], train_answers: Sequence[str], test_texts: Sequence[str]
) -> list[str]:
    """The baseline of a task kind: `linear` for labels, `nearest` for text and verified answers."""
    make = linear if kind == "label" else nearest
    return make(train_texts, train_answers, test_texts)
