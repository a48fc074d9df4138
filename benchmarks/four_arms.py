"""`make bench-arms`: what a verifier does to PaLM's recorded answers, in four arms.

SVAMP and CommonsenseQA with PaLM 540B's worked answers, as Distilling Step-by-Step (Hsieh et al. 2023) published them,
go through the data half of `examples/real_data/svamp` and `cqa`. The arms are sets of training examples over the same
D_U: every readable answer (unfiltered), those that a verifier does not find wrong (verified), as many drawn at random
(random), and the reference answers (gold). The verifiers see the question and what the teacher wrote, and no reference
answer: that is read only here, to count which answers are right.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import operator
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_dagster.config.models import Block
from distill_dagster.domains.base import Verdict
from distill_dagster.filtering import engine
from distill_dagster.filtering.base import Context
from distill_dagster.lineage.engine import Services
from distill_dagster.records.messages import text_of
from distill_dagster.settings import Settings
from distill_dagster.stages.project import Project

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "real_data"
DATA = ("seed_set", "eval_set", "prompt_set", "teacher_model", "teacher_outputs")
ARMS = ("unfiltered", "verified", "random", "gold")

Row = Mapping[str, Any]

# --- verifiers ------------------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_RESULT = re.compile(r"(?:=|\bis(?: equal to)?)\s*\$?(-?\d+(?:\.\d+)?)")
_SIGNS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def value(expression: str) -> float | None:
    """What an arithmetic expression comes to; None where it is none, or divides by zero."""

    def of(node: ast.expr) -> float:
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return float(node.value)
        if isinstance(node, ast.BinOp) and type(node.op) in _SIGNS:
            return _SIGNS[type(node.op)](of(node.left), of(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -of(node.operand)
        raise ValueError(ast.dump(node))

    try:
        return of(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError):
        return None


def check_problem(question: str, choices: Iterable[str], answer: str, rationale: str) -> Verdict:
    """A word problem's answer: it can be computed, from numbers of the problem, to a figure of its own rationale."""
    found = value(answer)
    if found is None:
        return Verdict(False, "it is no expression")
    known = {float(number) for number in _NUMBER.findall(question.replace(",", ""))}
    if not all(float(number) in known for number in _NUMBER.findall(answer)):
        return Verdict(False, "a number of it is not in the problem")
    figures = [float(number) for number in _RESULT.findall(rationale.replace(",", ""))]
    if not figures:
        return Verdict(None, "the rationale computes nothing")
    if any(abs(figure - found) < 1e-6 for figure in figures):
        return Verdict(True)
    return Verdict(False, "the rationale comes to another figure")


def _stems(text: str) -> str:
    words = re.findall(r"\w+", text.casefold())
    return f" {' '.join(re.sub('(?:es|s|ing|ed)$', '', word) for word in words)} "


def check_choice(question: str, choices: Iterable[str], answer: str, rationale: str) -> Verdict:
    """A multiple choice: it is one of the choices, and the rationale argues for no other one."""
    if answer not in choices:
        return Verdict(False, "it is no choice")
    said = _stems(rationale)
    if any(_stems(choice) in said for choice in choices if choice != answer):
        return Verdict(False, "the rationale names another choice")
    return Verdict(True) if _stems(answer) in said else Verdict(None, "the rationale names no choice")


@dataclass(frozen=True)
class Case:
    """A data set: how its answers are checked, and how one is compared with the reference answer."""

    check: Callable[[str, Iterable[str], str, str], Verdict]
    right: Callable[[str, str], bool]


def _same_value(answer: str, reference: str) -> bool:
    found, wanted = value(answer), value(reference)
    return found is not None and wanted is not None and abs(found - wanted) < 1e-6


CASES = {
    "svamp": Case(check_problem, _same_value),
    "cqa": Case(check_choice, lambda answer, reference: answer == reference),
}

# --- arms -----------------------------------------------------------------------------------------------------------


def candidates(name: str, folder: Path) -> tuple[Project, Any, dict[int, Row]]:
    """The project, its CANDIDATE table and its SEED rows by number, made by the data half of the example."""
    project = Project(Settings(EXAMPLES / name, str(folder / "store"), folder / "state"))
    made = {one.node.key[1]: one for one in project.run(project.select(name, DATA), Services(project.state))}
    seeds = {row["seed_no"]: row for row in made["seed_set"].version.table("seed").to_pylist()}
    return project, made["teacher_outputs"].version.table("candidate"), seeds


def kept(name: str, project: Project, table: Any, seeds: Mapping[int, Row], verify: bool) -> list[Row]:
    """Candidates that the example's own rules keep; with `verify`, those that the verifier does not find wrong."""
    context = project.pipeline(name)
    rules = [*context.config.filtering, *([Block(name="verifier")] if verify else [])]
    said = {row["seed_no"]: row["rationale"] or "" for row in table.to_pylist()}
    facts = {number: {**row, "facts": json.dumps({"seed_no": number})} for number, row in seeds.items()}

    def judge(task: str, given: Mapping[str, Any], answer: str) -> Verdict:
        seed = seeds[given["seed_no"]]
        question, choices = text_of(seed["messages"]), seed["choices"] or ()
        return CASES[name].check(question, choices, answer, said[given["seed_no"]])

    found = engine.run(table, rules, "first", Context(context.tasks, facts, (), judge))
    numbers = set(found.kept)
    return [row for row in table.to_pylist() if row["candidate_no"] in numbers]


def drawn(rows: list[Row], count: int) -> list[Row]:
    """As many rows at random, by the hashes of their ids."""
    return sorted(rows, key=lambda row: hashlib.sha256(row["record_id"].encode()).digest())[:count]


def references(name: str, project: Project) -> dict[str, str]:
    """Reference answers by question, read from the data file and not through the package."""
    source = project.pipeline(name).source
    (file,) = source.config.seeds
    from distill_dagster.config import paths

    path = Path(paths.expand(file.path or "", "benchmark"))
    path = path if path.is_absolute() else source.folder / path
    rows = map(json.loads, path.read_text("utf-8").splitlines())
    return {" ".join(row["input"].split()): row["answer"] for row in rows}


def answers(name: str, folder: Path) -> dict[str, list[tuple[str, str]]]:
    """Question and answer of every example, by arm."""
    project, table, seeds = candidates(name, folder)
    gold = references(name, project)
    every = kept(name, project, table, seeds, verify=False)
    verified = kept(name, project, table, seeds, verify=True)
    sets = {"unfiltered": every, "verified": verified, "random": drawn(every, len(verified))}
    questions = {number: " ".join(text_of(row["messages"]).split()) for number, row in seeds.items()}
    found = {arm: [(questions[row["seed_no"]], row["answer"]) for row in rows] for arm, rows in sets.items()}
    asked = sorted({row["seed_no"] for row in table.to_pylist()})
    return {**found, "gold": [(questions[number], gold[questions[number]]) for number in asked]}


def arms(name: str, folder: Path) -> dict[str, dict[str, float]]:
    """Examples and right answers of each arm."""
    gold = references(name, Project(Settings(EXAMPLES / name, str(folder / "store"), folder / "state")))
    found = {}
    for arm, pairs in answers(name, folder).items():
        right = sum(CASES[name].right(answer, gold[question]) for question, answer in pairs)
        found[arm] = {"examples": len(pairs), "right": right, "share": right / len(pairs)}
    return found


def main() -> int:
    """Print a table, then one line of JSON an arm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(CASES))
    names = parser.parse_args().names
    measured = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            measured[name] = arms(name, Path(folder))
    print(f"{'data':8}{'arm':12}{'examples':>10}{'right':>8}{'share':>8}")
    for name, found in measured.items():
        for arm in ARMS:
            entry = found[arm]
            print(f"{name:8}{arm:12}{entry['examples']:10}{entry['right']:8}{entry['share']:8.4f}")
    for name, found in measured.items():
        for arm in ARMS:
            print(json.dumps({"name": f"arms_{name}_{arm}", **found[arm]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
