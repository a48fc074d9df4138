"""A stranger's plugin, installed with pip, is a domain like any other; a broken one takes nothing down."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent.parent

#: A second distribution in the same place: a plugin with a node of its own, and one that cannot be imported.
MORE = {
    "more_domains.py": """\
from dataclasses import replace

import tiny_domain


def domain():
    return replace(tiny_domain.domain(), name="noded", nodes="more_nodes:nodes")
""",
    "more_nodes.py": """\
import dagster as dg


def nodes(project, source):
    @dg.asset(key=dg.AssetKey([source.key, "atlas"]), deps=[dg.AssetKey([source.key, "seed_set"])], group_name="extra")
    def atlas() -> None: ...

    return dg.Definitions(assets=[atlas])
""",
    "broken_domain.py": "import a_package_that_nobody_has\n",
    "distill_more-0.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: distill-more\nVersion: 0.2\n",
    "distill_more-0.2.dist-info/entry_points.txt": """\
[distill_dagster.domains]
noded = more_domains:domain
broken = broken_domain:domain
""",
}

TEACHER = "kind: teacher\nname: nano\nmodel: preset:nano\nfit: {recipe: {steps: 2}}\n"
SOURCE = "kind: source\ndomain: NAME\ngrammar: {teacher: 6, gold: 4, unlabeled: 6, validation: 2, test: 4}\n"
PIPELINE = 'kind: pipeline\nsource: NAME\nteacher: nano\nstudent: {base: "preset:nano"}\n'

LOOK = """
import json, sys
from distill_dagster.domains.registry import discover
from distill_dagster.assets.build import build_definitions
from distill_dagster.lineage.engine import Services
from distill_dagster.stages.project import Project

found = discover()
definitions = build_definitions()
heavy = [name for name in ("torch", "transformers", "datasets", "mlflow") if name in sys.modules]
nodes = Project().select("tinydomain", ["seed_set", "eval_set", "prompt_set"])
project = Project()
made = project.run(nodes, Services(project.state))
print(json.dumps({
    "domains": sorted(domain.name for domain in found),
    "origin": found.origins.get("tinydomain"),
    "failures": [str(failure) for failure in found.failures],
    "keys": sorted(key.to_user_string() for key in definitions.resolve_all_asset_keys()),
    "heavy": heavy,
    "records": made[0].record["notes"]["counts"]["records"],
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin package of this repository installed into a folder, with another distribution beside it."""
    base = tmp_path_factory.mktemp("plugin")
    shutil.copytree(REPO / "tests" / "plugin_domain", base / "source")
    target = base / "site"
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *offline, "--target", str(target), str(base / "source")],
        capture_output=True,
        text=True,
        timeout=240,
    )
    if "hatchling" in done.stderr and "No module named" in done.stderr:
        pytest.skip("hatchling, which builds the plugin, is not installed here")
    assert done.returncode == 0, done.stderr
    for name, text in MORE.items():
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_text(text, "utf-8")
    return target


def environment(site: Path, folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(site), str(REPO)]),
        "DISTILL_ASSETS_CONFIG": str(folder / "assets_config"),
        "DISTILL_STORE": str(folder / "store"),
        "DISTILL_STATE": str(folder / "state"),
        "COLUMNS": "200",
    }


def write(folder: Path, *names: str) -> None:
    (folder / "assets_config").mkdir(parents=True)
    (folder / "assets_config" / "teacher.yaml").write_text(TEACHER, "utf-8")
    for name in names:
        (folder / "assets_config" / f"{name}_source.yaml").write_text(SOURCE.replace("NAME", name), "utf-8")
        (folder / "assets_config" / f"{name}_pipeline.yaml").write_text(PIPELINE.replace("NAME", name), "utf-8")


def test_an_installed_plugin_has_assets_of_its_own(installed: Path, tmp_path: Path) -> None:
    write(tmp_path, "tinydomain", "noded")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOOK],
        env=environment(installed, tmp_path),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {"finance", "law", "medicine", "generic", "tinydomain", "noded"} == set(found["domains"])
    assert found["origin"] == "distill-tinydomain 0.1.0"
    (failure,) = found["failures"]
    assert "broken" in failure and "distill-more 0.2" in failure and "a_package_that_nobody_has" in failure
    assert len([key for key in found["keys"] if key.startswith("tinydomain/")]) == 11
    assert "tinydomain/seed_set" in found["keys"] and "noded/atlas" in found["keys"]
    assert "tinydomain/atlas" not in found["keys"]
    assert not found["heavy"]
    assert found["records"] == 16


def test_the_command_lists_it_and_names_the_broken_one(installed: Path, tmp_path: Path) -> None:
    write(tmp_path, "tinydomain")

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "distill_dagster.cli", *arguments],
            env=environment(installed, tmp_path),
            capture_output=True,
            text=True,
            timeout=240,
        )

    listed = command("domains")
    assert listed.returncode == 0 and "tinydomain" in listed.stdout and "a_package_that_nobody_has" in listed.stderr
    assert command("check").returncode == 0
    source = tmp_path / "assets_config" / "tinydomain_source.yaml"
    source.write_text(source.read_text("utf-8").replace("tinydomain", "broken"), "utf-8")
    refused = command("check")
    assert refused.returncode == 1 and "a_package_that_nobody_has" in refused.stdout + refused.stderr
