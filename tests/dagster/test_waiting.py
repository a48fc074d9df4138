"""Two runs that make the same artifact: through Dagster one waits for the other, the bare stages say who holds it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pipeline import tiny
from pipeline.tiny import Tiny
from places import at_home

from distill_dagster import cli
from distill_dagster.assets.build import build_definitions
from distill_dagster.assets.launch import run_job
from distill_dagster.errors import LeaseError
from distill_dagster.lineage.engine import hold

pytestmark = pytest.mark.needs_torch  # MLflow is not there without it

HOLD = """
import sys
from pathlib import Path
from distill_dagster.lineage.engine import hold
from distill_dagster.storage.store import Store
with hold(Store(sys.argv[1]), ("parcels", "seed_set"), Path(sys.argv[2]) / "leases"):
    print("held", flush=True)
    sys.stdin.read()
"""
SECOND = "kind: pipeline\nname: second\nsource: parcels\nteacher: nano_teacher\n"


@pytest.fixture
def project(tmp_path: Path) -> Tiny:
    made = tiny.parcels(tmp_path / "parcels")
    (made.folder / "assets_config" / "second.yaml").write_text(SECOND + 'student: {base: "preset:nano"}\n', "utf-8")
    return made


@pytest.fixture
def holder(project: Tiny):
    """Another process that makes the seed set, until its standard input is closed."""
    command = [sys.executable, "-c", HOLD, project.settings.store, str(project.settings.state)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        yield child


def test_a_run_waits_for_the_other_pipeline_of_its_source(project: Tiny, holder) -> None:
    made, told = [], []

    def progress(node: object):
        def report(done: int, total: int | None, note: str = "") -> None:
            if note.startswith("waits"):
                told.append(note)
                holder.stdin.close()

        return report

    with at_home(project):
        definitions = build_definitions()
        both = [definitions.resolve_job_def(f"{name}_retrain").asset_layer for name in ("parcels", "second")]
        shared = both[0].executable_asset_keys & both[1].executable_asset_keys
        assert {key.path[-1] for key in shared} == set(tiny.SOURCE)
        loaded = project.project()
        run_job(loaded, "parcels", loaded.select("parcels", ["seed_set"]), progress, made.append)
    assert [one.node.key[1] for one in made] == ["seed_set"]
    assert len(told) == 1 and f"seed_set is held by process {holder.pid}" in told[0]


def test_the_bare_stages_say_at_once_who_holds_it(project: Tiny, holder) -> None:
    with pytest.raises(LeaseError, match=f"held by process {holder.pid}"):
        project.run(["seed_set"])
    holder.stdin.close()
    holder.wait()
    loaded = project.project()
    with hold(loaded.store, ("parcels", "seed_set"), loaded.state / "leases"):
        pass


def test_ctrl_c_is_no_failure_of_a_step(project: Tiny, capsys) -> None:
    def stopped(job: object) -> None:
        raise KeyboardInterrupt

    with at_home(project):
        loaded = project.project()
        (node,) = loaded.select("parcels", ["seed_set"])
        loaded.nodes[node.key] = replace(node, make=stopped)
        with pytest.raises(KeyboardInterrupt):
            cli._run(loaded, "parcels", ["seed_set"])
    said = capsys.readouterr().err
    assert "the same command goes on" in said and "error" not in said
