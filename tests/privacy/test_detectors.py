"""A second detector beside the built-in patterns: merged, masked and recorded as they are. No extra is needed."""

from __future__ import annotations

import logging
import random
import re

import pytest

from distill_dagster.config.egress import EgressOptions, policy
from distill_dagster.config.models import Block
from distill_dagster.filtering import engine, pii
from distill_dagster.filtering.base import Context
from distill_dagster.privacy import analyzer, presidio
from distill_dagster.privacy.found import Finding
from distill_dagster.privacy.mask import Masker, find
from distill_dagster.records.messages import message, text_of
from distill_dagster.records.tables import build
from distill_dagster.teachers.base import Request
from distill_dagster.teachers.egress import Gate

IDENTITY = {
    "name": "presidio",
    "language": "en",
    "entities": None,
    "threshold": 0.4,
    "model": None,
    "versions": {"a": "1"},
}
NAMES = ("Jane Doe", "Joe Roe", "Zoë")


def names(text: str) -> list[Finding]:
    """Finds a few names, and whatever stands in capitals, as a model does that has never seen a tag."""
    found = [(one.span(), "PERSON") for name in NAMES for one in re.finditer(re.escape(name), text)]
    found += [(one.span(), "ORGANIZATION") for one in re.finditer(r"[A-Z_\d\[\]]{5,}", text)]
    return [Finding(*span, kind, text[slice(*span)].casefold()) for span, kind in found]


def test_both_find_and_what_overlaps_is_one_finding_of_our_kind() -> None:
    text = "Jane Doe, jane@example.com"

    def detector(text: str) -> list[Finding]:
        return [*names(text), Finding(5, 26, "URL", "x"), Finding(15, 26, "URL", "example.com")]

    assert [one[:3] for one in find(text, detector=names)] == [(0, 8, "PERSON"), (10, 26, "EMAIL")]
    # PERSON and URL overlap, and URL and EMAIL: one stretch, named by the kind of the built-in patterns.
    assert [one[:3] for one in find(text, detector=detector)] == [(0, 26, "EMAIL")]
    for seed in range(20):
        shuffled = lambda text, seed=seed: random.Random(seed).sample(found := detector(text), len(found))  # noqa: E731
        assert find(text, detector=shuffled) == find(text, detector=detector)
    # Of two kinds that are not ours the longer one names the stretch, then the first.
    both = [
        Finding(0, 8, "PERSON", "a"),
        Finding(5, 8, "URL", "b"),
        Finding(20, 24, "NRP", "c"),
        Finding(20, 24, "LOCATION", "d"),
    ]
    assert [one[:3] for one in find("x" * 30, detector=lambda text: both)] == [(0, 8, "PERSON"), (20, 24, "LOCATION")]


def test_tags_name_the_entity_and_equal_values_have_equal_ones() -> None:
    masker = Masker([], detector=names)
    assert masker.mask("Jane Doe met Joe Roe; Jane Doe has jane@example.com.") == (
        "[PERSON_1] met [PERSON_2]; [PERSON_1] has [EMAIL_1]."
    )
    assert masker.counts == {"PERSON": 3, "EMAIL": 1}


def test_a_tag_is_no_name() -> None:
    """The detector takes `[PERSON_1]` for an organization; what stands around a tag is masked all the same."""
    assert names("[PERSON_1]") and not find("[PERSON_1]", detector=names)
    assert Masker([], detector=names).mask("[PERSON_1] and Jane Doe") == "[PERSON_1] and [PERSON_1]"
    assert Masker(["[PERSON_1]"], detector=names).mask("[PERSON_1] and Jane Doe") == "[PERSON_1] and [PERSON_2]"
    assert Masker([], detector=names).mask("ACMECO[PERSON_1]ROECO") == "[ORGANIZATION_1][PERSON_1][ORGANIZATION_2]"
    once = Masker([], detector=names).mask("Joe Roe of ACMECORP, joe@example.com")
    assert once == "[PERSON_1] of [ORGANIZATION_1], [EMAIL_1]" and Masker([], detector=names).mask(once) == once


def test_what_never_comes_clean_is_withheld() -> None:
    def one_more(text: str) -> list[Finding]:
        return [Finding(at, at + 1, "PERSON", "x") for at in [text.rfind("a")] if at >= 0]

    assert Masker([], detector=one_more).mask("aaa") == "[PERSON_1][PERSON_1][PERSON_1]"
    assert Masker([], detector=one_more).mask("a" * 99) == "[WITHHELD]"


def test_spans_are_code_points_of_the_text_itself() -> None:
    text = "😀👍🏽 &amp; Ja\u200bne Doe, Zoë and 𝐉𝐨𝐞 𝐑𝐨𝐞"
    found = find(text, detector=names)
    assert [text[one.start : one.end] for one in found] == ["Ja\u200bne Doe", "Zoë", "𝐉𝐨𝐞 𝐑𝐨𝐞"]
    assert Masker([], detector=names).mask(text) == "😀👍🏽 &amp; [PERSON_1], [PERSON_2] and [PERSON_3]"


def test_the_gate_asks_the_detector_and_its_version_says_so() -> None:
    said = policy(EgressOptions.model_validate({"detector": "presidio"}), "third_party")
    gate, without = Gate(said, names, IDENTITY), Gate(said)
    question = Request(({"role": "user", "content": "Is Jane Doe here?"},))
    look = gate.look(question, None)
    assert (look.verdict, look.reason, look.findings) == ("mask", "pii", {"PERSON": 1})
    assert look.request is not None and look.request.messages[0]["content"] == "Is [PERSON_1] here?"
    assert without.look(question, None).verdict == "send" and without.version != gate.version
    assert Gate(said, names, {**IDENTITY, "threshold": 0.5}).version != gate.version
    assert gate.look(Request(({"role": "user", "content": ""},)), None).verdict == "send"
    refuse = policy(
        EgressOptions.model_validate({"detector": "presidio", "pii": {"third_party": "refuse"}}), "third_party"
    )
    assert Gate(refuse, names, IDENTITY).look(question, None).request is None


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> dict:
    """presidio's place is taken; what it is called, and its identity, can be changed."""
    said = dict(IDENTITY)
    monkeypatch.setattr(presidio, "detector", lambda options, folder: names)
    monkeypatch.setattr(presidio, "identity", lambda options, folder: {**said, "threshold": options.threshold})
    return said


def candidates(*rows: dict) -> tuple:
    made = [
        {"candidate_no": number, "seed_no": None, "call_no": number, "kind": "labeling", "task": "t", "sample": 0}
        | {"answer": "fine", "status": "ok", "finish_reason": "stop", "messages": [message("user", "?")]}
        | row
        for number, row in enumerate(rows)
    ]
    return build("candidate", made), Context({})


def run(made: tuple, **params) -> engine.Outcome:
    return engine.run(
        made[0], [Block.model_validate({"name": "pii", "detector": "presidio", **params})], "first", made[1]
    )


def test_the_rule_masks_drops_or_keeps_and_records_no_text(fake: dict) -> None:
    blob = {"kind": "blob", "text": None, "digest": "0" * 64, "media_type": "image/png"}
    picture = {"messages": [{"role": "user", "parts": [blob]}]}
    made = candidates({"answer": "Ask Jane Doe or joe@example.com."}, {"answer": ""}, picture, {"answer": None}, {})
    outcome = run(made, action="mask")
    assert outcome.rewritten[0]["answer"] == "Ask [PERSON_1] or [EMAIL_1]." and outcome.kept == [0, 1, 2, 3, 4]
    (look,) = outcome.decisions.to_pylist()[0]["looks"]
    assert (look["reason"], look["detail"], look["score"]) == ("masked", "EMAIL: 1, PERSON: 1", 2.0)
    assert look["version"].startswith("1+presidio-")
    assert not re.search("Jane|joe@", str(outcome.decisions.to_pylist()), re.I)
    assert run(made).funnel == {"pii": 1} and run(made, action="keep").funnel == {}
    assert run(made, kinds=["EMAIL"], action="mask").rewritten[0]["answer"] == "Ask Jane Doe or [EMAIL_1]."
    assert text_of(outcome.rewritten[0]["messages"]) == "?"


def test_every_option_and_version_of_the_detector_is_the_rules_identity(fake: dict) -> None:
    def outside(**params) -> dict:
        return engine.outside([Block.model_validate({"name": "pii", **params})])

    assert outside() == {} and engine.versions([Block(name="pii")]) == {"pii": "1"}
    first = outside(detector="presidio")
    assert first == {"pii": {"detector": IDENTITY}}
    assert outside(detector={"name": "presidio", "threshold": 0.9}) != first
    fake["versions"] = {"a": "2"}
    assert outside(detector="presidio") != first
    # Two rules of one name are told apart.
    twice = engine.outside([Block.model_validate({"name": "pii", "detector": "presidio"})] * 2)
    assert list(twice) == ["pii", "pii#2"]


def test_a_failure_of_the_detector_ends_the_stage_and_quotes_nothing(fake: dict, monkeypatch) -> None:
    def fails(text: str) -> list[Finding]:
        raise presidio.DetectorError("", f"it failed on a text of {len(text)} characters (ValueError).")

    monkeypatch.setattr(presidio, "detector", lambda options, folder: fails)
    with pytest.raises(presidio.DetectorError, match="detector presidio: it failed on a text of 1 characters"):
        run(candidates({"answer": "Jane"}))


def test_the_rule_needs_nothing_until_it_is_asked_for() -> None:
    assert pii.Rule(pii.Rule.Params()).outside(None) == {}
    assert engine.load_rules([Block.model_validate({"name": "pii", "detector": "presidio"})])


def test_windows_cover_a_text_once_and_end_behind_blanks() -> None:
    letters = random.Random(3)
    words = "".join(letters.choice("abcdefg \n") for _ in range(3 * analyzer.WINDOW))
    for text in (words, "x" * (2 * analyzer.WINDOW + 1), "short"):
        windows = list(analyzer._windows(text))
        assert [start for _, _, start, _ in windows[1:]] == [end for _, _, _, end in windows[:-1]]
        assert (windows[0][2], windows[-1][3]) == (0, len(text))
        for first, last, start, end in windows:
            assert first <= start < end <= last <= len(text) and last - first <= analyzer.WINDOW + 2 * analyzer.AROUND
            assert end == len(text) or text[end - 1].isspace() or " " not in text


@pytest.mark.parametrize(
    ("entity", "kind"),
    [
        ("EMAIL_ADDRESS", "EMAIL"),
        ("PERSON", "PERSON"),
        ("US_BANK_NUMBER", "US_BANK_NUMBER"),
        ("Per-2", "PER"),
        ("1", "ENTITY"),
    ],
)
def test_kinds_are_what_a_tag_can_say(entity: str, kind: str) -> None:
    assert analyzer.kind_of(entity) == kind
    assert not find(f"[{kind}_1]", detector=lambda text: [Finding(0, len(text), "X", "x")])


def test_a_pattern_that_was_given_up_is_heard_of() -> None:
    log = analyzer._Log()
    record = logging.makeLogRecord({"msg": "Regex pattern '%s' timed out after %s seconds", "args": ("Url", 60)})
    assert log.filter(record) and log.late == "the pattern 'Url'"
