"""How a teacher behind an API is reached: address, limits, retries, and what is asked of every answer.

The address is no identity where the teacher declares a `revision`: the same model behind another port is the same
teacher. Secrets are named (`api_key_env`), never held.
"""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from distill_dagster.config.strict import Strict, free

#: Fields of the request body that the backend writes itself.
OWN_FIELDS = frozenset(
    {
        "model",
        "messages",
        "prompt",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "stop",
        "seed",
        "n",
        "stream",
        "logprobs",
        "top_logprobs",
        "response_format",
    }
)


class BatchOptions(Strict):
    """How the provider's batch interface is used; a change of it remakes nothing."""

    poll: float = Field(60.0, gt=0, le=3600, description="Seconds between two looks at a job")
    most: int = Field(10_000, ge=1, le=50_000, description="Most questions of one job")
    completion_window: str = Field("24h", pattern=r"^\d+h$", description="What the provider is told it has for a job")


class EndpointOptions(Strict):
    """An OpenAI-compatible endpoint."""

    url: str = free(
        description="Base address, such as https://api.example.com/v1; identity only where the teacher declares no"
        " `revision`"
    )
    kind: Literal["chat", "completion"] = Field(
        default="chat", description="chat: /chat/completions with messages; completion: /completions with plain text"
    )
    mode: Literal["live", "batch"] = free(
        "live", description="batch: by the provider's batch jobs, which take hours and cost less"
    )
    batch: BatchOptions = free(default_factory=BatchOptions, description="How jobs are sent and waited for")
    api_key_env: str | None = free(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Environment variable that holds the key"
    )
    api_key_header: str = free(
        "Authorization",
        pattern=r"^[A-Za-z][A-Za-z0-9-]*$",
        description="Header that carries the key; as `Bearer KEY` in Authorization, bare in any other",
    )
    serves: list[str] = free(
        default_factory=list,
        description="Model strings that the server may answer with, `*` matches anything; by default the name asked"
        " for, alone or with a date or revision behind it",
    )
    served_model: Literal["pin", "warn"] = free(
        "warn", description="When the server names another model than it did before: stop, or go on and say so"
    )
    response_schema: dict[str, Any] | None = Field(
        default=None, description="JSON Schema that every answer must fit; the server is asked for it as well"
    )
    top_logprobs: int = Field(
        default=0, ge=0, le=20, description="Log-probabilities to keep for each token of an answer; 0: none"
    )
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens", description="What the server calls the room for an answer"
    )
    omit: list[Literal["temperature", "top_p", "stop", "seed"]] = Field(
        default_factory=list, description="Sampling fields that this server refuses"
    )
    extra: dict[str, Any] = Field(default_factory=dict, description="Further fields of every request body")
    allow_hosts: list[str] = free(
        default_factory=list, description="Host names that may resolve to a private or otherwise refused address"
    )
    max_in_flight: int = free(64, ge=1, le=4096, description="Most questions under way at once; adapts downwards")
    requests_per_minute: int | None = free(None, ge=1, description="Most requests in any minute")
    tokens_per_minute: int | None = free(None, ge=1, description="Most tokens a minute, prompts and answers together")
    deadline: float = free(120.0, gt=0, le=3600, description="Seconds until a request without its whole answer ends")
    max_body_bytes: int = free(8_000_000, ge=1_000, description="A longer answer is refused unread")
    attempts: int = free(6, ge=1, le=100, description="How often a question is asked until it counts as failed")
    retry_share: float = free(0.5, ge=0, le=10, description="Most repeated requests, as a share of the questions")
    patience: float = free(300.0, gt=0, description="Seconds without one answer after which the run stops")

    @field_validator("url")
    @classmethod
    def _an_address(cls, url: str) -> str:
        # The address itself is not repeated in the message: it may hold a secret.
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("`url` needs http:// or https:// and a host, such as https://api.example.com/v1")
        if parts.username is not None or parts.password is not None:
            raise ValueError("`url` must hold no user or password; name the key's variable in `api_key_env`")
        if parts.fragment:
            raise ValueError("`url` must have no #fragment")
        if re.search(r"/(chat/)?completions/?$", parts.path):
            raise ValueError("`url` is the base address; leave /chat/completions or /completions off")
        return url

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, extra: dict[str, Any]) -> dict[str, Any]:
        taken = sorted(OWN_FIELDS & set(extra))
        if taken:
            raise ValueError(f"`extra` may not set {', '.join(taken)}: fields of this package do")
        return extra
