"""A reply is an answer only where it is exactly one; whatever else comes is a failure, and never an exception."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_dagster.teachers._openai_failures import FATAL, RETRIABLE, guarded, read_failure, retry_said
from distill_dagster.teachers._openai_wire import Wire, read_answer
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
        assert response.failure in RETRIABLE | {"used_up"}
        assert response.text == "" and response.finish_reason == "error"


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
        (said("", finish_reason="length"), "used_up", "error"),
        (said(None, finish_reason="length"), "used_up", "error"),
        (changed(message={"reasoning_content": "hm"}, finish_reason="MAX_TOKENS"), "used_up", "error"),
        (said("x", finish_reason="STOP"), None, "stop"),
        (said("x", finish_reason="COMPLETE"), None, "stop"),
        (said("x", finish_reason="end_turn"), None, "stop"),
        (said("x", finish_reason="model_length"), None, "length"),
        (said("", finish_reason="SAFETY"), None, "content_filter"),
        (said(None, finish_reason="content_filter"), None, "content_filter"),
        (changed(message={"content": None, "refusal": "I cannot"}), None, "refusal"),
        (said("x", finish_reason="tool_calls"), "malformed", "error"),
        (said("x", finish_reason=None), "malformed", "error"),
        (said("  \n"), "empty", "error"),
        (said(["x"]), "malformed", "error"),
        (said([]), "empty", "error"),
        (said([{"type": "text", "text": "x"}, {"type": ["text"], "text": "x"}]), "malformed", "error"),
        (said([{"type": "text", "text": "x"}, {"type": "image", "url": "y"}]), "malformed", "error"),
        (said("a lone \ud800"), "malformed", "error"),
        ({"error": {"message": "overloaded"}}, "server", "error"),
        ({**SOUND, "model": "m-mini"}, "wrong_model", "error"),
        ({**SOUND, "model": None}, "malformed", "error"),
        (b"[" * 100_000, "malformed", "error"),
        (b"\xff\xfe{", "malformed", "error"),
    ],
)
def test_what_counts(reply, failure, finish):
    response = read(reply)
    assert (response.failure, response.finish_reason) == (failure, finish)


def test_content_in_parts_is_joined_without_what_the_model_thought():
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "be"}]
    response = read(said([*parts, {"type": "text", "text": "cause"}]))
    assert (response.text, response.failure) == ("because", None)


def test_a_model_that_used_all_its_tokens_is_told_of_with_what_to_do():
    request = Request(QUESTION.messages, {"max_new_tokens": 256})
    reply = {**said(None, finish_reason="length"), "usage": {"prompt_tokens": 3, "completion_tokens": 256}}
    response = read(reply, request=request)
    assert response.failure == "used_up" and response.output_tokens == 256
    assert response.detail == "the model used all 256 tokens before it answered: raise `max_new_tokens`"
    assert "all 256 tokens" in str(read(reply).detail)  # no limit asked for: what the server counted


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({}, (1, 2)),
        (None, (1, 2)),
        ([3, 1], (1, 2)),
        ({"prompt_tokens": 3, "completion_tokens": None}, (3, 2)),
        ({"completion_tokens": 7}, (1, 7)),
        ({"prompt_tokens": 3.0, "completion_tokens": 4.0}, (3, 4)),
        ({"prompt_tokens": -1, "completion_tokens": 4.5}, (1, 2)),
        ({"prompt_tokens": float("inf"), "completion_tokens": float("nan")}, (1, 2)),
        ({"prompt_tokens": True, "completion_tokens": 2**40}, (1, 2)),
    ],
)
def test_tokens_are_guessed_where_the_server_counts_none(usage, tokens):
    response = read({**SOUND, "usage": usage})
    assert (response.text, response.input_tokens, response.output_tokens) == ("because", *tokens)
    reply = {name: value for name, value in SOUND.items() if name != "usage"}
    assert (read(reply).input_tokens, read(reply).output_tokens) == (1, 2)


PLAN = "You exceeded your current quota, please check your plan and billing details."
GEMINI = {
    "code": 429,
    "message": f"{PLAN} Please retry in 33.8s.",
    "status": "RESOURCE_EXHAUSTED",
    "details": [{"@type": "QuotaFailure"}, {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "33s"}],
}
RPM = (
    "Rate limit reached for m on requests per min (RPM): Limit 3, Used 3. Please try again in 1m20.5s. You can increase"
    " your rate limit by adding a payment method at https://platform.openai.com/account/billing."
)


@pytest.mark.parametrize(
    ("error", "asked", "failure", "seconds"),
    [
        ([{"error": GEMINI}], None, "rate_limited", 33.0),
        ({"error": {**GEMINI, "details": []}}, None, "rate_limited", 33.8),
        ({"error": {"message": RPM, "type": "requests", "code": "rate_limit_exceeded"}}, None, "rate_limited", 80.5),
        ({"error": {"message": "see /account/billing", "code": "rate_limit_exceeded"}}, None, "rate_limited", None),
        ({"error": {"message": "Please retry after 20 seconds."}}, None, "rate_limited", 20.0),
        ({"message": "try again in 120ms"}, None, "rate_limited", 0.12),
        ({"message": "try again in 6m0s"}, None, "rate_limited", 360.0),
        ({"message": "try again in 2 hours and 5 more"}, None, "rate_limited", 7200.0),
        ({"error": {"message": PLAN}}, None, "rate_limited", None),
        ({"error": {"message": "insufficient balance"}}, 7.0, "rate_limited", None),
        ({"error": {"message": PLAN, "type": "insufficient_quota", "code": "insufficient_quota"}}, None, "quota", None),
        ({"error": {"message": PLAN, "code": "insufficient_quota"}}, 7.0, "quota", None),
        ({"error": {"code": "billing_not_active"}}, None, "quota", None),
        ({"error": {"message": "Your credit balance is too low"}}, None, "quota", None),
        ("insufficient_quota", None, "quota", None),
    ],
)
def test_a_limit_that_passes_is_told_from_money_that_is_gone(error, asked, failure, seconds):
    raw = json.dumps(error).encode()
    assert read_failure(429, raw, asked).failure == failure and retry_said(raw) == seconds


@pytest.mark.parametrize(
    ("text", "key_works", "failure"),
    [
        ("Your chosen model requires moderation and your input was flagged", False, "content_filter"),
        ("violates our usage policies", False, "content_filter"),
        ("blocked by the firewall", True, "bad_request"),
        ("blocked by the firewall", False, "auth"),
        ("the organization's policy allows no key of yours", False, "auth"),
    ],
)
def test_a_refusal_of_one_question_is_told_from_one_of_the_key(text, key_works, failure):
    assert read_failure(403, text.encode(), key_works=key_works).failure == failure
    assert read_failure(401, text.encode(), key_works=key_works).failure == "auth"


def test_only_what_is_kept_is_searched_for_the_key():
    key, raw = "sk-0123456789abcdef", json.dumps(SOUND).encode()
    sound = read(SOUND)
    for placeholder in ("-", "EMPTY", "m", "because", "stop"):
        assert guarded(sound, raw, placeholder) == sound
    assert guarded(sound, json.dumps({**SOUND, "echo": key}).encode(), key) == sound
    told = read(said(f"it is {key}"))
    assert guarded(told, b"", key).failure == "malformed" and guarded(told, b"", key).output_tokens == 1
    # A failure keeps its class. Its detail may end within the key, where a longer body was cut.
    cut = b"x" * 110 + key.encode()
    kept = guarded(read(cut), cut, key)
    assert kept.failure == "malformed" and key[:8] not in str(kept.detail)
    served = guarded(read({**SOUND, "model": f"other {key}"}), b"", key)
    assert served.failure == "wrong_model" and key not in repr(served)
    assert "abc" not in str(guarded(read(b"abc"), b"abc", "abc").detail)
    echoed = read_failure(400, b'{"error": "a test, not the latest"}', key="test")
    assert echoed.failure == "bad_request" and "test" not in str(echoed.detail)


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
