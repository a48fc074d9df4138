"""Students that learn from what they say themselves, from YAML: verdicts, a teacher's opinion, and verified samples."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import distill_dagster
from distill_dagster.assets.teacher_model import loss_pictures
from distill_dagster.config.check import check
from distill_dagster.domains.registry import Domains
from distill_dagster.lineage.engine import Made
from distill_dagster.stages import project as projects
from distill_dagster.storage.store import key_text
from pipeline import nursery, tiny
from pipeline.tiny import Tiny

pytestmark = [pytest.mark.needs_torch, pytest.mark.slow]

#: A model that is right now and then: a quarter of the covenants.
START = Path(distill_dagster.__file__).parent / "domains" / "finance" / "models" / "teacher"
TEACHER = "kind: teacher\nname: nano_teacher\nmodel: domain:teacher\nprompt_style: short\n"
RECIPE = tiny.RECIPE.replace("steps: 6", "steps: 4").replace("3e-3", "1e-4")
MADE = ["teacher_model", "teacher_outputs", "filtered_dataset", "initial_student", "student_checkpoint"]


def project(folder: Path, **pipelines: str) -> Tiny:
    """A project on the covenant task; every pipeline starts from the model that is right now and then."""
    made = tiny.finance(folder)
    config = folder / "assets_config"
    (config / "pipeline.yaml").unlink()
    (config / "teacher.yaml").write_text(TEACHER, "utf-8")
    for name, text in pipelines.items():
        head = f"kind: pipeline\nsource: finance\nname: {name}\ntasks: [covenant]\n"
        rest = "" if "gate" in text else "gate: {floor_over_chance: -1.0, delta: 1.0}\n"
        ends = "control: {multiples: [1]}\nevaluation: {resamples: 200}\n"
        (config / f"{name}.yaml").write_text(head + text + rest + ends, "utf-8")
    assert check(config) == []
    return Tiny(made.folder, next(iter(pipelines)))


def metrics(made: Made, name: str = "student") -> list[dict[str, Any]]:
    path = made.version.place / "runs" / made.run / f"{name}_metrics.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def objective(text: str) -> str:
    return f"teacher: nano_teacher\nfiltering: [verifier]\ntraining: {RECIPE[:-1]}, objective: {text}}}\n"


def test_verdicts_of_the_domain_reward_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = objective("{grpo: {prompts: 8, group: 6, kl: 0.01}}") + f"student: {{base: {START}}}\n"
    made = project(tmp_path, paid=recipe)
    sent: dict[str, dict[str, Any]] = {}

    def start(command: Sequence[str], **options: Any) -> nursery.Start:
        task = json.loads(Path(command[-1]).read_text("utf-8"))
        if "rewards" in task:
            rows = pq.read_table(task["rewards"]["path"]).to_pylist()
            sent.update({row["record_id"]: row for row in rows})
        return nursery.Start(command, **options)

    first = made.run([*tiny.SOURCE, *MADE, "control_checkpoint"], start)
    student = first["student_checkpoint"]
    parents = {parent.role: key_text(parent.key) for parent in student.node.parents}
    assert parents["seeds"] == "finance/seed_set"
    rows, notes = metrics(student), student.record["notes"]["training"]
    assert notes["samples"] == 4 * 48 and notes["samplings"] == 4 and notes["undecided"] == 0
    assert 0 < rows[0]["right"] < 1 and rows[0]["right"] == rows[0]["reward"]
    assert {"entropy", "clipped", "kl", "kl_sampled", "age", "answer_length", "generation_share"} <= set(rows[-1])
    assert student.record["config"]["rewards"] == {"domain": "finance", "verifier": "1", "tasks": {"covenant": "1"}}
    shown = loss_pictures(student)
    pictures = {"loss", "loss_student", "reward", "reward_student", "training"}
    assert shown["reward_student"] == rows[-1]["reward"] and set(shown) == pictures
    # Its twin learns from labels: nobody pays it.
    assert {"sft"} == set(metrics(first["control_checkpoint"], "control_1x")[0]) & {"sft", "grpo"}

    # Facts go along for every record that the domain wrote, gold answers for gold records alone.
    examples = first["filtered_dataset"].version.table("example").to_pylist()
    assert set(sent) == {row["record_id"] for row in examples}
    for row in examples:
        assert json.loads(sent[row["record_id"]]["facts"])["lines"]
        assert (sent[row["record_id"]]["answer"] is None) == (row["origin"] == "teacher")

    # Another verifier's verdicts are other lessons, and may keep other records; what was asked before them stays.
    again = made.run(MADE)
    assert all(one.reused for one in again.values())
    usual = projects.discover()
    changed = {**usual.found, "finance": replace(usual.found["finance"], verifier_version="2")}
    monkeypatch.setattr(projects, "discover", lambda: Domains(changed))
    stale = made.run(MADE)
    assert {name for name, one in stale.items() if not one.reused} == {"filtered_dataset", "student_checkpoint"}


def test_a_teacher_comments_on_samples(tmp_path: Path) -> None:
    gkd = "{gkd: {on_policy: 0.5, prompts: 8, every: 2, buffer: 32, data_kind: forward}}"
    made = project(tmp_path, commented=objective(gkd) + 'student: {base: "domain:student_base"}\n')
    student = made.run([*tiny.SOURCE, *MADE])["student_checkpoint"]
    assert {parent.role for parent in student.node.parents} == {"data", "start", "teacher"}
    rows = metrics(student)
    assert rows[-1]["gkd"] == rows[-1]["loss"] > 0 and any(row["own_batches"] for row in rows)
    assert student.record["notes"]["training"]["samples"] > 0


def test_rounds_of_verified_samples(tmp_path: Path) -> None:
    """Rejection sampling: each round, the student so far answers, and learns from what was right."""
    kind = "knowledge: [{name: self_knowledge, samples: 4, temperature: 1.0}]\n"
    rules = "filtering: [schema, {name: verifier, undecided: drop}, decontamination, exact_duplicate]\n"
    rest = f"teacher: nano_teacher\n{kind}{rules}training: {RECIPE}\n"
    rounds = {
        "round_one": f"{rest}student: {{base: {START}}}\n",
        "round_two": f"{rest}student: {{base: pipeline:round_one@champion}}\n",
        "round_three": f"{rest}student: {{base: pipeline:round_two@champion}}\n",
    }
    made = project(tmp_path, **rounds)
    before = None
    for name in rounds:
        one = Tiny(made.folder, name)
        nodes = one.project().select(name, [])
        assert [key_text(node.key) for node in nodes][-1].endswith("/deployed_student")
        found = one.run([key_text(node.key) for node in nodes if node.key[0] in (name, "finance")])
        start = found["initial_student"]
        if before is not None:
            assert [entry["version"] for entry in start.record["parents"] if entry["role"] == "start"] == [before]
        outputs = found["teacher_outputs"]
        calls = pq.read_table(str(outputs.version.place / "runs" / outputs.run / "call.parquet"))
        assert set(calls["teacher"].to_pylist()) == {"initial_student"}
        assert set(calls["revision"].to_pylist()) == {start.version.version}
        funnel = found["filtered_dataset"].record["notes"]["funnel"]
        assert funnel["candidates"] == 4 * 24 and funnel["dropped: verifier.wrong"] > 0 < funnel["kept"] < 24
        seeds = {row["seed_no"]: row for row in found["seed_set"].version.table("seed").to_pylist()}
        verify = one.project().sources["finance"].domain.verify
        for row in found["filtered_dataset"].version.table("example").to_pylist():
            answer = row["messages"][-1]["parts"][0]["text"]
            assert verify("covenant", json.loads(seeds[row["seed_no"]]["facts"]), answer).ok
        before = found["deployed_student"].version.version
