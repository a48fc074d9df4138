"""Where one journal lies, and a look at its tables past the package."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from distill_dagster.teachers._journal import JournalStore
from distill_dagster.teachers._journal_sqlite import SqliteStore
from distill_dagster.teachers.journal import Journal


class Place:
    """Where one journal lies: `name` is the file's path or the database's address."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def postgres(self) -> bool:
        return self.name.startswith("postgresql://")

    def store(self) -> JournalStore:
        if not self.postgres:
            return SqliteStore(Path(self.name))
        from distill_dagster.teachers._journal_postgres import PostgresStore

        return PostgresStore(self.name)

    def open(self, patience: float = 3600.0) -> Journal:
        """The journal through a store of its own."""
        return Journal("", self.store(), patience)

    def rows(self, query: str) -> list[tuple]:
        """What a query of the tables says, with nothing of the package in between."""
        if self.postgres:
            import psycopg

            with psycopg.connect(self.name, options="-c search_path=distill_journal") as database:
                found = database.execute(query).fetchall()  # pyright: ignore
            database.close()
            return [tuple(bytes(v) if isinstance(v, memoryview) else v for v in row) for row in found]
        database = sqlite3.connect(self.name)
        try:
            return database.execute(query).fetchall()
        finally:
            database.close()
