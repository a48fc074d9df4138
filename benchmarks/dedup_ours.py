"""Near duplicates of a parquet file of texts with this package; prints what it took as JSON. One process and thread."""

from __future__ import annotations

import json
import resource
import sys
import time

import numpy as np
import pyarrow.parquet as pq


def resident() -> int:
    """Resident memory now, in bytes."""
    with open("/proc/self/statm", encoding="ascii") as stream:
        return int(stream.read().split()[1]) * resource.getpagesize()


def peak() -> int:
    """Largest resident memory so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(texts_file: str, dropped_file: str) -> None:
    """Read, warm up on a few texts, find, write the places of what would be dropped."""
    from distill_dagster.filtering._minhash import stand_ins

    texts = pq.read_table(texts_file, columns=["text"])["text"].to_pylist()
    stand_ins(texts[:2000])
    base = max(resident(), peak())
    start, spent = time.perf_counter(), time.process_time()
    twins, _ = stand_ins(texts)
    seconds, processor = time.perf_counter() - start, time.process_time() - spent
    np.save(dropped_file, np.flatnonzero(twins >= 0))
    found = {"seconds": seconds, "processor_seconds": processor, "base_bytes": base, "peak_bytes": peak()}
    print(json.dumps({**found, "rows": len(texts)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
