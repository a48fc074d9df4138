"""Asks a server in batch jobs, through a journal. Run as a process that may be killed at any moment."""

import json
import sys
from pathlib import Path

from distill_dagster.config.endpoint import BatchOptions, EndpointOptions
from distill_dagster.teachers._openai_batch import Batched
from distill_dagster.teachers.base import Request
from distill_dagster.teachers.journal import Journal
from distill_dagster.teachers.openai import Backend


def main():
    """folder url count"""
    folder, url, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    endpoint = EndpointOptions(url=url, mode="batch", batch=BatchOptions(poll=0.01, most=8), deadline=60.0)
    backend = Backend("test-model", endpoint=endpoint, identity="teacher", revision="r1", pause=0.01)
    requests = [Request(({"role": "user", "content": f"question {at}"},)) for at in range(count)]
    with Journal(folder / "j.sqlite") as journal:
        responses, _ = journal.ask(Batched(backend, endpoint, folder / "batches", "tests"), requests, "tests")
    (folder / "answers.json").write_text(json.dumps([response.text for response in responses]), "utf-8")


if __name__ == "__main__":
    main()
