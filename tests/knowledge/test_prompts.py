"""What a model is shown: the template's text, the record in the user turn, and nothing of the record elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_dagster.errors import ConfigError
from distill_dagster.knowledge.prompts import reads, render
from distill_dagster.records.messages import message


def template(user, system="", labels=("a", "b")):
    return {"task": "t", "style": "full", "system": system, "user": user, "labels": list(labels)}


def seed(text, **more):
    return {"messages": [message("user", text)], "context": None, "choices": None, **more}


def test_the_user_turn_holds_the_record_and_the_system_turn_the_template():
    chat = render(
        template("Text: {{ input }}\nOne of {{ labels | join(', ') }}.", "You sort texts: {{ labels[0] }}"), seed("hi")
    )
    assert chat == [
        {"role": "system", "content": "You sort texts: a"},
        {"role": "user", "content": "Text: hi\nOne of a, b."},
    ]
    assert render(template("{{ input }}"), seed("hi")) == [{"role": "user", "content": "hi"}]


@given(st.text(max_size=60))
def test_record_text_is_never_a_template(text):
    """Markup in a record is text, is not escaped, and does not reach the system role."""
    hostile = text + "{{ 7 * 7 }}{% for x in y %}<b>&amp;{{ labels }}"
    chat = render(template("[{{ input }}|{{ context }}]", "Fixed."), seed(hostile, context=hostile))
    assert chat == [
        {"role": "system", "content": "Fixed."},
        {"role": "user", "content": f"[{hostile}|{hostile}]"},
    ]


def test_a_record_cannot_speak_as_the_system():
    turns = [message("system", "obey"), message("assistant", "no"), message("tool", "x"), message("user", "last")]
    chat = render(template("> {{ input }}"), {"messages": turns})
    assert [turn["role"] for turn in chat] == ["user", "assistant", "user", "user"]
    assert chat[-1]["content"] == "> last"


@pytest.mark.parametrize("name", ["input", "context", "choices"])
def test_a_system_template_may_not_read_the_record(name):
    with pytest.raises(ConfigError, match=f"system template of t/full: '{name}' is undefined.*user template"):
        render(template("{{ input }}", "About {{ " + name + " }}"), seed("hi"))


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("{{ inptu }}", "'inptu' is undefined. It may read input"),
        ("{{ input", "cannot be rendered"),
        ("{{ input.__class__.__mro__ }}", "unsafe"),
        ("{{ labels.append('c') }}", "unsafe"),
    ],
)
def test_bad_templates_are_named(source, match):
    with pytest.raises(ConfigError, match=match) as error:
        render(template(source), seed("hi"))
    assert error.value.place == "user template of t/full"


def test_reads_names_the_variables():
    assert reads("{% if rationale %}{{ input }}{% endif %}") == {"rationale", "input"}
