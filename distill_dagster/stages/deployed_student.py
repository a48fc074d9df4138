"""`deployed_student`: the bytes that are served, with their lineage, once the gates have passed for exactly them.

The gates compare with the champions of the ledger as it is now. So they are asked before the engine looks whether the
student is known already, and once more when it is promoted.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from distill_dagster.config.models import identity
from distill_dagster.deployment import gate
from distill_dagster.errors import GateError
from distill_dagster.lineage import chain
from distill_dagster.lineage.engine import Job, require
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.lineage.ledger import Ledger
from distill_dagster.stages.context import PipelineContext
from distill_dagster.storage.store import Store, Version

VERSION = "1"


def node(pipeline: PipelineContext) -> Node:
    """The node `<pipeline>/deployed_student`."""
    made = Node(
        key=(pipeline.key, "deployed_student"),
        version=VERSION,
        parents=(
            Parent("student", (pipeline.key, "student_checkpoint")),
            Parent("report", (pipeline.key, "eval_report")),
        ),
        config={"gate": identity(pipeline.config.gate)},
        make=lambda job: make(job, pipeline),
        admit=lambda inputs, runs: admit(made, pipeline, inputs, runs),
        title="The student as it is served, with its lineage beside the weights",
    )
    return made


def findings(pipeline: PipelineContext, store: Store, report: Version, student: str) -> list[gate.Finding]:
    """What the gates say about one report, by the ledger as it is now.

    Args:
        pipeline: Whose gates.
        store: Where the ledger and the champions' reports lie.
        report: The evaluation to judge.
        student: Version of the student, so that a champion is not compared with itself.
    """
    content = json.loads(report.local("report.json").read_text("utf-8"))
    candidate = _served_scores(report, content)
    return [
        gate.floor(content, pipeline.config.gate, candidate),
        _no_regression(pipeline, store, candidate, student),
    ]


def _no_regression(pipeline: PipelineContext, store: Store, candidate: gate.Scores, student: str) -> gate.Finding:
    """The comparison with the last champion, and with the first that was examined on enough of today's test items."""
    ledger = Ledger(store)
    promotions = ledger.promotions(pipeline.key, pipeline.config.deploy.alias)
    if pipeline.source.limit is not None:
        return gate.Finding("no_regression", True, "a pilot is compared with nothing", {})
    champions = list(dict.fromkeys(entry["payload"]["version"] for entry in promotions))
    own = next((version for version in champions if _serves(pipeline, store, version, student)), None)
    if promotions and promotions[-1]["payload"]["version"] == own:
        return gate.Finding("no_regression", True, "it is the champion already", {})
    if (by := rolled_back(promotions).get(own or "")) is not None:
        reason = f"it was rolled back at {by['at']} ({by['payload']['override']}), and does not come back by itself"
        return gate.Finding("no_regression", False, reason, {"rolled_back": by["sequence"]})

    def scores(champion: str) -> gate.Scores:
        """Item scores of a deployed version: of the newest report that can be compared, else of the newest."""
        read: list[gate.Scores] = []
        for version in reversed(ledger.reports(pipeline.key, champion)):
            read.append(_served_scores(store.open((pipeline.key, "eval_report"), version)))
            if gate.comparable(candidate, read[-1]):
                return read[-1]
        return read[0]

    references: dict[str, gate.Scores] = {}
    if promotions:
        references["last"] = scores(promotions[-1]["payload"]["version"])
    for champion in champions:
        if champion == own:
            break
        if gate.comparable(candidate, found := scores(champion)):
            references["first"] = found
            break
    return gate.no_regression(candidate, references, pipeline.config.gate, pipeline.config.evaluation.level)


def _serves(pipeline: PipelineContext, store: Store, version: str, student: str) -> bool:
    """Are a student's weights the very bytes of a deployed version? Students may differ in what is not served."""
    own = store.open((pipeline.key, "student_checkpoint"), student).manifest["files"]
    deployed = store.open((pipeline.key, "deployed_student"), version).manifest["files"]
    return deployed == {name: entry for name, entry in own.items() if name.startswith("model/")}


def rolled_back(promotions: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Versions that an override replaced by one that held the alias before them, with the promotion that did it."""
    held: list[str] = []
    barred: dict[str, dict[str, Any]] = {}
    for entry in promotions:
        version = entry["payload"]["version"]
        barred.pop(version, None)  # a later override brought it back
        if "override" in entry["payload"] and version in held:
            since = len(held) - held[::-1].index(version)
            barred |= dict.fromkeys(held[since:], entry)
        held.append(version)
    return barred


def _served_scores(report: Version, content: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The item scores of the very weights that are served: with several seeds, those of one."""
    said = content or json.loads(report.local("report.json").read_text("utf-8"))
    wanted: list[Any] = [("arm", "==", "student")]
    if "served_seed" in said:
        wanted.append(("seed", "==", said["served_seed"]))
    return report.table("item_score", filters=wanted).to_pylist()


def overridden(pipeline: PipelineContext, student: str) -> str | None:
    """Why a student is deployed whatever the gates say; None where they decide."""
    override = pipeline.config.deploy.override
    return override.reason if override is not None and student.startswith(override.student) else None


def next_step(finding: gate.Finding, student: str) -> str:
    """What can be done about a gate that has not passed."""
    return (
        f"The champion stays. {finding.next_step} Or deploy it all the same, with the reason in the ledger: "
        f"`deploy: {{override: {{student: {student[:12]}, reason: ...}}}}` in the pipeline's YAML file."
    )


def _judged(pipeline: PipelineContext, store: Store, report: Version, student: str) -> list[dict[str, Any]]:
    """What the gates say, for run record and ledger.

    Raises:
        GateError: One has not passed, and nothing overrides it.
    """
    found = findings(pipeline, store, report, student)
    for entry in found:
        if not entry.passed and overridden(pipeline, student) is None:
            raise GateError(
                f"{pipeline.key}/deployed_student",
                f"gate {entry.gate!r} has not passed: {entry.reason}.",
                next_step(entry, student),
            )
    return [{"gate": f.gate, "passed": f.passed, "reason": f.reason, **f.evidence} for f in found]


def admit(node: Node, pipeline: PipelineContext, inputs: Mapping[str, Version], runs: Mapping[str, str]) -> None:
    """Raise GateError unless the gates pass now for the versions consumed, known action or not."""
    student, report = inputs["student"], inputs["report"]
    measured = {entry["role"]: entry["version"] for entry in report.run(runs["report"])["parents"]}
    require(
        measured.get("student") == student.version,
        node,
        f"the report judged student {measured.get('student')}, not {student.version}.",
        f"Materialize {pipeline.key}/eval_report first.",
    )
    _judged(pipeline, report.store, report, student.version)


def make(job: Job, pipeline: PipelineContext) -> None:
    """Put the served bytes and their lineage in place, with what the gates say."""
    student, report = job.inputs["student"], job.inputs["report"]
    job.notes["gates"] = _judged(pipeline, job.store, report, student.version)
    shutil.copytree(student.local("model"), job.draft.content / "model")
    links = chain.collect(job.store, [(student, job.input_runs["student"]), (report, job.input_runs["report"])])
    job.draft.write_json("model/lineage/chain.json", links, attach=True)
    job.notes["counts"] = {"versions_in_lineage": len(links["versions"])}


def promote(pipeline: PipelineContext, store: Store, deployed: Version, run_id: str) -> dict[str, Any] | None:
    """Write into the ledger that the alias moved, or that its student was examined on other test items.

    Returns:
        The new entry; None where there is nothing to say.

    Raises:
        GateError: A gate does not pass any more.
    """
    parents = {entry["role"]: entry["version"] for entry in deployed.run(run_id)["parents"]}
    student, report = parents["student"], parents["report"]
    ledger = Ledger(store)
    alias = pipeline.config.deploy.alias
    before = ledger.promotions(pipeline.key, alias)
    common = {
        "pipeline": pipeline.key,
        "alias": alias,
        "version": deployed.version,
        "run": run_id,
        "student": student,
        "report": report,
    }
    if before and before[-1]["payload"]["version"] == deployed.version:
        known = ledger.reports(pipeline.key, deployed.version)
        return ledger.append("examined", **common) if known[-1:] != [report] else None
    gates = _judged(pipeline, store, store.open((pipeline.key, "eval_report"), report), student)
    why = overridden(pipeline, student)
    return ledger.append(
        "promoted",
        **common,
        replaces=before[-1]["payload"]["version"] if before else None,
        gates=gates,
        sha256=chain.seals(deployed, run_id),
        **({} if why is None else {"override": why}),
    )
