"""Where the journal is kept: an SQLite file below the state folder, or the database that `DISTILL_JOURNAL` names."""

from __future__ import annotations

import os
from pathlib import Path

from distill_dagster.errors import ConfigError
from distill_dagster.teachers._journal import JournalStore
from distill_dagster.teachers._journal_sqlite import SqliteStore
from distill_dagster.teachers.journal import Journal

VARIABLE = "DISTILL_JOURNAL"
FILE = "journal.sqlite"
SCHEMES = ("postgresql://", "postgres://")


def open_store(state: Path) -> JournalStore:
    """The journal's store.

    Raises:
        ConfigError: The variable holds something else than a PostgreSQL address, or psycopg is not installed.
        StoreError: The store cannot be opened.
    """
    url = os.environ.get(VARIABLE, "")
    if not url:
        return SqliteStore(state / FILE)
    if not url.startswith(SCHEMES):
        # The value is not shown: it may hold a password.
        raise ConfigError(
            VARIABLE, "its value is no PostgreSQL address.", "Write postgresql://user@host/database, or unset it."
        )
    from distill_dagster.teachers._journal_postgres import PostgresStore

    return PostgresStore(url)


def open_journal(state: Path) -> Journal:
    """The journal of a state folder, or the shared one."""
    return Journal(state / FILE, open_store(state))
