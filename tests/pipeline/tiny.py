"""The smallest projects that run through every stage, and ways to look at them.

`finance` is authored by the domain's grammar; `parcels` reads three files of a few dozen lines, so that a test can
change one record.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_dagster.lineage.engine import Made, Services, head_version
from distill_dagster.lineage.ledger import Ledger
from distill_dagster.lineage.status import State, status
from distill_dagster.settings import Settings
from distill_dagster.stages.project import Project
from distill_dagster.storage.store import key_text

SOURCE = ("seed_set", "eval_set", "prompt_set")
DATA = ("teacher_model", "teacher_outputs", "filtered_dataset")
STUDENT = ("initial_student", "student_checkpoint", "control_checkpoint", "eval_report", "deployed_student")
ALL = (*SOURCE, *DATA, *STUDENT)

RECIPE = "{steps: 6, batch_tokens: 1024, learning_rate: 3e-3, warmup_steps: 2, max_length: 512, log_every: 2}"

TEACHER = f"""\
kind: teacher
name: nano_teacher
model: preset:nano
prompt_style: short
batch_size: 64
fit: {{recipe: {RECIPE}}}
"""

PIPELINE = f"""\
kind: pipeline
source: NAME
teacher: nano_teacher
filtering: [refusal, exact_duplicate]
student: {{base: "preset:nano", vocabulary: 300}}
training: {RECIPE}
control: {{multiples: [1]}}
evaluation: {{resamples: 200}}
gate: {{floor_over_chance: -1.0}}
"""

FINANCE = """\
kind: source
domain: finance
grammar: {teacher: 40, gold: 12, unlabeled: 24, validation: 8, test: 16}
show_records: true
"""

COLUMNS = "columns: {input: text, answer: colour, subject_key: depot}, licence: CC0-1.0, task: colour"
PARCELS = f"""\
kind: source
domain: generic
name: parcels
define: [{{name: colour, kind: label, labels: [red, green], max_new_tokens: 4}}]
seeds: [{{path: seeds.jsonl, {COLUMNS}}}]
evaluation:
  - {{path: test.jsonl, {COLUMNS}}}
"""

Lines = list[dict[str, Any]]


@dataclass(frozen=True)
class Look:
    """What readers see of a project, from one reading of its files.

    Attributes:
        versions: Version of each artifact's head.
        sealed: Every version that the store holds, by artifact.
        states: The state of each artifact.
        champions: Versions promoted so far.
    """

    versions: dict[str, str]
    sealed: dict[str, list[str]]
    states: dict[str, State]
    champions: list[str]

    @property
    def unfresh(self) -> set[str]:
        """Artifacts that are not fresh."""
        return {name for name, one in self.states.items() if not one.fresh}


@dataclass(frozen=True)
class Tiny:
    """A project in a folder of its own."""

    folder: Path
    name: str

    @property
    def settings(self) -> Settings:
        """Where its config, store and state lie."""
        return Settings(self.folder / "assets_config", str(self.folder / "store"), self.folder / "state")

    @property
    def environment(self) -> dict[str, str]:
        """Variables that point the command line at it."""
        found = self.settings
        return {
            "DISTILL_ASSETS_CONFIG": str(found.config),
            "DISTILL_STORE": found.store,
            "DISTILL_STATE": str(found.state),
        }

    def project(self, limit: int | None = None) -> Project:
        """The project, read from its files."""
        return Project(self.settings, limit)

    def run(self, names: Sequence[str] = (), start: Callable[..., Any] | None = None) -> dict[str, Made]:
        """Materialize artifacts of its pipeline without Dagster; what came of each, by artifact."""
        if start is None:
            from pipeline.nursery import Start

            start = Start
        project = self.project()
        made = project.run(project.select(self.name, names), Services(project.state, start=start))
        return {one.node.key[1]: one for one in made}

    def look(self) -> Look:
        """What readers see now."""
        project = self.project()
        heads = {key: head_version(project.store, key) for key in project.nodes}
        promotions = Ledger(project.store).promotions(self.name, "champion")
        return Look(
            {key_text(key): head[0].version for key, head in heads.items() if head is not None},
            {key_text(key): list(project.store.versions(key)) for key in heads},
            {key_text(one.key): one for one in status(project.nodes, project.store)},
            [entry["payload"]["version"] for entry in promotions],
        )

    def states(self) -> dict[str, State]:
        """The state of each artifact."""
        return self.look().states

    def unfresh(self) -> set[str]:
        """Artifacts of its own pipeline that are not fresh."""
        found = self.states()
        return {name for name in ALL if not found[f"{self.name}/{name}"].fresh}

    def versions(self) -> dict[str, str]:
        """Version of each artifact's head."""
        return self.look().versions

    def sealed(self) -> dict[str, list[str]]:
        """Every version that the store holds, by artifact."""
        return self.look().sealed

    def champions(self) -> list[str]:
        """Versions promoted so far."""
        return self.look().champions

    def drafts(self) -> list[Path]:
        """Drafts that nobody finished."""
        return list(Path(self.settings.store).rglob(".draft-*"))

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text that stands once in one of its files."""
        path = self.folder / "assets_config" / file
        text = path.read_text("utf-8")
        assert text.count(old) == 1, (old, text)
        path.write_text(text.replace(old, new), "utf-8")

    def append(self, file: str, text: str) -> None:
        """Add lines to one of its files."""
        with (self.folder / "assets_config" / file).open("a", encoding="utf-8") as stream:
            stream.write(text)

    def lines(self, file: str) -> Lines:
        """Rows of one of its JSONL files."""
        return [json.loads(line) for line in (self.folder / "assets_config" / file).read_text("utf-8").splitlines()]

    def write_lines(self, file: str, lines: Lines) -> None:
        """Replace the rows of one of its JSONL files."""
        write_lines(self.folder / "assets_config" / file, lines)

    def copy(self, folder: Path) -> Tiny:
        """The same project elsewhere, with store and state."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Tiny(folder, self.name)


def finance(folder: Path) -> Tiny:
    """An authored project that nothing has run in."""
    return _written(folder, "finance", FINANCE)


def parcels(folder: Path) -> Tiny:
    """A project that reads files, which nothing has run in."""
    made = _written(folder, "parcels", PARCELS)
    made.write_lines("seeds.jsonl", rows("s", 60))
    made.write_lines("test.jsonl", rows("t", 16))
    return made


def _written(folder: Path, name: str, source: str) -> Tiny:
    config = folder / "assets_config"
    config.mkdir(parents=True)
    (config / "source.yaml").write_text(source, "utf-8")
    (config / "teacher.yaml").write_text(TEACHER, "utf-8")
    (config / "pipeline.yaml").write_text(PIPELINE.replace("NAME", name), "utf-8")
    return Tiny(folder, name)


def rows(prefix: str, count: int) -> Lines:
    """Sentences of random words that name one colour; no two resemble each other, each has a depot of its own."""
    made = []
    for number in range(count):
        rng = random.Random(f"{prefix}{number}")
        words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 7))) for _ in range(6)]
        colour = rng.choice(["red", "green"])
        words.insert(rng.randrange(len(words)), colour)
        made.append({"text": " ".join(words), "colour": colour, "depot": f"{prefix}{number}"})
    return made


def write_lines(path: Path, lines: Lines) -> None:
    """Write JSON Lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
