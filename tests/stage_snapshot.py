"""Digests of the code behind every stage version, so that no behaviour changes under an old version.

A unit is what a person gives a version: a stage, a filter rule, a knowledge kind, a domain's tasks. Its digest is of
the syntax trees, without docstrings and comments, of the files whose behaviour the version stands for. After a change,
bump the version, or say why none is needed:

    python -m tests.stage_snapshot --update
    python -m tests.stage_snapshot --update --no-behaviour-change stages/seed_set "split a function in two"

`all` stands for every unit that changed. `--fresh` writes the file anew and forgets what was recorded.
"""

import ast
import hashlib
import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
PACKAGE = REPO / "distill_dagster"
SNAPSHOT = REPO / "tests" / "snapshots" / "stages.json"

_DATA = ("domains/*.py", "stages/context.py")
_LEAKS = ("stages/leakage.py", "filtering/_leakage.py", "filtering/_minhash.py", "filtering/_text.py")
_WEIGHTS = ("models/*.py", "stages/models.py", "stages/classes.py")
_LOSSES = ("training/losses/*.py", "training/signals/*.py")
_TRAINING = (
    *_WEIGHTS,
    "stages/training.py",
    "stages/validation.py",
    "training/*.py",
    "training/feeds/*.py",
    "training/trl/*.py",
    "training/objectives/*.py",
    *_LOSSES,
)
_EXAMINING = ("stages/examination.py", "evaluation/*.py")
_ASKING = (
    "stages/teaching.py",
    "stages/panel.py",
    "stages/egress.py",
    "knowledge/base.py",
    "knowledge/prompts.py",
    "knowledge/_*.py",
    "teachers/*.py",
    "models/*.py",
)

#: Files whose behaviour a stage's version stands for, besides the stage's own file.
BUNDLES: dict[str, tuple[str, ...]] = {
    "seed_set": (*_DATA, *_LEAKS),
    "eval_set": _DATA,
    "prompt_set": (*_DATA, "knowledge/_templates.py"),
    "teacher_model": (*_TRAINING, "knowledge/prompts.py"),
    "teacher_outputs": _ASKING,
    "filtered_dataset": (
        "filtering/engine.py",
        "filtering/base.py",
        "filtering/_*.py",
        "stages/inheritance.py",
        "stages/leakage.py",
        "stages/ratings.py",
        "stages/review.py",
        "stages/teacher_model.py",
        "knowledge/prompts.py",
    ),
    "teacher_signals": (*_WEIGHTS, "training/data.py", "training/forward.py", *_LOSSES),
    "preference_pairs": (
        "filtering/engine.py",
        "filtering/base.py",
        "filtering/_*.py",
        "stages/filtered_dataset.py",
        "stages/inheritance.py",
        "stages/leakage.py",
    ),
    "initial_student": (*_WEIGHTS, "stages/seeds.py", "training/presets.py", "training/tokenizer.py"),
    "student_checkpoint": (*_TRAINING, "stages/seeds.py", "stages/validation.py", "stages/rewarding.py", *_EXAMINING),
    "control_checkpoint": (*_TRAINING, "stages/seeds.py", "stages/arms/*.py", "stages/examination.py"),
    "eval_report": (*_EXAMINING, "stages/teacher_outputs.py", *_ASKING),
    "deployed_student": ("deployment/*.py",),
    "review_import": ("filtering/_review.py",),
}

#: Files that shape no content: how processes are started, what is stored on the way, how reports look.
PLUMBING = (
    "domains/hub.py",
    "domains/registry.py",
    "evaluation/chart.py",
    "evaluation/figures.py",
    "evaluation/funnel.py",
    "evaluation/page.py",
    "evaluation/report.py",
    "evaluation/run_figure.py",
    "evaluation/style.py",
    "evaluation/table.py",
    "stages/__init__.py",
    "stages/domain_models.py",
    "stages/estimate.py",
    "stages/plan.py",
    "stages/export.py",
    "stages/metering.py",
    "stages/packages.py",
    "stages/plugins.py",
    "stages/project.py",
    "stages/review_files.py",
    "teachers/_holder.py",
    "teachers/_journal.py",
    "teachers/_journal_postgres.py",
    "teachers/_journal_sqlite.py",
    "teachers/_wrapper.py",
    "teachers/budget.py",
    "teachers/journal.py",
    "training/doctor.py",
    "training/dry_run.py",
    "training/launch.py",
    "training/metrics.py",
    "training/process.py",
    "training/sizing.py",
)
#: Where every file belongs to a unit, or is plumbing.
COVERED = (
    "deployment",
    "domains",
    "evaluation",
    "filtering",
    "knowledge",
    "models",
    "privacy",
    "stages",
    "teachers",
    "training",
)


@dataclass(frozen=True)
class Unit:
    """What a person gives a version.

    Attributes:
        name: `stages/seed_set`, `filtering/length`, `domains/law`.
        version: The version as the code says it now.
        files: What it stands for, relative to the package.
    """

    name: str
    version: str
    files: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Digest of the files' names and syntax trees."""
        whole = hashlib.sha256()
        for name in self.files:
            whole.update(f"{name}\0{code_digest((PACKAGE / name).read_text(encoding='utf-8'))}\n".encode())
        return whole.hexdigest()[:32]


def code_digest(source: str) -> str:
    """Digest of a file's syntax tree without docstrings, comments and layout; the same on every Python version."""
    return hashlib.sha256(repr(_shape(ast.parse(source))).encode()).hexdigest()


def _shape(node: Any) -> Any:
    """A syntax tree as nested tuples; empty fields are left out, since Python versions differ in which they have."""
    if isinstance(node, list):
        return tuple(_shape(entry) for entry in node)
    if not isinstance(node, ast.AST):
        return type(node).__name__, repr(node)
    fields = {name: value for name, value in ast.iter_fields(node) if value is not None and value != []}
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        fields["body"] = [entry for entry in node.body if not _is_text(entry) and not _is_version(entry)]
    if isinstance(node, ast.JoinedStr):  # Python 3.12.1 has an empty text beside a nested format
        fields["values"] = [
            entry for entry in node.values if not (isinstance(entry, ast.Constant) and entry.value == "")
        ]
    return type(node).__name__, tuple((name, _shape(value)) for name, value in sorted(fields.items()))


def _is_version(statement: ast.stmt) -> bool:
    """`VERSION = …` itself, so that a bump of one stage is no change of another that shares its file."""
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return any(isinstance(target, ast.Name) and target.id == "VERSION" for target in targets)


def _is_text(statement: ast.stmt) -> bool:
    """A text that stands by itself: a docstring, or one after an attribute."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _files(*patterns: str) -> tuple[str, ...]:
    """Files that the patterns match and that are no plumbing."""
    found = {path.relative_to(PACKAGE).as_posix() for pattern in patterns for path in PACKAGE.glob(pattern)}
    return tuple(sorted(name for name in found - set(PLUMBING) if (PACKAGE / name).read_text(encoding="utf-8").strip()))


def _assigned(path: Path, name: str) -> str | None:
    """The text assigned to a name in a file, at its top level or in a class."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        value = getattr(node, "value", None)
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                return value.value
    return None


def _given(folder: Path) -> str:
    """Every `version="…"` that a domain gives a task or a template, in order; 1 is what a task has by itself."""
    found = [
        keyword.value.value
        for path in sorted(folder.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "version" and isinstance(keyword.value, ast.Constant)
    ]
    return ",".join(map(str, found)) or "1"


def units() -> Iterator[Unit]:
    """Every unit of the package."""
    for path in sorted((PACKAGE / "stages").glob("*.py")):
        if (version := _assigned(path, "VERSION")) is not None:
            yield Unit(f"stages/{path.stem}", version, _files(f"stages/{path.name}", *BUNDLES.get(path.stem, ())))
    for part in ("filtering", "knowledge"):
        for path in sorted((PACKAGE / part).glob("[!_]*.py")):
            if path.stem not in ("base", "engine", "prompts"):
                version = _assigned(path, "version") or _assigned(PACKAGE / part / "base.py", "version") or ""
                yield Unit(f"{part}/{path.stem}", version, _files(f"{part}/{path.name}"))
    found = _assigned(PACKAGE / "privacy" / "mask.py", "VERSION") or ""
    yield Unit("privacy", found, _files("privacy/*.py"))
    for folder in sorted(path for path in (PACKAGE / "domains").iterdir() if (path / "domain.py").exists()):
        yield Unit(f"domains/{folder.name}", _given(folder), _files(f"domains/{folder.name}/**/*.py"))


def uncovered() -> list[str]:
    """Files of the core that belong to no unit and are not declared plumbing."""
    known = {name for unit in units() for name in unit.files}
    return [name for name in _files(*(f"{part}/**/*.py" for part in COVERED)) if name not in known]


def recorded() -> dict[str, dict[str, Any]]:
    """The snapshot: version, digest and recorded changes without a change of behaviour, by unit."""
    return json.loads(SNAPSHOT.read_text(encoding="utf-8")) if SNAPSHOT.exists() else {}


def problems(found: dict[str, dict[str, Any]]) -> list[str]:
    """What differs from a snapshot, each with what to do about it."""
    wrong: list[str] = []
    now = {unit.name: unit for unit in units()}
    for name in sorted(found.keys() | now.keys()):
        if name not in now:
            wrong.append(f"{name}: it is gone; update the snapshot")
        elif name not in found:
            wrong.append(f"{name}: it is new; update the snapshot")
        elif now[name].digest != found[name]["digest"]:
            if now[name].version == found[name]["version"]:
                wrong.append(
                    f"{name}: its code changed under version {now[name].version}; bump the version, "
                    f'or record --no-behaviour-change {name} "reason"'
                )
            else:
                wrong.append(f"{name}: version {now[name].version} is not in the snapshot; update it")
        elif now[name].version != found[name]["version"]:
            wrong.append(f"{name}: version {now[name].version} is not in the snapshot; update it")
    return wrong


def updated(found: dict[str, dict[str, Any]], excused: dict[str, str]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The new snapshot, and the units that changed under an old version without a reason."""
    fresh: dict[str, dict[str, Any]] = {}
    refused: list[str] = []
    for unit in units():
        before = found.get(unit.name)
        entry: dict[str, Any] = {"version": unit.version, "digest": unit.digest}
        if before is not None and before["version"] == unit.version:
            entry = before
            if before["digest"] != unit.digest:
                reason = excused.get(unit.name, excused.get("all", "")).strip()
                if not reason:
                    refused.append(unit.name)
                changes = [*before.get("no_behaviour_change", []), {"digest": unit.digest, "reason": reason}]
                entry = {"version": unit.version, "digest": unit.digest, "no_behaviour_change": changes}
        fresh[unit.name] = entry
    return fresh, refused


def main(arguments: list[str] | None = None) -> int:
    """Show what differs, or update the snapshot; 1 where something is left to say."""
    parser = ArgumentParser(prog="python -m tests.stage_snapshot", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--update", action="store_true", help="write the snapshot")
    parser.add_argument("--fresh", action="store_true", help="write it anew, forgetting what was recorded")
    parser.add_argument(
        "--no-behaviour-change", nargs=2, action="append", default=[], metavar=("UNIT", "REASON"), help="or `all`"
    )
    given = parser.parse_args(arguments)
    found = {} if given.fresh else recorded()
    excused = dict(given.no_behaviour_change)
    unknown = excused.keys() - {"all"} - {unit.name for unit in units()}
    if unknown:
        print(f"no such unit: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 1
    if not given.update and not given.fresh:
        print("\n".join(problems(found)) or "nothing changed")
        return bool(problems(found))
    snapshot, refused = updated(found, excused)
    if refused:
        print("bump the version, or give a reason with --no-behaviour-change:", *refused, sep="\n  ", file=sys.stderr)
        return 1
    SNAPSHOT.parent.mkdir(exist_ok=True)
    SNAPSHOT.write_text(json.dumps(snapshot, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
