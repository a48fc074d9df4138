"""`detector: presidio` in YAML: what may be said, and what `check` says where it cannot be had. No extra is needed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill_dagster.config import pipeline_checks
from distill_dagster.config.detector import DetectorOptions
from distill_dagster.config.egress import EgressOptions, policy
from distill_dagster.config.load import load_project
from distill_dagster.config.models import SourceConfig, identity
from distill_dagster.config.problems import Problem
from distill_dagster.privacy import presidio

Found = Callable[..., list[Problem]]
ALL_BLOCKS = pipeline_checks.blocks
INSTALLED = {"presidio-analyzer": "2.2.366", "phonenumbers": "9.0.43", "spacy": "3.8.18", "tldextract": "5.4.0"}

RULE = "kind: pipeline\nsource: toy\nteacher: small\nfiltering:\n- name: pii\n  action: mask\n  detector: presidio\n"
GATE = "kind: source\ndomain: toy\negress:\n  detector: presidio\n"


@pytest.fixture(autouse=True)
def with_every_rule(known_blocks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_checks, "blocks", ALL_BLOCKS)


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presidio.importlib.util, "find_spec", lambda name: None)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """presidio seems to be there; nothing of it is imported before the model is found."""
    monkeypatch.setattr(presidio, "versions", lambda: INSTALLED)


def test_check_names_the_extra_where_a_rule_needs_it(found: Found, absent: None) -> None:
    (problem,) = found(pipeline=RULE)
    assert (problem.file.name, problem.line, problem.key) == ("pipeline.yaml", 7, "filtering[0].detector")
    assert "needs the package presidio-analyzer" in problem.reason
    assert problem.hint == "Install it: pip install 'distill-dagster[pii]'."


def test_check_names_the_extra_where_the_gate_needs_it(found: Found, absent: None, tmp_path: Path, domains) -> None:
    (problem,) = found(source=GATE)
    assert (problem.file.name, problem.line, problem.key) == ("source.yaml", 4, "egress.detector")
    assert "distill-dagster[pii]" in problem.hint
    # Another machine may show the graph without the extra.
    assert load_project(tmp_path, domains).sources["toy"].egress.detector == DetectorOptions(name="presidio")


@pytest.mark.parametrize(
    ("model", "reason", "hint"),
    [
        ("en_core_web_lg", "no package 'en_core_web_lg' is installed, and nothing is downloaded", "its folder"),
        ("json", "the package 'json' holds no spaCy model", "config.cfg"),
        ("./absent", "'./absent' is no folder of a spaCy model", "relative to the YAML file"),
        ("not-a-package", "no package 'not-a-package'", "patterns alone"),
        ("${NOT_SET_HERE}/model", "NOT_SET_HERE is not set", "default"),
    ],
)
def test_check_names_a_model_that_is_not_there(
    found: Found, installed: None, model: str, reason: str, hint: str
) -> None:
    text = RULE.replace("detector: presidio", f"detector:\n    name: presidio\n    model: {model}")
    (problem,) = found(pipeline=text)
    assert (problem.file.name, problem.line, problem.key) == ("pipeline.yaml", 9, "filtering[0].detector.model")
    assert reason in problem.reason and hint in problem.hint


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("presidoi", "presidio"),
        ("{name: presidio, entities: [PERSON]}", "PERSON is found by a spaCy model alone: name one in `model`"),
        ("{name: presidio, entities: []}", "at least 1"),
        ("{name: presidio, threshold: 0}", "greater than 0"),
        ("{name: presidio, language: English}", "does not match"),
        ("{name: presidio, score: 0.5}", "unknown key 'score'"),
    ],
)
def test_what_may_not_be_said(found: Found, absent: None, said: str, words: str) -> None:
    for name, text in (("pipeline", RULE), ("source", GATE)):
        problems = found(**{name: text.replace("presidio\n", f"{said}\n")})
        assert [problem.line for problem in problems] == [7 if name == "pipeline" else 4]
        assert words in str(problems[0])


def test_a_rule_that_has_no_detector_refuses_one(found: Found, absent: None) -> None:
    (problem,) = found(pipeline=RULE.replace("name: pii", "name: secrets"))
    assert problem.key == "filtering[0].detector" and "unknown key" in problem.reason


def test_the_extra_is_named_where_it_is_missing_broken_or_old(monkeypatch: pytest.MonkeyPatch) -> None:
    spec: dict[str, Any] = {"presidio_analyzer": object(), "spacy": object()}
    told = dict(INSTALLED)
    monkeypatch.setattr(presidio.importlib.util, "find_spec", spec.get)
    monkeypatch.setattr(presidio.metadata, "version", told.__getitem__)
    assert presidio.versions() == INSTALLED
    told["presidio-analyzer"] = "2.2.355"
    with pytest.raises(
        presidio.DetectorError, match=r"2\.2\.366 or newer, and this is 2\.2\.355.*distill-dagster\[pii\]"
    ):
        presidio.versions()
    told["presidio-analyzer"] = "2.3.0"
    assert presidio.versions()["presidio-analyzer"] == "2.3.0"
    del spec["spacy"]
    with pytest.raises(
        presidio.DetectorError, match=r"there is no package spacy.*pip install 'distill-dagster\[pii\]'"
    ):
        presidio.versions()


def test_the_gate_has_a_detector_only_where_it_can_change_something() -> None:
    options = EgressOptions.model_validate({"detector": "presidio"})
    assert policy(options, "local").identity() == {} and policy(options, "own_network").detector is None
    said = policy(options, "third_party").identity()
    assert said["pii"] == "mask" and said["detector"] == identity(DetectorOptions(name="presidio"))
    assert set(said["detector"]) == {"name", "language", "entities", "threshold", "model"}


def test_without_a_detector_nothing_is_another_action() -> None:
    source = SourceConfig(kind="source", domain="toy")
    assert "detector" not in identity(source.egress)
    assert "detector" not in policy(source.egress, "third_party").identity()
