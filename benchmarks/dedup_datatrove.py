"""datatrove's MinHash over JSON lines; runs in datatrove's own environment and prints what it took as JSON."""

import json
import os
import resource
import sys
import threading
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig

TASKS = 2


class Watch(threading.Thread):
    """Largest resident memory of this process and its children together, looked at ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.page = 0, resource.getpagesize()

    def run(self) -> None:
        while True:
            self.most = max(self.most, sum(map(self.resident, self.family(os.getpid()))))
            time.sleep(0.1)

    def family(self, process: int) -> list[int]:
        try:
            children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        except OSError:
            return []
        return [process, *(one for child in children for one in self.family(int(child)))]

    def resident(self, process: int) -> int:
        try:
            return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * self.page
        except (OSError, IndexError):
            return 0


def main(source: str, work: str) -> None:
    """Four steps, each when the one before is done; then the ids that are gone."""
    config = MinhashConfig(hash_config=HashConfig(precision=64), n_grams=3, num_buckets=14, hashes_per_bucket=8)

    def run(name: str, pipeline: list, tasks: int) -> None:
        logs = f"{work}/logs/{name}"
        LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=TASKS, logging_dir=logs).run()

    watch = Watch()
    watch.start()
    start = time.perf_counter()
    reader = JsonlReader(source)
    run("signatures", [reader, MinhashDedupSignature(f"{work}/signatures", config=config, language="eng")], TASKS)
    run("buckets", [MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config)], config.num_buckets)
    run("clusters", [MinhashDedupCluster(f"{work}/buckets", f"{work}/remove", config=config)], 1)
    gone = JsonlWriter(f"{work}/gone", compression=None)
    run(
        "filter",
        [
            reader,
            MinhashDedupFilter(f"{work}/remove", exclusion_writer=gone),
            JsonlWriter(f"{work}/kept", compression=None),
        ],
        TASKS,
    )
    seconds = time.perf_counter() - start
    dropped = [
        json.loads(line)["id"] for path in Path(work, "gone").glob("*.jsonl") for line in path.open(encoding="utf-8")
    ]
    Path(work, "dropped.json").write_text(json.dumps([int(one) for one in dropped]))
    print(json.dumps({"seconds": seconds, "peak_bytes": watch.most, "rows_dropped": len(dropped)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
