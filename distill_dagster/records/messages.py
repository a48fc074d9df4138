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


def rest_of(row: Mapping[str, Any]) -> str:
    """What a record shows beside its input: its context and its choices, sorted, a line each; empty without both.

    Two records with one input are different questions where these differ.
    """
    return "\n".join(filter(None, (row.get("context"), *sorted(row.get("choices") or ()))))


def joined(text: str, rest: str) -> str:
    """An input with the rest of its record, as records are compared; the input itself where there is no rest."""
    return f"{text}\n{rest}" if rest else text


def as_chat(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """`[{role, content}]`, the form that chat templates, TRL, Axolotl and LLaMA-Factory read."""
    return [{"role": entry["role"], "content": text_of([entry])} for entry in messages]


def from_chat(messages: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    """The record form of `[{role, content}]`."""
    return [message(entry["role"], entry["content"]) for entry in messages]
