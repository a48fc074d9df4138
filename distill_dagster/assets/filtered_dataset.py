"""Asset `<pipeline>/filtered_dataset`."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from distill_dagster.assets.base import counts_table, picture, sample_table, stage_asset, teachers_table
from distill_dagster.lineage.engine import Made
from distill_dagster.lineage.threads import At
from distill_dagster.records.messages import text_of
from distill_dagster.stages.context import PipelineContext
from distill_dagster.stages.project import Project

ARTIFACT = "filtered_dataset"
#: Samples of dropped records: of each reason, and in all.
EACH, MOST = 2, 16


def asset(project: Project, pipeline: PipelineContext, owners: list[str]) -> dg.AssetsDefinition:
    """What a student of this pipeline trains on."""
    return stage_asset(
        project,
        project.nodes[pipeline.key, ARTIFACT],
        group=f"{pipeline.key}/teacher",
        kinds={"parquet"},
        owners=owners,
        describe=lambda project, made: describe(pipeline, made),
    )


def describe(pipeline: PipelineContext, made: Made) -> Mapping[str, Any]:
    """The funnel with a reason for every drop, distributions before and after, and samples where records are shown."""
    from distill_dagster.evaluation import funnel as pictures

    shown: dict[str, Any] = {}
    notes = made.record["notes"]
    if funnel := notes.get("funnel", {}):
        shown["funnel"] = dg.MetadataValue.md(counts_table("outcome", funnel))
        shown["funnel_picture"] = picture(pictures.funnel_figure(funnel), "candidates, what each reason took, and kept")
    if teachers := notes.get("teachers"):
        rows = {
            name: {**{k: v for k, v in one.items() if k != "calls"}, **one["calls"]} for name, one in teachers.items()
        }
        shown["teachers"] = dg.MetadataValue.md(teachers_table(rows))
    if cost := notes.get("cost"):
        shown["cost per kept record"] = cost["cost per kept record"]
        shown["cost_micros"] = cost["cost_micros"]
    profile = notes.get("profile", {})
    if profile.get("lengths"):
        shown["lengths"] = picture(pictures.length_figure(profile["lengths"]), "lengths before and after filtering")
    labels = pictures.label_figure(profile.get("labels", {}))
    if labels is not None:
        shown["labels"] = picture(labels, "labels before and after filtering")
    if scores := notes.get("diversity"):
        shown["diversity"] = dg.MetadataValue.md(diversity_table(scores))
    if said := notes.get("review"):
        shown |= reviewed(said)
    if pipeline.source.config.show_records:
        shown["sample"] = _examples(made)
        if dropped := _dropped(made):
            shown["dropped"] = sample_table(["task", "reason", "evidence", "input", "answer"], dropped)
    return shown


def reviewed(said: Mapping[str, Any]) -> dict[str, Any]:
    """What people said: counts, agreement, the share of critical errors with its bound, and where they differed."""
    every = said["critical"]["all"]
    shown: dict[str, Any] = {
        "review": dg.MetadataValue.md(counts_table("reviewed records", said["records"])),
        "critical errors, upper 95 % bound": every["upper"],
        "critical errors": dg.MetadataValue.json(said["critical"]),
        "review gate": said["gate"]["reason"],
    }
    if every["rate"] is not None:
        shown["critical errors, share"] = every["rate"]
    if (found := said["agreement"]) is not None:
        shown["agreement"] = dg.MetadataValue.json(found)
        if found["value"] is not None:
            shown[found["measure"].lower()] = found["value"]
    if said["disagreements"]:
        lines = ["| record | task | verdicts | ruling |", "|---|---|---|---|"]
        for entry in said["disagreements"]:
            verdicts = ", ".join(f"{name}: {verdict}" for name, verdict in entry["verdicts"].items())
            lines.append(f"| {entry['record'][:12]} | {entry['task']} | {verdicts} | {entry['ruling']} |")
        shown["disagreements"] = dg.MetadataValue.md("\n".join(lines))
    return shown


def diversity_table(scores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Diversity of seeds, kept inputs and kept answers by task, as a Markdown table."""
    lines = ["| task | of | texts | distinct-1 | distinct-2 | Vendi score |", "|---|---|---:|---:|---:|---:|"]
    for task in sorted({task for found in scores.values() for task in found}):
        for kind, found in scores.items():
            if entry := found.get(task):
                cells = (entry["texts"], entry["distinct_1"], entry["distinct_2"], entry["vendi"])
                lines.append(f"| {task} | {kind} | " + " | ".join(f"{cell:g}" for cell in cells) + " |")
    return "\n".join(lines)


def _examples(made: Made) -> dg.TableMetadataValue:
    rows = made.version.table("example", columns=["task", "origin", "messages"]).to_pylist()
    step = max(1, len(rows) // 8)
    picked = [
        {**row, "input": text_of(row["messages"], "user"), "answer": text_of(row["messages"], "assistant")}
        for row in rows[::step][:8]
    ]
    return sample_table(["task", "origin", "input", "answer"], picked)


def _dropped(made: Made) -> list[dict[str, Any]]:
    """The first dropped records of each reason, with the evidence of the rule that dropped them."""
    data = At(made.version, made.run)
    outputs = data.parent("outputs")
    if outputs is None:
        return []
    picked: dict[int, dict[str, Any]] = {}
    counted: dict[str, int] = {}
    for row in data.rows("decision", [("verdict", "==", "drop")]):
        counted[row["reason"]] = counted.get(row["reason"], 0) + 1
        if counted[row["reason"]] <= EACH and len(picked) < MOST:
            look = next((look for look in row["looks"] if look["verdict"] == "drop"), {})
            picked[row["candidate_no"]] = {"reason": row["reason"], "evidence": look.get("detail")}
    rows = outputs.rows("candidate", [("candidate_no", "in", list(picked))]) if picked else []
    said = {
        row["candidate_no"]: {
            "task": row["task"], "input": text_of(row["messages"] or (), "user"), "answer": row["answer"]
        }
        for row in rows
    }  # fmt: skip
    return [{**entry, **said.get(number, {})} for number, entry in picked.items()]
