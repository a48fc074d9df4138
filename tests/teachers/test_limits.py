"""Rates hold in every minute, one burst is one cut, pauses and the circuit end when they should."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_dagster.teachers._limits import BREAKER, Gate, Rate, Stop
from distill_dagster.teachers._openai_failures import retry_after


class Clock:
    """Time that passes when told."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def gate(**options):
    clock = Clock()
    return Gate(options.pop("ceiling", 16), clock=clock, rng=random.Random(1), **options), clock


def send(at):
    """One request onto the wire; the time at which it went."""

    async def enter():
        return await at.enter(0)

    return asyncio.run(enter())


@given(st.integers(1, 2000), st.lists(st.floats(0, 3), max_size=200))
def test_no_minute_holds_more_than_the_rate_says(per_minute, lateness):
    clock = Clock()
    rate, sent = Rate(per_minute, clock), []
    for late in lateness:
        clock.now += rate.wait() + 1e-6 + late * 60 / per_minute
        rate.take()
        sent.append(clock.now)
    for start, at in enumerate(sent):
        assert sum(at <= other < at + 60 for other in sent[start:]) <= per_minute


def test_a_rate_is_used_to_the_full():
    clock = Clock()
    rate = Rate(600, clock)
    for _ in range(6000):
        clock.now += rate.wait()
        rate.take()
    assert 590 < clock.now - 1000 < 610


def test_tokens_are_corrected_by_what_was_used():
    clock = Clock()
    rate = Rate(6000, clock)
    rate.take(1000)
    assert rate.wait() == pytest.approx(10 - 1, abs=0.3)
    rate.correct(-500)
    assert rate.wait() == pytest.approx(5 - 1, abs=0.3)
    rate.correct(2000)
    assert rate.wait() == pytest.approx(25 - 1, abs=0.6)


def test_unsettled_requests_count_against_the_ceiling():
    one, _ = gate(ceiling=2)
    send(one)
    send(one)
    assert one.wait() is None
    one.back()
    assert one.wait() is None and (one.wire, one.unsettled) == (1, 1)
    one.settled(1)
    assert one.wait() == 0


def test_one_burst_is_one_cut_and_answers_open_up_again():
    one, clock = gate(ceiling=16)
    sent = [send(one) for _ in range(16)]
    clock.now += 1
    for at in sent:
        one.busy(at, None)
        one.back()
    one.settled(16)
    assert one.limit == 8 and one.cuts == 1 and 0 < one.wait() <= 0.5
    clock.now += 1
    later = send(one)
    clock.now += 1
    one.busy(later, None)
    assert one.limit == 4 and one.cuts == 2
    for _ in range(300):
        one.answered()
    assert one.limit == 16


def test_a_server_that_asks_for_a_pause_gets_it():
    one, clock = gate()
    one.busy(send(one), 7.0)
    assert one.wait() == 7.0
    clock.now += 6.5
    assert one.wait() == 0.5
    clock.now += 0.5
    assert one.wait() == 0
    with pytest.raises(Stop, match="wait 4000 seconds"):
        one.busy(clock.now, 4000)


def test_the_circuit_opens_probes_and_closes():
    one, clock = gate(ceiling=64, patience=1000)
    one.answered()
    for _ in range(40):
        send(one)
    for _ in range(40):
        one.back()
        one.fault("server")
    one.settled(40)
    assert one.opened == 1
    first = one.wait()
    assert 0.5 <= first <= 1.0
    clock.now += first
    send(one)
    assert one.wait() is None  # one probe at a time
    one.back()
    one.fault("server")
    assert one.opened == 2 and 1.0 <= one.wait() <= 2.0
    clock.now += 2
    send(one)
    one.back()
    one.answered()
    assert one.wait() == 0
    send(one)
    assert one.wait() == 0


def test_no_answer_at_all_ends_it_at_once_and_none_for_long_ends_it_too():
    one, _ = gate()
    for _ in range(BREAKER - 1):
        one.fault("connection")
    with pytest.raises(Stop, match="first 20"):
        one.fault("connection")
    one, clock = gate(patience=60)
    one.answered()
    one.fault("server")
    clock.now += 61
    with pytest.raises(Stop, match="no answer for 61 seconds"):
        one.busy(clock.now, None)
    one.answered()
    one.fault("server")


@given(st.integers(0, 10**6))
def test_retry_after_in_seconds(seconds):
    assert retry_after({"Retry-After": str(seconds)}) == seconds


@given(st.integers(-1000, 10**6), st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1)))
def test_retry_after_as_a_date_by_the_servers_own_clock(seconds, now):
    now = now.replace(tzinfo=UTC, microsecond=0)
    headers = {
        "Retry-After": format_datetime(now + timedelta(seconds=seconds), usegmt=True),
        "Date": format_datetime(now, usegmt=True),
    }
    assert retry_after(headers) == max(0, seconds)


@given(st.text(max_size=30))
def test_whatever_else_stands_there_is_no_pause(text):
    found = retry_after({"Retry-After": text})
    assert found is None or found >= 0


def test_no_header_is_no_pause():
    assert retry_after({}) is None and retry_after({"Retry-After": "soon"}) is None
