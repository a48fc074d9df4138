"""Asks a server through a journal. Run as a process that may be killed at any moment."""

import json
import signal
import sys

from distill_dagster.config.endpoint import EndpointOptions
from distill_dagster.teachers.base import Request
from distill_dagster.teachers.journal import Journal
from distill_dagster.teachers.openai import Backend


def main():
    """journal url answers count max_in_flight"""
    # A process started in the background ignores Ctrl-C from birth.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    journal, url, answers, count, most = sys.argv[1:]
    endpoint = EndpointOptions(url=url, max_in_flight=int(most), attempts=8, retry_share=2.0)
    teacher = Backend("test-model", endpoint=endpoint, identity="teacher", revision="r1", pause=0.01)
    requests = [Request(({"role": "user", "content": f"question {at}"},)) for at in range(int(count))]
    with Journal(journal) as opened:
        print("open", flush=True)
        responses, _ = opened.ask(teacher, requests, "tests")
    with open(answers, "w", encoding="utf-8") as stream:
        json.dump([response.text for response in responses], stream)


if __name__ == "__main__":
    main()
