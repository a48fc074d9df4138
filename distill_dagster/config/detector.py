"""What a rule or gate may say about a detector beside the built-in patterns."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from distill_dagster.config.strict import Strict

#: What presidio finds through a spaCy model alone.
NAMED = ("PERSON", "LOCATION", "NRP", "ORGANIZATION")


class DetectorOptions(Strict):
    """presidio-analyzer beside the built-in patterns, by the extra `pii`. A bare name will do."""

    name: Literal["presidio"] = Field(description="presidio: Microsoft's presidio-analyzer, on this machine alone")
    language: str = Field(default="en", pattern=r"^[a-z]{2,3}$", description="Language of the texts, such as en or de")
    entities: list[str] | None = Field(
        default=None,
        min_length=1,
        description="What to look for, in presidio's names, such as PERSON or US_BANK_NUMBER. Left out: all that "
        "presidio looks for in the language by itself, but URL",
    )
    threshold: float = Field(
        default=0.4,
        gt=0,
        le=1,
        description="Score from which a finding counts. At 0.4 weak patterns do where their words stand before them",
    )
    model: str | None = Field(
        default=None,
        description="spaCy model that finds names of people and places: a folder that starts with `.` or `/`, or an "
        "installed package. Left out: patterns alone, and no model is needed. Nothing is downloaded",
    )

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _names_need_a_model(self) -> DetectorOptions:
        for entity in self.entities or ():
            if entity in NAMED and self.model is None:
                raise ValueError(f"{entity} is found by a spaCy model alone: name one in `model`")
        return self
