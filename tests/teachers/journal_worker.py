"""Asks a journal slowly, and keeps the teacher's own bill. Run as a process that may be killed at any moment."""

import json
import os
import sys
import time

from distill_dagster.teachers.base import Request, Response
from distill_dagster.teachers.journal import Journal


class BilledTeacher:
    """Writes every question it is asked to a bill, before it answers."""

    identity, revision = "billed", "1"

    def __init__(self, bill, window, streams, pause):
        self.bill, self.window, self.streams, self.pause = bill, window, streams, pause

    def ask(self, requests):
        for index, request in enumerate(requests):
            text = request.messages[0]["content"]
            bill = os.open(self.bill, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(bill, (text + "\n").encode())
            os.close(bill)
            time.sleep(self.pause)
            yield index, Response(f"answer to {text}", "stop", "billed-1", 3, 4)


def main():
    """journal bill answers count window streams pause"""
    journal, bill, answers, count, window, streams, pause = sys.argv[1:]
    teacher = BilledTeacher(bill, int(window), streams == "1", float(pause))
    requests = [Request(({"role": "user", "content": f"question {at}"},)) for at in range(int(count))]
    store = None
    if journal.startswith("postgresql://"):
        from distill_dagster.teachers._journal_postgres import PostgresStore

        store = PostgresStore(journal)
    with Journal(journal, store) as opened:
        print("open", flush=True)
        responses, infos = opened.ask(teacher, requests, "tests")
    with open(answers, "w", encoding="utf-8") as stream:
        json.dump([[r.text, i.reused] for r, i in zip(responses, infos, strict=True)], stream)


if __name__ == "__main__":
    main()
