"""Rules of the house that no linter holds: size, docstrings, loaders that run code, paths of one machine."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
PACKAGE = REPO / "distill_dagster"
MAX_LINES = 400

#: Loaders that execute what they read, or write what only they can read.
UNSAFE_MODULES = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
UNSAFE_CALLS = (
    "torch.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "yaml.load_all",
    "pandas.read_pickle",
    "pd.read_pickle",
)
UNSAFE_TRUE = ("trust_remote_code", "allow_pickle")
SAFE_LOADERS = ("SafeLoader", "CSafeLoader")

MACHINE_PATH = re.compile(r"(?<![\w./$}~-])/(work|root|Users/\w+|home/\w+)/")
REGISTRY_HOST = re.compile(
    r"\b(pypi\.org|pythonhosted\.org|registry\.npmjs\.org|download\.pytorch\.org|deb\.debian\.org)\b"
)
UNFINISHED = re.compile(r"\b(TODO|FIXME)\b")


@cache
def tracked() -> tuple[Path, ...]:
    """Files that git tracks, or would on `git add .`; everything below the root where there is no git."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        return tuple(sorted(path for path in PACKAGE.rglob("*") if path.is_file()))
    return tuple(sorted(REPO / name for name in listed.stdout.split("\0") if name and (REPO / name).is_file()))


def text_of(path: Path) -> str | None:
    """A file's text; None where it is not text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def python_files(*below: Path) -> list[Path]:
    return [path for path in tracked() if path.suffix == ".py" and any(path.is_relative_to(folder) for folder in below)]


def named(path: Path) -> str:
    return str(path.relative_to(REPO))


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name or attribute expression; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def unsafe(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of each loader in a syntax tree that could run code from a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for module in modules:
                if module.split(".")[0] in UNSAFE_MODULES:
                    yield node.lineno, f"import {module}"
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in UNSAFE_CALLS:
                yield node.lineno, name
            if name == "yaml.load":
                loaders = [*node.args[1:], *(keyword.value for keyword in node.keywords if keyword.arg == "Loader")]
                if not any(dotted(loader).rsplit(".", 1)[-1] in SAFE_LOADERS for loader in loaders):
                    yield node.lineno, "yaml.load without SafeLoader"
            for keyword in node.keywords:
                if keyword.arg in UNSAFE_TRUE and not is_false(keyword.value):
                    yield node.lineno, f"{keyword.arg} is not False"
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value in UNSAFE_TRUE and not is_false(value):
                    yield node.lineno, f"{key.value} is not False"


def is_false(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import torch\ntorch.load('x')", 1),
        ("from pickle import loads", 1),
        ("import joblib", 1),
        ("yaml.load(text)", 1),
        ("yaml.load(text, Loader=yaml.FullLoader)", 1),
        ("yaml.load(text, Loader=yaml.CSafeLoader)", 0),
        ("yaml.safe_load(text)", 0),
        ("M.from_pretrained(x, trust_remote_code=True)", 1),
        ("M.from_pretrained(x, trust_remote_code=flag)", 1),
        ("M.from_pretrained(x, trust_remote_code=False)", 0),
        ("options = {'trust_remote_code': True}", 1),
    ],
)
def test_the_loader_rule_itself(code: str, found: int) -> None:
    assert len(list(unsafe(ast.parse(code)))) == found


def test_no_loader_that_runs_code() -> None:
    shipped = python_files(PACKAGE, REPO / "examples", REPO / "docs", REPO / ".ci", REPO / "benchmarks")
    wrong = [f"{named(path)}:{line}: {name}" for path in shipped for line, name in unsafe(ast.parse(path.read_text()))]
    assert not wrong, "\n".join(wrong)


def test_no_file_holds_two_ideas() -> None:
    lengths = {named(path): len(path.read_text().splitlines()) for path in python_files(REPO)}
    assert lengths
    long = {name: lines for name, lines in lengths.items() if lines > MAX_LINES}
    assert not long, f"over {MAX_LINES} lines: {long}"


def test_public_definitions_have_docstrings() -> None:
    wrong = []
    for path in python_files(PACKAGE):
        tree = ast.parse(path.read_text())
        if tree.body and not ast.get_docstring(tree):
            wrong.append(f"{named(path)}: the module")
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith(
                "_"
            ):
                if not ast.get_docstring(node):
                    wrong.append(f"{named(path)}:{node.lineno}: {node.name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("rule", "bad", "good"),
    [
        (MACHINE_PATH, "see /" + "home/anna/x", "https://example.org/home/anna/"),
        (MACHINE_PATH, 'open("/' + 'root/x")', "$ROOT/root/x"),
        (REGISTRY_HOST, "https://" + "pypi" + ".org/simple", "pypi"),
        (UNFINISHED, "# TO" + "DO: later", "mastodon"),
    ],
)
def test_the_text_rules_themselves(rule: re.Pattern[str], bad: str, good: str) -> None:
    assert rule.search(bad)
    assert not rule.search(good)


@pytest.mark.parametrize("rule", [MACHINE_PATH, REGISTRY_HOST, UNFINISHED], ids=["path", "host", "unfinished"])
def test_text_is_fit_for_others(rule: re.Pattern[str]) -> None:
    wrong = []
    for path in tracked():
        text = None if path == Path(__file__).resolve() else text_of(path)
        for number, line in enumerate((text or "").splitlines(), 1):
            if found := rule.search(line):
                wrong.append(f"{named(path)}:{number}: {found.group()}")
    assert not wrong, "\n".join(wrong)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def project() -> dict:
    return tomllib.loads((REPO / "pyproject.toml").read_text())["project"]


def requirement_names(lines: list[str]) -> set[str]:
    return {canonical(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in lines}


#: Import names that differ from their distribution's name.
DISTRIBUTION = {"yaml": "pyyaml", "sklearn": "scikit-learn", "upath": "universal-pathlib", "OpenSSL": "pyopenssl"}


def test_every_import_is_declared() -> None:
    extras = project()["optional-dependencies"]
    declared = requirement_names(project()["dependencies"])
    declared |= requirement_names([line for name, lines in extras.items() if name != "dev" for line in lines])
    wrong = set()
    for path in python_files(PACKAGE):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for top in {name.split(".")[0] for name in names} - {"distill_dagster", "__future__"}:
                if top not in sys.stdlib_module_names and canonical(DISTRIBUTION.get(top, top)) not in declared:
                    wrong.add(f"{named(path)}: {top}")
    assert not wrong, "declare in pyproject.toml:\n" + "\n".join(sorted(wrong))


def test_what_was_tested_together_is_pinned() -> None:
    lines = [line for line in (REPO / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in lines)
    pinned = requirement_names(lines)
    wanted = requirement_names(project()["dependencies"] + project()["optional-dependencies"]["dev"])
    assert not wanted - pinned
    assert "torch==2.13.0" in lines
