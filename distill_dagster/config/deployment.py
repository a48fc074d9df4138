"""What a student must show before it is deployed, and where it goes then."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from distill_dagster.config.strict import MODEL_NAME, Strict


class GateOptions(Strict):
    """What a student must show before it is deployed."""

    floor: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=dict, description="Lowest allowed score a task, from 0 to 1"
    )
    floor_over_chance: float = Field(default=0.0, description="Mean score must beat mean chance by this much")
    delta: float = Field(
        default=0.02, ge=0, description="No regression: the lower bound of candidate − reference lies above −delta"
    )


class OverrideOptions(Strict):
    """A student that is deployed whatever the gates say: a rollback, or one that they cannot judge."""

    student: str = Field(
        pattern=r"^[0-9a-f]{12,32}$", description="Version of its student_checkpoint, 12 digits or more; no other gains"
    )
    reason: str = Field(min_length=1, description="Why; it stands in the ledger")


class DeployOptions(Strict):
    """Where the student goes."""

    model_name: str | None = Field(
        default=None, pattern=MODEL_NAME, description="MLflow registered model; distill_<pipeline> by default"
    )
    alias: str = Field(default="champion", pattern=r"^[a-z][a-z0-9_-]*$", description="Registry alias that is moved")
    enabled: bool = Field(default=True, description="false: report only, move no alias")
    override: OverrideOptions | None = Field(
        default=None, description="Deploy this one student whatever the gates say, such as an earlier one"
    )

    @model_validator(mode="after")
    def _alias_of_mlflow(self) -> DeployOptions:
        if self.alias == "latest" or (self.alias[0] == "v" and self.alias[1:].isdigit()):
            raise ValueError(f"`alias` is {self.alias!r}, which MLflow keeps for its own versions: choose another name")
        return self
