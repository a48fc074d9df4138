"""Every command on a project that has run, and what it says and returns."""

import json
import shutil
from pathlib import Path

import pytest
from pipeline import tiny
from pipeline.tiny import Tiny
from terminal import command, process

from distill_dagster.domains.registry import discover

pytestmark = pytest.mark.needs_torch

#: Refuses what an audit years later may not have.
WITHOUT_DAGSTER = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("dagster", "dagster_pipes", "dagster_graphql", "mlflow", "torch"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocked())
"""


def test_check_says_that_all_is_well(finished_finance: Tiny) -> None:
    said = command(finished_finance, "check")
    assert said.code == 0 and "valid" in said.out


def test_status_as_json_and_as_a_table(finance: Tiny) -> None:
    finance.edit("pipeline.yaml", "[refusal, exact_duplicate]", "[refusal]")
    rows = {row["artifact"]: row for row in json.loads(command(finance, "status", "finance", "--json").out)}
    assert list(rows)[0] == "finance/seed_set" and set(rows) == {f"finance/{name}" for name in tiny.ALL}
    assert rows["finance/filtered_dataset"]["state"] == "stale"
    assert "rules" in rows["finance/filtered_dataset"]["reason"]
    assert {name for name, row in rows.items() if row["state"] == "downstream"} == {
        f"finance/{name}" for name in ("student_checkpoint", "control_checkpoint", "eval_report", "deployed_student")
    }
    assert rows["finance/seed_set"]["version"] == finance.versions()["finance/seed_set"]
    said = command(finance, "status")
    assert said.code == 0 and "config changed: rules" in said.out
    command(finance, "status", "fin").refused("fin", "Did you mean 'finance'")


def test_domains_are_listed_with_their_tasks(finished_finance: Tiny) -> None:
    said = command(finished_finance, "domains")
    assert said.code == 0
    for domain in discover():
        assert domain.name in said.out
        assert all(task.name in said.out for task in domain.tasks)


def test_a_run_of_known_things_says_so(finance: Tiny) -> None:
    said = command(finance, "run", "finance", "--no-dagster")
    assert said.code == 0 and "0 made, 11 known already, 0 teacher calls, 0 trained" in said.out
    assert "routing" in said.out and "report.html" in said.out


def test_a_selected_artifact_alone_is_made(finance: Tiny) -> None:
    finance.edit("pipeline.yaml", "{resamples: 200}", "{resamples: 210}")
    before = finance.sealed()
    said = command(finance, "run", "finance", "--select", "eval_report", "--no-dagster")
    assert said.code == 0 and "1 made, 0 known already, 0 teacher calls, 48 answers known before, 0 trained" in said.out
    after = finance.sealed()
    assert {name for name in after if after[name] != before[name]} == {"finance/eval_report"}
    command(finance, "run", "finance", "--select", "eval_raport").refused("eval_raport", "'eval_report'")


@pytest.mark.slow
def test_through_dagster_by_default(finance: Tiny) -> None:
    said = command(finance, "run", "finance", "--select", "prompt_set", "--select", "finance/eval_set")
    assert said.code == 0 and "0 made, 2 known already" in said.out
    assert (finance.settings.state / "dagster" / "history").is_dir()


def test_a_pilot_touches_neither_store_nor_dagster(parcels: Tiny) -> None:
    before = parcels.sealed()
    said = command(parcels, "run", "parcels", "--limit", "5", "--select", "seed_set", "--select", "eval_set")
    assert said.code == 0 and "2 made" in said.out
    assert parcels.sealed() == before and not parcels.unfresh()
    assert not (parcels.settings.state / "dagster").exists() and not (parcels.settings.state / "mlflow").exists()


def test_gc_deletes_what_its_plan_shows(parcels: Tiny) -> None:
    said = command(parcels, "gc", "plan", "--keep-last", "1")
    assert said.code == 0
    for resamples in (211, 212):
        text = (parcels.folder / "assets_config/pipeline.yaml").read_text("utf-8")
        config = text.replace("resamples: 200", f"resamples: {resamples}")
        (parcels.folder / "assets_config/pipeline.yaml").write_text(config, "utf-8")
        parcels.run(["eval_report"])
        (parcels.folder / "assets_config/pipeline.yaml").write_text(text, "utf-8")
    first, second, third = sorted(parcels.sealed()["parcels/eval_report"], key=_age(parcels))
    plan = command(parcels, "gc", "plan", "--keep-last", "1")
    assert plan.code == 0 and second[:12] in plan.out
    assert first[:12] not in plan.out  # promoted
    assert third[:12] not in plan.out  # newest
    pinned = command(parcels, "gc", "plan", "--keep-last", "1", "--pin", f"parcels/eval_report@{second}")
    assert second[:12] not in pinned.out
    applied = command(parcels, "gc", "apply", "--keep-last", "1")
    assert applied.code == 0 and "bytes freed" in applied.out
    assert set(parcels.sealed()["parcels/eval_report"]) == {first, third}
    assert command(parcels, "audit", "parcels@champion").code == 0


def _age(project: Tiny):
    store = project.project().store

    def made(version: str) -> str:
        return max(
            path.name
            for path in (Path(str(store.open(("parcels", "eval_report"), version).place)) / "runs").glob("*.json")
        )

    return made


def test_export_as_chat_lines_and_as_a_hugging_face_folder(finished_finance: Tiny, tmp_path: Path) -> None:
    said = command(finished_finance, "export", "finance", str(tmp_path / "out" / "train.jsonl"))
    assert said.code == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text("utf-8").splitlines()]
    assert f"{len(lines)} examples" in said.out and len(lines) > 36
    for line in lines:
        roles = [message["role"] for message in line["messages"]]
        assert roles[-2:] == ["user", "assistant"] and set(roles[:-2]) <= {"system"} and line["messages"][-2]["content"]
    assert command(finished_finance, "export", "finance", str(tmp_path / "hf")).code == 0
    import datasets

    loaded = datasets.load_from_disk(str(tmp_path / "hf"))
    assert [dict(row) for row in loaded] == lines
    command(finished_finance, "export", "law", str(tmp_path / "x.jsonl")).refused("unknown pipeline 'law'")


def test_an_audit_of_the_alias_reaches_the_seed_set(finished_finance: Tiny) -> None:
    said = command(finished_finance, "audit", "finance@champion", "--json")
    assert said.code == 0
    found = json.loads(said.out)
    assert found["exit_code"] == 0 and not found["integrity"] + found["completeness"] + found["policy"]
    assert {link["artifact"] for link in found["links"]} == {f"finance/{name}" for name in tiny.ALL}
    assert found["files_hashed"] > 30 and found["licences"].get("Apache-2.0")
    command(finished_finance, "audit", "law@champion").refused("nothing was ever promoted", code=3)


def test_an_audit_needs_neither_dagster_nor_mlflow(finished_finance: Tiny) -> None:
    said = process(finished_finance, "audit", "finance@champion", before=WITHOUT_DAGSTER)
    assert said.code == 0, said
    assert "integrity     clean" in said.out and "finance/seed_set" in said.out


def served(project: Tiny, target: Path) -> Path:
    """The weights folder as somebody carried it away."""
    version = project.versions()["finance/deployed_student"]
    place = project.project().store.open(("finance", "deployed_student"), version).place
    shutil.copytree(str(place / "model"), target)
    return target


def test_a_carried_away_folder_is_audited_by_what_it_carries(finance: Tiny, tmp_path: Path) -> None:
    folder = served(finance, tmp_path / "served")
    said = command(finance, "audit", str(folder), "--json")
    assert said.code == 0 and json.loads(said.out)["integrity"] == []
    offline = json.loads(command(finance, "audit", str(folder), "--offline", "--json").out)
    assert offline["exit_code"] == 0 and any("not at hand" in hole for hole in offline["holes"])

    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    said = command(finance, "audit", str(folder), "--offline")
    assert said.code == 2 and "model.safetensors" in said.out


def test_tampered_weights_in_the_store_are_found(finance: Tiny) -> None:
    version = finance.versions()["finance/deployed_student"]
    place = Path(str(finance.project().store.open(("finance", "deployed_student"), version).place))
    weights = place / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(data)
    said = command(finance, "audit", "finance@champion")
    assert said.code == 2 and "model.safetensors" in said.out


def test_a_missing_link_is_incomplete_evidence(finance: Tiny) -> None:
    version = finance.versions()["finance/teacher_outputs"]
    place = Path(str(finance.project().store.open(("finance", "teacher_outputs"), version).place))
    shutil.rmtree(place)
    said = command(finance, "audit", "finance@champion")
    assert said.code == 3 and "teacher_outputs" in said.out


def test_a_schema_for_editors_is_written(finished_finance: Tiny, tmp_path: Path) -> None:
    target = tmp_path / "schema.json"
    assert command(finished_finance, "schema", str(target)).code == 0
    assert json.loads(target.read_text("utf-8"))


def test_help_names_every_command(finished_finance: Tiny) -> None:
    said = command(finished_finance, "--help")
    assert said.code == 0
    for name in ("demo", "run", "check", "status", "domains", "audit", "gc", "export", "schema", "teacher", "ui"):
        assert f" {name} " in said.out, name
