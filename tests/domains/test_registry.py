"""Domain plugins: found by entry point, checked, and harmless to each other when one is broken."""

from dataclasses import replace
from importlib import metadata
from types import SimpleNamespace

import pytest

from distill_dagster.domains import registry
from distill_dagster.domains.base import ENTRY_POINT_GROUP, Domain, PromptTemplate, Task
from distill_dagster.domains.generic.domain import templates
from distill_dagster.errors import PluginError

LABEL = Task("colour", "label", "", "", ("red", "blue"))


def make(name: str, *tasks: Task, **more) -> Domain:
    return Domain(name, "", "", (), tasks, **{"templates": (), **more})


class Point:
    """What `entry_points` yields, without a distribution on disk."""

    def __init__(self, name: str, result, distribution: str = "acme", value: str = "acme:domain") -> None:
        self.name, self.value, self.result = name, value, result
        self.dist = SimpleNamespace(name=distribution, version="1.0")

    def load(self):
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result if callable(self.result) else lambda: self.result


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch):
    """Pretend that exactly these plugins are installed."""

    def install(*points: Point) -> registry.Domains:
        def entry_points(group: str):
            assert group == ENTRY_POINT_GROUP
            return points

        monkeypatch.setattr(metadata, "entry_points", entry_points)
        return registry.discover()

    monkeypatch.delenv(registry.DISABLE_VARIABLE, raising=False)
    return install


def fails():
    raise ValueError("no licence key")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (ImportError("no module named acme_core"), "ImportError: no module named acme_core"),
        (SyntaxError("invalid syntax"), "SyntaxError"),
        (SystemExit(3), "SystemExit: 3"),
        (fails, "ValueError: no licence key"),
        (SimpleNamespace(name="bad"), "not a Domain"),
        (make("other"), "'bad' and its Domain 'other'"),
        (make("bad", LABEL, LABEL), "'colour' is listed twice"),
        (replace(make("bad"), owners=("team:colours", "Bob")), "'Bob' is neither an e-mail address nor a team"),
        (make("bad", Task("Colour", "text", "", "")), "'Colour' does not match"),
        (make("bad", Task("colour", "label", "", "", ("red",))), "at least two labels"),
        (make("bad", LABEL, templates=(PromptTemplate("size", "full", ""),)), "'size'"),
    ],
)
def test_a_broken_plugin_is_reported_and_the_others_load(installed, broken, words: str) -> None:
    found = installed(Point("bad", broken, "acme-bad"), Point("good", make("good", LABEL)))
    assert list(found.found) == ["good"] and found.origins["good"] == "acme 1.0"
    assert [(failure.name, failure.distribution) for failure in found.failures] == [("bad", "acme-bad 1.0")]
    assert words in found.failures[0].error
    with pytest.raises(PluginError) as caught:
        found.get("bad")
    assert "acme-bad 1.0" in str(caught.value) and words in str(caught.value)
    assert found.get("good").name == "good"


def test_a_name_claimed_twice_names_both_and_loads_neither(installed, monkeypatch: pytest.MonkeyPatch) -> None:
    points = (
        Point("law", make("law"), "acme-law", "acme.law:domain"),
        Point("law", make("law"), "bolt-law", "bolt:domain"),
        Point("tax", make("tax")),
    )
    found = installed(*points)
    assert list(found.found) == ["tax"]
    with pytest.raises(PluginError) as caught:
        found.get("law")
    assert "acme-law 1.0 (acme.law:domain)" in str(caught.value) and "bolt-law 1.0 (bolt:domain)" in str(caught.value)
    monkeypatch.setenv(registry.DISABLE_VARIABLE, "bolt-law")
    found = installed(*points)
    assert found.origins["law"] == "acme-law 1.0" and found.disabled == ()


def test_one_plugin_seen_twice_is_one_plugin(installed) -> None:
    # An editable install beside its own wheel lists the same entry point twice.
    assert list(installed(Point("law", make("law")), Point("law", make("law"))).found) == ["law"]


def test_a_disabled_plugin_is_not_even_imported(installed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(registry.DISABLE_VARIABLE, " law , absent ")
    found = installed(Point("law", AssertionError("imported")), Point("tax", make("tax")))
    assert list(found.found) == ["tax"] and found.disabled == ("law",) and not found.failures
    with pytest.raises(PluginError, match=registry.DISABLE_VARIABLE):
        found.get("law")


def test_an_unknown_name_gets_the_nearest(installed) -> None:
    found = installed(Point("finance", make("finance")))
    with pytest.raises(PluginError, match="Did you mean 'finance'"):
        found.get("finanse")


def test_the_built_in_domains_come_through_the_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(registry.DISABLE_VARIABLE, raising=False)
    found = registry.discover()
    assert {"finance", "generic", "law", "medicine"} <= set(found.found)
    assert not [failure for failure in found.failures if failure.distribution.startswith("distill-dagster ")]
    assert all(found.origins[name].startswith("distill-dagster ") for name in ("finance", "generic", "law", "medicine"))


def test_default_templates_list_every_label_and_keep_record_text_out_of_the_system_role() -> None:
    from jinja2.sandbox import SandboxedEnvironment

    labels = tuple(f"label_{number}" for number in range(77))
    full, short = templates(Task("intent", "label", "intent {{ x }}", "Say it.", labels))
    render = SandboxedEnvironment().from_string
    system = render(full.system).render(labels=labels)
    assert all(f"- {label}\n" in system + "\n" for label in labels) and "intent {{ x }}" in system
    assert render(short.user).render(input="Why?", context=None) == "Why?"
    assert (
        render(short.user).render(input="Why?", context="Because.", choices=["a", "b"]) == "Because.\n\nWhy?\n- a\n- b"
    )
    assert "input" not in full.system and "context" not in full.system and short.system == ""
