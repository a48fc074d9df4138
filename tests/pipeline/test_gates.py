"""The gates before a student is deployed: they judge by the ledger as it is now, student known or not."""

import re

import pytest

from distill_dagster.config.models import GateOptions
from distill_dagster.deployment import gate
from distill_dagster.errors import GateError
from distill_dagster.lineage import gc
from distill_dagster.lineage.audit import audit_alias
from distill_dagster.lineage.ledger import Ledger
from distill_dagster.stages import seeds
from pipeline import tiny
from pipeline.tiny import Tiny

SIX, SEVEN = "training: {steps: 6", "training: {steps: 7"
STRICT, LAX = "floor_over_chance: -1.0}", "floor_over_chance: -1.0, delta: 1.0}"


def scores(prefix: str, score: float, count: int = 100, subject: str | None = None) -> gate.Scores:
    return [
        {"seed_record_id": f"{prefix}{number}", "subject_key": subject, "score": score, "task": "t"}
        for number in range(count)
    ]


def test_without_enough_shared_items_nothing_passes() -> None:
    options, own = GateOptions(delta=0.5), scores("new", 1.0)
    assert gate.no_regression(own, {}, options, 0.95).passed
    assert gate.no_regression(own, {"last": own}, options, 0.95).passed
    for other, shared in ((scores("old", 0.0), 0), ([*scores("old", 0.0), *own[:9]], 9)):
        found = gate.no_regression(own, {"last": other}, options, 0.95)
        assert not found.passed and f"not comparable with the last champion: {shared} shared items" in found.reason
        assert "with today's test set" in found.next_step
    one = scores("new", 1.0, subject="clinic")
    found = gate.no_regression(one, {"last": scores("new", 0.0)}, options, 0.95)
    assert not found.passed and "100 shared items, of only 1 independent subjects" in found.reason


def test_no_difference_in_a_few_items_is_not_certain() -> None:
    few, many = scores("a", 1.0, 50), scores("a", 1.0, 200)
    assert not gate.no_regression(few, {"last": few}, GateOptions(delta=0.02), 0.95).passed
    assert gate.no_regression(many, {"last": many}, GateOptions(delta=0.02), 0.95).passed


def refused(project: Tiny, names: tuple[str, ...] = (), reason: str = "gate 'no_regression' has not passed") -> str:
    """Run, and be refused with the champion left where it is; what the error said to do."""
    before = entries(project)
    with pytest.raises(GateError, match=reason) as error:
        project.run(names)
    assert entries(project) == before
    return error.value.next_step


def entries(project: Tiny) -> list[dict]:
    return list(Ledger(project.project().store).entries())


@pytest.mark.needs_torch
@pytest.mark.parametrize("deploy", ["{alias: staging}", "{alias: staging, enabled: false}"])
def test_a_known_student_is_judged_before_it_gets_the_alias(parcels: Tiny, deploy: str) -> None:
    parcels.edit("pipeline.yaml", SIX, SEVEN)
    parcels.append("pipeline.yaml", f"deploy: {deploy}\n")
    parcels.run()
    parcels.edit("pipeline.yaml", deploy, "{alias: champion, enabled: true}")
    next_step = refused(parcels)
    refused(parcels, ("deployed_student",))
    student = parcels.versions()["parcels/student_checkpoint"]
    assert "The champion stays" in next_step and f"override: {{student: {student[:12]}, reason:" in next_step


@pytest.mark.needs_torch
def test_a_rollback_is_said_and_bars_what_it_replaced(parcels: Tiny) -> None:
    (first,) = parcels.champions()
    parcels.edit("pipeline.yaml", SIX, SEVEN)
    parcels.edit("pipeline.yaml", STRICT, LAX)
    second = parcels.run()["deployed_student"].version.version
    assert parcels.champions() == [first, second]

    parcels.edit("pipeline.yaml", SEVEN, SIX)
    parcels.edit("pipeline.yaml", LAX, STRICT)
    found = re.search(r"`(deploy: .*)`", refused(parcels))
    assert found is not None
    rollback = found[1].replace("...", "it answers in capitals") + "\n"
    parcels.append("pipeline.yaml", rollback)
    assert parcels.run()["deployed_student"].reused
    assert parcels.champions() == [first, second, first]
    payload = entries(parcels)[-1]["payload"]
    assert payload["override"] == "it answers in capitals"
    (judged,) = [found for found in payload["gates"] if found["gate"] == "no_regression"]
    assert not judged["passed"] and judged["last"]["items"] == 16
    result = audit_alias(parcels.project().store, "parcels", "champion")
    assert any("no_regression" in line and "it answers in capitals" in line for line in result.policy)
    assert result.exit_code == 1

    parcels.edit("pipeline.yaml", SIX, SEVEN)
    parcels.edit("pipeline.yaml", STRICT, LAX)
    refused(parcels, (), "was rolled back at .*it answers in capitals")
    parcels.edit("pipeline.yaml", rollback, f"deploy: {{override: {{student: {student(parcels)}, reason: mended}}}}\n")
    parcels.run()
    assert parcels.champions()[-1] == second


def student(project: Tiny) -> str:
    return project.versions()["parcels/student_checkpoint"]


@pytest.mark.needs_torch
def test_other_seeds_with_the_same_weights_are_the_champion(parcels: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two seeds the first may be served again: another student version, the same bytes."""
    monkeypatch.setattr(seeds, "median", lambda scores: 0)
    (first,) = parcels.champions()
    before = student(parcels)
    parcels.edit("pipeline.yaml", "evaluation: {", "evaluation: {seeds: 2, ")
    (judged,) = [
        found for found in parcels.run()["deployed_student"].record["notes"]["gates"] if found["gate"] != "floor"
    ]
    assert judged["passed"] and judged["reason"] == "it is the champion already"
    assert student(parcels) != before and parcels.champions() == [first]
    assert entries(parcels)[-1]["kind"] == "examined"


@pytest.mark.needs_torch
def test_another_test_set_does_not_disarm_the_gate(parcels: Tiny) -> None:
    (first,) = parcels.champions()
    parcels.write_lines("test.jsonl", tiny.rows("new", 16))
    parcels.edit("pipeline.yaml", SIX, SEVEN)
    assert "run the champion's configuration once with today's test set" in refused(
        parcels, (), "not comparable with the last champion: 0 shared items"
    )

    parcels.edit("pipeline.yaml", SEVEN, SIX)
    parcels.run()
    assert parcels.champions() == [first]
    last = entries(parcels)[-1]
    assert last["kind"] == "examined" and last["payload"]["version"] == first
    assert last["payload"]["report"] == parcels.versions()["parcels/eval_report"]
    parcels.run()
    assert entries(parcels)[-1] == last
    store = parcels.project().store
    assert not [one for one in gc.plan(store, 1) if one.version == last["payload"]["report"]]
    assert audit_alias(store, "parcels", "champion").exit_code in (0, 1)

    parcels.edit("pipeline.yaml", SIX, SEVEN)
    refused(parcels, (), "the difference is .* and its lower bound must lie above -0.020")
    parcels.edit("pipeline.yaml", STRICT, LAX)
    (judged,) = [
        found for found in parcels.run()["deployed_student"].record["notes"]["gates"] if found["gate"] != "floor"
    ]
    assert judged["passed"] and judged["last"]["items"] == judged["first"]["items"] == 16
    assert len(parcels.champions()) == 2
