"""Several teachers in one pipeline: each is asked about a share of the seeds, or some tasks, or all of them vote."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from distill_dagster.config.strict import Name, Strict


class WeightedTeacher(Strict):
    """One of several teachers, with its share of the seeds."""

    teacher: Name = Field(description="Name of a `kind: teacher`")
    weight: float = Field(default=1.0, gt=0, le=1e6, description="Its share, beside the other weights")


class TeachersOptions(Strict):
    """Who is asked about what. A list is short for `weights`."""

    weights: list[WeightedTeacher] | None = Field(
        default=None, description="Each seed goes to one teacher, by a hash of its record id; no other seed moves it"
    )
    by_task: dict[Name, Name] | None = Field(default=None, description="Each task goes to the teacher named")
    vote: list[Name] | None = Field(
        default=None, description="Each seed goes to all; what most of them answer becomes the candidate"
    )
    ties: Literal["drop", "first"] = Field(
        default="drop",
        description="vote: what becomes of a tie: dropped, or the answer of the teacher named first",
    )
    agreement: float = Field(
        default=0.0, ge=0, le=1, description="vote: least share of all teachers that must give the answer"
    )
    seed: int = Field(default=0, description="weights: another seed is another division")

    @model_validator(mode="before")
    @classmethod
    def _bare_list(cls, value: Any) -> Any:
        return {"weights": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _one_way(self) -> TeachersOptions:
        given = [way for way in ("weights", "by_task", "vote") if getattr(self, way) is not None]
        if len(given) != 1:
            raise ValueError("give one of `weights` (or a bare list), `by_task` and `vote`")
        listed = [one.teacher for one in self.weights or ()] or list(self.vote or ())
        if len(listed) != len(set(listed)):
            raise ValueError(f"`{given[0]}` names a teacher twice")
        if len(self.names()) < 2:
            raise ValueError(f"`{given[0]}` needs at least two teachers; for one write `teacher: NAME`")
        for field, way in (("ties", "vote"), ("agreement", "vote"), ("seed", "weights")):
            if field in self.model_fields_set and way != given[0]:
                raise ValueError(f"`{field}` belongs to `{way}`")
        return self

    def names(self) -> tuple[str, ...]:
        """The teachers in the order of the file, each once."""
        if self.weights is not None:
            return tuple(one.teacher for one in self.weights)
        return (
            tuple(dict.fromkeys((self.by_task or {}).values())) if self.by_task is not None else tuple(self.vote or ())
        )
