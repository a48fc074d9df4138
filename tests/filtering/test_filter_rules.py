"""What each rule drops, keeps, and says."""

from __future__ import annotations

import pytest

from distill_dagster.config.models import Block
from distill_dagster.errors import ConfigError, DistillError
from distill_dagster.filtering import engine


def decide(make, rows, rule, seeds=(), evaluation=(), **params):
    """`{candidate_no: (reason, last look)}` of one rule."""
    table, context = make(rows, seeds, evaluation)
    outcome = engine.run(table, [Block.model_validate({"name": rule, **params})], "first", context)
    return {
        row["candidate_no"]: (row["reason"], row["looks"][-1] if row["looks"] else {})
        for row in outcome.decisions.to_pylist()
    }


def reasons(make, rows, rule, **more):
    return [reason for reason, _ in decide(make, rows, rule, **more).values()]


def test_schema(make, candidate):
    rows = [
        candidate(0, "a", "card_fee"),
        candidate(1, "b", "card fees"),
        candidate(2, "c", "  "),
        candidate(3, "d", None),
        candidate(4, "e", "other", task="nowhere"),
        candidate(5, "f", "17", task="sum"),
        candidate(6, "g", "1\x007", task="sum"),
        candidate(7, "h", "seventeen", task="sum"),
        candidate(8, "i", "nan", task="sum"),
        {**candidate(9, "j", "other"), "messages": candidate(9, "j", "other")["messages"][:1]},
    ]
    assert reasons(make, rows, "schema", forms={"sum": "number"}) == [
        None,
        "schema.unknown_label",
        "schema.empty",
        "schema.unparsed",
        "schema.unknown_task",
        None,
        "schema.unreadable",
        "schema.not_a_number",
        "schema.not_a_number",
        "schema.no_turns",
    ]


def test_schema_json_and_choices(make, candidate, seed):
    rows = [candidate(0, "x", '{"a": 1}', task="sum"), candidate(1, "y", '{"a": NaN}', task="sum")]
    assert reasons(make, rows, "schema", forms={"sum": "json"}) == [None, "schema.not_json"]
    rows = [candidate(0, "pick one", "B"), candidate(1, "pick two", "other")]
    seeds = [seed(0, "pick one", choices=["A", "B"]), seed(1, "pick two", choices=["A", "B"])]
    assert reasons(make, rows, "schema", seeds=seeds) == [None, "schema.unknown_label"]


def test_length(make, candidate):
    rows = [candidate(0, "a", "one two three"), candidate(1, "b", "one"), candidate(2, "c", "一二三四")]
    assert reasons(make, rows, "length", min_words=2, max_words=3) == [None, "length.too_short", "length.too_long"]
    assert reasons(make, rows, "length", max_chars=4) == ["length.too_long", None, None]
    found = decide(make, rows, "length", max_chars=4)
    assert (found[0][1]["score"], found[0][1]["threshold"]) == (13, 4)
    assert reasons(make, rows, "length", of="input", min_chars=2) == ["length.too_short"] * 3
    with pytest.raises(ConfigError, match="lower bound"):
        decide(make, rows, "length", min_chars=9, max_chars=2)


def test_truncation(make, candidate):
    rows = [candidate(0, "a"), candidate(1, "b", finish_reason="length")]
    assert reasons(make, rows, "truncation") == [None, "truncation"]


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, I cannot answer.",
        "As an AI language model, I do not give legal advice.",
        "Well, I cannot provide this.",
        "The text is long. I am unable to answer it.",
        "I must decline.",
        "Unfortunately, I cannot say.",
        "**I'm sorry**, but no.",
        "I cannot and will not provide that.",
        "I'm afraid I can't do that.",
        "I would rather not answer.",
        "Es tut mir leid, aber ich kann dabei nicht helfen.",
        "Je suis désolé, mais je ne peux pas répondre.",
        "Lo siento, pero no puedo ayudar con eso.",
        "抱歉，我无法回答这个问题。",
        "申し訳ありませんが、お答えできません。",
    ],
)
def test_refusals_are_dropped(make, candidate, answer):
    assert reasons(make, [candidate(0, "a question", answer, task="sum")], "refusal") == ["refusal.phrase"]


@pytest.mark.parametrize(
    "answer",
    [
        "cannot be determined",
        "refer",
        "no",
        "the carrier is sorry for the delay",
        "17",
        "Lo siento.",
        "Es tut mir leid.",
        "He said: 'I'm sorry'",
    ],
)
def test_answers_that_sound_like_refusals_are_kept(make, candidate, answer):
    assert reasons(make, [candidate(0, "a question", answer, task="sum")], "refusal") == [None]


def test_refusal_by_finish_reason_copy_and_own_phrase(make, candidate):
    rows = [
        candidate(0, "a", "other", finish_reason="refusal"),
        candidate(1, 'She wrote: "I\'m sorry for the delay."', "I'm sorry for the delay.", task="sum"),
        candidate(2, "b", "Kein Kommentar dazu, that\u2019s all", task="sum"),
        candidate(3, "c", "Don't know", task="sum"),
    ]
    found = reasons(make, rows, "refusal", phrases=["kein kommentar", "Don\u2019t know"])
    assert found == ["refusal.declined", None, "refusal.phrase", "refusal.phrase"]


@pytest.mark.parametrize(
    ("form", "answer", "kept"),
    [
        ("number", "-1,200.50", True),
        ("number", " 1e3 ", True),
        ("number", ".5", True),
        ("number", "1,5", False),  # 1.5 or 15, as the reader comes from
        ("number", "1,2,3", False),
        ("number", "1_000", False),
        ("number", "1e999", False),
        ("json", "[" * 100_000, False),  # deeper than a parser goes
        ("json", "[1]", True),
    ],
)
def test_what_an_answer_has_to_parse_as(make, candidate, form, answer, kept):
    found = reasons(make, [candidate(0, "q", answer, task="sum")], "schema", forms={"sum": form})
    assert (found == [None]) is kept


@pytest.mark.parametrize(
    ("name", "params", "match"),
    [
        ("refusal", {"phrases": [" "]}, "an empty phrase stands in every answer"),
        ("injection", {"phrases": [""]}, "an empty phrase stands in every input"),
        ("language", {"expected": ["english"]}, "write a code of ISO 639-1"),
        ("secrets", {"kinds": ["EMAIL"]}, "finds no 'EMAIL', only PRIVATE_KEY"),
        ("pii", {"kinds": ["EMIAL"]}, "finds no 'EMIAL', only EMAIL"),
    ],
)
def test_an_option_that_could_not_act_is_refused(name, params, match):
    with pytest.raises(ConfigError, match=match):
        engine.load_rules([Block.model_validate({"name": name, **params})])


def test_languages_that_the_identifier_does_not_know(make, candidate, seed):
    pytest.importorskip("py3langid")
    text = "This is a perfectly ordinary English sentence about the contract."
    rows = [candidate(0, "q", text, task="sum")]
    for tag in ("English", "und"):  # of a data set: nothing is known of the text, which is no other language for it
        table, context = make(rows, [seed(0, "q", task="sum", language=tag)])
        looks = engine.run(table, [Block(name="language")], "first", context).decisions.to_pylist()[0]["looks"]
        assert (looks[0]["verdict"], looks[0]["reason"]) == ("keep", "unknown")
    with pytest.raises(ConfigError, match="knows no language 'eng', so every text"):
        reasons(make, rows, "language", expected=["eng"])
    norwegian = "Dette er en helt vanlig norsk setning om kontrakten mellom partene i saken."
    for tag in ("nb", "nn", "no"):
        assert reasons(make, [candidate(0, "q", norwegian, task="sum")], "language", expected=[tag]) == [None]


def test_exact_duplicate_folds_case_and_space_within_a_task(make, candidate):
    rows = [
        candidate(0, "Where is my card?"),
        candidate(1, " where  IS my card? "),
        candidate(2, "Where is my card!"),
        candidate(3, "Where is my card?", task="sum"),
        candidate(4, "Where is my card?", "card_fee", sample=1),
    ]
    assert reasons(make, rows, "exact_duplicate") == [None, "exact_duplicate", None, None, "exact_duplicate"]
    assert reasons(make, rows, "exact_duplicate", per="answer")[4] is None
    assert reasons(make, rows, "exact_duplicate", per="sample")[4] is None
    assert reasons(make, rows, "exact_duplicate", per="answer")[1] == "exact_duplicate"


@pytest.mark.parametrize("shown", ["SUM:\n2 AND\n3", "&lt;sum&gt;: 2 and 3", "sum: 2 and\u00a03"])
def test_a_template_that_wraps_or_escapes_the_input_keeps_its_facts(make, candidate, seed, shown):
    text = "<sum>: 2 and 3" if "lt" in shown else "2 and 3"
    seeds = [seed(0, text, {"addends": [2, 3]}, task="sum")]
    assert reasons(make, [candidate(0, shown, "6", task="sum")], "verifier", seeds=seeds) == ["verifier.wrong"]


def test_verifier_uses_the_seeds_facts_and_says_what_it_cannot_tell(make, candidate, seed):
    rows = [
        candidate(0, "sum:\n2 and 3", "5", task="sum"),
        candidate(1, "sum:\n2 and 4", "5", task="sum"),
        candidate(2, "sum:\nno facts", "5", task="sum"),
        candidate(3, "a card", "other"),
        candidate(4, "a new input that is not the seed's", "5", task="sum"),
    ]
    seeds = [
        seed(0, "2 and 3", {"addends": [2, 3]}, task="sum"),
        seed(1, "2 and 4", {"addends": [2, 4]}, task="sum"),
        seed(2, "no facts", task="sum"),
        seed(3, "a card", {"x": 1}),
        seed(4, "9 and 9", {"addends": [9, 9]}, task="sum"),
    ]
    found = decide(make, rows, "verifier", seeds=seeds)
    assert [(reason, look["reason"], look["score"]) for reason, look in found.values()] == [
        (None, "verified", 1.0),
        ("verifier.wrong", "wrong", 0.0),
        (None, "no_facts", None),
        (None, "undecided", None),
        (None, "no_facts", None),
    ]
    assert found[1][1]["detail"] == "sum of [2, 4]"
    strict = reasons(make, rows, "verifier", seeds=seeds, undecided="drop")
    assert strict[2:4] == ["verifier.no_facts", "verifier.undecided"]
    assert reasons(make, rows, "verifier", seeds=seeds, tasks=["route"]) == [None] * 5


LONG = "the tenant shall give the landlord written notice of any defect within the first month after it was found"


def test_decontamination(make, candidate):
    items = [LONG, "Is it off?", "please tell me where the new card was sent to"]
    rows = [
        candidate(0, "is it  OFF?"),
        candidate(1, f"Under the lease {LONG}, and the landlord shall mend it before winter comes again."),
        candidate(2, LONG.replace("landlord", "lessor")),
        candidate(3, "is it off or on?"),
        candidate(4, "hello, please tell me where the new card was sent to, thank you"),
        candidate(5, "the tenant shall give the keys back"),
    ]
    found = decide(make, rows, "decontamination", evaluation=items, threshold=0.6)
    assert [reason for reason, _ in found.values()] == [
        "decontamination.exact",
        "decontamination.run",
        "decontamination.near",
        None,
        "decontamination.run",
        None,
    ]
    assert found[0][1]["detail"] == "e1 of shop/eval_set"
    assert reasons(make, rows, "decontamination", evaluation=[]) == [None] * 6


def test_decontamination_ignores_boilerplate(make, candidate):
    rule = "a claim is due on the last day of the month that follows the month of the event unless it was waived"
    items = [f"{rule} case number {word} was opened by {word} on behalf of {word}" for word in "abcdefghijklmnop"]
    rows = [candidate(0, f"{rule} but the parties settled everything long before that day ever came around here")]
    assert reasons(make, rows, "decontamination", evaluation=items) == [None]
    assert reasons(make, rows, "decontamination", evaluation=items[:2], overlap=0.3) == ["decontamination.run"]


def test_bad_blocks_name_the_rule_and_the_key(make, candidate):
    rows = [candidate(0, "a")]
    with pytest.raises(ConfigError, match=r"near_duplicate.*Did you mean 'threshold'") as error:
        decide(make, rows, "near_duplicate", treshold=0.9)
    assert error.value.place == "filtering[0] near_duplicate.treshold"
    with pytest.raises(ConfigError, match="Did you mean 'near_duplicate'"):
        decide(make, rows, "near_duplicates")
    with pytest.raises(ConfigError, match="class Rule"):
        decide(make, rows, "engine")
    with pytest.raises(ConfigError, match="less than or equal to 1"):
        decide(make, rows, "near_duplicate", threshold=1.5)


def test_a_failing_rule_is_named(make, candidate, seed):
    row, asked = candidate(0, "2 and 3", "5", task="sum"), seed(0, "2 and 3", {"addends": 5}, task="sum")
    with pytest.raises(DistillError, match="filtering rule verifier: it failed .TypeError"):
        decide(make, [row], "verifier", seeds=[asked])
