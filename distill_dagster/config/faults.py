"""Pydantic's errors as problems with a line, plain words, and the nearest thing that would have been right."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from distill_dagster.config.problems import Key, Problem
from distill_dagster.config.registry import nearest
from distill_dagster.config.strict import MODEL_NAME, OWNER
from distill_dagster.config.yaml_reader import Document

#: Patterns that say little by themselves: reason and hint.
_IN_WORDS = {
    OWNER: ("is neither an e-mail address nor a team", "Write name@example.org, or team:NAME."),
    MODEL_NAME: ("is no name of a model in MLflow", "It holds a letter or digit, and neither / nor :."),
}


def problems(error: ValidationError, model: type[BaseModel], document: Document, below: Key = ()) -> list[Problem]:
    """One problem for each key at fault; `below` is the key that the model stands at."""
    found: dict[Key, Problem] = {}
    for entry in error.errors(include_url=False):
        location = _known(tuple(entry["loc"]), document, below, entry["type"])
        key = (*below, *location)
        if key not in found:
            found[key] = document.problem(key, *_words(entry, model, location))
    return list(found.values())


def _known(location: tuple[int | str, ...], document: Document, below: Key, kind: str) -> Key:
    """The location less the names of union branches, which pydantic puts in."""
    kept: list[int | str] = []
    for index, step in enumerate(location):
        last = index == len(location) - 1
        if (*below, *kept, step) in document.lines or (last and kind == "missing"):
            kept.append(step)
    return tuple(kept)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _words(entry: Mapping[str, Any], model: type[BaseModel], location: Key) -> tuple[str, str]:
    """Reason and hint."""
    kind, value, context = entry["type"], entry.get("input"), entry.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key {location[-1]!r}.", _near_key(str(location[-1]), model, location)
    if kind == "missing":
        return "this key is required.", _described(model_at(model, location[:-1]), str(location[-1]))
    if kind == "literal_error":
        # pydantic writes the choices as 'a', 'b' or 'c'
        choices = [choice for choice in str(context["expected"]).split("'")[1::2] if choice]
        return f"{_shown(value)} is not one of {', '.join(choices)}.", _close(str(value), choices)
    if kind == "string_pattern_mismatch" and context["pattern"] in _IN_WORDS:
        reason, hint = _IN_WORDS[context["pattern"]]
        return f"{_shown(value)} {reason}.", hint
    if kind == "string_pattern_mismatch":
        return f"{_shown(value)} does not match {context['pattern']}.", _name_hint(value, str(context["pattern"]))
    if kind == "value_error":
        return f"{str(context['error']).rstrip('.')}.", ""
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"{_shown(value)} is {_kind(value)}; keys with values belong here.", ""
    reason = f"{_shown(value)}: {entry['msg'][0].lower()}{entry['msg'][1:]}."
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        return reason, f'Put it in quotes: "{value}".'
    if kind in ("int_type", "float_type", "bool_type", "int_parsing") and isinstance(value, str):
        return reason, "Write it without quotes." if value.replace(".", "", 1).isdigit() else ""
    if kind == "string_too_long":
        return reason, "Choose a shorter one."
    if kind in ("less_than_equal", "greater_than_equal") and location[:2] == ("gate", "floor"):
        return reason, "A score lies between 0 and 1: 0.9, not 90."
    if kind == "bool_type":
        return reason, "Write true or false."
    return reason, ""


def _kind(value: Any) -> str:
    names = {list: "a list", str: "text", int: "a number", float: "a number", bool: "a boolean", type(None): "empty"}
    return names.get(type(value), type(value).__name__)


def _close(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else ""


def _name_hint(value: Any, pattern: str) -> str:
    if pattern != r"^[a-z][a-z0-9_]*$" or not isinstance(value, str):
        return ""
    mended = "".join(sign if sign.isascii() and sign.isalnum() else "_" for sign in value.lower()).strip("_0123456789")
    return f"Names are lower case, such as {mended!r}." if mended else "Names start with a lower-case letter."


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every model inside an annotation: of an optional, a list, a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for argument in get_args(annotation):
            yield from _models(argument)


def model_at(model: type[BaseModel], location: Key) -> type[BaseModel] | None:
    """The model that holds the keys at a location."""
    current: type[BaseModel] | None = model
    for step in location:
        if isinstance(step, int):
            continue
        info = current.model_fields.get(step) if current is not None else None
        current = next(_models(info.annotation), None) if info is not None else None
    return current


def _described(model: type[BaseModel] | None, key: str) -> str:
    info = model.model_fields.get(key) if model is not None else None
    return f"{info.description}." if info is not None and info.description else ""


def _elsewhere(model: type[BaseModel], key: str, path: str = "", depth: int = 3) -> Iterator[str]:
    """Dotted places below a model that have this very key."""
    for name, info in model.model_fields.items():
        if name == key and path:
            yield f"{path}{name}"
        for inner in _models(info.annotation) if depth else ():
            listed = "[]" if get_origin(info.annotation) is list else ""
            yield from _elsewhere(inner, key, f"{path}{name}{listed}.", depth - 1)


def _near_key(key: str, model: type[BaseModel], location: Key) -> str:
    """Where in the file this very key is known; else the nearest key of the same model; else all keys."""
    here = model_at(model, location[:-1]) or model
    if key in model.model_fields and here is not model:
        return f"{key!r} belongs at the top of the file."
    places = sorted({*_elsewhere(here, key), *(_elsewhere(model, key) if here is not model else ())}, key=len)
    return f"It belongs at {places[0]!r}." if places else nearest(key, here.model_fields)
