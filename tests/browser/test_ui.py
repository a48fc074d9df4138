"""A person's way through the Dagster UI, in a real browser: open the graph, materialize it, look at the report."""

import json
import re
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from browser.files import FILES
from distill_dagster.evaluation import wording

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "docs"))

import dagster_ui  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.needs_torch, pytest.mark.timeout(900)]

#: A run takes about a minute on an idle core; a busy machine must not decide.
RUN_SECONDS = 600
GROUPS = {
    "finance/source": {"seed_set", "eval_set", "prompt_set"},
    "finance/teacher": {"teacher_model", "teacher_outputs", "filtered_dataset"},
    "finance/student": {
        "initial_student",
        "student_checkpoint",
        "control_checkpoint",
        "eval_report",
        "deployed_student",
    },
}
NAMES = sorted(set().union(*GROUPS.values()))
#: Checks of each artifact, as the graph counts them.
CHECKS = {
    "seed_set": 3,
    "eval_set": 4,
    "prompt_set": 2,
    "teacher_outputs": 5,
    "filtered_dataset": 3,
    "student_checkpoint": 1,
    "control_checkpoint": 1,
    "eval_report": 2,
}


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory):
    """The servers of a tiny project that was never run."""
    project = tmp_path_factory.mktemp("project")
    for name, text in FILES.items():
        (project / "assets_config").mkdir(exist_ok=True)
        (project / "assets_config" / name).write_text(text, "utf-8")
    with dagster_ui.servers(project, project / "ui.log") as servers:
        yield servers


@pytest.fixture(scope="module")
def page(chromium: str):
    """One page for the whole way."""
    with dagster_ui.browser_page(chromium) as page:
        yield page


def test_a_pipeline_is_materialized_from_the_graph(ui, page, tmp_path: Path) -> None:
    nodes = ui.nodes()
    assert set(nodes) == {f"finance/{name}" for name in NAMES}
    for group, names in GROUPS.items():
        assert {key.split("/")[1] for key, found in nodes.items() if found["groupName"] == group} == names
    assert not any(found["assetMaterializations"] for found in nodes.values())

    dagster_ui.open_graph(page, ui, "finance", NAMES)
    for name in NAMES:
        dagster_ui.node(page, name).get_by_text("Never materialized").wait_for()
    page.screenshot(path=tmp_path / "before.png")
    page.locator("button", has_text="Materialize all").click()
    run = ui.wait_for_run(RUN_SECONDS)

    for name in NAMES:  # green, and every check passed
        box = dagster_ui.node(page, name)
        box.get_by_text("Materialized", exact=True).wait_for()
        if name in CHECKS:  # the graph polls for checks apart from materializations, and lags behind the run
            box.get_by_text(f"{CHECKS[name]} / {CHECKS[name]} Passed").wait_for()
        else:
            assert "Passed" not in box.inner_text()
    page.screenshot(path=tmp_path / "graph.png")
    nodes = ui.nodes()
    assert {found["assetMaterializations"][0]["runId"] for found in nodes.values()} == {run["runId"]}
    assert {found["staleStatus"] for found in nodes.values()} == {"FRESH"}


def test_the_evaluation_report_shows_what_was_measured(ui, page, tmp_path: Path) -> None:
    report = json.loads((metadata(ui, "page", "path").parents[2] / "report.json").read_text("utf-8"))
    tasks = [task["title"] for task in report["tasks"]]
    student = [wording.interval(task["arms"]["student"]) for task in report["tasks"]]
    assert len(tasks) == 3

    dagster_ui.open_asset(page, ui, "finance/eval_report")
    dialog = dagster_ui.open_markdown(page, "report")
    page.screenshot(path=tmp_path / "report.png")
    lines = [[cell.strip() for cell in row.split("\t")] for row in dialog.locator("table").inner_text().splitlines()]
    table = {row[0]: row[1:] for row in lines if len(row) > 1}
    assert [*tasks] in table.values()
    assert table["Student"] == student
    assert {"Teacher", "Control, same budget", "Gap closed", "Items"} <= set(table)
    assert table["Items"] == ["24"] * 3
    assert report["overall"]["sentence"] in dialog.inner_text()

    dagster_ui.close_dialog(page)
    dialog = dagster_ui.open_markdown(page, "scores")
    picture = dialog.locator("img")
    picture.wait_for()
    assert picture.get_attribute("alt") == "scores of every arm with intervals"
    width, height = picture.evaluate("image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])")
    assert width > 400 and height > 150
    page.screenshot(path=tmp_path / "scores.png")
    dagster_ui.close_dialog(page)


def test_the_link_to_mlflow_leads_to_the_run_of_that_version(ui, page) -> None:
    address = str(metadata(ui, "mlflow", "url"))
    assert address.startswith(ui.mlflow)
    run = address.rsplit("/", 1)[1]
    with urllib.request.urlopen(f"{ui.mlflow}/api/2.0/mlflow/runs/get?run_id={run}", timeout=60) as reply:
        found = json.load(reply)["run"]
    tags = {tag["key"]: tag["value"] for tag in found["data"]["tags"]}
    assert tags["distill.artifact"] == "finance/eval_report"
    assert tags["distill.data_version"] == ui.nodes()["finance/eval_report"]["dataVersion"]
    assert found["info"]["status"] == "FINISHED"
    dagster_ui.open_asset(page, ui, "finance/eval_report")
    assert page.get_by_role("link", name=re.compile(re.escape(run))).count() == 1


def metadata(ui, label: str, field: str) -> Any:
    """One metadata entry of the evaluation report; a path as a `Path`."""
    (made,) = ui.nodes()["finance/eval_report"]["assetMaterializations"]
    (entry,) = (entry for entry in made["metadataEntries"] if entry["label"] == label)
    return Path(entry[field]) if field == "path" else entry[field]
