"""The schema for editors: current, and saying what the models say."""

import json
from pathlib import Path

from distill_dagster.config import json_schema
from distill_dagster.config.models import KINDS


def test_the_committed_schema_is_current(repo: Path) -> None:
    committed = (repo / "assets_config" / "schema.json").read_text(encoding="utf-8")
    assert committed == json_schema.text(), "run `distill-dagster schema`"


def test_every_kind_leads_to_its_keys(tmp_path: Path) -> None:
    json_schema.write(tmp_path / "schema.json")
    schema = json.loads((tmp_path / "schema.json").read_text())
    assert schema["properties"]["kind"]["enum"] == list(KINDS)
    by_kind = {rule["if"]["properties"]["kind"]["const"]: rule["then"]["$ref"] for rule in schema["allOf"]}
    for kind, model in KINDS.items():
        definition = schema["$defs"][by_kind[kind].removeprefix("#/$defs/")]
        assert set(definition["properties"]) == set(model.model_fields)
        assert definition["additionalProperties"] is False
        assert definition["properties"]["kind"]["const"] == kind


def test_a_block_may_be_a_bare_name_with_or_without_parameters() -> None:
    definitions = json_schema.schema()["$defs"]
    assert [entry["type"] for entry in definitions["Block"]["anyOf"]] == ["string", "object"]
    assert definitions["Block"]["anyOf"][1]["additionalProperties"] is True


def test_what_is_not_identity_says_so() -> None:
    keys = json_schema.schema()["$defs"]["TeacherConfig"]["properties"]
    assert "remakes nothing" in keys["batch_size"]["description"]
    assert "remakes nothing" not in keys["model"]["description"]
    assert not any("identity" in entry for entry in keys.values())
