"""Putting a model through an examination: its answers in order, and what they took."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_dagster.errors import ModelError
from distill_dagster.teachers.base import Request, Teacher

_STATUS = Path("/proc/self/status")


def _forget_peak() -> None:
    """Start the process's memory peak anew, where Linux allows it (proc(5), clear_refs)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_memory() -> int:
    """Peak resident memory of this process in bytes, since `measure` last started it anew where that is possible."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure(
    backend: Teacher,
    chats: Sequence[Sequence[Mapping[str, str]]],
    sampling: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[str], dict[str, float]]:
    """Ask a model every question once.

    Args:
        backend: The model; it may answer in any order.
        chats: One `[{role, content}]` a question.
        sampling: For all questions, or one a question (tasks differ in `max_new_tokens`).
        progress: Called with (answered, total) after every answer.

    Returns:
        The answers in the order of the questions (a failed call is an empty answer), and `items`, `failed`,
        `seconds`, `seconds_per_item`, `input_tokens`, `output_tokens`, `peak_memory_bytes`.

    Raises:
        ModelError: The backend left questions without a response.
    """
    if sampling is None or isinstance(sampling, Mapping):
        each: list[Mapping[str, Any]] = [sampling or {}] * len(chats)
    else:
        each = list(sampling)
    requests = [Request(tuple(chat), own) for chat, own in zip(chats, each, strict=True)]
    outputs: list[str | None] = [None] * len(requests)
    answered = failed = input_tokens = output_tokens = 0
    _forget_peak()
    start = time.perf_counter()
    for index, response in backend.ask(requests):
        if outputs[index] is None:
            answered += 1
        outputs[index] = response.text if response.failure is None else ""
        failed += response.failure is not None
        input_tokens += response.input_tokens
        output_tokens += response.output_tokens
        if progress is not None:
            progress(answered, len(requests))
    seconds = time.perf_counter() - start
    if answered != len(requests):
        raise ModelError(
            f"model {backend.identity}",
            f"{len(requests) - answered} of {len(requests)} questions got no response.",
            "A backend yields a response for every request, with `failure` set where it could not answer.",
        )
    return [output or "" for output in outputs], {
        "items": len(requests),
        "failed": failed,
        "seconds": seconds,
        "seconds_per_item": seconds / max(len(requests), 1),
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "peak_memory_bytes": peak_memory(),
    }


def answer(
    backend: Teacher,
    chats: Sequence[Sequence[Mapping[str, str]]],
    sampling: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """The answers of `measure` alone."""
    return measure(backend, chats, sampling, progress)[0]
