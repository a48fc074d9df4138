"""Asset checks: schema, volume, leakage, undeclared teacher, finite loss, floor, no regression; those that stop block.

Blocking checks stop a run here; the stages that consume the artifact judge them again for exactly the versions they
read, since Dagster does not block another run.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from distill_dagster.assets.base import asset_key
from distill_dagster.filtering._health import CUT, collapsed, cut_shares
from distill_dagster.filtering._undeclared import undeclared
from distill_dagster.knowledge.base import load_kind
from distill_dagster.lineage.engine import head_version
from distill_dagster.records.schemas import TABLES
from distill_dagster.stages import deployed_student, leakage, review
from distill_dagster.stages.context import PipelineContext, SourceContext
from distill_dagster.stages.project import Project
from distill_dagster.stages.training import curve
from distill_dagster.storage.store import Key, Version

#: What a check says: passed, and numbers or words for the UI.
Judge = Callable[[Version, str], tuple[bool, Mapping[str, Any]]]


def check(
    project: Project,
    key: Key,
    name: str,
    description: str,
    judge: Judge,
    *,
    blocking: bool = False,
    warn: bool = False,
    reads: tuple[Key, ...] = (),
) -> dg.AssetChecksDefinition:
    """A check of an artifact's head.

    Args:
        project: Config and store.
        key: The artifact.
        name: Check name.
        description: What it asks, for people.
        judge: Gets the head version and the run that made it.
        blocking: A failure stops what reads the artifact in this run.
        warn: A failure is a warning, for a person to look into.
        reads: Further artifacts it looks at.
    """
    severity = dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR

    @dg.asset_check(
        asset=asset_key(project, key),
        name=name,
        description=description,
        blocking=blocking,
        additional_deps=[asset_key(project, other) for other in reads],
    )
    def evaluate() -> dg.AssetCheckResult:
        found = head_version(project.store, key)
        if found is None:
            return dg.AssetCheckResult(passed=False, metadata={"reason": "never materialized"})
        passed, metadata = judge(*found)
        return dg.AssetCheckResult(passed=passed, severity=severity, metadata=dict(metadata))

    return evaluate


def schema_and_volume(project: Project, key: Key, table: str, least: int = 1) -> list[dg.AssetChecksDefinition]:
    """The table has the promised columns, and enough rows."""

    def columns(version: Version, run: str) -> tuple[bool, dict[str, Any]]:
        wanted, present = TABLES[table], version.table(table).schema
        wrong = [
            field.name for field in wanted if field.name not in present.names or present.field(field.name) != field
        ]
        return not wrong, {"wrong_columns": ", ".join(wrong) or "none", "columns": len(present.names)}

    def volume(version: Version, run: str) -> tuple[bool, dict[str, Any]]:
        rows = version.manifest["tables"][table]["rows"]
        return rows >= least, {"rows": rows, "least": least}

    return [
        check(project, key, "schema", f"Columns and types of the {table} table are as promised.", columns),
        check(project, key, "volume", f"At least {least} rows.", volume),
    ]


def of_source(project: Project, source: SourceContext) -> list[dg.AssetChecksDefinition]:
    """Checks of a source's artifacts."""
    seeds, evals = (source.key, "seed_set"), (source.key, "eval_set")

    def leaks(version: Version, run: str) -> tuple[bool, dict[str, Any]]:
        other = head_version(project.store, seeds)
        if other is None:
            return False, {"reason": "seed_set was never materialized"}
        found = leakage.measure(other[0].table("seed"), version.table("seed"))
        counts = {kind: found[kind] for kind in leakage.KINDS}
        return not any(counts.values()), {**counts, "samples": dg.MetadataValue.json(found["samples"])}

    by_hand = [
        check(
            project,
            key,
            "undeclared_teacher",
            "No annotator's answers look like a model's: stock phrases, or a style that departs from the others'.",
            _undeclared,
            warn=True,
        )
        for key in (seeds, evals)
    ]
    return [
        *schema_and_volume(project, seeds, "seed"),
        *schema_and_volume(project, evals, "seed"),
        *schema_and_volume(project, (source.key, "prompt_set"), "prompt"),
        check(
            project,
            evals,
            "leakage",
            "No evaluation record stands in the seed set: by record, case and space folded, subject, near match.",
            leaks,
            blocking=True,
            reads=(seeds,),
        ),
        *by_hand,
    ]


def of_pipeline(project: Project, pipeline: PipelineContext) -> list[dg.AssetChecksDefinition]:
    """Checks of a pipeline's artifacts."""
    own = pipeline.key
    checks: list[dg.AssetChecksDefinition] = []
    if pipeline.data == own:
        # A pipeline whose kinds all compare answers makes pairs and no candidates.
        least = 0 if all(load_kind(block).compares() for block in pipeline.config.knowledge) else 1
        checks += schema_and_volume(project, (own, "teacher_outputs"), "candidate", least)
        checks += schema_and_volume(project, (own, "filtered_dataset"), "example")
        if (own, "preference_pairs") in project.nodes:
            checks += schema_and_volume(project, (own, "preference_pairs"), "preference")
        checks.append(check(project, (own, "teacher_outputs"), "answered", "At most 5 % of calls failed.", _answered))
        said = "The teacher's server names one model, the same as for earlier answers."
        checks.append(check(project, (own, "teacher_outputs"), "served_model", said, _one_served_model))
        words = "Of no task more than 5 % of the answers were cut at the token limit."
        checks.append(check(project, (own, "teacher_outputs"), "token_limit", words, _token_limit, warn=True))
        words = "The kept inputs of each task are at least half as diverse as its seeds, by the Vendi score a text."
        checks.append(check(project, (own, "filtered_dataset"), "diversity", words, _diverse, warn=True))
        options = review.options_of(pipeline.config)
        if options is not None and options.max_upper_bound is not None:
            most = options.max_upper_bound
            words = f"The share of records in which people find critical errors lies below {most:g}, at 95 %."
            checks.append(check(project, (own, "filtered_dataset"), "critical_errors", words, _reviewed, blocking=True))
    for artifact in ("student_checkpoint", "control_checkpoint"):
        checks.append(
            check(
                project,
                (own, artifact),
                "loss_finite",
                "Every logged loss is a finite number.",
                _loss_finite,
                blocking=artifact == "student_checkpoint",
            )
        )

    def gate(name: str) -> Judge:
        def judge(version: Version, run: str) -> tuple[bool, dict[str, Any]]:
            student = next(p["version"] for p in version.run(run)["parents"] if p["role"] == "student")
            found = deployed_student.findings(pipeline, project.store, version, student)
            finding = next(entry for entry in found if entry.gate == name)
            metadata = {"reason": finding.reason, "evidence": dg.MetadataValue.json(finding.evidence)}
            if finding.passed:
                return True, metadata
            why = deployed_student.overridden(pipeline, student)
            if why is not None:
                return True, {**metadata, "overridden": why}
            return False, {**metadata, "next": deployed_student.next_step(finding, student)}

        return judge

    report = (own, "eval_report")
    checks.append(check(project, report, "floor", "Every task reaches its floor.", gate("floor"), blocking=True))
    checks.append(
        check(
            project,
            report,
            "no_regression",
            "No worse than the last and the first champion, by the lower bound of the paired difference.",
            gate("no_regression"),
            blocking=True,
        )
    )
    return checks


def _undeclared(version: Version, run: str) -> tuple[bool, dict[str, Any]]:
    found = version.run(run)["notes"].get("undeclared_teacher")
    if found is None:  # made before this was looked at
        found = undeclared(version.table("seed"), show=False)
    named = "; ".join(f"{entry['group']}: {entry['reason']}" for entry in found["named"])
    return not named, {
        "named": named or "none",
        "texts": found["texts"],
        "annotators": dg.MetadataValue.json(found["groups"]),
        "phrases": dg.MetadataValue.json(found["phrases"]),
    }


def _answered(version: Version, run: str) -> tuple[bool, dict[str, Any]]:
    notes = version.run(run)["notes"]
    status = notes["counts"]["status"]
    total = sum(status.values())
    failed = total - status.get("ok", 0)
    classes = ", ".join(f"{name}: {count}" for name, count in sorted(notes.get("failures", {}).items()))
    return failed <= 0.05 * total, {"failed": failed, "candidates": total, "failures": classes or "none"}


def _one_served_model(version: Version, run: str) -> tuple[bool, dict[str, Any]]:
    said = version.run(run)["notes"].get("served_model", {"earlier": {}, "here": {}})
    each = [said] if "here" in said else list(said.values())  # of several teachers each has an account of its own
    found = [{*one["earlier"], *one["here"]} for one in each]
    names = sorted(set().union(*found))
    return all(len(one) <= 1 for one in found), {
        "models": ", ".join(names) or "none",
        "answers": dg.MetadataValue.json(said),
    }


def _token_limit(version: Version, run: str) -> tuple[bool, dict[str, Any]]:
    shares = cut_shares(version.table("candidate", columns=["task", "status", "finish_reason"]))
    return all(share <= CUT for share in shares.values()), {"cut": dg.MetadataValue.json(shares), "most": CUT}


def _diverse(version: Version, run: str) -> tuple[bool, dict[str, Any]]:
    found = version.run(run)["notes"].get("diversity", {})
    lost = collapsed(found.get("inputs", {}), found.get("seeds", {}))
    return not lost, {"collapsed": dg.MetadataValue.json(lost), "scores": dg.MetadataValue.json(found)}


def _reviewed(version: Version, run: str) -> tuple[bool, dict[str, Any]]:
    found = review.finding(version, run)
    if found is None:  # made before the pipeline had the gate
        return False, {"reason": "this version was made without it; materialize filtered_dataset again"}
    return found.passed, {"reason": found.reason, "evidence": dg.MetadataValue.json(found.evidence)}


def _loss_finite(version: Version, run: str) -> tuple[bool, dict[str, Any]]:
    bad: list[str] = []
    points = 0
    for name in version.run(run)["side"]:
        if name.endswith("_metrics.jsonl"):
            for step, loss in curve(version.place / "runs" / run / name):
                points += 1
                if not math.isfinite(loss):
                    bad.append(f"{name} step {step}")
    control = version.manifest["files"].get("control.json")
    measured = control is None or json.loads(version.local("control.json").read_text("utf-8"))["measured"]
    return not bad and (points > 0 or not measured), {"points": points, "not_finite": ", ".join(bad[:5]) or "none"}
