"""The graph that Dagster is shown: keys, groups, kinds, checks, jobs, schedules; alone, below a prefix, and merged."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from pipeline import tiny
from pipeline.tiny import Tiny

import distill_dagster
from distill_dagster.assets.build import build_definitions, merge_definitions
from distill_dagster.config.strict import LONGEST_NAME
from distill_dagster.domains.registry import Domains, discover
from distill_dagster.errors import ConfigError
from distill_dagster.resources.mlflow_tracking import MlflowTracking

SECOND = """\
kind: pipeline
source: finance
name: finance_small
data_from: finance
student: {base: "preset:nano"}
schedule: {cron: "0 4 * * *", enabled: true}
owners: ["team:desk"]
"""


@pytest.fixture
def authored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """The authored project with a second student of the same data; nothing has run."""
    made = tiny.finance(tmp_path)
    (made.folder / "assets_config" / "second.yaml").write_text(SECOND, "utf-8")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


def own(*keys: list[str], **others: object) -> dg.Definitions:
    """A deployment that owns some assets already."""

    def asset(key: list[str]) -> dg.AssetsDefinition:
        @dg.asset(key=key, group_name="treasury", owners=["team:treasury"])
        def mine() -> None: ...

        return mine

    return dg.Definitions(assets=[asset(key) for key in keys], **others)  # type: ignore[arg-type]


def graph(definitions: dg.Definitions) -> dict[str, dict[str, object]]:
    """What a person sees of the graph, less the versions of code."""
    shown: dict[str, dict[str, object]] = {}
    for spec in definitions.resolve_all_asset_specs():
        shown[spec.key.to_user_string()] = {
            "description": spec.description,
            "deps": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
            "group": spec.group_name,
            "kinds": sorted(spec.kinds),
            "owners": sorted(spec.owners),
            "tags": {name: value for name, value in sorted(spec.tags.items()) if not name.startswith("dagster/")},
        }
    for key in definitions.resolve_asset_graph().asset_check_keys:
        shown[key.asset_key.to_user_string()].setdefault("checks", []).append(key.name)  # type: ignore[attr-defined]
    for asset in shown.values():
        asset["checks"] = sorted(asset.get("checks", []))  # type: ignore[call-overload]
    return dict(sorted(shown.items()))


def test_the_graph_is_the_promised_one(authored: Tiny, snapshot) -> None:
    definitions = build_definitions(authored.settings.config)
    dg.Definitions.validate_loadable(definitions)
    assert graph(definitions) == snapshot


def test_keys_are_for_ever(authored: Tiny) -> None:
    keys = {"/".join(key.path) for key in build_definitions().resolve_all_asset_keys()}
    assert keys == {f"finance/{name}" for name in tiny.ALL} | {f"finance_small/{name}" for name in tiny.STUDENT}


def test_blocking_checks(authored: Tiny) -> None:
    found = build_definitions().resolve_asset_graph()
    blocking = {
        f"{key.asset_key.path[-1]}:{key.name}"
        for key in found.asset_check_keys
        if found.get_check_spec(key).blocking and key.asset_key.path[0] == "finance"
    }
    assert blocking == {
        "eval_set:leakage",
        "student_checkpoint:loss_finite",
        "eval_report:floor",
        "eval_report:no_regression",
    }


def test_every_shipped_project_loads(repo: Path) -> None:
    definitions = build_definitions(repo / "assets_config")
    dg.Definitions.validate_loadable(definitions)
    keys = {tuple(key.path) for key in definitions.resolve_all_asset_keys()}
    assert keys >= {(name, artifact) for name in ("finance", "law", "medicine") for artifact in tiny.ALL}


def test_schedules_are_off_unless_the_file_switches_them_on(authored: Tiny) -> None:
    definitions = build_definitions()
    found = {one.name: one for one in definitions.schedules or []}  # type: ignore[union-attr]
    assert set(found) == {"finance_retrain_schedule", "finance_small_retrain_schedule"}
    assert found["finance_retrain_schedule"].default_status == dg.DefaultScheduleStatus.STOPPED
    assert found["finance_small_retrain_schedule"].default_status == dg.DefaultScheduleStatus.RUNNING
    assert found["finance_small_retrain_schedule"].cron_schedule == "0 4 * * *"
    job = definitions.resolve_job_def("finance_small_retrain")
    keys = {"/".join(key.path) for key in job.asset_layer.executable_asset_keys}
    assert keys == {f"finance/{name}" for name in (*tiny.SOURCE, *tiny.DATA)} | {
        f"finance_small/{name}" for name in tiny.STUDENT
    }


def test_identity_makes_the_code_version(authored: Tiny) -> None:
    def versions() -> dict[str, str | None]:
        return {s.key.to_user_string(): s.code_version for s in build_definitions().resolve_all_asset_specs()}

    before = versions()
    authored.edit("pipeline.yaml", "kind: pipeline", "kind: pipeline\ndescription: another\nowners: ['team:x']")
    assert versions() == before
    authored.edit("pipeline.yaml", "[refusal, exact_duplicate]", "[refusal]")
    after = versions()
    assert {key for key in after if after[key] != before[key]} == {"finance/filtered_dataset"}


def test_below_a_prefix_everything_merges(authored: Tiny) -> None:
    mine = own(["finance", "seed_set"], ["finance", "ledger"])
    merged = dg.Definitions.merge(mine, build_definitions(prefix="distill"))
    dg.Definitions.validate_loadable(merged)
    keys = {key.to_user_string() for key in merged.resolve_all_asset_keys()}
    assert {
        "finance/seed_set",
        "finance/ledger",
        "distill/finance/seed_set",
        "distill/finance_small/eval_report",
    } <= keys
    found = graph(merged)
    assert found["distill/finance/eval_report"]["deps"] == sorted(
        f"distill/finance/{name}"
        for name in (
            "eval_set",
            "seed_set",
            "prompt_set",
            "teacher_model",
            "student_checkpoint",
            "control_checkpoint",
        )
    )
    assert merged.resolve_job_def("distill_finance_retrain")
    ours = merge_definitions(mine, prefix="distill")
    assert set(ours.resolve_all_asset_keys()) == set(merged.resolve_all_asset_keys())


def test_a_clash_names_the_key_and_both_owners(authored: Tiny) -> None:
    with pytest.raises(ConfigError) as caught:
        distill_dagster.merge_definitions(own(["other", "table"], ["finance", "seed_set"]))
    said = str(caught.value)
    assert "finance/seed_set" in said and "prefix" in caught.value.next_step
    assert "treasury" in said and str(authored.settings.config / "source.yaml") in said
    with pytest.raises(ConfigError, match=r"second\.yaml"):
        merge_definitions(own(["finance_small", "eval_report"]))


def test_a_deployment_may_read_our_assets_and_bring_its_executor(authored: Tiny) -> None:
    @dg.asset(deps=[["finance", "filtered_dataset"]])
    def report() -> None: ...

    mine = dg.Definitions(assets=[report], executor=dg.multiprocess_executor)
    merged = merge_definitions(mine)
    dg.Definitions.validate_loadable(merged)
    assert merged.executor is dg.multiprocess_executor
    assert merged.resolve_asset_graph().get(dg.AssetKey(["finance", "filtered_dataset"])).is_materializable


@pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated:DeprecationWarning")  # dagster's own
@pytest.mark.filterwarnings("ignore:.* is currently in beta")
def test_the_component_gives_the_same_graph(authored: Tiny) -> None:
    from dagster.components.testing import create_defs_folder_sandbox

    from distill_dagster.component import DistillationComponent

    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(
            component_cls=DistillationComponent,
            defs_yaml_contents={
                "type": "distill_dagster.component.DistillationComponent",
                "attributes": {"config_dir": str(authored.settings.config), "prefix": "team/distill"},
            },
        )
        with sandbox.load_component_and_build_defs(defs_path=path) as (component, definitions):
            assert isinstance(component, DistillationComponent)
            keys = {key.to_user_string() for key in definitions.resolve_all_asset_keys()}
    assert "team/distill/finance/deployed_student" in keys and len(keys) == 16
    assert definitions.executor is None, "it would be that of the whole dg project"


def test_the_component_without_a_prefix_takes_that_of_the_environment(
    authored: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distill_dagster.component import DistillationComponent

    monkeypatch.setenv("DISTILL_PREFIX", "from_outside")
    context = SimpleNamespace(path=authored.folder)
    definitions = DistillationComponent(config_dir="assets_config").build_defs(context)  # type: ignore[arg-type]
    assert {key.path[0] for key in definitions.resolve_all_asset_keys()} == {"from_outside"}


def test_a_merged_deployment_keeps_the_executor_of_its_own_jobs(authored: Tiny) -> None:
    mine = own(["other", "table"], jobs=[dg.define_asset_job("mine", selection="other/table")])
    alone = mine.resolve_job_def("mine").executor_def
    merged = merge_definitions(mine)
    assert merged.resolve_job_def("mine").executor_def is alone is not dg.in_process_executor
    assert merged.resolve_job_def("finance_retrain").executor_def is dg.in_process_executor
    named = merge_definitions(own(["other", "table"], executor=dg.multiprocess_executor))
    assert named.resolve_job_def("finance_retrain").executor_def is dg.multiprocess_executor
    ours = build_definitions().resolve_implicit_global_asset_job_def()
    assert ours.executor_def is dg.in_process_executor


def test_a_deployment_may_have_resources_called_like_anything_of_theirs(authored: Tiny) -> None:
    merged = merge_definitions(own(["other", "table"], resources={"tracking": 1, "training": 2}))
    dg.Definitions.validate_loadable(merged)
    assert {"tracking", "training", "distill_tracking", "distill_training"} <= set(merged.resources or {})


def test_a_resource_of_ours_that_is_given_serves_the_project(authored: Tiny) -> None:
    given = MlflowTracking(enabled=False)
    merged = merge_definitions(own(["other", "table"], resources={"distill_tracking": given}))
    dg.Definitions.validate_loadable(merged)
    assert (merged.resources or {})["distill_tracking"] is given


@pytest.mark.parametrize(
    ("kind", "name", "theirs"),
    [
        ("resource", "distill_tracking", {"resources": {"distill_tracking": 1}}),
        ("job", "finance_retrain", {"jobs": [dg.define_asset_job("finance_retrain", selection="other/table")]}),
        (
            "schedule or sensor",
            "finance_retrain_schedule",
            {"sensors": [dg.SensorDefinition("finance_retrain_schedule", evaluation_fn=lambda: None)]},
        ),
    ],
)
def test_a_clash_of_names_names_both_owners(authored: Tiny, kind: str, name: str, theirs: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="the deployment's own, and the project in .*assets_config") as caught:
        merge_definitions(own(["other", "table"], **theirs))
    assert caught.value.place == f"{kind} {name}" and caught.value.next_step
    if kind != "resource":
        dg.Definitions.validate_loadable(merge_definitions(own(["other", "table"], **theirs), prefix="distill"))


def test_the_longest_name_and_owners_of_both_kinds_load(authored: Tiny) -> None:
    name = "a" * LONGEST_NAME
    authored.edit("source.yaml", "domain: finance", f"domain: finance\nname: {name}\nowners: [a.b+c@example.org]")
    authored.edit("pipeline.yaml", "source: finance", f"source: {name}\nowners: ['team:the desk']")
    (authored.settings.config / "second.yaml").unlink()
    definitions = build_definitions()
    dg.Definitions.validate_loadable(definitions)
    assert definitions.resolve_job_def(f"{name}_retrain").tags["distill/pipeline"] == name


def test_a_prefix_may_hold_what_a_job_name_may_not(authored: Tiny) -> None:
    definitions = build_definitions(prefix="my-team/a.b")
    dg.Definitions.validate_loadable(definitions)
    assert definitions.resolve_job_def("my_team_a_b_finance_retrain")
    assert dg.AssetKey(["my-team", "a.b", "finance", "seed_set"]) in definitions.resolve_all_asset_keys()


@dg.asset(key=["finance", "seed_set"])
def taken() -> None: ...


@dg.asset(key=["finance", "atlas"])
def atlas() -> None: ...


def broken(project: object, source: object) -> None:
    raise RuntimeError("the plugin broke")


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ("no module", "cannot be imported (ValueError: half written)"),
        (broken, "raised RuntimeError: the plugin broke"),
        (lambda project, source: None, "returned None"),
        (lambda project, source: [atlas], "returned list, not dagster.Definitions"),
        (5, "is no function but int"),
        (lambda project, source: dg.Definitions([taken]), "the asset finance/seed_set is there already"),
        (
            lambda project, source: dg.Definitions(resources={"distill_tracking": 1}),
            "resource distill_tracking is there",
        ),
    ],
)
def test_faulty_nodes_of_a_plugin_take_nothing_else_down(
    authored: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog, nodes: object, said: str
) -> None:
    def noded() -> Domains:
        found = discover()
        domain = replace(found.found["finance"], nodes="plugged_nodes:nodes")
        return replace(found, found={**found.found, "finance": domain})

    monkeypatch.setattr("distill_dagster.stages.project.discover", noded)
    if nodes == "no module":
        (tmp_path / "plugged_nodes.py").write_text("raise ValueError('half written')\n", "utf-8")
        monkeypatch.syspath_prepend(tmp_path)
    else:
        monkeypatch.setitem(sys.modules, "plugged_nodes", SimpleNamespace(nodes=nodes))
    before = set(caplog.messages)
    definitions = build_definitions()
    dg.Definitions.validate_loadable(definitions)
    assert len(set(definitions.resolve_all_asset_keys())) == 16
    (warning,) = set(caplog.messages) - before
    assert said in warning and "domain 'finance' of distill-dagster" in warning and "'plugged_nodes:nodes'" in warning


def test_sound_nodes_of_a_plugin_are_there(authored: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def noded() -> Domains:
        found = discover()
        domain = replace(found.found["finance"], nodes="plugged_nodes:nodes")
        return replace(found, found={**found.found, "finance": domain})

    monkeypatch.setattr("distill_dagster.stages.project.discover", noded)
    monkeypatch.setitem(sys.modules, "plugged_nodes", SimpleNamespace(nodes=lambda *_: dg.Definitions([atlas])))
    assert dg.AssetKey(["finance", "atlas"]) in build_definitions().resolve_all_asset_keys()
