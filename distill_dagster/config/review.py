"""Human review: how verdicts of several people count, which errors are critical, and how many of those may be left."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from distill_dagster.config.strict import Name, Strict

#: A reviewer as the store knows them. No @: an address would stay there for ever.
PSEUDONYM = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
#: A critical error in a person's words; `;` separates several in one cell.
CriticalError = Annotated[str, StringConstraints(pattern=r"^[^;\s]([^;\r\n]{0,78}[^;\s])?$")]


class ReviewOptions(Strict):
    """People's verdicts on a sample of the data set, and what they have to show before it is used."""

    adjudication: str = Field(
        default="majority",
        pattern=PSEUDONYM,
        description="Where reviewers differ: majority, strictest, or the name of the reviewer who decides",
    )
    unreviewed: Literal["keep", "drop"] = Field(default="keep", description="Records that nobody has judged")
    critical_errors: dict[Name, list[CriticalError]] = Field(
        default_factory=dict, description="Errors that must not be in the data, by task"
    )
    max_upper_bound: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="The data set is used only where the share of records with a critical error lies below this, by "
        "the upper 95 % bound",
    )
    by_task: bool = Field(default=False, description="Hold every task with critical errors to the bound by itself")

    @model_validator(mode="after")
    def _a_bound_needs_errors(self) -> ReviewOptions:
        if self.max_upper_bound is not None and not any(self.critical_errors.values()):
            raise ValueError("`max_upper_bound` needs `critical_errors`: the errors of each task whose share it bounds")
        return self
