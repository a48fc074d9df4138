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
from fnmatch import fnmatchcase
from typing import Any

from distill_dagster.teachers._openai_failures import failed
from distill_dagster.teachers.base import Request, Response, TokenLogprob

_FINISH = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "complete": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "content_filter": "content_filter",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
    "safety": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "recitation": "content_filter",
    "spii": "content_filter",
    "error_toxic": "content_filter",
    "refusal": "refusal",
}
#: What may follow the name asked for: nothing, a date, or a revision. `-mini` would be another model.
_VERSION = re.compile(r"|-\d{4}[\w.-]*|[@:].*", re.DOTALL)


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
    tokens = _usage(reply.get("usage"), request, _text_of(wire, first) or "")
    if not wire.accepts(served):
        return failed("wrong_model", f"the server answered as {served!r}", served, tokens)
    if not choices:
        return failed("empty", "no choices", served, tokens)
    if not isinstance(first, dict):
        return failed("malformed", "the first choice is no object", served, tokens)
    finish = _FINISH.get(str(first.get("finish_reason")).lower())
    text = _text_of(wire, first)
    refusal = _refusal(first)
    if refusal and not text:
        text, finish = refusal, "refusal"
    if finish is None:
        return failed("malformed", f"finish_reason is {first.get('finish_reason')!r}", served, tokens)
    if text is None or not _is_text(text):
        return failed("malformed", "the answer is not Unicode text", served, tokens)
    if not text.strip() and finish == "length":
        # A model that thinks first: the same room would be used up, and paid for, again.
        room = request.sampling.get("max_new_tokens") or tokens[1]
        said = f"the model used all {room} tokens before it answered: raise `max_new_tokens`"
        return failed("used_up", said, served, tokens)
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
        # No content is how a server writes an answer without text.
        text = _joined("" if message.get("content") is None else message["content"])
    return text if isinstance(text, str) else None


def _joined(content: Any) -> Any:
    """The text of a content in parts, without what the model thought; None where a part is something else."""
    if not isinstance(content, list):
        return content
    texts: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("thinking", "reasoning"):
            continue
        if kind not in ("text", "output_text") or not isinstance(part.get("text"), str):
            return None
        texts.append(part["text"])
    return "".join(texts)


def _refusal(choice: Mapping[str, Any]) -> str:
    message = choice.get("message")
    said = message.get("refusal") if isinstance(message, dict) else None
    return said if isinstance(said, str) else ""


def _usage(usage: Any, request: Request, text: str) -> tuple[int, int]:
    """Tokens in and out; a guess for each that the server does not count. An answer is not lost over them."""
    counts = usage if isinstance(usage, dict) else {}
    read, written = _tokens(counts.get("prompt_tokens")), _tokens(counts.get("completion_tokens"))
    if read is None:
        read = sum(guess_tokens(message["content"]) for message in request.messages)
    return read, guess_tokens(text) if written is None else written


def _tokens(count: Any) -> int | None:
    """A count, which some servers write as 12.0; None where it is none."""
    if isinstance(count, bool) or not isinstance(count, int | float) or not 0 <= count < 2**40 or count != int(count):
        return None
    return int(count)


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
