"""The journal in one SQLite file: write-ahead log, a full sync at every commit, one commit a group.

Times are for readers; order is the attempt's number. A holder is alive while its process is, where that can be seen
(same machine, same boot, same process space); elsewhere while its beat counter moves, by the watcher's own clock.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, RLock, Thread
from uuid import uuid4

from distill_dagster.errors import StoreError
from distill_dagster.storage.faults import fault_point
from distill_dagster.teachers import _holder
from distill_dagster.teachers._journal import (
    Account,
    Asked,
    Attempt,
    Claim,
    Entry,
    Settled,
    Usage,
    dump_logprobs,
    load_logprobs,
    utc_now,
)
from distill_dagster.teachers.base import Response

FORMAT = 1
_CHUNK = 500
_TIMEOUT = 60.0

_TABLES = """
CREATE TABLE holder (id TEXT PRIMARY KEY, place TEXT NOT NULL, pid INTEGER NOT NULL, started TEXT NOT NULL,
    host TEXT NOT NULL, beats INTEGER NOT NULL);
CREATE TABLE lease (key TEXT PRIMARY KEY, holder TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE attempt (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, namespace TEXT NOT NULL,
    teacher TEXT NOT NULL, revision TEXT NOT NULL, holder TEXT NOT NULL, sent_at TEXT NOT NULL, received_at TEXT,
    outcome TEXT NOT NULL, failure TEXT, cost_micros INTEGER NOT NULL DEFAULT 0);
CREATE INDEX attempt_key ON attempt (key);
CREATE INDEX attempt_open ON attempt (holder) WHERE outcome = 'sent';
CREATE TABLE answer (key TEXT PRIMARY KEY, attempt INTEGER NOT NULL REFERENCES attempt (number), text TEXT NOT NULL,
    finish_reason TEXT NOT NULL, served_model TEXT NOT NULL, input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL);
CREATE TABLE quarantine (attempt INTEGER PRIMARY KEY REFERENCES attempt (number), detail TEXT, raw BLOB);
"""
#: Beside the tables of format 1, which stay as they are: a release that knows only those still reads every answer.
_LOGPROBS = "CREATE TABLE IF NOT EXISTS answer_logprobs (key TEXT PRIMARY KEY, logprobs TEXT NOT NULL) WITHOUT ROWID"


class SqliteStore:
    """A `JournalStore` in a file.

    Raises:
        StoreError: The file cannot be opened or written, is no journal, or is of a newer format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = uuid4().hex
        self._lock = RLock()
        self._held: set[str] = set()
        self._heard: dict[str, tuple[int, float]] = {}
        self._stop = Event()
        self._beating: Thread | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=_TIMEOUT, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise self._fault(error) from error
        try:
            self._open()
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        with self._faults():
            self._write_ahead()
            self._db.execute("PRAGMA synchronous = FULL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > FORMAT:
            raise StoreError(
                str(self.path),
                f"the journal has format {version}, this release reads up to {FORMAT}.",
                "Use the release that wrote it, or a newer one.",
            )
        with self._commit("open"):
            if self._db.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in _TABLES.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {FORMAT}")
            self._db.execute(_LOGPROBS)
            for holder in self._all("SELECT id FROM holder"):
                self._bury_if_dead(holder[0])
            self._db.execute(
                "INSERT INTO holder VALUES (?, ?, ?, ?, ?, 0)",
                (self.id, _holder.place(), os.getpid(), _holder.started(os.getpid()), socket.gethostname()),
            )

    def _write_ahead(self) -> None:
        """Switch the log on. SQLite does not wait for others who open or close the file at the same moment."""
        deadline = time.monotonic() + _TIMEOUT
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    # --- questions and answers ------------------------------------------------------------------------------------

    def known(self, keys: Sequence[str]) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        with self._lock, self._faults():
            for part, marks in _chunks(keys):
                rows = self._all(
                    "SELECT key, text, finish_reason, served_model, input_tokens, output_tokens, logprobs, sent_at,"
                    " received_at, cost_micros FROM answer JOIN attempt USING (key)"
                    f" LEFT JOIN answer_logprobs USING (key) WHERE number = attempt AND key IN ({marks})",
                    part,
                )
                for key, *said, logprobs, sent_at, received_at, cost in rows:
                    response = Response(*said, logprobs=load_logprobs(logprobs))
                    found[key] = Entry(key, response, sent_at, received_at, cost)
        return found

    def claim(self, keys: Sequence[str]) -> Claim:
        self._start_beating()
        with self._commit("claim"):
            known = self.known(keys)
            owner: dict[str, str] = {}
            for part, marks in _chunks([key for key in keys if key not in known]):
                owner.update(self._all(f"SELECT key, holder FROM lease WHERE key IN ({marks})", part))
            for holder in sorted(set(owner.values())):
                if holder != self.id and self._bury_if_dead(holder):
                    owner = {key: other for key, other in owner.items() if other != holder}
            mine = [key for key in keys if key not in known and key not in owner]
            self._db.executemany("INSERT INTO lease VALUES (?, ?)", [(key, self.id) for key in mine])
            names = {holder: self._name(holder) for holder in set(owner.values())}
        self._held.update(mine)
        return Claim(frozenset(mine), {key: names[holder] for key, holder in owner.items()}, known)

    def release(self, keys: Iterable[str]) -> None:
        mine = [key for key in keys if key in self._held]
        if not mine:
            return
        with self._commit("release"):
            for part, marks in _chunks(mine):
                self._db.execute(
                    "UPDATE attempt SET outcome = 'unknown'"
                    f" WHERE outcome = 'sent' AND holder = ? AND key IN ({marks})",
                    (self.id, *part),
                )
            self._unlease(mine)
        self._held.difference_update(mine)

    def sent(self, questions: Sequence[Asked]) -> list[int]:
        numbers: list[int] = []
        now = utc_now()
        with self._commit("sent"):
            for asked in questions:
                cursor = self._db.execute(
                    "INSERT INTO attempt (key, namespace, teacher, revision, holder, sent_at, outcome)"
                    " VALUES (?, ?, ?, ?, ?, ?, 'sent')",
                    (asked.key, asked.namespace, asked.teacher, asked.revision, self.id, now),
                )
                numbers.append(int(cursor.lastrowid or 0))
        return numbers

    def settled(self, results: Sequence[Settled]) -> list[Entry]:
        keys = [result.key for result in results]
        with self._commit("settled"):
            for result in results:
                response = result.response
                self._db.execute(
                    "UPDATE attempt SET outcome = ?, failure = ?, received_at = ?, cost_micros = ? WHERE number = ?",
                    (result.outcome, response.failure, result.received_at, result.cost_micros, result.attempt),
                )
                if result.outcome == "answered":
                    first = self._db.execute(
                        "INSERT OR IGNORE INTO answer VALUES (?, ?, ?, ?, ?, ?, ?)",
                        (
                            result.key,
                            result.attempt,
                            response.text,
                            response.finish_reason,
                            response.served_model,
                            response.input_tokens,
                            response.output_tokens,
                        ),
                    )
                    if first.rowcount and response.logprobs is not None:
                        self._db.execute(
                            "INSERT INTO answer_logprobs VALUES (?, ?)", (result.key, dump_logprobs(response.logprobs))
                        )
                elif result.outcome == "malformed":
                    self._db.execute(
                        "INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?)",
                        (result.attempt, result.detail, result.raw),
                    )
            self._unlease(keys)
            known = self.known(keys)
            numbers = [result.attempt for result in results]
            times: dict[int, str] = {}
            for part, marks in _chunks(numbers):
                times.update(self._all(f"SELECT number, sent_at FROM attempt WHERE number IN ({marks})", part))
        self._held.difference_update(keys)
        return [
            known.get(result.key)
            or Entry(result.key, result.response, times[result.attempt], result.received_at, result.cost_micros)
            for result in results
        ]

    # --- accounts -------------------------------------------------------------------------------------------------

    def attempts(self, namespace: str | None = None, outcome: str | None = None) -> list[Attempt]:
        with self._lock, self._faults():
            return [
                Attempt(*row)
                for row in self._all(
                    "SELECT number, key, namespace, teacher, revision, sent_at, outcome, failure FROM attempt"
                    " WHERE (? IS NULL OR namespace = ?) AND (? IS NULL OR outcome = ?) ORDER BY number",
                    (namespace, namespace, outcome, outcome),
                )
            ]

    def lost(self, namespace: str | None = None) -> list[Attempt]:
        with self._commit("lost"):
            for holder in self._all("SELECT id FROM holder WHERE id <> ?", (self.id,)):
                self._bury_if_dead(holder[0])
        return self.attempts(namespace, "unknown")

    def spent(self) -> int:
        with self._lock, self._faults():
            rows = self._all("SELECT COALESCE(SUM(cost_micros), 0) FROM attempt WHERE holder = ?", (self.id,))
        return int(rows[0][0])

    def account(self, teacher: str, namespace: str) -> Account:
        with self._lock, self._faults():
            rows = self._all(
                "SELECT COUNT(*), COALESCE(SUM(input_tokens + output_tokens), 0), COALESCE(SUM(cost_micros), 0)"
                " FROM attempt LEFT JOIN answer ON number = answer.attempt WHERE holder <> ? AND teacher = ?"
                " AND namespace = ? AND outcome IN ('answered', 'failed', 'malformed')"
                " AND failure IS NOT 'not_sent'",
                (self.id, teacher, namespace),
            )
        return Account(*rows[0])

    def paid(self, keys: Sequence[str]) -> int:
        with self._lock, self._faults():
            query = "SELECT COALESCE(SUM(cost_micros), 0) FROM attempt WHERE key IN"
            return sum(self._all(f"{query} ({marks})", part)[0][0] for part, marks in _chunks(keys))

    def usage(self, teacher: str, namespace: str) -> Usage:
        with self._lock, self._faults():
            rows = self._all(
                "SELECT COUNT(*), COALESCE(AVG(input_tokens), 0), COALESCE(AVG(output_tokens), 0) FROM answer"
                " JOIN attempt ON number = answer.attempt WHERE teacher = ? AND namespace = ?",
                (teacher, namespace),
            )
        return Usage(*rows[0])

    def served(self, teacher: str) -> dict[str, int]:
        with self._lock, self._faults():
            rows = self._all(
                "SELECT served_model, COUNT(*) FROM answer JOIN attempt ON number = answer.attempt"
                " WHERE teacher = ? GROUP BY served_model ORDER BY served_model",
                (teacher,),
            )
        return dict(rows)

    def close(self) -> None:
        self._stop.set()
        if self._beating is not None:
            self._beating.join()
            self._beating = None
        try:
            self.release(list(self._held))
            with self._commit("close"):
                self._db.execute("DELETE FROM holder WHERE id = ?", (self.id,))
        finally:
            self._db.close()

    # --- holders --------------------------------------------------------------------------------------------------

    def _bury_if_dead(self, holder: str) -> bool:
        """Pass on what a dead holder held; what it had sent has an unknown outcome."""
        row = self._db.execute("SELECT place, pid, started, beats FROM holder WHERE id = ?", (holder,)).fetchone()
        if row is not None:
            place, pid, started, beats = row
            if place == _holder.place():
                if _holder.started(pid) == started and started:
                    return False
            else:
                heard, since = self._heard.get(holder, (None, 0.0))
                if heard != beats:
                    self._heard[holder] = (beats, time.monotonic())
                    return False
                if time.monotonic() - since < _holder.SILENCE:
                    return False
        self._db.execute("UPDATE attempt SET outcome = 'unknown' WHERE outcome = 'sent' AND holder = ?", (holder,))
        self._db.execute("DELETE FROM lease WHERE holder = ?", (holder,))
        self._db.execute("DELETE FROM holder WHERE id = ?", (holder,))
        return True

    def _name(self, holder: str) -> str:
        if holder == self.id:
            return "another call of this process"
        row = self._db.execute("SELECT pid, host FROM holder WHERE id = ?", (holder,)).fetchone()
        return f"process {row[0]} on {row[1]}" if row else "another process"

    def _start_beating(self) -> None:
        if self._beating is None:
            self._beating = Thread(target=self._beat, name="journal-beat", daemon=True)
            self._beating.start()

    def _beat(self) -> None:
        while not self._stop.wait(_holder.BEAT):
            try:
                with self._lock:
                    self._db.execute("UPDATE holder SET beats = beats + 1 WHERE id = ?", (self.id,))
            except sqlite3.Error:
                # A missed beat costs nothing by itself; a store that cannot be written fails at the next commit.
                continue

    # --- transactions ---------------------------------------------------------------------------------------------

    @contextmanager
    def _commit(self, name: str) -> Iterator[None]:
        """One transaction; a fault point stands before and after its commit."""
        with self._lock, self._faults():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                fault_point(f"journal.{name}.commit")
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        fault_point(f"journal.{name}.committed")

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def _fault(self, error: Exception) -> StoreError:
        return StoreError(
            str(self.path),
            f"the journal cannot be read or written ({error}).",
            "What was committed is safe. Free space or mend the file, and run again.",
        )

    def _unlease(self, keys: Sequence[str]) -> None:
        for part, marks in _chunks(keys):
            self._db.execute(f"DELETE FROM lease WHERE holder = ? AND key IN ({marks})", (self.id, *part))

    def _all(self, query: str, values: Sequence = ()) -> list[tuple]:
        return self._db.execute(query, tuple(values)).fetchall()


def _chunks(values: Sequence) -> Iterator[tuple[Sequence, str]]:
    """Parts small enough for one statement, with as many question marks."""
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK]
        yield part, ",".join("?" * len(part))
