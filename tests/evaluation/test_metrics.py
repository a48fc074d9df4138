"""Scores of single answers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_dagster.domains.base import Task, Verdict
from distill_dagster.errors import DistillError, PluginError
from distill_dagster.evaluation.metrics import match_label, normalise, score, score_all, token_f1

LABELS = ("late_payment", "refund")


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        ("  The  Supplier.\n", "the supplier"),
        ('"30 Days"', "30 days"),
        ("supplier | 30 days", "supplier | 30 days"),
        ("10\u00a0–\u00a012", "10 - 12"),
        ("ＦＵＬＬ", "full"),
        ("1.50", "1.50"),
        (".5", ".5"),
        ("-3", "-3"),
        ("\u22123", "-3"),
        (None, ""),
        ("...", ""),
    ],
)
def test_normalise(said, plain):
    assert normalise(said) == plain


@given(st.text(max_size=40))
def test_normalise_is_idempotent(text):
    assert normalise(normalise(text)) == normalise(text)


def test_label_is_exact_and_an_output_that_is_no_label_scores_zero():
    assert score("label", "Late payment.", "late_payment", LABELS) == 1
    assert score("label", "late payment or refund", "late_payment", LABELS) == 0
    assert score("label", "refunds", "refund", LABELS) == 0
    assert score("label", "", "refund", LABELS) == 0
    assert score("label", None, "refund", LABELS) == 0
    assert match_label("fee", LABELS) is None
    # Even where the gold itself is no label, an output cannot win by repeating it.
    assert score("label", "fee", "fee", LABELS) == 0


def test_text_is_exact_match_without_partial_credit():
    assert score("text", "USD 100 | 3 May", "usd 100 | 3 may") == 1
    assert score("text", "USD 100", "usd 100 | 3 may") == 0
    assert token_f1("usd 100", "usd 100 | 3 may") == pytest.approx(2 * 2 / (2 + 5))
    assert token_f1("", "") == 1
    assert token_f1("", "x") == 0
    assert token_f1("a a", "a") == pytest.approx(2 / 3)


def test_the_verifier_decides_and_exact_match_where_it_cannot_tell():
    asked = []

    def verify(task, facts, output):
        asked.append((task, facts["sum"], output))
        return Verdict(float(output) == facts["sum"] if output.replace(".", "").isdigit() else None)

    assert score("verified", "12.0", "12", facts={"sum": 12}, verify=verify, task="sums") == 1
    assert score("verified", "13", "13", facts={"sum": 12}, verify=verify, task="sums") == 0
    assert score("verified", "unknown", "Unknown.", facts=json.dumps({"sum": 12}), verify=verify, task="sums") == 1
    assert asked[0] == ("sums", 12, "12.0") and len(asked) == 3
    assert score("verified", "13", "13", facts=None, verify=verify) == 1
    assert score("verified", None, "13", facts={"sum": 12}, verify=verify) == 0
    assert score("text", "13", "13", facts={"sum": 12}, verify=verify) == 1


def test_a_verifier_that_raises_is_named():
    def verify(task, facts, output):
        raise KeyError("rate")

    with pytest.raises(PluginError, match="verifier of task 'sums'.*KeyError"):
        score("verified", "1", "1", facts={"x": 1}, verify=verify, task="sums")


def test_unknown_kind_and_lengths():
    with pytest.raises(DistillError, match="unknown kind 'essay'"):
        score("essay", "a", "a")
    task = Task("t", "label", "T", "", LABELS)
    assert score_all(task, ["refund", "x"], ["refund", "refund"]) == [1, 0]
    with pytest.raises(ValueError):
        score_all(task, ["refund"], ["refund", "refund"])
