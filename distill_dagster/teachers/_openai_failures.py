"""What a server says in place of an answer: the class of a failure, how long to wait, and nothing of the key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from distill_dagster.teachers.base import Response

#: Failures that another attempt may mend.
RETRIABLE = frozenset(
    {"rate_limited", "server", "timeout", "connection", "malformed", "empty", "wrong_model", "oversized"}
)
#: Failures that every other question would meet as well: the run stops at once.
FATAL = frozenset({"auth", "quota", "not_found", "redirect"})
#: Statuses by which a server says that it has too much to do.
BUSY = frozenset({429, 529})

_CONTEXT = re.compile(r"context[_ ](?:length|window)|maximum context|too many tokens", re.I)
_FILTERED = re.compile(r"content[_ ](?:filter|policy)|responsible_ai", re.I)
#: What a 403 says that is about the question, not about the key.
_MODERATED = re.compile(
    r"moderation|flagged|responsible_ai|content[_ ](?:filter|management)|(?:content|usage|safety|use)[_ ]polic", re.I
)
#: Error codes that say that the money is gone. A limit for a minute or a day has other ones.
_NO_MONEY_CODES = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "exceeded_current_quota_error"}
)
_NO_MONEY = re.compile(
    r"insufficient_quota|billing_hard_limit|billing_not_active|credit balance|insufficient (?:balance|credit|funds)",
    re.I,
)
_DURATION = r"\d{1,9}(?:\.\d+)?\s*(?:milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|h|days?|d)(?![a-z])"
#: `Please try again in 1m30.5s`, `Please retry in 33.8s`, `Please retry after 20 seconds`.
_AGAIN = re.compile(rf"(?:try again|retry) (?:in|after) ({_DURATION}(?:[\s,]*{_DURATION})*)", re.I)
_SECONDS = {"mi": 0.001, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
#: A shorter key is a placeholder (`EMPTY`, `ollama`, `-`), whose letters are found in any reply.
SECRET = 16
_DETAIL = 300


def failed(failure: str, detail: str = "", served: str = "", tokens: tuple[int, int] = (0, 0)) -> Response:
    """A failure with its class."""
    return Response("", "error", served, *tokens, failure=failure, detail=detail[:_DETAIL] or None)


def read_failure(
    status: int, raw: bytes, asked: float | None = None, key: str | None = None, key_works: bool = False
) -> Response:
    """The class of a reply whose status is not 200.

    Args:
        status: HTTP status.
        raw: Its body.
        asked: Seconds that its headers ask to wait.
        key: The secret, which no detail may repeat.
        key_works: The key got answers before: a 403 is about this question.
    """
    said = _words(raw)
    detail = f"status {status}: {_words(hidden(raw, key))}"
    codes = {str(error.get(name)).lower() for error in _errors(raw) for name in ("code", "type", "status")}
    if 300 <= status < 400:
        return failed("redirect", f"status {status}")
    if status == 402 or (400 <= status < 500 and codes & _NO_MONEY_CODES):
        return failed("quota", detail)
    if status == 403 and _MODERATED.search(said):
        return failed("content_filter", detail)
    if status == 401 or (status == 403 and not key_works):
        return failed("auth", detail)
    if status in (404, 405):
        return failed("not_found", detail)
    if status == 408:
        return failed("timeout", detail)
    if status in BUSY:
        # A limit that passes says when; its words may name billing all the same.
        passes = asked is not None or retry_said(raw) is not None or "rate_limit_exceeded" in codes
        return failed("quota" if status == 429 and not passes and _NO_MONEY.search(said) else "rate_limited", detail)
    if status >= 500 or status in (409, 425):
        return failed("server", detail)
    if _CONTEXT.search(said):
        return failed("context_exceeded", detail)
    return failed("content_filter" if _FILTERED.search(said) else "bad_request", detail)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a `Retry-After` header asks to wait, given in seconds or as a date (RFC 9110, 10.2.3)."""
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value):
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    try:
        now = parsedate_to_datetime(headers.get("Date", ""))
    except (TypeError, ValueError):
        now = datetime.now(UTC)
    until, now = (at if at.tzinfo else at.replace(tzinfo=UTC) for at in (until, now))
    return max(0.0, (until - now).total_seconds())


def retry_said(raw: bytes) -> float | None:
    """Seconds that an error's body asks to wait: Google's `retryDelay`, or in words; None where it asks nothing."""
    for error in _errors(raw):
        details = error.get("details")
        for detail in details if isinstance(details, list) else ():
            delay = detail.get("retryDelay") if isinstance(detail, dict) else None
            if isinstance(delay, str) and re.fullmatch(r"\d{1,9}(\.\d+)?s", delay):
                return float(delay[:-1])
    found = _AGAIN.search(_words(raw))
    if found is None:
        return None
    parts = re.findall(r"([\d.]+)\s*(mi(?=lli)|ms|[smhd])", found[1].lower())
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def hidden(raw: bytes, key: str | None) -> bytes:
    """Bytes without the key: servers repeat it in their errors."""
    return raw if key is None else raw.replace(key.encode(), b"[key]")


def guarded(response: Response, raw: bytes, key: str | None) -> Response:
    """A response without the key in anything of it that is kept.

    Args:
        response: What was read.
        raw: What it was read from; a failure's detail may hold a piece of it that was cut inside the key.
        key: The secret, or a placeholder, which answers may hold.
    """
    if key is None:
        return response
    kept = f"{response.text} {response.detail} {response.served_model}"
    if response.failure is None:
        if len(key) < SECRET or key not in kept:
            return response
        tokens = (response.input_tokens, response.output_tokens)
        return failed("malformed", "the reply repeats the key", tokens=tokens)
    if len(key) < SECRET:
        return replace(response, detail=response.detail and hidden(response.detail.encode(), key).decode())
    if key not in kept and key.encode() not in raw:
        return response
    served = "" if key in response.served_model else response.served_model
    return replace(response, served_model=served, detail="not shown, since the reply repeats the key")


def _words(raw: bytes) -> str:
    """The beginning of a body on one line."""
    return " ".join(raw[:2000].decode("utf-8", "replace").split())


def _errors(raw: bytes) -> list[Mapping[str, Any]]:
    """The error objects of a body: under `error`, without it (vLLM), or in a list (Gemini)."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return []
    entries = [entry for entry in (body if isinstance(body, list) else [body]) if isinstance(entry, dict)]
    found = [entry.get("error", entry) for entry in entries]
    return [error for error in found if isinstance(error, dict)]
