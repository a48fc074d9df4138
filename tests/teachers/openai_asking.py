"""A teacher at a test server, and questions for it."""

from __future__ import annotations

from collections import Counter

from distill_dagster.config.endpoint import EndpointOptions
from distill_dagster.teachers.base import Request
from distill_dagster.teachers.openai import Backend

#: A key that must turn up nowhere.
CANARY = "sk-canary-7f3a99e1b2"


def teacher(server, model="test-model", pause=0.01, revision="r1", **options):
    endpoint = EndpointOptions(url=server.url, **{"deadline": 20.0, **options})
    return Backend(model, endpoint=endpoint, identity="teacher", revision=revision, pause=pause)


def question(text, sampling=None, system=None, sample=0):
    messages = [{"role": "user", "content": text}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    return Request(tuple(messages), sampling or {"temperature": 0.0, "max_new_tokens": 16}, sample)


def questions(count):
    return [question(f"question {at}") for at in range(count)]


def outcomes(journal):
    return Counter(attempt.outcome for attempt in journal.store.attempts())
