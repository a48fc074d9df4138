"""Places for a journal: an SQLite file, or a database of a PostgreSQL server that is started for the session."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import postgres_server
import pytest
from journal_place import Place

_numbers = count()


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
