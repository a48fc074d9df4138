"""What every config model shares: strictness, names, and which fields are identity."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

#: Dagster allows a tag, which holds a name, 63 characters.
LONGEST_NAME = 63
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=LONGEST_NAME)]

#: What Dagster takes for an owner.
OWNER = r"^(team:.+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7})$"
Owner = Annotated[str, StringConstraints(pattern=OWNER)]

#: What MLflow takes for the name of a model.
MODEL_NAME = r"^[^/:]*[^/:.\s][^/:]*$"


def free(default: Any = ..., **kwargs: Any) -> Any:
    """A field that is not identity: cost, speed, display."""
    return Field(default, json_schema_extra={"identity": False}, **kwargs)


#: Marks a field that is identity only where it is not at its default.
LATER = "later"


def later(default: Any, **kwargs: Any) -> Any:
    """An identity field of a newer release: at its default it means what its absence meant, so nothing made before
    it becomes stale."""
    return Field(default, json_schema_extra={"identity": LATER}, **kwargs)


#: What to do about a revision that is no commit.
COMMIT_HINT = "Give the 40 hex digits of the commit: the hub lists them under `Files and versions`, `History`."


def is_commit(revision: str | None) -> bool:
    """Does a revision pin what a hub gives: the 40 hex digits of a commit? A branch or a tag can move."""
    return revision is not None and len(revision) == 40 and not set(revision) - set("0123456789abcdef")


class Strict(BaseModel):
    """Unknown keys are errors; values are not coerced across types except int to float; floats are finite."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def identity(model: BaseModel) -> dict[str, Any]:
    """The identity fields of a config, as JSON values, nested configs included."""

    def strip(value: Any) -> Any:
        if isinstance(value, BaseModel):
            return identity(value)
        if isinstance(value, dict):
            return {key: strip(entry) for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return [strip(entry) for entry in value]
        return value

    kept: dict[str, Any] = {}
    for name, info in type(model).model_fields.items():
        extra = info.json_schema_extra
        if isinstance(extra, dict) and extra.get("identity") is False:
            continue
        value = getattr(model, name)
        if (
            isinstance(extra, dict)
            and extra.get("identity") == LATER
            and value == info.get_default(call_default_factory=True)
        ):
            continue
        kept[name] = strip(value)
    for name, value in (model.model_extra or {}).items():
        kept[name] = strip(value)
    return kept
