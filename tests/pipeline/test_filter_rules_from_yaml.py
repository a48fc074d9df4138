"""Filter rules that no built-in pipeline uses, from a YAML file through a whole data half; and Chinese through all."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml

import distill_dagster.domains.finance as domain
from distill_dagster.lineage.engine import head_version
from distill_dagster.records.messages import text_of
from distill_dagster.stages.export import export
from pipeline import tiny
from pipeline.tiny import Tiny

pytestmark = pytest.mark.needs_torch
ENCODER = Path(domain.__file__).parent / "models" / "student_base"
DATA_HALF = ["seed_set", "eval_set", "prompt_set", "teacher_model", "teacher_outputs", "filtered_dataset"]


def filtered_by(project: Tiny, rules: list[dict]) -> None:
    """Put other rules into the pipeline's file."""
    path = project.folder / "assets_config" / "pipeline.yaml"
    content = yaml.safe_load(path.read_text("utf-8"))
    path.write_text(yaml.safe_dump({**content, "filtering": rules}), "utf-8")


def decisions(project: Tiny) -> list[dict]:
    """Decisions of the newest data set."""
    found = head_version(project.project().store, (project.name, "filtered_dataset"))
    assert found is not None
    version, run = found
    return version.side_table(run, "decision").to_pylist()


def test_caps_lengths_and_a_sentence_encoder(tmp_path: Path) -> None:
    project = tiny.parcels(tmp_path / "parcels")
    shutil.copytree(ENCODER, project.folder / "assets_config" / "encoder")
    rules = [
        {"name": "semantic_duplicate", "encoder": "encoder", "threshold": 0.999},
        {"name": "length_bias", "least": 5},
        {"name": "source_cap", "by": "task", "most": 7},
    ]
    filtered_by(project, rules)
    made = project.run(DATA_HALF)
    rows = decisions(project)
    assert sum(row["verdict"] == "keep" for row in rows) == 7 and len(rows) > 7
    kept = next(row for row in rows if row["verdict"] == "keep")
    assert [look["rule"] for look in kept["looks"]] == ["semantic_duplicate", "length_bias", "source_cap"]
    assert made["filtered_dataset"].record["outside"]["semantic_duplicate"]["encoder"]
    assert not {"filtered_dataset"} & project.unfresh()
    config = project.folder / "assets_config" / "encoder" / "config.json"
    config.write_text(config.read_text("utf-8").replace("{", "{ ", 1), "utf-8")
    assert "filtered_dataset" in project.unfresh()


COLUMNS = "columns: {input: input, answer: label}, licence: Apache-2.0, task: consult"
CHINESE = f"""\
kind: source
domain: generic
name: parcels
define: [{{name: consult, kind: label, max_new_tokens: 8}}]
seeds: [{{path: train.jsonl, {COLUMNS}}}]
evaluation: [{{path: test.jsonl, {COLUMNS}}}]
leaks: drop
"""
THANKS = "\u8c22\u8c22"


@pytest.mark.real_data
def test_chinese_survives_every_stage(real_data: Path, tmp_path: Path) -> None:
    def given(split: str) -> list[dict]:
        path = real_data / "law" / f"lawbench_consult_type.{split}.jsonl"
        return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]

    project = tiny.parcels(tmp_path / "chinese")
    train = given("train")
    # A text again with a word of thanks is a near duplicate, in a script without spaces too.
    again = [{**row, "input": row["input"] + THANKS} for row in train if len(row["input"]) > 40]
    project.write_lines("train.jsonl", [*train, *again])
    project.write_lines("test.jsonl", given("test"))
    (project.folder / "assets_config" / "source.yaml").write_text(CHINESE, "utf-8")
    filtered_by(
        project, [{"name": name} for name in ("refusal", "exact_duplicate", "decontamination", "near_duplicate")]
    )
    project.run(DATA_HALF)
    inputs, labels = {row["input"] for row in [*train, *again]}, {row["label"] for row in train}
    built = project.project()
    assert set(built.pipelines["parcels"].tasks["consult"].labels) == labels
    seeds, outputs = (head_version(built.store, ("parcels", name)) for name in ("seed_set", "teacher_outputs"))
    assert seeds is not None and outputs is not None
    rows = seeds[0].table("seed").to_pylist()
    texts = [text_of(row["messages"]) for row in rows]
    assert set(texts) <= inputs and len(texts) > 0.9 * len(inputs)
    unlabeled = {text for text, row in zip(texts, rows, strict=True) if row["part"] == "unlabeled"}
    asked = [text_of(row["messages"], "user") for row in outputs[0].table("candidate").to_pylist()]
    assert len(asked) == len(unlabeled) and all(any(text in said for said in asked) for text in unlabeled)

    twice = {text for text in unlabeled if text.removesuffix(THANKS) in unlabeled and text.endswith(THANKS)}
    reasons = Counter(row["reason"] for row in decisions(project) if row["reason"])
    assert len(twice) > 5 and reasons["near_duplicate"] >= len(twice)

    target = tmp_path / "train.jsonl"
    count = export(built, "parcels", target)
    lines = target.read_text("utf-8").split("\n")[:-1]
    assert len(lines) == count > 50
    said = [{entry["role"]: entry["content"] for entry in json.loads(line)["messages"]} for line in lines]
    assert all(any(text in one["user"] for text in inputs) for one in said)
    assert sum(one["assistant"] in labels for one in said) == sum(row["part"] == "gold" for row in rows)
