"""The data of banking77 as the protocol splits it, and what every student of it has in common.

`prepare` lets the pipeline's own `seed_set` and `eval_set` decide the parts: D_T (5,000 records, on which the teacher
is fitted), D_G, D_val, and D_U, whose gold answers only the arm `all_gold` sees. A smaller D_G is the beginning of the
largest one, in the order of a hash, and the records that it leaves join D_U.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from study import Study

GOLD, TAUGHT, CHOSEN = 1000, 5000, 400
#: What is asked for; near duplicates and leaks that the pipeline leaves out cost a few of them.
MARGIN = 1.02
FILE = "questions.json"
MAX_LENGTH = 160

SOURCE = """\
kind: source
domain: finance
name: banking
define:
  - {{name: intent, kind: label, title: intent of a bank customer's question, max_new_tokens: 32}}
seeds: [{{path: {data}/banking77.train.jsonl, rows: 10003, {columns}}}]
evaluation: [{{path: {data}/banking77.test.jsonl, rows: 3080, {columns}}}]
leaks: drop
split: {{teacher: {taught}, gold: {gold}, validation: {chosen}, unlabeled: 1.0}}
"""
COLUMNS = "task: intent, licence: CC-BY-4.0, columns: {id: id, input: input, answer: label}"
#: Nothing of these two is used but that a source belongs to a pipeline, and a pipeline to a teacher.
TEACHER = "kind: teacher\nname: fitted\nmodel: preset:encoder_tiny\nprompt_style: short\nfit: {recipe: {steps: 1}}\n"
PIPELINE = "kind: pipeline\nsource: banking\nteacher: fitted\nstudent: {base: 'preset:encoder_tiny'}\n"


@dataclass(frozen=True)
class Record:
    """One question: its id, text and gold label."""

    record_id: str
    text: str
    label: str


def prepare(study: Study, data: Path) -> None:
    """Split the records by the pipeline, and keep what the cells read; what is there already stays."""
    if (study.out / FILE).exists():
        return
    config = study.out / "assets_config"
    config.mkdir(parents=True, exist_ok=True)
    taught, gold = round(TAUGHT * MARGIN), round(GOLD * MARGIN)
    source = SOURCE.format(data=data.resolve(), columns=COLUMNS, taught=taught, gold=gold, chosen=CHOSEN)
    for name, text in (("source", source), ("teacher", TEACHER), ("pipeline", PIPELINE)):
        (config / f"{name}.yaml").write_text(text, "utf-8")
    store, state = study.out / "store", study.out / "state"
    places = {"DISTILL_ASSETS_CONFIG": config, "DISTILL_STORE": store, "DISTILL_STATE": state}
    command = [sys.executable, "-c", "from distill_dagster.cli import main; main()", "run", "banking", "--no-dagster"]
    environment = {**os.environ, **{name: str(place) for name, place in places.items()}}
    subprocess.run([*command, "--select", "seed_set,eval_set"], env=environment, check=True)
    from distill_dagster.lineage.engine import head_version
    from distill_dagster.records.messages import text_of
    from distill_dagster.settings import Settings
    from distill_dagster.stages.project import Project

    project = Project(Settings(config, str(store), state))
    parts: dict[str, list[list[str]]] = {}
    for artifact in ("seed_set", "eval_set"):
        found = head_version(project.store, ("banking", artifact))
        assert found is not None, artifact
        for row in found[0].table("seed").to_pylist():
            text = text_of(row["messages"])
            parts.setdefault(row["part"], []).append([row["record_id"], text, row["answer"]])
    (study.out / FILE).write_text(json.dumps(parts), "utf-8")


class Questions:
    """The parts, from the file that `prepare` wrote."""

    def __init__(self, study: Study) -> None:
        said = json.loads((study.out / FILE).read_text("utf-8"))
        own = {part: [Record(*row) for row in rows] for part, rows in said.items()}
        self.teacher, self.validation, self.test = own["teacher"], own["validation"], own["test"]
        self._gold = sorted(own["gold"], key=lambda row: hashlib.sha256(row.record_id.encode()).digest())
        self._unlabeled = own["unlabeled"]
        self.labels = sorted({row.label for row in self.teacher})

    def gold(self, size: int) -> list[Record]:
        """D_G of that size."""
        return self._gold[:size]

    def unlabeled(self, size: int) -> list[Record]:
        """D_U beside a D_G of that size."""
        return [*self._unlabeled, *self._gold[size:]]

    @cached_property
    def pool(self) -> list[Record]:
        """What a teacher is asked about, whatever the size: D_G and D_U, each record once."""
        return [*self._unlabeled, *self._gold]


def chats(records: list[Record], labels: list[str] | None = None) -> list[Any]:
    """Conversations with the gold answers, or with others."""
    from distill_dagster.training.data import Chat

    answers = [row.label for row in records] if labels is None else labels
    return [
        Chat(
            row.record_id,
            ({"role": "user", "content": row.text}, {"role": "assistant", "content": answer}),
            1.0,
            "intent",
        )
        for row, answer in zip(records, answers, strict=True)
    ]


def right(records: list[Record], answers: list[str]) -> list[int]:
    """1 for each record that is answered rightly."""
    return [int(row.label == answer) for row, answer in zip(records, answers, strict=True)]


def share(scores: list[int]) -> float:
    """Mean score."""
    return sum(scores) / len(scores)
