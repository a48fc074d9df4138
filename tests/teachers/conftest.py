"""Places for a journal: an SQLite file, or a database of a PostgreSQL server that is started for the session."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import postgres_server
import pytest

from distill_dagster.teachers._journal import JournalStore
from distill_dagster.teachers._journal_sqlite import SqliteStore
from distill_dagster.teachers.journal import Journal

_numbers = count()


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


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a PostgreSQL server; skips where none is installed."""
    if postgres_server.programs() is None:
        pytest.skip("no PostgreSQL on this machine; install Debian's package postgresql")
    pytest.importorskip("psycopg")
    with postgres_server.server(tmp_path_factory.mktemp("postgres")) as address:
        yield address


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def new_place(request: pytest.FixtureRequest, tmp_path: Path):
    """Makes places for journals that nothing has been asked of, one in SQLite and one in PostgreSQL."""
    if request.param == "sqlite":
        return lambda: Place(str(tmp_path / f"{next(_numbers)}" / "journal.sqlite"))
    address = request.getfixturevalue("postgres")

    def database() -> Place:
        import psycopg

        name = f"test_{next(_numbers)}"
        connection = psycopg.connect(address, autocommit=True)
        connection.execute(f"CREATE DATABASE {name}")  # pyright: ignore
        connection.close()
        return Place(address.replace("/postgres?", f"/{name}?"))

    return database


@pytest.fixture
def place(new_place) -> Place:
    """A place for one journal."""
    return new_place()
