"""Where distillation helps and where not, by the protocol of docs/results.md: a table rebuilt by one command.

    make bench-quality
    make bench-quality ARGS="--seeds 1 --sizes 1000 --parts banking"

Parts, each a module of this folder that says what its arms are:

    banking     a pretrained encoder teaches students of half and a third of its layers
    writers     encoder against causal students at equal data and size
    stories     a model that nobody here made teaches a smaller one, by each divergence and on-policy
    rationale   explanations as a second task, or before the answer, beside labels alone
    verdicts    does a student that learns from verdicts on its own answers pass its teacher?
    cost        what teacher and student take to serve

Every arm is tried with two learning rates on D_val and a seed of its own; then come `--seeds` paired seeds. Cells
that are measured are not measured again, so a study that was stopped goes on. With a GPU the trainings of `banking` and
`writers` run there, side by side.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from study import Cell, Study, measure_all

ROOT = Path(__file__).resolve().parent.parent.parent
PARTS = ("banking", "writers", "stories", "rationale", "verdicts", "cost")


def machine(device: str) -> str:
    """Where it ran, in words."""
    import torch

    gpu = f", {torch.cuda.get_device_name(0)}" if device == "cuda" else ""
    return f"{os.cpu_count()} cores {platform.machine()}{gpu}, torch {torch.__version__}, {device}"


def tables(study: Study, parts: list[str]) -> str:
    """Everything measured so far, in Markdown."""
    import report

    found = []
    for part in parts:
        module: Any = importlib.import_module(part)
        own = {"banking": report.banking_table, "writers": report.writers_table, "cost": report.cost_table}.get(part)
        text = own(study) if own else module.table(study, study.options)
        found.append(f"### {part}\n\n{text or 'Not measured yet.'}\n\n{spent(study, part)}")
    return "\n\n".join(found)


def spent(study: Study, part: str) -> str:
    """What all cells of a part have cost, those of other settings in the same folder too."""
    cells = [json.loads(path.read_text("utf-8")) for path in study.cells.glob(f"{part}-*.json")]
    seconds = sum(cell.get("cpu_seconds", 0.0) for cell in cells)
    return f"{len(cells)} cells, {seconds / 60:.0f} processor minutes."


def lines(study: Study, parts: list[str]) -> list[dict[str, Any]]:
    """Every measure as a JSON object."""
    import report

    found = report.banking_lines(study) if "banking" in parts else []
    for part in parts:
        module: Any = importlib.import_module(part)
        found += module.lines(study, study.options) if hasattr(module, "lines") else []
    return found


def chosen(cells: list[Cell], arms: list[str]) -> list[Cell]:
    """The cells of these arms, and those that they need; all of them where none is of these arms, as of `all`."""
    wanted = {cell.name for cell in cells if cell.arm in arms}
    for cell in reversed(cells):  # What a cell needs stands before it.
        if cell.name in wanted:
            wanted |= set(cell.needs)
    return [cell for cell in cells if cell.name in wanted] if wanted else cells


def main() -> int:
    """Measure what is missing, and print all of it."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--data", default=str(ROOT.parent / "shared" / "data"), help="folder of the real data")
    parse.add_argument("--out", default=str(ROOT / "benchmarks" / ".quality"), help="folder of the cells")
    parse.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parse.add_argument("--arms", nargs="+", help="only these, with what they need, in parts that have one; or all")
    parse.add_argument("--sizes", type=int, nargs="+", default=[300, 1000], help="records of D_G")
    parse.add_argument("--seeds", type=int, default=3, help="paired seeds (8 where a GPU is at hand)")
    parse.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parse.add_argument("--workers", type=int, help="processes side by side; by default one a core, at most 12")
    parse.add_argument("--scale", type=float, default=1.0, help="of all steps: below 1 to see that it works")
    parse.add_argument("--prepare", action="store_true", help="split the data, and measure nothing")
    parse.add_argument("--show", action="store_true", help="print what is measured, and measure nothing")
    given = parse.parse_args()
    import torch

    device = given.device if given.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    study = Study(given.out, {"seeds": given.seeds, "sizes": given.sizes, "device": device, "scale": given.scale})
    if not given.show:
        if {"banking", "writers", "cost"} & set(given.parts):
            import questions

            questions.prepare(study, Path(given.data) / "finance")
        if given.prepare:
            return 0
        cells: list[Cell] = []
        for part in given.parts:
            module: Any = importlib.import_module(part)
            cells += chosen(module.cells(study.options), given.arms or list(getattr(module, "DEFAULT", ())))
        workers = given.workers or min(12, os.cpu_count() or 1)
        failed = measure_all(study, cells, workers, lambda text: print(text, file=sys.stderr, flush=True))
        for entry in failed:
            print(f"failed: {entry}", file=sys.stderr)
    print(f"{machine(device)}\n")
    print(tables(study, given.parts))
    if "banking" in given.parts:
        import report

        report.curve(study, study.out / "curve.png")
    print()
    for line in lines(study, given.parts):
        print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
