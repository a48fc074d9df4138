"""What is known is not made again; the same inputs give the same versions, in any folder."""

import shutil
import sqlite3
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from distill_dagster.lineage.engine import Services
from distill_dagster.stages.project import Project
from distill_dagster.teachers.transformers import Backend
from pipeline import tiny
from pipeline.tiny import Tiny

pytestmark = pytest.mark.needs_torch


def no_training(*arguments: object, **others: object) -> None:
    raise AssertionError("a training process was started")


def asked(project: Tiny) -> int:
    """Answers that the journal holds: each was paid for once."""
    database = sqlite3.connect(project.settings.state / "journal.sqlite")
    try:
        return database.execute("SELECT count(*) FROM answer").fetchone()[0]
    finally:
        database.close()


def test_a_whole_run_leaves_every_artifact_fresh(finished_finance: Tiny) -> None:
    found = finished_finance.states()
    assert set(found) == {f"finance/{name}" for name in tiny.ALL}
    assert {one.state for one in found.values()} == {"fresh"}
    assert all(len(versions) == 1 for versions in finished_finance.sealed().values())
    assert finished_finance.champions() == [finished_finance.versions()["finance/deployed_student"]]
    assert not finished_finance.drafts()
    assert not list((finished_finance.settings.state / "work").rglob("*.*"))


def test_every_example_leads_to_a_call_or_is_gold(finished_finance: Tiny) -> None:
    project = finished_finance.project()
    made = {
        one.node.key[1]: one
        for one in project.run(project.needed("finance"), Services(project.state, start=no_training))
    }
    examples = made["filtered_dataset"].version.table("example").to_pylist()
    outputs = made["teacher_outputs"]
    place = outputs.version.place / "runs" / outputs.run / "call.parquet"
    calls = {row["call_no"] for row in pq.read_table(str(place)).to_pylist()}
    assert {row["origin"] for row in examples} == {"gold", "teacher"}
    for row in examples:
        assert (row["call_no"] is None) == (row["origin"] == "gold")
        assert row["call_no"] is None or row["call_no"] in calls
    funnel = made["filtered_dataset"].record["notes"]["funnel"]
    dropped = sum(count for name, count in funnel.items() if name.startswith("dropped"))
    assert funnel["candidates"] == funnel["kept"] + dropped + funnel["failed"] == 72


def test_a_second_run_asks_nothing_and_trains_nothing(finance: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    before, answers, champions = finance.versions(), asked(finance), finance.champions()
    monkeypatch.setattr(Backend, "ask", no_training)
    made = finance.run(start=no_training)
    assert set(made) == set(tiny.ALL) and all(one.reused for one in made.values())
    assert finance.versions() == before and finance.champions() == champions
    assert asked(finance) == answers == 72 + 48  # D_U, and the test items


@pytest.mark.slow
def test_another_folder_gives_the_same_versions(finished_finance: Tiny, tmp_path: Path) -> None:
    again = tiny.finance(tmp_path / "elsewhere" / "deeper")
    made = again.run()
    assert not any(one.reused for one in made.values())
    assert again.versions() == finished_finance.versions()


@pytest.mark.slow
def test_a_deleted_store_and_state_are_made_again_alike(parcels: Tiny) -> None:
    before = parcels.versions()
    shutil.rmtree(parcels.settings.store)
    shutil.rmtree(parcels.settings.state)
    parcels.run()
    assert parcels.versions() == before


def test_a_deleted_state_makes_nothing_again(parcels: Tiny) -> None:
    before = parcels.versions()
    shutil.rmtree(parcels.settings.state)
    assert all(one.reused for one in parcels.run(start=no_training).values())
    assert parcels.versions() == before


def test_a_lost_head_is_found_by_its_action(parcels: Tiny) -> None:
    """A store whose action index is intact answers, also from a project object that was made before."""
    project = Project(parcels.settings)
    services = Services(project.state, start=no_training)
    first = project.run(project.needed("parcels"), services)
    second = project.run(project.needed("parcels"), services)
    assert [one.version.version for one in first] == [one.version.version for one in second]
    assert {one.run for one in first} == {one.run for one in second}


def test_a_pilot_is_off_the_record(parcels: Tiny) -> None:
    before = parcels.sealed()
    project = parcels.project(limit=5)
    nodes = project.select("parcels", ["seed_set", "eval_set", "prompt_set"])
    made = {one.node.key[1]: one for one in project.run(nodes, Services(project.state))}
    parts = made["seed_set"].record["notes"]["counts"]["parts"]
    assert parts and all(count <= 5 for count in parts.values())
    assert Path(str(made["seed_set"].version.place)).is_relative_to(parcels.settings.state / "pilot")
    assert parcels.sealed() == before and not parcels.unfresh()
