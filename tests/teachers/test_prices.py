"""Prices by day, and costs in whole micro-units that are never too small."""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from distill_dagster.config.models import PriceEntry, PricesConfig
from distill_dagster.errors import ConfigError
from distill_dagster.teachers.base import Response
from distill_dagster.teachers.prices import Priced, Tariff, money, tariff_on


def entry(day, read=1.0, written=2.0, model="m"):
    return PriceEntry(model=model, valid_from=day, input_per_million=read, output_per_million=written)


PRICES = PricesConfig(
    kind="prices", name="p", entries=[entry("2026-03-01", 5.0), entry("2025-01-01", 1.0), entry("2026-01-01", 3.0)]
)


@pytest.mark.parametrize(
    ("day", "price"),
    [("2025-01-01", 1.0), ("2025-12-31", 1.0), ("2026-01-01", 3.0), ("2026-02-28", 3.0), ("2026-03-01", 5.0)],
)
def test_the_newest_entry_that_has_begun_holds(day, price):
    assert tariff_on(PRICES, "m", date.fromisoformat(day)).entry.input_per_million == price


def test_no_price_is_said_with_the_next_step():
    with pytest.raises(ConfigError, match="holds from 2025-01-01, not on 2024-12-31"):
        tariff_on(PRICES, "m", date(2024, 12, 31))
    with pytest.raises(ConfigError, match="no price of model 'mm'. Did you mean 'm'"):
        tariff_on(PRICES, "mm", date(2026, 1, 1))


prices = st.decimals(min_value=0, max_value=1000, places=4)
tokens = st.integers(0, 10**7)


@given(prices, prices, tokens, tokens)
def test_a_cost_is_exact_and_rounded_up(read, written, asked, said):
    """Units a million tokens are micro-units a token; floats must not add a micro-unit or lose one."""
    found = Tariff("USD", entry("2026-01-01", float(read), float(written))).cost(asked, said)
    assert found == ceil(Fraction(read) * asked + Fraction(written) * said)


def test_a_priced_teacher_is_the_teacher_with_a_price():
    class Teacher:
        identity, revision, window = "t", "1", 7

        def ask(self, requests):
            yield from ()

    priced = Priced(Teacher(), tariff_on(PRICES, "m", date(2026, 3, 2)))
    assert (priced.identity, priced.revision, priced.window) == ("t", "1", 7)
    assert not hasattr(priced, "session") and list(priced.ask([])) == []
    assert priced.cost_micros(Response("x", "stop", "m", 3, 10)) == 35


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "0.00 EUR"),
        (1, "0.000001 EUR"),
        (1_234_500, "1.2345 EUR"),
        (2_500_000, "2.50 EUR"),
        (10**10, "10,000.00 EUR"),
    ],
)
def test_money_for_people(micros, text):
    assert money(micros, "EUR") == text


@pytest.mark.parametrize("day", ["2026-02-30", "2026-13-01", "26-01-01"])
def test_a_day_that_is_none_is_refused(day):
    with pytest.raises(ValidationError, match="no day of the calendar|pattern"):
        entry(day)


def test_two_prices_of_one_day_are_refused():
    with pytest.raises(ValidationError, match="two prices from 2026-01-01"):
        PricesConfig(kind="prices", name="p", entries=[entry("2026-01-01"), entry("2026-01-01", 2.0)])
