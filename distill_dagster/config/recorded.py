"""`recorded` of a `kind: teacher`: a file of answers that a model gave earlier, and what its columns hold."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from distill_dagster.config.strict import Strict


class RecordedOptions(Strict):
    """A file of teacher outputs with its column mapping.

    Exactly one of `input` and `id` says which record an answer belongs to. A dotted name walks into objects, an
    integer step into lists: `teacher.0.output`. Where a row holds a list of answers, `each` names the list, and the
    other columns are looked for inside its entries first.
    """

    path: str | list[str] = Field(
        description="File, or several, relative to this YAML file; ${NAME:-default} is replaced"
    )
    format: Literal["jsonl", "csv", "parquet"] | None = Field(default=None, description="Guessed from the file name")
    input: str | list[str] | None = Field(
        default=None, description="Column with the record's input, or several joined by a blank line as in the source"
    )
    id: str | None = Field(default=None, description="Column with the record's id, which the source maps as well")
    each: str | None = Field(default=None, description="Column with a list of answers, each an object")
    answer: str = Field(description="The teacher's answer; a row without one counts as not recorded")
    rationale: str | None = Field(
        default=None, description="The teacher's explanation; used by knowledge blocks with `rationale: true`"
    )
    model: str | None = Field(default=None, description="Model that gave the answer; the teacher's name by default")
    finish_reason: str | None = Field(
        default=None, description="stop, length, refusal or content_filter; stop by default"
    )
    where: dict[str, str | int | bool] = Field(default_factory=dict, description="Use rows whose columns equal these")
    differ: Literal["error", "samples"] = Field(
        default="error",
        description="Answers to one question that differ. error: the run stops; samples: the n-th answer of the file "
        "is sample n (ask for several with `samples`, which wants a temperature above 0)",
    )

    @property
    def paths(self) -> list[str]:
        """The files as they are written."""
        return [self.path] if isinstance(self.path, str) else list(self.path)

    @property
    def inputs(self) -> list[str]:
        """The input columns; none where answers are joined by id."""
        return [] if self.input is None else [self.input] if isinstance(self.input, str) else list(self.input)

    @model_validator(mode="after")
    def _one_join(self) -> RecordedOptions:
        if not self.paths:
            raise ValueError("`path` names no file")
        if bool(self.inputs) == (self.id is not None):
            raise ValueError(
                "give exactly one of `input` and `id`: answers are joined to records by it, never by order"
            )
        return self
