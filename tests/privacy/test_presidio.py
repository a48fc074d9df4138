"""presidio itself, where the extra `pii` is installed: what it finds, that it fetches nothing, a project with it."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distill_dagster.config.check import check
from distill_dagster.config.detector import DetectorOptions
from distill_dagster.privacy import presidio
from distill_dagster.privacy.analyzer import WINDOW, Analyzer
from distill_dagster.privacy.mask import Masker, find
from distill_dagster.records.messages import text_of
from privacy.http_teacher import RecordingServer
from privacy.test_egress_pipeline import Place, looks_of, seen

pytest.importorskip("presidio_analyzer", reason="the extra `pii` is not installed: pip install 'distill-dagster[pii]'")

ACCOUNT = "My bank account number is 945456787654."


def options(**said: Any) -> DetectorOptions:
    return DetectorOptions.model_validate({"name": "presidio", **said})


@pytest.fixture(scope="session")
def patterns() -> Analyzer:
    return presidio.detector(options())


def write_model(folder: Path, *people: str) -> Path:
    """A spaCy model of a few names."""
    import spacy

    nlp = spacy.blank("en")
    rules: Any = nlp.add_pipe("entity_ruler")
    rules.add_patterns([{"label": "PERSON", "pattern": name} for name in people])
    rules.add_patterns([{"label": "ORG", "pattern": "Acme"}, {"label": "MONEY", "pattern": "300 dollars"}])
    nlp.to_disk(folder)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "names", "Jane Doe", "Zoë Roe")


def kinds(detector: Analyzer, text: str) -> list[tuple[str, str]]:
    return [(one.kind, text[one.start : one.end]) for one in find(text, detector=detector)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (ACCOUNT, [("US_BANK_NUMBER", "945456787654")]),
        ("My driver license is AC432223.", [("US_DRIVER_LICENSE", "AC432223")]),
        ("Pay 16Yeky6GMjeNkAiNcBY7ZhrLoMSgg1BoyZ today", [("CRYPTO", "16Yeky6GMjeNkAiNcBY7ZhrLoMSgg1BoyZ")]),
        ("It was on 12/03/1987.", [("DATE_TIME", "12/03/1987")]),
    ],
)
def test_it_finds_what_the_built_in_patterns_do_not(patterns: Analyzer, text: str, found: list) -> None:
    assert find(text) == [] and kinds(patterns, text) == found


def test_what_both_find_is_one_finding_of_our_kind(patterns: Analyzer) -> None:
    text = "jane@example.com, 4111 1111 1111 1111, GB82 WEST 1234 5698 7654 32, 192.168.10.20, 00:1B:44:11:3A:B7"
    assert [kind for kind, _ in kinds(patterns, text)] == ["EMAIL", "CARD", "IBAN", "IP", "MAC"]
    masker = Masker([], detector=patterns)
    assert masker.mask("jane@example.com JANE@example.com") == "[EMAIL_1] [EMAIL_1]"
    assert masker.mask("4111-1111-1111-1111 4111 1111 1111 1111") == "[CARD_1] [CARD_1]"


def test_a_weak_pattern_counts_where_its_words_stand_before_it(patterns: Analyzer) -> None:
    assert kinds(patterns, "The part number is 945456787654.") == []
    assert kinds(presidio.detector(options(threshold=0.5)), ACCOUNT) == []
    assert kinds(presidio.detector(options(threshold=0.01)), "945456787654 of them") != []


def test_entities_are_those_that_are_named(patterns: Analyzer) -> None:
    two = presidio.detector(options(entities=["UK_POSTCODE", "US_BANK_NUMBER"]))
    assert two.entities == ["UK_POSTCODE", "US_BANK_NUMBER"]
    assert kinds(two, f"{ACCOUNT} On 12/03/1987.") == [("US_BANK_NUMBER", "945456787654")]
    # presidio knows it, and does not look for it by itself.
    assert not {"UK_POSTCODE", "URL"} & set(patterns.entities) and find("See example.org.", detector=patterns) == []
    assert kinds(presidio.detector(options(entities=["URL"])), "See example.org.") == [("URL", "example.org")]
    assert kinds(two, "The postcode is SW1A 1AA.") == [("UK_POSTCODE", "SW1A 1AA")]


@pytest.mark.parametrize(
    ("said", "field", "words"),
    [
        ({"entities": ["US_BNK_NUMBER"]}, "entities", "Did you mean 'US_BANK_NUMBER'"),
        ({"language": "qq"}, "language", "spaCy cannot load it"),
    ],
)
def test_what_presidio_or_spacy_do_not_know(said: dict, field: str, words: str) -> None:
    with pytest.raises(presidio.DetectorError, match=words) as error:
        presidio.detector(options(**said))
    assert error.value.field == field


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Building and finding open no connection; by itself presidio fetches a model, and a list of suffixes of names."""
    import spacy

    def refuse(*args: object, **more: object) -> None:
        raise AssertionError(f"something was fetched: {args}")

    monkeypatch.setattr(spacy.cli, "download", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TLDEXTRACT_CACHE", str(tmp_path / "cache"))
    presidio._built.cache_clear()
    detector = presidio.detector(options())
    assert kinds(detector, "jane@example.com and joe@nowhere.co.uk") == [
        ("EMAIL", "jane@example.com"),
        ("EMAIL", "joe@nowhere.co.uk"),
    ]
    assert not (tmp_path / "cache").exists()
    modules = {type(one).__module__ for one in detector._engine.registry.recognizers}
    assert not [name for name in modules if "third_party" in name or ".ner." in name]
    with pytest.raises(
        presidio.DetectorError, match="no package 'en_core_web_lg' is installed, and nothing is downloaded"
    ):
        presidio.detector(options(model="en_core_web_lg"))


def test_one_engine_a_process(patterns: Analyzer, model: Path) -> None:
    assert presidio.detector(options(entities=["URL", "UUID"])) is presidio.detector(options(entities=["UUID", "URL"]))
    assert presidio.detector(options(model=str(model))) is presidio.detector(options(model=str(model)))


@pytest.mark.parametrize("text", ["", " ", "\n\t\u2003", "\u200b", "]", "😀" * 30])
def test_texts_that_hold_nothing(patterns: Analyzer, text: str) -> None:
    assert find(text, detector=patterns) == []


def test_a_long_text_is_looked_at_in_parts(patterns: Analyzer) -> None:
    """Over spaCy's limit of a million characters; findings at the borders of parts are whole, and found once."""
    filler = "lorem ipsum dolor "
    pieces, places, at = [], [], 0
    for part in range(1, 4):
        for shift in (-30, -8, 3, 40):
            gap = part * WINDOW + shift - at
            pieces += [(filler * (gap // len(filler) + 1))[: gap - 1], " ", "jane@example.com"]
            places.append(part * WINDOW + shift)
            at = places[-1] + 16
            if shift != 40:
                break
    text = "".join(pieces)
    found = find(text, detector=patterns)
    assert [one.start for one in found if one.kind == "EMAIL"] == places and len(found) == len(places)
    long = "a" * 1_100_000 + " " + ACCOUNT
    assert [kind for kind, _ in kinds(presidio.detector(options(entities=["US_BANK_NUMBER"])), long)] == [
        "US_BANK_NUMBER"
    ]


def test_a_run_of_dotted_letters_takes_seconds_at_most(patterns: Analyzer) -> None:
    began = time.process_time()
    assert find("a." * WINDOW, detector=patterns) == []
    assert time.process_time() - began < 20


def test_a_model_names_people(model: Path) -> None:
    text = "😀 Zoë Roe of Acme paid Jane Doe 300 dollars; ja\u200bne doe, jane@example.com."
    named = presidio.detector(options(model=str(model)))
    assert kinds(named, text) == [("PERSON", "Zoë Roe"), ("PERSON", "Jane Doe"), ("EMAIL", "jane@example.com")]
    assert Masker([], detector=named).mask(text) == (
        "😀 [PERSON_1] of Acme paid [PERSON_2] 300 dollars; ja\u200bne doe, [EMAIL_1]."
    )
    asked = presidio.detector(options(model=str(model), entities=["ORGANIZATION", "MONEY"]))
    assert kinds(asked, text)[:2] == [("ORGANIZATION", "Acme"), ("MONEY", "300 dollars")]
    once = Masker([], detector=named).mask(text)
    assert Masker([], detector=named).mask(once) == once
    with pytest.raises(presidio.DetectorError, match="the model is of language 'en', and `language` says 'de'"):
        presidio.detector(options(model=str(model), language="de"))


def test_another_model_in_its_place_is_another_identity(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "names", "Jane Doe")
    said = options(model="./names")
    first, detector = presidio.identity(said, tmp_path), presidio.detector(said, tmp_path)
    assert set(first["versions"]) == {"presidio-analyzer", "phonenumbers", "spacy", "tldextract"}
    assert len(first["model"]) == 64 and presidio.identity(said, tmp_path) == first
    write_model(folder, "Joe Roe")
    assert presidio.identity(said, tmp_path)["model"] != first["model"]
    assert presidio.detector(said, tmp_path) is not detector
    assert kinds(presidio.detector(said, tmp_path), "Jane Doe, Joe Roe") == [("PERSON", "Joe Roe")]
    (folder / "config.cfg").write_text("[nlp]\nlang = 3\n", "utf-8")
    with pytest.raises(presidio.DetectorError, match="spaCy cannot load it"):
        presidio.detector(said, tmp_path)


def test_a_failure_quotes_nothing_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = presidio.detector(options(entities=["US_SSN"]))

    def fails(text: str, *args: object, **more: object) -> None:
        raise ValueError(f"did not find {text}")

    monkeypatch.setattr(detector._engine, "analyze", fails)
    with pytest.raises(presidio.DetectorError, match=r"it failed on a text of 18 characters \(ValueError\)") as error:
        detector("a secret of Jane's")
    assert "Jane" not in str(error.value) and error.value.__cause__ is None and error.value.__suppress_context__


def test_a_pattern_that_presidio_gives_up_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """presidio logs it, and goes on without the pattern: what it would have found would leave."""
    detector = presidio.detector(options(entities=["US_SSN"]))

    def slow(*args: object, **more: object) -> list:
        logging.getLogger("presidio-analyzer").warning("Regex pattern '%s' timed out after %s seconds", "SSN4", 60)
        return []

    monkeypatch.setattr(detector._engine, "analyze", slow)
    with pytest.raises(presidio.DetectorError, match="it gave up on the pattern 'SSN4' in a text of 4 characters"):
        detector("1234")


def test_presidio_says_nothing_in_the_log(caplog: pytest.LogCaptureFixture, model: Path) -> None:
    presidio._built.cache_clear()
    with caplog.at_level(logging.WARNING):
        detector = presidio.detector(options(model=str(model)))
        detector(f"{ACCOUNT} Jane Doe of Acme, jane@example.com, 300 dollars")
    assert caplog.records == []


# --- a project --------------------------------------------------------------------------------------------------------

DETECTOR = "{name: presidio, model: ./names, entities: [PERSON, US_BANK_NUMBER]}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with RecordingServer() as server:
        place = Place(tmp_path, server, monkeypatch)
        write_model(tmp_path / "assets_config" / "names", "Jane Doe", "Joe Roe")
        place.seeds([f"Jane Doe writes: {ACCOUNT}", "Joe Roe, joe@example.com, asks Jane Doe.", "A red van."])
        place.source(f"egress: {{detector: {DETECTOR}}}\n")
        rule(place, f"{{name: pii, action: mask, detector: {DETECTOR}}}")
        yield place


def rule(place: Place, text: str) -> None:
    path = place.tiny.folder / "assets_config" / "pipeline.yaml"
    path.write_text(re.sub(r"filtering: .*", f"filtering: [{text}]", path.read_text("utf-8")), "utf-8")


def test_names_neither_leave_nor_are_learned(place: Place) -> None:
    folder = place.tiny.folder / "assets_config"
    assert check(folder) == []
    made = place.run(("teacher_outputs", "filtered_dataset"))
    sent, dataset = seen(place.server), made["filtered_dataset"]
    assert len(sent) == 3 and not re.search(r"Jane|Joe|945456787654|joe@", " ".join(sent))
    asked = [
        "[PERSON_1] writes: My bank account number is [US_BANK_NUMBER_1].",
        "[PERSON_1], [EMAIL_1], asks [PERSON_2].",
    ]
    assert all(any(text in body for body in sent) for text in asked)
    looks = looks_of(made["teacher_outputs"])
    assert looks[0]["findings"] == [{"kind": "PERSON", "count": 1}, {"kind": "US_BANK_NUMBER", "count": 1}]
    # What the student reads is what the teacher was asked.
    said = {text_of(row["messages"], "user") for row in dataset.version.table("example").to_pylist()}
    assert said == {*asked, "A red van."}
    decisions = dataset.version.side_table(dataset.run, "decision").to_pylist()
    assert [row["looks"][0]["detail"] for row in decisions][:2] == [
        "PERSON: 1, US_BANK_NUMBER: 1",
        "EMAIL: 1, PERSON: 2",
    ]
    assert all(row["looks"][0]["version"].startswith("1+presidio-") for row in decisions)
    assert not re.search(r"Jane|Joe|945456787654|joe@", str(decisions) + str(looks))
    # A known action costs nothing; another model, or another threshold, is another action.
    assert all(one.reused for one in place.run(("teacher_outputs", "filtered_dataset")).values())
    rule(place, f"{{name: pii, action: mask, detector: {DETECTOR[:-1]}, threshold: 0.9}}}}")
    again = place.run(("teacher_outputs", "filtered_dataset"))
    assert again["teacher_outputs"].reused and not again["filtered_dataset"].reused
    write_model(folder / "names", "Jane Doe")
    again = place.run(("teacher_outputs", "filtered_dataset"))
    assert again["seed_set"].reused and not again["teacher_outputs"].reused and not again["filtered_dataset"].reused
    assert any("Joe Roe" in body for body in seen(place.server))


def test_check_names_an_entity_that_nothing_finds(place: Place) -> None:
    folder = place.tiny.folder / "assets_config"
    place.source("egress:\n  detector:\n    name: presidio\n    entities: [US_SSM]\n")
    (problem,) = check(folder)
    assert (problem.file.name, problem.key) == ("source.yaml", "egress.detector.entities")
    assert problem.line == 11 and "nothing finds 'US_SSM' here" in problem.reason and "'US_SSN'" in problem.hint


@pytest.mark.skipif(
    "DISTILL_SPACY_MODEL" not in os.environ, reason="DISTILL_SPACY_MODEL names no folder of a spaCy model"
)
def test_a_trained_model(tmp_path: Path) -> None:
    detector = presidio.detector(options(model=os.environ["DISTILL_SPACY_MODEL"], entities=["PERSON", "LOCATION"]))
    text = "Dr. Alice Miller lives in Berlin. [PERSON_1] wrote to her."
    assert kinds(detector, text) == [("PERSON", "Alice Miller"), ("LOCATION", "Berlin")]
    once = Masker([], detector=detector).mask(text)
    assert "[PERSON_1] wrote to her." in once and "Miller" not in once and "Berlin" not in once
