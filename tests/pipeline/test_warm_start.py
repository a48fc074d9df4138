"""A student that starts from its pipeline's own champion: new data start from the last, no change from the same."""

import pytest

from distill_dagster.config.check import check
from distill_dagster.errors import StoreError
from distill_dagster.lineage.audit import audit_alias
from pipeline import tiny
from pipeline.tiny import Tiny

pytestmark = [pytest.mark.needs_torch, pytest.mark.slow]

BASE = 'base: "preset:nano"'
OWN = "base: pipeline:parcels@champion"
GATE = ("floor_over_chance: -1.0", "floor_over_chance: -1.0, delta: 1.0")


def start(project: Tiny) -> str:
    """Version of the deployed student that the initial student was taken from."""
    found = project.run(["initial_student"])["initial_student"]
    return {entry["role"]: entry["version"] for entry in found.record["parents"]}["start"]


def test_a_warm_start(parcels: Tiny) -> None:
    (first,) = parcels.champions()
    parcels.edit("pipeline.yaml", BASE, OWN)
    assert check(parcels.settings.config) == []
    parcels.edit("pipeline.yaml", *GATE)  # such a student knows nothing, and may come out worse
    assert parcels.unfresh() == set(tiny.STUDENT)
    parcels.run()
    assert start(parcels) == first
    (_, second) = parcels.champions()
    assert second != first and not parcels.unfresh()
    assert all(one.reused for one in parcels.run().values())

    lines = parcels.lines("seeds.jsonl")
    parcels.write_lines("seeds.jsonl", [*lines, *tiny.rows("more", 20)])
    parcels.run()
    assert start(parcels) == second
    assert not parcels.unfresh() and all(one.reused for one in parcels.run().values())
    result = audit_alias(parcels.project().store, "parcels", "champion")
    assert result.exit_code in (0, 1) and not result.integrity and not result.completeness


def test_there_must_be_a_champion(tmp_path) -> None:
    project = tiny.parcels(tmp_path / "parcels")
    project.edit("pipeline.yaml", BASE, OWN)
    project.run([*tiny.SOURCE, *tiny.DATA])
    with pytest.raises(StoreError, match="no earlier version to start from.*Train once from another base"):
        project.run(["initial_student"])
