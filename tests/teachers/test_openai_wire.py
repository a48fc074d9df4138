"""A reply is an answer only where it is exactly one; whatever else comes is a failure, and never an exception."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_dagster.teachers._openai_wire import FATAL, RETRIABLE, Wire, read_answer, read_failure
from distill_dagster.teachers.base import Request, TokenLogprob

WIRE = Wire("m")
QUESTION = Request(({"role": "user", "content": "why?"},), {"temperature": 0.0})
SOUND = {
    "id": "1",
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "because"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


def read(reply, wire=WIRE, request=QUESTION):
    return read_answer(wire, request, reply if isinstance(reply, bytes) else json.dumps(reply).encode())


def changed(**choice):
    reply = copy.deepcopy(SOUND)
    reply["choices"][0] |= choice
    return reply


def said(content, **choice):
    return changed(message={"role": "assistant", "content": content}, **choice)


def test_a_sound_reply():
    response = read(SOUND)
    assert (response.text, response.finish_reason, response.served_model) == ("because", "stop", "m")
    assert (response.input_tokens, response.output_tokens, response.failure) == (3, 1, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(SOUND)), inner, max_size=3),
    max_leaves=6,
)
PATHS = [
    ("model",),
    ("choices",),
    ("choices", 0),
    ("choices", 0, "finish_reason"),
    ("choices", 0, "message"),
    ("choices", 0, "message", "content"),
    ("choices", 0, "logprobs"),
    ("usage",),
    ("usage", "prompt_tokens"),
    ("usage", "completion_tokens"),
]


@given(st.sampled_from(PATHS), JSON, st.booleans())
def test_any_field_may_be_anything(path, value, logprobs):
    reply = copy.deepcopy(SOUND)
    inner = reply
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    response = read(reply, Wire("m", top_logprobs=2 if logprobs else 0))
    if response.failure is None:
        assert path == ("choices", 0, "message", "content") or response.text == "because"
        assert response.text.strip() and response.served_model == "m" and response.output_tokens >= 0
    else:
        assert response.failure in RETRIABLE and response.text == "" and response.finish_reason == "error"


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_no_answer(raw):
    assert read(raw).failure in RETRIABLE


@given(st.integers(0, len(json.dumps(SOUND)) - 1))
def test_a_reply_cut_anywhere_is_no_answer(length):
    assert read(json.dumps(SOUND).encode()[:length]).failure == "malformed"


@given(st.integers(100, 999), st.binary(max_size=80))
def test_every_status_has_a_class(status, raw):
    if status != 200:
        failure = read_failure(status, raw).failure
        assert failure in RETRIABLE | FATAL | {"bad_request", "context_exceeded", "content_filter"}


@pytest.mark.parametrize(
    ("reply", "failure", "finish"),
    [
        (said("cut sho", finish_reason="length"), None, "length"),
        (said("", finish_reason="length"), "empty", "error"),
        (said(None, finish_reason="content_filter"), None, "content_filter"),
        (changed(message={"content": None, "refusal": "I cannot"}), None, "refusal"),
        (said("x", finish_reason="tool_calls"), "malformed", "error"),
        (said("x", finish_reason=None), "malformed", "error"),
        (said("  \n"), "empty", "error"),
        (said(["x"]), "malformed", "error"),
        (said("a lone \ud800"), "malformed", "error"),
        ({"error": {"message": "overloaded"}}, "server", "error"),
        ({**SOUND, "model": "m-mini"}, "wrong_model", "error"),
        ({**SOUND, "model": None}, "malformed", "error"),
        ({**SOUND, "usage": {"prompt_tokens": -1}}, "malformed", "error"),
        (b"[" * 100_000, "malformed", "error"),
        (b"\xff\xfe{", "malformed", "error"),
    ],
)
def test_what_counts(reply, failure, finish):
    response = read(reply)
    assert (response.failure, response.finish_reason) == (failure, finish)


def test_tokens_are_guessed_where_the_server_counts_none():
    reply = {name: value for name, value in SOUND.items() if name != "usage"}
    assert (read(reply).input_tokens, read(reply).output_tokens) == (1, 2)


@pytest.mark.parametrize(
    ("text", "finish", "failure"),
    [
        ('{"n": 3}', "stop", None),
        ('{"n": "3"}', "stop", "malformed"),
        ('{"n": 3, "m": 1}', "stop", "malformed"),
        ("three", "stop", "malformed"),
        ('{"n": 3', "stop", "malformed"),
        ('{"n": 3', "length", None),
    ],
)
def test_an_answer_fits_its_schema_or_is_none(text, finish, failure):
    for wire, request in (
        (Wire("m", response_schema=SCHEMA), QUESTION),
        (WIRE, Request(QUESTION.messages, {"response_schema": SCHEMA})),
    ):
        assert read(said(text, finish_reason=finish), wire, request).failure == failure
        wanted = wire.body(request)["response_format"]
        assert wanted["type"] == "json_schema" and wanted["json_schema"]["schema"] == SCHEMA


def test_a_schema_fetches_nothing():
    wire = Wire("m", response_schema={"$ref": "https://example.invalid/schema.json"})
    assert read(said('{"n": 3}'), wire).failure == "malformed"


def test_log_probabilities_of_both_forms():
    wire = Wire("m", top_logprobs=2)
    assert wire.body(QUESTION)["top_logprobs"] == 2 and wire.body(QUESTION)["logprobs"] is True
    top = [{"token": "be", "logprob": -0.1}, {"token": "so", "logprob": -2.5}]
    entry = {"token": "be", "logprob": -0.1, "top_logprobs": top}
    wanted = (TokenLogprob("be", -0.1, (("be", -0.1), ("so", -2.5))),)
    assert read(changed(logprobs={"content": [entry]}), wire).logprobs == wanted
    assert read(changed(logprobs={"content": [entry]})).logprobs is None  # nobody asked
    assert read(changed(logprobs=None), wire).logprobs is None
    plain = Wire("m", "completion", top_logprobs=2)
    assert plain.body(QUESTION)["logprobs"] == 2
    given_ = {"tokens": ["be"], "token_logprobs": [-0.1], "top_logprobs": [{"so": -2.5, "be": -0.1}]}
    assert read(changed(text="be", logprobs=given_), plain).logprobs == wanted
    assert read(changed(logprobs={"content": [{**entry, "logprob": "x"}]}), wire).failure == "malformed"
