"""One JSON Schema for all kinds of file, so that editors complete keys and mark faults while one types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from distill_dagster.config.models import KINDS

_TITLE = "distill-dagster configuration file"


def schema() -> dict[str, Any]:
    """The schema (draft 2020-12): `kind` first, then what files of that kind may say."""
    references, shared = models_json_schema(
        [(model, "validation") for model in KINDS.values()], schema_generator=GenerateJsonSchema
    )
    definitions = shared["$defs"]
    for definition in definitions.values():
        for key, entry in definition.get("properties", {}).items():
            _tidy(key, entry)
        if definition.get("title") == "Block":
            # A bare name stands for a block without parameters.
            name = definition["properties"]["name"]
            definitions["Block"] = {"anyOf": [{"type": "string", "description": name["description"]}, definition]}
        elif definition.get("title") == "DetectorOptions":
            definitions["DetectorOptions"] = {"anyOf": [{"enum": ["presidio"]}, definition]}
        elif definition.get("title") == "TeachersOptions":
            # A bare list is short for `weights`.
            weighted = {"type": "array", "items": {"$ref": "#/$defs/WeightedTeacher"}}
            definitions["TeachersOptions"] = {"anyOf": [weighted, definition]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": _TITLE,
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": list(KINDS), "description": "What this file describes"}},
        "allOf": [
            {
                "if": {"required": ["kind"], "properties": {"kind": {"const": kind}}},
                "then": references[model, "validation"],
            }
            for kind, model in KINDS.items()
        ],
        "$defs": definitions,
    }


def _tidy(key: str, entry: dict[str, Any]) -> None:
    """Drop titles that repeat the key; say in words what is not identity."""
    entry.pop("title", None)
    if entry.pop("identity", True) is False:
        text = entry.get("description", "")
        entry["description"] = (text + ". " if text else "") + "A change of it remakes nothing."


def text() -> str:
    """The schema as it is written to a file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def write(path: Path) -> None:
    """Write the schema to a file."""
    path.write_text(text(), encoding="utf-8")
