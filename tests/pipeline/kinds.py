"""Projects whose teacher answers by rule, for kinds of knowledge that no tiny model can do."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import distill_dagster
from distill_dagster.lineage.engine import Made
from distill_dagster.stages import teaching
from pipeline import tiny
from pipeline.rule_teacher import RuleTeacher
from pipeline.tiny import Tiny

#: A small model that was fitted on other tasks: nothing is trained in these tests.
MODEL = Path(distill_dagster.__file__).parent / "domains" / "finance" / "models" / "teacher"
RULES = "filtering: [schema, verifier, decontamination, exact_duplicate, near_duplicate]"
DATA = ["seed_set", "eval_set", "prompt_set", "teacher_model", "teacher_outputs", "filtered_dataset"]


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> RuleTeacher:
    """The pipeline's teacher answers by rule; everything else is as it is."""
    one = RuleTeacher()
    monkeypatch.setattr(teaching, "open_teacher", lambda pipeline, version: one)
    return one


def written(folder: Path, knowledge: str, rules: str = RULES) -> Tiny:
    """The project that reads files, with these kinds and rules."""
    made = tiny.parcels(folder)
    made.edit("pipeline.yaml", "filtering: [refusal, exact_duplicate]\n", f"{rules}\n{knowledge}")
    teacher = f"kind: teacher\nname: nano_teacher\nmodel: {MODEL}\nprompt_style: short\n"
    (made.folder / "assets_config" / "teacher.yaml").write_text(teacher, "utf-8")
    return made


def table(made: Made, name: str) -> list[dict[str, Any]]:
    """A table of a version, or one that belongs to its run."""
    if name in made.version.manifest["tables"]:
        return made.version.table(name).to_pylist()
    return pq.read_table(str(made.version.place / "runs" / made.run / f"{name}.parquet")).to_pylist()
