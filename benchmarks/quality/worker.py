"""A process of a study: `python benchmarks/quality/worker.py OUT OPTIONS` measures one cell a line of its input."""

from __future__ import annotations

import json
import sys
import traceback

from study import Cell, Study


def main() -> None:
    """Measure until standard input closes."""
    import torch

    torch.set_num_threads(1)
    study = Study(sys.argv[1], json.loads(sys.argv[2]))
    answers, sys.stdout = sys.stdout, sys.stderr  # What a library prints is no answer.
    for line in sys.stdin:
        told = json.loads(line)
        cell = Cell(**{**told, "needs": tuple(told["needs"])})
        error = ""
        try:
            study.measure(cell)
        except Exception as problem:
            traceback.print_exc()
            error = f"{type(problem).__name__}: {problem}"
        print(json.dumps({"error": error}), file=answers, flush=True)


if __name__ == "__main__":
    main()
