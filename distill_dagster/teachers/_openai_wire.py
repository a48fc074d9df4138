"""The OpenAI-compatible protocol as two functions: a question as a request body, and a server's reply as a response.

Nothing that is not exactly an answer becomes one: what a server says is read field by field, and everything else is a
failure with its class.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from typing import Any

from distill_dagster.teachers.base import Request, Response, TokenLogprob

#: Failures that another attempt may mend.
RETRIABLE = frozenset(
    {"rate_limited", "server", "timeout", "connection", "malformed", "empty", "wrong_model", "oversized"}
)
#: Failures that every other question would meet as well: the run stops at once.
FATAL = frozenset({"auth", "quota", "not_found", "redirect"})
#: Statuses by which a server says that it has too much to do.
BUSY = frozenset({429, 529})

_FINISH = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "refusal": "refusal",
}
_CONTEXT = re.compile(r"context[_ ](?:length|window)|maximum context|too many tokens", re.I)
_FILTERED = re.compile(r"content[_ ](?:filter|policy)|responsible_ai", re.I)
_NO_MONEY = re.compile(r"insufficient_quota|billing|credit balance", re.I)
#: What may follow the name asked for: nothing, a date, or a revision. `-mini` would be another model.
_VERSION = re.compile(r"|-\d{4}[\w.-]*|[@:].*", re.DOTALL)
_DETAIL = 300


@dataclass(frozen=True)
class Wire:
    """How one endpoint is spoken to.

    Attributes:
        model: The name asked for.
        kind: chat or completion.
        serves: Patterns of the model strings that may answer; empty: `model`, alone or with a date or revision.
        response_schema: JSON Schema for answers to questions that bring none of their own.
        top_logprobs: Alternatives a token, for questions that say nothing of it.
        token_limit_field: Name of the field for the room of an answer.
        omit: Sampling fields never sent.
        extra: Further fields of every body.
    """

    model: str
    kind: str = "chat"
    serves: tuple[str, ...] = ()
    response_schema: Mapping[str, Any] | None = None
    top_logprobs: int = 0
    token_limit_field: str = "max_tokens"
    omit: frozenset[str] = frozenset()
    extra: Mapping[str, Any] | None = None

    @property
    def path(self) -> str:
        """What follows the base address."""
        return "/chat/completions" if self.kind == "chat" else "/completions"

    def schema(self, request: Request) -> Mapping[str, Any] | None:
        """The JSON Schema that the answer must fit, if any."""
        return request.sampling.get("response_schema") or self.response_schema

    def accepts(self, served: str) -> bool:
        """May this model string answer?"""
        if self.serves:
            return any(fnmatchcase(served, pattern) for pattern in self.serves)
        return served.startswith(self.model) and _VERSION.fullmatch(served[len(self.model) :]) is not None

    def body(self, request: Request) -> dict[str, Any]:
        """The request body of a question."""
        sampling = request.sampling
        body: dict[str, Any] = {**(self.extra or {}), "model": self.model}
        if self.kind == "chat":
            body["messages"] = [dict(message) for message in request.messages]
        else:
            body["prompt"] = "".join(message["content"] for message in request.messages)
        temperature = float(sampling.get("temperature") or 0.0)
        settings: dict[str, Any] = {"temperature": temperature}
        if float(sampling.get("top_p") or 1.0) < 1:
            settings["top_p"] = sampling["top_p"]
        if sampling.get("stop"):
            settings["stop"] = list(sampling["stop"])
        if temperature > 0:
            # Samples of one question are different draws, each of which can be repeated.
            settings["seed"] = int(sampling.get("seed") or 0) + request.sample
        body |= {name: value for name, value in settings.items() if name not in self.omit}
        if sampling.get("max_new_tokens"):
            body[self.token_limit_field] = int(sampling["max_new_tokens"])
        top = int(sampling.get("top_logprobs") or self.top_logprobs)
        if top and self.kind == "chat":
            body |= {"logprobs": True, "top_logprobs": top}
        elif top:
            body["logprobs"] = top
        schema = self.schema(request)
        if schema is not None:
            wanted = {"name": "answer", "strict": True, "schema": dict(schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": wanted}
        return body


def failed(failure: str, detail: str = "", served: str = "", tokens: tuple[int, int] = (0, 0)) -> Response:
    """A failure with its class."""
    return Response("", "error", served, *tokens, failure=failure, detail=detail[:_DETAIL] or None)


def read_failure(status: int, raw: bytes) -> Response:
    """The class of a reply whose status is not 200."""
    said = " ".join(raw[:2000].decode("utf-8", "replace").split())
    detail = f"status {status}: {said}"
    if 300 <= status < 400:
        return failed("redirect", f"status {status}")
    if status in (401, 403):
        return failed("auth", detail)
    if status == 402 or (status == 429 and _NO_MONEY.search(said)):
        return failed("quota", detail)
    if status in (404, 405):
        return failed("not_found", detail)
    if status == 408:
        return failed("timeout", detail)
    if status in BUSY:
        return failed("rate_limited", detail)
    if status >= 500 or status in (409, 425):
        return failed("server", detail)
    if _CONTEXT.search(said):
        return failed("context_exceeded", detail)
    return failed("content_filter" if _FILTERED.search(said) else "bad_request", detail)


def read_answer(wire: Wire, request: Request, raw: bytes) -> Response:
    """The response in a reply with status 200; a failure where it is not exactly an answer."""
    try:
        reply = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return failed("malformed", f"not JSON ({error}): {raw[:120].decode('utf-8', 'replace')}")
    if not isinstance(reply, dict):
        return failed("malformed", f"not an object but {type(reply).__name__}")
    if reply.get("error") and not reply.get("choices"):
        return failed("server", f"an error with status 200: {reply['error']}")
    served = reply.get("model")
    if not isinstance(served, str) or not served or not _is_text(served):
        return failed("malformed", f"`model` is {served!r}")
    choices = reply.get("choices")
    if not isinstance(choices, list):
        return failed("malformed", f"`choices` is {type(choices).__name__}", served)
    first = choices[0] if choices else None
    try:
        tokens = _usage(reply.get("usage"), request, _text_of(wire, first) or "")
    except ValueError as error:
        return failed("malformed", str(error), served)
    if not wire.accepts(served):
        return failed("wrong_model", f"the server answered as {served!r}", served, tokens)
    if not choices:
        return failed("empty", "no choices", served, tokens)
    if not isinstance(first, dict):
        return failed("malformed", "the first choice is no object", served, tokens)
    finish = _FINISH.get(str(first.get("finish_reason")))
    text = _text_of(wire, first)
    refusal = _refusal(first)
    if refusal and not text:
        text, finish = refusal, "refusal"
    if finish is None:
        return failed("malformed", f"finish_reason is {first.get('finish_reason')!r}", served, tokens)
    if text is None or not _is_text(text):
        return failed("malformed", "the answer is not Unicode text", served, tokens)
    if not text.strip() and finish != "content_filter":
        return failed("empty", f"no text, finish_reason {finish}", served, tokens)
    schema = wire.schema(request)
    if schema is not None and finish == "stop" and (fault := _unfit(text, schema)):
        return failed("malformed", fault, served, tokens)
    try:
        logprobs = _logprobs(wire, first) if _wants_logprobs(wire, request) else None
    except (TypeError, ValueError, KeyError) as error:
        return failed("malformed", f"logprobs: {error!r}", served, tokens)
    return Response(text, finish, served, *tokens, logprobs=logprobs)


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


def guess_tokens(text: str) -> int:
    """A rough count of tokens: one for four bytes of UTF-8."""
    return -(-len(text.encode("utf-8", "replace")) // 4)


def _text_of(wire: Wire, choice: Any) -> str | None:
    if not isinstance(choice, dict):
        return None
    if wire.kind == "completion":
        text = choice.get("text")
    else:
        message = choice.get("message")
        if not isinstance(message, dict):
            return None
        text = message.get("content")
        # A null content is how a server writes an answer without text.
        text = "" if text is None and "content" in message else text
    return text if isinstance(text, str) else None


def _refusal(choice: Mapping[str, Any]) -> str:
    message = choice.get("message")
    said = message.get("refusal") if isinstance(message, dict) else None
    return said if isinstance(said, str) else ""


def _usage(usage: Any, request: Request, text: str) -> tuple[int, int]:
    """Tokens in and out; a guess where the server counts none."""
    if usage is None:
        return sum(guess_tokens(message["content"]) for message in request.messages), guess_tokens(text)
    if not isinstance(usage, dict):
        raise ValueError(f"`usage` is {type(usage).__name__}")
    counts = (usage.get("prompt_tokens"), usage.get("completion_tokens", 0))
    if not all(isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**40 for count in counts):
        raise ValueError(f"`usage` counts {counts!r}")
    return counts  # pyright: ignore[reportReturnType]


def _unfit(text: str, schema: Mapping[str, Any]) -> str | None:
    """What keeps a text from being JSON that fits a schema."""
    import jsonschema
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:
        value = json.loads(text)
        # An empty registry: a reference that leads elsewhere must not be fetched.
        found = next(jsonschema.Draft202012Validator(dict(schema), registry=Registry()).iter_errors(value), None)
    except (ValueError, RecursionError, Unresolvable) as error:
        return f"the answer is not JSON of the schema ({error})"
    return None if found is None else f"the answer does not fit the schema: {found.message}"


def _wants_logprobs(wire: Wire, request: Request) -> bool:
    return bool(request.sampling.get("top_logprobs") or wire.top_logprobs)


def _logprobs(wire: Wire, choice: Mapping[str, Any]) -> tuple[TokenLogprob, ...] | None:
    """Log-probabilities of a choice, in either of the protocol's two forms; None where the server gave none."""
    given = choice.get("logprobs")
    if given is None:
        return None
    if wire.kind == "chat":
        entries = given.get("content") if isinstance(given, dict) else None
        if entries is None:
            return None
        return tuple(
            TokenLogprob(
                _token(entry["token"]),
                _number(entry["logprob"]),
                tuple((_token(top["token"]), _number(top["logprob"])) for top in entry.get("top_logprobs") or ()),
            )
            for entry in entries
        )
    tokens, numbers = given["tokens"], given["token_logprobs"]
    tops = given.get("top_logprobs") or [None] * len(tokens)
    return tuple(
        TokenLogprob(
            _token(token),
            _number(number),
            tuple((_token(name), _number(value)) for name, value in sorted((top or {}).items(), key=lambda at: -at[1])),
        )
        for token, number, top in zip(tokens, numbers, tops, strict=True)
    )


def _token(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"token {value!r}")
    # A token may be half a character; what no file can hold is replaced.
    return value.encode("utf-8", "replace").decode("utf-8")


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"log-probability {value!r}")
    return float(value)


def _is_text(text: str) -> bool:
    return text.isascii() or text.encode("utf-8", "replace").decode("utf-8") == text
