"""What an answer costs: dated prices from YAML, in whole micro-units of the currency.

A price per million tokens is as many micro-units a token. The cost of a call is input tokens times the input price
plus output tokens times the output price, computed exactly and rounded up once, so that a sum is never too small.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_CEILING, Decimal

from distill_dagster.config.models import PriceEntry, PricesConfig
from distill_dagster.config.registry import nearest
from distill_dagster.errors import ConfigError
from distill_dagster.teachers._wrapper import Wrapper
from distill_dagster.teachers.base import Response, Teacher

MICRO = 1_000_000


@dataclass(frozen=True)
class Tariff:
    """The price of one model on one day."""

    currency: str
    entry: PriceEntry

    def cost(self, input_tokens: int, output_tokens: int) -> int:
        """Micro-units of a call, rounded up."""
        read, written = (Decimal(str(self.entry.input_per_million)), Decimal(str(self.entry.output_per_million)))
        return int((read * input_tokens + written * output_tokens).to_integral_value(ROUND_CEILING))


def tariff_on(prices: PricesConfig, model: str, day: date | None = None, batch: bool = False) -> Tariff:
    """The price of a model that holds on a day (today in UTC by default): the newest entry that has begun.

    With `batch` that of a batch job; the ordinary one where the entry names no other, so that nothing costs more.

    Raises:
        ConfigError: The file has no price of that model, or none that has begun.
    """
    day = datetime.now(UTC).date() if day is None else day
    place = f"prices {prices.name}"
    own = [entry for entry in prices.entries if entry.model == model]
    if not own:
        hint = nearest(model, {entry.model for entry in prices.entries})
        raise ConfigError(place, f"it has no price of model {model!r}.", hint)
    begun = [entry for entry in own if date.fromisoformat(entry.valid_from) <= day]
    if not begun:
        first = min(entry.valid_from for entry in own)
        raise ConfigError(
            place, f"the first price of {model!r} holds from {first}, not on {day}.", "Add an entry for that day."
        )
    entry = max(begun, key=lambda entry: entry.valid_from)
    if batch and entry.batch_input_per_million is not None:
        cheaper = {
            "input_per_million": entry.batch_input_per_million,
            "output_per_million": entry.batch_output_per_million,
        }
        entry = entry.model_copy(update=cheaper)
    return Tariff(prices.currency, entry)


class Priced(Wrapper):
    """A teacher whose answers cost what a tariff says; the journal commits them as they arrive."""

    def __init__(self, teacher: Teacher, tariff: Tariff) -> None:
        super().__init__(teacher)
        self.tariff = tariff

    def cost_micros(self, response: Response) -> int:
        """Micro-units of an answer, or of a failed call that says what it read and wrote."""
        return self.tariff.cost(response.input_tokens, response.output_tokens)


def money(micros: int, currency: str) -> str:
    """An amount for people: `1.234567 USD`, without needless zeros beyond the cents."""
    whole, part = divmod(micros, MICRO)
    digits = f"{part:06d}"
    return f"{whole:,}.{digits[:2]}{digits[2:].rstrip('0')} {currency}"
