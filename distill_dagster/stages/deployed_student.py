"""`deployed_student`: the bytes that are served, with their lineage, once the gates have passed for exactly them."""

from __future__ import annotations

import json
import shutil
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
    return Node(
        key=(pipeline.key, "deployed_student"),
        version=VERSION,
        parents=(
            Parent("student", (pipeline.key, "student_checkpoint")),
            Parent("report", (pipeline.key, "eval_report")),
        ),
        config={"gate": identity(pipeline.config.gate)},
        make=lambda job: make(job, pipeline),
        title="The student as it is served, with its lineage beside the weights",
    )


def findings(
    pipeline: PipelineContext, store: Store, report: Version, student: str | None = None
) -> list[gate.Finding]:
    """What the gates say about one report.

    Args:
        pipeline: Whose gates.
        store: Where the champions' reports lie.
        report: The evaluation to judge.
        student: Version of the student, so that a champion is not compared with itself.
    """
    options = pipeline.config.gate
    content = json.loads(report.local("report.json").read_text("utf-8"))
    candidate = _served_scores(report, content)
    promotions = Ledger(store).promotions(pipeline.key, pipeline.config.deploy.alias)
    references: dict[str, Any] = {}
    for name, entries in (("last", promotions[-1:]), ("first", promotions[:1])):
        for entry in entries:
            payload = entry["payload"]
            if payload["student"] == student or payload["report"] == report.version:
                continue
            champion = store.open((pipeline.key, "eval_report"), payload["report"])
            references[name] = _served_scores(champion)
    return [
        gate.floor(content, options, candidate),
        gate.no_regression(candidate, references, options, pipeline.config.evaluation.level),
    ]


def _served_scores(report: Version, content: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The item scores of the very weights that are served: with several seeds, those of one."""
    said = content or json.loads(report.local("report.json").read_text("utf-8"))
    wanted: list[Any] = [("arm", "==", "student")]
    if "served_seed" in said:
        wanted.append(("seed", "==", said["served_seed"]))
    return report.table("item_score", filters=wanted).to_pylist()


def make(job: Job, pipeline: PipelineContext) -> None:
    """Judge the gates again for the versions consumed here, then put the served bytes and their lineage in place."""
    student, report = job.inputs["student"], job.inputs["report"]
    judged = report.run(job.input_runs["report"])
    measured = {entry["role"]: entry["version"] for entry in judged["parents"]}
    require(
        measured.get("student") == student.version,
        job.node,
        f"the report judged student {measured.get('student')}, not {student.version}.",
        f"Materialize {pipeline.key}/eval_report first.",
    )
    found = findings(pipeline, job.store, report, student.version)
    job.notes["gates"] = [{"gate": f.gate, "passed": f.passed, "reason": f.reason, **f.evidence} for f in found]
    for entry in found:
        if not entry.passed:
            raise GateError(
                f"{pipeline.key}/deployed_student",
                f"gate {entry.gate!r} has not passed: {entry.reason}.",
                "The champion stays. Improve the student, or change the gate in the pipeline's YAML file.",
            )
    shutil.copytree(student.local("model"), job.draft.content / "model")
    links = chain.collect(job.store, [(student, job.input_runs["student"]), (report, job.input_runs["report"])])
    job.draft.write_json("model/lineage/chain.json", links, attach=True)
    job.notes["counts"] = {"versions_in_lineage": len(links["versions"])}


def promote(pipeline: PipelineContext, store: Store, deployed: Version, run_id: str) -> dict[str, Any] | None:
    """Write the promotion into the ledger unless the alias is there already; returns the new entry."""
    parents = {entry["role"]: entry["version"] for entry in deployed.run(run_id)["parents"]}
    ledger = Ledger(store)
    alias = pipeline.config.deploy.alias
    before = ledger.promotions(pipeline.key, alias)
    if before and before[-1]["payload"]["version"] == deployed.version:
        return None
    return ledger.append(
        "promoted",
        pipeline=pipeline.key,
        alias=alias,
        version=deployed.version,
        run=run_id,
        student=parents["student"],
        report=parents["report"],
        replaces=before[-1]["payload"]["version"] if before else None,
        gates=deployed.run(run_id)["notes"]["gates"],
        sha256=chain.seals(deployed, run_id),
    )
