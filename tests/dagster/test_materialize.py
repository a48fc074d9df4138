"""What Dagster and MLflow hold after a run: our versions, numbers, pictures; and what a failure leaves."""

import json
from collections.abc import Iterator

import dagster as dg
import pytest
from pipeline import tiny
from pipeline.tiny import Tiny
from places import at_home, run

from distill_dagster.assets.build import build_definitions
from distill_dagster.errors import DistillError
from distill_dagster.lineage.engine import head_version
from distill_dagster.lineage.graph import descendants
from distill_dagster.resources.mlflow_tracking import RUN_TAG, local_uri

pytestmark = pytest.mark.needs_torch

LARGEST = 100_000


@pytest.fixture(scope="module")
def mirrored(finished_finance: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The finished project after a run through Dagster and MLflow, which finds everything known; read only."""
    project = finished_finance.copy(tmp_path_factory.mktemp("mirrored"))
    made = run(project)
    assert sorted(one.node.key[1] for one in made) == sorted(tiny.ALL) and all(one.reused for one in made)
    return project


@pytest.fixture
def instance(mirrored: Tiny) -> Iterator[dg.DagsterInstance]:
    """The project's Dagster instance."""
    with at_home(mirrored), dg.DagsterInstance.get() as found:
        yield found


@pytest.fixture(scope="module")
def client(mirrored: Tiny):
    """A client of the project's MLflow."""
    from mlflow import MlflowClient

    uri = local_uri(mirrored.settings.state)
    return MlflowClient(uri, uri)


def latest(instance: dg.DagsterInstance, artifact: str) -> dg.AssetMaterialization:
    event = instance.get_latest_materialization_event(dg.AssetKey(["finance", artifact]))
    assert event is not None and event.asset_materialization is not None
    return event.asset_materialization


@pytest.mark.parametrize("artifact", tiny.ALL)
def test_every_asset_has_our_version_and_numbers(mirrored: Tiny, instance: dg.DagsterInstance, artifact: str) -> None:
    shown = latest(instance, artifact)
    version = mirrored.versions()[f"finance/{artifact}"]
    assert (shown.tags or {})["dagster/data_version"] == version
    assert shown.metadata["data_version"].value == version
    assert str(shown.metadata["dagster/uri"].value).startswith(mirrored.settings.store)
    assert isinstance(shown.metadata["mlflow"], dg.UrlMetadataValue)
    for name, value in shown.metadata.items():
        assert len(repr(value.value)) < LARGEST, name


@pytest.mark.parametrize(
    ("artifact", "numbers", "tables", "pictures"),
    [
        ("seed_set", {"records": 228, "dagster/row_count": 228}, ("parts", "tasks", "licences", "sample"), ()),
        ("eval_set", {"records": 72}, ("parts",), ()),
        ("prompt_set", {"dagster/row_count": 6, "templates": 6}, ("prompts",), ()),
        ("teacher_model", {"parameters": None}, (), ("loss",)),
        ("teacher_outputs", {"candidates": 72, "calls_asked": 72}, ("status", "sample"), ()),
        (
            "filtered_dataset",
            {"examples": None},
            ("origins", "tasks", "licences", "funnel", "diversity", "sample"),
            ("funnel_picture", "lengths", "labels"),
        ),
        ("initial_student", {"parameters": None}, (), ()),
        ("student_checkpoint", {"examples": None}, ("origins",), ("loss",)),
        ("control_checkpoint", {"examples": 36}, (), ("loss",)),
        (
            "eval_report",
            {"items": 48, "routing_student": None, "routing_teacher": None},
            ("report",),
            ("scores", "gap"),
        ),
        ("deployed_student", {"versions_in_lineage": 10}, ("gates",), ()),
    ],
)
def test_a_person_sees_counts_tables_and_pictures(
    instance: dg.DagsterInstance,
    artifact: str,
    numbers: dict[str, int | None],
    tables: tuple[str, ...],
    pictures: tuple[str, ...],
) -> None:
    shown = latest(instance, artifact).metadata
    for name, expected in numbers.items():
        assert isinstance(shown[name].value, (int, float)), (name, shown[name])
        assert expected is None or shown[name].value == expected, name
    for name in tables:
        assert isinstance(shown[name], dg.TableMetadataValue) or "|---" in str(shown[name].value), name
    for name in pictures:
        assert "](data:image/png;base64,iVBOR" in str(shown[name].value), name


@pytest.mark.slow
def test_records_are_shown_only_where_the_source_says_so(parcels: Tiny) -> None:
    run(parcels, ["seed_set", "teacher_outputs", "filtered_dataset"])
    text = parcels.lines("seeds.jsonl")[0]["text"]
    with at_home(parcels), dg.DagsterInstance.get() as instance:
        for artifact in ("seed_set", "teacher_outputs", "filtered_dataset"):
            event = instance.get_latest_materialization_event(dg.AssetKey(["parcels", artifact]))
            assert event is not None and event.asset_materialization is not None
            assert not {"sample", "dropped"} & set(event.asset_materialization.metadata)
            assert text not in str(event)


def test_checks_passed(instance: dg.DagsterInstance) -> None:
    checks = build_definitions().resolve_asset_graph().asset_check_keys
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(checks))
    assert set(found) == set(checks) and len(checks) == 21
    for key, record in found.items():
        assert record.event and record.event.dagster_event
        assert record.event.dagster_event.asset_check_evaluation_data.passed, key


def test_nothing_is_stale_afterwards(mirrored: Tiny, instance: dg.DagsterInstance) -> None:
    assert set(stale(instance).values()) == {"FRESH"}


def test_a_changed_record_marks_direct_readers_and_status_knows_the_rest(parcels: Tiny) -> None:
    run(parcels)  # all is known: Dagster hears of the versions
    lines = parcels.lines("seeds.jsonl")
    lines[0]["colour"] = {"red": "green", "green": "red"}[lines[0]["colour"]]
    parcels.write_lines("seeds.jsonl", lines)
    nodes = parcels.project().nodes
    assert parcels.unfresh() == {"seed_set"} | {key[1] for key in descendants(nodes, ("parcels", "seed_set"))}
    run(parcels, ["seed_set"])
    with at_home(parcels), dg.DagsterInstance.get() as home:
        marked = {name for name, state in stale(home).items() if state == "STALE"}
    readers = {node.key for node in nodes.values() if any(p.key == ("parcels", "seed_set") for p in node.parents)}
    assert marked == {key[1] for key in readers} and len(marked) > 2


def stale(instance: dg.DagsterInstance) -> dict[str, str]:
    """What the UI would say of each asset, as `Unsynced` or not."""
    from dagster._core.definitions.data_version import CachingStaleStatusResolver
    from dagster._core.loader import LoadingContextForTest

    graph = build_definitions().resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    return {key.path[-1]: resolver.get_status(key).value for key in sorted(graph.materializable_asset_keys)}


def test_one_mlflow_run_for_each_version(mirrored: Tiny, client) -> None:
    experiment = client.get_experiment_by_name("distill/finance")
    found = client.search_runs([experiment.experiment_id])
    assert len(found) == len(tiny.ALL)
    store = mirrored.project().store
    for artifact in tiny.ALL:
        head = head_version(store, ("finance", artifact))
        assert head is not None
        version, run_id = head
        (mirror,) = client.search_runs([experiment.experiment_id], f"tags.`{RUN_TAG}` = '{run_id}'")
        assert mirror.info.status == "FINISHED"
        assert mirror.data.tags["distill.data_version"] == version.version
        datasets = {one.dataset.name: one.dataset.digest for one in mirror.inputs.dataset_inputs}
        parents = {entry["artifact"]: entry["version"][:32] for entry in version.run(run_id)["parents"]}
        assert datasets == {**parents, f"finance/{artifact}": version.version[:32]}


def test_the_students_run_has_parameters_metrics_and_its_curve(mirrored: Tiny, client) -> None:
    experiment = client.get_experiment_by_name("distill/finance")
    head = head_version(mirrored.project().store, ("finance", "student_checkpoint"))
    assert head is not None
    (mirror,) = client.search_runs([experiment.experiment_id], f"tags.`{RUN_TAG}` = '{head[1]}'")
    assert mirror.data.params["steps"] == "6" and float(mirror.data.params["learning_rate"]) == 3e-3
    rows = [
        json.loads(line)
        for line in (head[0].place / "runs" / head[1] / "student_metrics.jsonl").read_text("utf-8").splitlines()
    ]
    curve = client.get_metric_history(mirror.info.run_id, "student/loss")
    assert {point.step: point.value for point in curve} == {row["step"]: row["loss"] for row in rows}
    assert [row["step"] for row in rows] == [1, 2, 4, 6]
    assert mirror.data.metrics["training.loss"] == head[0].run(head[1])["notes"]["training"]["loss"]


def test_the_registered_model_is_the_served_one(mirrored: Tiny, client) -> None:
    version = client.get_model_version_by_alias("distill_finance", "champion")
    assert version.tags["distill.version"] == mirrored.versions()["finance/deployed_student"]
    assert client.get_registered_model("distill_finance").aliases == {"champion": version.version}


def test_a_second_run_adds_nothing_to_mlflow_and_marks_nothing_stale(mirrored: Tiny, client) -> None:
    experiment = client.get_experiment_by_name("distill/finance")
    before = {one.info.run_id for one in client.search_runs([experiment.experiment_id])}
    assert all(one.reused for one in run(mirrored))
    assert {one.info.run_id for one in client.search_runs([experiment.experiment_id])} == before
    assert len(client.search_model_versions("name='distill_finance'")) == 1
    with at_home(mirrored), dg.DagsterInstance.get() as instance:
        assert set(stale(instance).values()) == {"FRESH"}


def test_without_mlflow_the_run_goes_on(finance: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    made = run(finance, ["seed_set", "deployed_student"], tracking="http://127.0.0.1:1")
    assert {one.node.key[1] for one in made} == {"seed_set", "deployed_student"}
    with at_home(finance), dg.DagsterInstance.get() as instance:
        assert str(latest(instance, "deployed_student").metadata["mlflow"].value).startswith("not mirrored")


def test_a_leak_stops_the_run(parcels: Tiny) -> None:
    before = parcels.sealed()
    lines = parcels.lines("seeds.jsonl")
    lines[0]["text"] = parcels.lines("test.jsonl")[0]["text"].upper()
    parcels.write_lines("seeds.jsonl", lines)
    with pytest.raises(DistillError) as caught:
        run(parcels, ["seed_set", "eval_set", "filtered_dataset"])
    assert "leakage" in str(caught.value) or "1 by folded" in str(caught.value)
    after = parcels.sealed()
    assert {name for name in after if after[name] != before[name]} == {"parcels/seed_set"}
    with pytest.raises(DistillError, match="folded"):  # enforced twice: the stage that reads them refuses as well
        parcels.run(["filtered_dataset"])
    assert parcels.sealed() == after


@pytest.mark.slow
def test_a_failed_gate_leaves_the_champion(finance: Tiny) -> None:
    champions, versions = finance.champions(), finance.versions()
    finance.edit("pipeline.yaml", "{floor_over_chance: -1.0}", "{floor_over_chance: 0.99}")
    with pytest.raises(DistillError, match="floor"):
        run(finance)
    with pytest.raises(DistillError, match="champion stays"):
        finance.run(["deployed_student"])
    assert finance.champions() == champions and finance.versions() == versions
    assert not finance.drafts()


@pytest.mark.slow
def test_a_known_student_is_judged_before_it_gets_the_alias(finance: Tiny) -> None:
    champions = finance.champions()
    finance.edit("pipeline.yaml", "training: {steps: 6", "training: {steps: 7")
    finance.append("pipeline.yaml", "deploy: {alias: staging}\n")
    finance.run()
    finance.edit("pipeline.yaml", "staging", "champion")
    with pytest.raises(DistillError) as caught:
        run(finance)
    assert caught.value.place == "finance/eval_report" and "the blocking check 'no_regression'" in caught.value.reason
    assert "against the last champion the difference is" in caught.value.reason
    student = finance.versions()["finance/student_checkpoint"][:12]
    assert "The champion stays" in caught.value.next_step and student in caught.value.next_step
    with pytest.raises(DistillError, match="against the last champion the difference is"):
        run(finance, ["deployed_student"])
    assert finance.champions() == champions
    finance.edit("pipeline.yaml", "{alias: champion}", f"{{override: {{student: {student}, reason: it is a trial}}}}")
    run(finance)
    assert len(finance.champions()) == len(champions) + 1


@pytest.mark.slow
def test_a_switched_off_deployment_moves_no_alias(finance: Tiny) -> None:
    finance.edit("pipeline.yaml", "{floor_over_chance: -1.0}", "{floor_over_chance: -0.9}")
    finance.append("pipeline.yaml", "deploy: {enabled: false}\n")
    champions = finance.champions()
    run(finance, ["deployed_student"])
    assert finance.champions() == champions
