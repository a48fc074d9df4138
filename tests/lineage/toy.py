"""A small chain from seed set to deployed student, with no model behind it; also a worker for kill tests.

`python -m lineage.toy` reads lines of JSON, `{"folder": …, "environment": {…}}`, runs the chain for each in a process
of its own, forked after the imports, and answers each with the exit status.
"""

import hashlib
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distill_dagster.lineage import chain
from distill_dagster.lineage.engine import Job, Made, Services, materialize
from distill_dagster.lineage.graph import Node, Parent, ordered
from distill_dagster.lineage.ledger import Ledger
from distill_dagster.lineage.run import code_state, environment
from distill_dagster.records import tables
from distill_dagster.records.messages import message
from distill_dagster.storage.store import Key, Store

OWNER = "toy"


def seed_rows(count: int, parts: tuple[str, ...] = ("gold", "unlabeled")) -> list[dict[str, Any]]:
    """Seed records, the parts in turn."""
    return [
        {
            "task": "routing",
            "part": parts[number % len(parts)],
            "messages": [message("user", f"question {number}")],
            "answer": f"answer {number}",
            "licence": "CC0-1.0",
        }
        for number in range(count)
    ]


def make_seeds(job: Job, count: int) -> None:
    table = tables.build("seed", seed_rows(count))
    job.draft.write_table("seed", table, by="part")
    look = {"candidate_no": 0, "seed_no": 0, "task": "routing", "verdict": "drop", "reason": "leak_near", "looks": []}
    job.draft.write_table("decision", tables.build("decision", [look]), side=True)
    job.notes["counts"] = {"records": count, "licences": {"CC0-1.0": count}}


def make_student(job: Job) -> None:
    gold = job.inputs["seeds"].table("seed", filters=[("part", "==", "gold")])
    (job.draft.content / "model").mkdir()
    weights = hashlib.sha512("".join(gold["record_id"].to_pylist()).encode()).digest()
    (job.draft.content / "model" / "model.safetensors").write_bytes(weights)
    job.draft.write_json("model/config.json", {"layers": 1})
    (job.draft.side / "metrics.jsonl").write_text('{"loss": 1.0, "step": 1}\n')


def make_deployed(job: Job) -> None:
    shutil.copytree(job.inputs["student"].local("model"), job.draft.content / "model")
    links = chain.collect(job.store, [(job.inputs["student"], job.input_runs["student"])])
    job.draft.write_json("model/lineage/chain.json", links, attach=True)
    job.notes["gates"] = [{"gate": "floor", "passed": True, "reason": "above"}]


def graph(seeds: int = 6, make: Callable[[Job], None] = make_student) -> dict[Key, Node]:
    """Seed set, student and deployed student; the student reads gold alone."""
    nodes = [
        Node((OWNER, "seed_set"), "1", (), {"count": seeds}, lambda job: make_seeds(job, seeds), title="seeds"),
        Node(
            (OWNER, "student_checkpoint"),
            "1",
            (Parent("seeds", (OWNER, "seed_set"), {"seed": ("gold",)}),),
            {"steps": 1},
            make,
        ),
        Node((OWNER, "deployed_student"), "1", (Parent("student", (OWNER, "student_checkpoint")),), {}, make_deployed),
    ]
    return {node.key: node for node in nodes}


def run(nodes: Mapping[Key, Node], store: Store, state: Path) -> dict[Key, Made]:
    """Materialize every node and promote the student, as a pipeline run does."""
    made = {node.key: materialize(node, store, Services(state)) for node in ordered(nodes)}
    promote(store, made[OWNER, "deployed_student"])
    return made


def promote(store: Store, made: Made) -> None:
    """Write the promotion, unless the alias is there already."""
    ledger = Ledger(store)
    before = ledger.promotions(OWNER, "champion")
    if before and before[-1]["payload"]["version"] == made.version.version:
        return
    ledger.append(
        "promoted",
        pipeline=OWNER,
        alias="champion",
        version=made.version.version,
        run=made.run,
        report=made.version.version,
        sha256=chain.seals(made.version, made.run),
        gates=made.record["notes"]["gates"],
    )


def serve() -> None:
    """Answer every line of standard input with the exit status of a forked run."""
    environment()  # this and the next take longer than a run
    code_state()
    os.fsync = lambda _: None  # a killed process loses nothing that the kernel has; waiting for the disk shows nothing
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            os.environ.update(order["environment"])
            folder = Path(order["folder"])
            try:
                run(graph(), Store(folder / "store"), folder)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
