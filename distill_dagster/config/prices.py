"""`kind: prices`, and `budget` of a `kind: teacher`: what answers cost, and how much they may."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import Field, model_validator

from distill_dagster.config.strict import Name, Strict


class PriceEntry(Strict):
    """The price of one model from one day on, until a newer entry of it begins."""

    model: str = Field(description="`model` of the teacher")
    valid_from: str = Field(
        pattern=r"^\d{4}-\d{2}-\d{2}$", description="First day of this price in UTC, YYYY-MM-DD, in quotes"
    )
    input_per_million: float = Field(ge=0, description="Price of a million tokens read")
    output_per_million: float = Field(ge=0, description="Price of a million tokens written")
    batch_input_per_million: float | None = Field(default=None, ge=0, description="The same in a batch job")
    batch_output_per_million: float | None = Field(default=None, ge=0, description="The same in a batch job")
    source: str = Field(default="", description="Where the price was read, and when")

    @model_validator(mode="after")
    def _a_day(self) -> PriceEntry:
        try:
            date.fromisoformat(self.valid_from)
        except ValueError:
            raise ValueError(f"`valid_from` {self.valid_from} is no day of the calendar") from None
        if (self.batch_input_per_million is None) != (self.batch_output_per_million is None):
            raise ValueError("give both prices of a batch job, or neither: then it counts at the ordinary price")
        return self


class PricesConfig(Strict):
    """`kind: prices`: dated prices of models, in units of the currency per million tokens."""

    kind: Literal["prices"]
    name: Name
    currency: str = "USD"
    entries: list[PriceEntry] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_price_a_day(self) -> PricesConfig:
        seen: set[tuple[str, str]] = set()
        for entry in self.entries:
            if (entry.model, entry.valid_from) in seen:
                raise ValueError(f"model {entry.model!r} has two prices from {entry.valid_from}; keep one")
            seen.add((entry.model, entry.valid_from))
        return self


class BudgetOptions(Strict):
    """What a teacher may cost, counted over everything it was ever asked in the namespace."""

    money: float | None = Field(default=None, gt=0, description="In the currency of the teacher's `prices`")
    tokens: int | None = Field(default=None, ge=1, description="Read and written")
    calls: int | None = Field(default=None, ge=1, description="Questions sent, repeated ones included")

    @model_validator(mode="after")
    def _some_limit(self) -> BudgetOptions:
        if self.money is None and self.tokens is None and self.calls is None:
            raise ValueError("give at least one of `money`, `tokens` and `calls`")
        return self
