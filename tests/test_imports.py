"""Imports go down only, the core knows neither Dagster nor MLflow, and definitions load quickly."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "distill_dagster"

#: The floors, from the ground up. A module may import from its own part and from lower floors. Parts that share a
#: floor do not know each other, save those in TOGETHER. The way of the data orders the six parts of the stages' floor:
#: a later one may read an earlier one (evaluation looks for leakage with a filter), never the other way.
GROUND = ("errors", "settings", "records", "storage", "config", "lineage", "models", "privacy")
FLOORS = (
    GROUND,
    ("domains",),
    ("teachers",),
    ("knowledge",),
    ("filtering",),
    ("training",),
    ("compression",),
    ("evaluation",),
    ("deployment",),
    ("stages",),
    ("resources",),
    ("assets", "automation"),
    ("console",),
    ("definitions", "component", "serve", "cli_lineage", "cli_plan", "cli_review"),
    # The package itself offers the public API, imported when it is asked for.
    ("cli", "__main__", "__init__"),
)
RANK = {part: rank for rank, parts in enumerate(FLOORS) for part in parts}
FIRST_ORCHESTRATION = RANK["resources"]
#: Parts that know each other within their floor.
TOGETHER = (GROUND, ("assets", "automation"))
#: Where Dagster resolves annotations.
READ_BY_DAGSTER = ("resources", "automation", "assets", "definitions", "component")

CORE = (
    "domains",
    "teachers",
    "knowledge",
    "filtering",
    "training",
    "compression",
    "evaluation",
    "deployment",
    "stages",
)
ORCHESTRATION_PACKAGES = ("dagster", "mlflow")
HEAVY = ("torch", "transformers", "datasets", "mlflow")

FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    """The first name below the package: a folder, or a module of its own."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of every import of a file, those inside functions and TYPE_CHECKING blocks included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def upward(part: str, name: str) -> bool:
    """Whether an import of `name` inside the part `part` leaves the allowed direction."""
    pieces = name.split(".")
    if pieces[0] != "distill_dagster":
        return False
    if name in ("distill_dagster", "distill_dagster.__version__"):
        return False
    target = pieces[1] if len(pieces) > 1 and pieces[1] in RANK else "__init__"
    if part == target or any(part in parts and target in parts for parts in TOGETHER):
        return False
    return RANK[target] >= RANK[part]


def run_python(code: str) -> str:
    """Standard output of a fresh interpreter."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_has_a_floor() -> None:
    unknown = {part_of(path) for path in FILES} - set(RANK)
    assert not unknown, f"give {sorted(unknown)} a floor in {__file__}"


@pytest.mark.parametrize(
    ("part", "name", "wrong"),
    [
        ("filtering", "distill_dagster.stages.seed", True),
        ("filtering", "distill_dagster.knowledge.labeling", False),
        ("knowledge", "distill_dagster.filtering.length", True),
        ("records", "distill_dagster.storage.atomic", False),
        ("records", "distill_dagster.teachers.base", True),
        ("assets", "distill_dagster.stages.seed", False),
        ("assets", "distill_dagster.automation.schedule", False),
        ("resources", "distill_dagster.assets.base", True),
        ("stages", "distill_dagster.definitions", True),
        ("component", "distill_dagster.definitions.defs", True),
        ("cli", "distill_dagster.definitions", False),
        ("errors", "distill_dagster.__version__", False),
        ("stages", "distill_dagster.build_definitions", True),
        ("records", "numpy", False),
    ],
)
def test_the_rule_itself(part: str, name: str, wrong: bool) -> None:
    assert upward(part, name) is wrong


def test_imports_go_down_only() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE.parent)}:{line}: {part_of(path)} imports {name}"
        for path in FILES
        for line, name in imports(path)
        if part_of(path) in RANK and upward(part_of(path), name)
    ]
    assert not wrong, "\n".join(wrong)


def test_only_orchestration_knows_dagster_and_mlflow() -> None:
    wrong = []
    for path in FILES:
        part = part_of(path)
        if RANK.get(part, 0) >= FIRST_ORCHESTRATION:
            continue
        for line, name in imports(path):
            top = name.split(".")[0]
            if top == "dagster_pipes" and part == "training":
                continue
            if top.startswith(ORCHESTRATION_PACKAGES):
                wrong.append(f"{path.relative_to(PACKAGE.parent)}:{line}: {name}")
    assert not wrong, "\n".join(wrong)


def test_no_future_annotations_where_dagster_reads_types() -> None:
    # Dagster resolves the annotations of `context` and Config arguments at run time, and fails on strings.
    wrong = [
        f"{path.relative_to(PACKAGE.parent)}:{line}"
        for path in FILES
        if part_of(path) in READ_BY_DAGSTER
        for line, name in imports(path)
        if name == "__future__.annotations"
    ]
    assert not wrong, "\n".join(wrong)


def modules(parts: tuple[str, ...]) -> list[str]:
    """Dotted names of all modules of some parts, less scripts that do their work on import."""
    found = []
    for path in FILES:
        if part_of(path) in parts and path.stem != "__main__":
            dotted = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
            found.append(dotted.removesuffix(".__init__"))
    return found


@pytest.mark.needs_torch
def test_core_runs_without_dagster_and_mlflow() -> None:
    run_python(f"""
import importlib, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("dagster", "dagster_graphql", "dagster_shared", "mlflow"):
            raise ModuleNotFoundError(f"{{name}} must not be imported by the core", name=name)
sys.meta_path.insert(0, Blocked())
for name in {modules((*GROUND, *CORE))!r}:
    importlib.import_module(name)
""")


def test_config_and_domains_load_light() -> None:
    loaded = run_python(f"""
import importlib, sys
from importlib.metadata import entry_points
for name in {modules(("config", "records", "storage", "errors"))!r}:
    importlib.import_module(name)
found = [point.load()() for point in entry_points(group="distill_dagster.domains")]
assert found
print([name for name in {(*HEAVY, "dagster", "sklearn", "pandas", "matplotlib")!r} if name in sys.modules])
""")
    assert loaded.strip() == "[]", f"imported on the way: {loaded}"


def test_definitions_load_quickly_and_lightly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # Nobody's second start compiles its sources anew.
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path))
    code = f"""
import json, sys, time
import distill_dagster.definitions
print(json.dumps([time.process_time(), [name for name in {HEAVY!r} if name in sys.modules]]))
"""
    # Processor time, so that a busy machine does not decide; the first run compiles.
    seconds, heavy = min(json.loads(run_python(code).splitlines()[-1]) for _ in range(2))
    assert not heavy
    assert seconds < 3, f"loading distill_dagster.definitions took {seconds:.1f} s of processor time"
