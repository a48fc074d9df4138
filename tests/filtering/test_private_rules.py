"""The rules for personal data, secrets and language, and what the engine makes of a mask."""

from __future__ import annotations

import pytest

from distill_dagster.config.models import Block
from distill_dagster.errors import ConfigError
from distill_dagster.filtering import engine
from distill_dagster.privacy.mask import find
from distill_dagster.records.messages import text_of

MAIL, KEY = "Write to jane@example.com, card 4111 1111 1111 1111.", "My key is AKIAIOSFODNN7EXAMPLE here."


def run(made, *blocks):
    return engine.run(made[0], [Block.model_validate(block) for block in blocks], "first", made[1])


def fates(outcome):
    return [(row["verdict"], row["reason"]) for row in outcome.decisions.to_pylist()]


def test_drop_by_kind(make, candidate, seed):
    rows = [
        candidate(0, MAIL),
        candidate(1, KEY),
        candidate(2, "clean"),
        candidate(3, "clean", answer="call +49 30 1234567"),
    ]
    made = make(rows, [seed(number, "x") for number in range(4)])
    kept, pii, secrets = ("keep", None), ("drop", "pii"), ("drop", "secrets")
    assert fates(run(made, "pii")) == [pii, kept, kept, pii]
    assert fates(run(made, "pii", "secrets")) == [pii, secrets, kept, pii]
    assert fates(run(made, {"name": "pii", "kinds": ["PHONE"]})) == [kept, kept, kept, pii]
    assert fates(run(made, {"name": "pii", "action": "keep"})) == [kept] * 4


def test_a_look_names_kinds_and_never_values(make, candidate, seed):
    outcome = run(make([candidate(0, MAIL)], [seed(0, "x")]), {"name": "pii", "action": "keep"})
    (look,) = outcome.decisions.to_pylist()[0]["looks"]
    assert (look["reason"], look["score"], look["detail"]) == ("found", 2.0, "CARD: 1, EMAIL: 1")
    assert "jane" not in str(outcome.decisions.to_pylist()) and not outcome.rewritten


def test_masking_rewrites_what_is_kept(make, candidate, seed):
    rows = [
        candidate(0, MAIL, answer="[EMAIL_1] or jane@example.com", rationale="JANE@example.com pays"),
        candidate(1, KEY + " joe@example.com"),
        candidate(2, "clean"),
        candidate(3, MAIL + "!", answer="x" * 40),
    ]
    made = make(rows, [seed(number, "x") for number in range(4)])
    masks = [{"name": "pii", "action": "mask"}, {"name": "secrets", "action": "mask"}]
    outcome = run(made, *masks, {"name": "length", "max_chars": 30})
    assert outcome.kept == [0, 1, 2] and sorted(outcome.rewritten) == [0, 1]
    first, second = outcome.rewritten[0], outcome.rewritten[1]
    # A tag that the teacher saw in a masked question means the same value here.
    assert text_of(first["messages"], "user") == "Write to [EMAIL_1], card [CARD_1]."
    assert (first["answer"], first["rationale"]) == ("[EMAIL_1] or [EMAIL_1]", "[EMAIL_1] pays")
    assert text_of(second["messages"], "user") == "My key is [API_KEY_1] here. [EMAIL_1]"
    for row in outcome.rewritten.values():
        assert not find(text_of(row["messages"])) and row["seed_no"] == row["candidate_no"]
    assert outcome.decisions.to_pylist()[0]["looks"][0]["reason"] == "masked"


@pytest.mark.parametrize("name", ["pii", "secrets", "language"])
def test_unknown_parameters_are_refused(name):
    with pytest.raises(ConfigError, match=name):
        engine.load_rules([Block.model_validate({"name": name, "nonsense": 1})])


ENGLISH = "The tenant shall pay the rent on the first working day of every month."
FRENCH = "Le locataire doit payer le loyer le premier jour ouvrable de chaque mois."
CHINESE = "承租人应当在每个月的第一个工作日支付租金，否则应承担违约责任。"


def languages(make, candidate, seed, answers, language: str | None = "en", **params):
    rows = [candidate(number, "x", answer=answer, task="sum") for number, answer in enumerate(answers)]
    made = make(rows, [seed(number, "x", language=language) for number in range(len(rows))])
    outcome = run(made, {"name": "language", **params})
    return [
        (row["verdict"], row["looks"][0]["reason"], row["looks"][0]["detail"]) for row in outcome.decisions.to_pylist()
    ]


def test_language(make, candidate, seed):
    answers = [ENGLISH, FRENCH, CHINESE, "42", "Oui", ""]
    short = ("keep", "unknown", "too short to tell")
    kept = {"en": ("keep", None, "en"), "fr": ("keep", None, "fr"), "zh": ("keep", None, "zh")}
    other = {tag: ("drop", "other_language", tag) for tag in kept}
    assert languages(make, candidate, seed, answers) == [kept["en"], other["fr"], other["zh"], short, short, short]
    assert languages(make, candidate, seed, answers, language="zh-CN")[:3] == [other["en"], other["fr"], kept["zh"]]
    assert languages(make, candidate, seed, answers, expected=["en-GB", "fr"])[:3] == [
        kept["en"],
        kept["fr"],
        other["zh"],
    ]
    assert languages(make, candidate, seed, answers) == languages(make, candidate, seed, answers)


def test_without_an_expectation_or_a_firm_finding_a_text_is_kept(make, candidate, seed):
    looks = languages(make, candidate, seed, [FRENCH], language=None)
    assert looks == [("keep", None, None)]
    (look,) = languages(make, candidate, seed, ["e4 e5 Nf3 Nc6 Bb5 a6 Ba4 Nf6 O-O Be7 Re1 b5 Bb3 d6 c3 O-O h3"])
    assert look[:2] == ("keep", "unknown")
    looks = languages(make, candidate, seed, [FRENCH], min_letters=500)
    assert looks == [("keep", "unknown", "too short to tell")]


def test_a_label_has_no_language(make, candidate, seed):
    made = make([candidate(0, "x", answer="card arrival")], [seed(0, "x", language="zh")])
    assert fates(run(made, {"name": "language", "min_letters": 3})) == [("keep", None)]
