"""Conversations as records hold them, and as chat templates want them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def message(role: str, text: str) -> dict[str, Any]:
    """One text message in the record form."""
    return {"role": role, "parts": [{"type": "text", "text": text, "blob": None, "media_type": None}]}


def text_of(messages: Iterable[Mapping[str, Any]], role: str | None = None) -> str:
    """Text of all messages, or of one role, joined by line breaks; blobs are skipped."""
    return "\n".join(
        part["text"]
        for entry in messages
        if role is None or entry["role"] == role
        for part in entry["parts"]
        if part["text"] is not None
    )


def as_chat(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """`[{role, content}]`, the form that chat templates, TRL, Axolotl and LLaMA-Factory read."""
    return [{"role": entry["role"], "content": text_of([entry])} for entry in messages]


def from_chat(messages: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    """The record form of `[{role, content}]`."""
    return [message(entry["role"], entry["content"]) for entry in messages]
