"""What only a journal in PostgreSQL does: sessions are holders, NUL is text, the address stays secret."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from journal_place import Place
from test_journal import FakeTeacher, question, questions

from distill_dagster.errors import ConfigError, LeaseError, StoreError
from distill_dagster.teachers._journal import Asked
from distill_dagster.teachers._journal_sqlite import SqliteStore
from distill_dagster.teachers.base import Response, request_key
from distill_dagster.teachers.stores import open_journal, open_store

WORKER = Path(__file__).with_name("journal_worker.py")


@pytest.fixture
def database(postgres):
    """A database for one test."""
    import psycopg

    connection = psycopg.connect(postgres, autocommit=True)
    name = f"own_{connection.info.backend_pid}"
    connection.execute(f"CREATE DATABASE {name}")  # pyright: ignore
    connection.close()
    return Place(postgres.replace("/postgres?", f"/{name}?"))


@pytest.mark.postgres
def test_a_holder_lives_as_long_as_its_session(database):
    """Nothing beats and nothing times out: the server says that a session is gone."""
    key = request_key(FakeTeacher(), question("a"), "n")
    one = database.store()
    assert one.claim([key]).mine == {key}
    one.sent([Asked(key, "n", "fake", "1")])
    teacher = FakeTeacher()
    with database.open(patience=0.1) as other:
        assert other.possibly_paid() == []
        with pytest.raises(LeaseError, match="being asked by process"):
            other.ask(teacher, questions("a"), "n")
        one._db.close()  # as when its process is killed: the socket closes
        other.patience = 60
        assert other.ask(teacher, questions("a"), "n")[0][0].text == "answer to a"
        assert [attempt.outcome for attempt in other.possibly_paid()] == ["unknown"]
    assert database.rows("SELECT * FROM lease") == database.rows("SELECT * FROM holder") == []


@pytest.mark.postgres
def test_text_that_postgresql_does_not_hold_as_text(database):
    odd = Response("a\x00b \U0001f600", "stop", "mo\x00del", 1, 2)
    with database.open() as journal:
        assert journal.ask(FakeTeacher(faults={"a": odd}), questions("a"), "n")[0] == [odd]
    with database.open() as journal:
        assert journal.ask(FakeTeacher(), questions("a"), "n")[0] == [odd]
        assert journal.served("fake") == {"mo\x00del": 1}


@pytest.mark.postgres
def test_processes_share_the_work(database, tmp_path):
    """Four processes ask the same sixty questions: each is asked once, and all get every answer."""
    files = [(str(tmp_path / f"bill{at}"), str(tmp_path / f"answers{at}")) for at in range(4)]
    workers = [
        subprocess.Popen(
            [sys.executable, str(WORKER), database.name, bill, answers, "60", "4", "1", "0.002"], stdout=subprocess.PIPE
        )
        for bill, answers in files
    ]
    for worker in workers:
        assert worker.communicate(timeout=200)[0] == b"open\n" and worker.returncode == 0
    asked = [line for bill, _ in files if Path(bill).exists() for line in Path(bill).read_text().splitlines()]
    assert sorted(asked) == sorted(f"question {at}" for at in range(60))
    assert len({Path(answers).read_text().count("answer to") for _, answers in files}) == 1
    assert database.rows("SELECT outcome, COUNT(*) FROM attempt GROUP BY outcome") == [("answered", 60)]


@pytest.mark.postgres
def test_a_server_that_goes_away_loses_nothing(database):
    import psycopg

    class Cut(FakeTeacher):
        """Its fifth window finds the journal's session ended by an administrator."""

        def ask(self, requests):
            if len(self.asked) == 16:
                with psycopg.connect(database.name, autocommit=True) as admin:
                    admin.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE pid <> pg_backend_pid() AND datname = current_database()"
                    )
                admin.close()
            yield from super().ask(requests)

    texts = [f"q{at}" for at in range(30)]
    with pytest.raises(StoreError, match="cannot be read or written"), database.open() as journal:
        journal.ask(Cut(window=4), questions(texts), "n")
    teacher = FakeTeacher(window=4)
    with database.open(patience=60) as journal:
        responses, _ = journal.ask(teacher, questions(texts), "n")
        assert [response.text for response in responses] == [f"answer to {text}" for text in texts]
        assert sorted(teacher.asked) == sorted(texts[16:])
        assert len(journal.possibly_paid()) == 4


@pytest.mark.postgres
def test_a_newer_format_is_refused(database):
    import psycopg

    database.open().close()
    with psycopg.connect(database.name, autocommit=True) as connection:
        connection.execute("UPDATE distill_journal.format SET version = 99")
    connection.close()
    with pytest.raises(StoreError, match="has format 99, this release reads up to 1"):
        database.open()


@pytest.mark.postgres
def test_the_environment_chooses_the_store(database, tmp_path, monkeypatch):
    with open_journal(tmp_path) as journal:
        assert isinstance(journal.store, SqliteStore) and (tmp_path / "journal.sqlite").exists()
    monkeypatch.setenv("DISTILL_JOURNAL", database.name)
    with open_journal(tmp_path) as journal:
        journal.ask(FakeTeacher(), questions("a"), "n")
    assert database.rows("SELECT COUNT(*) FROM answer") == [(1,)]


@pytest.mark.parametrize(
    "url", ["mysql://u:canary-5309@h/d", "canary-5309", "postgresql://u:canary-5309@127.0.0.1:1/d?connect_timeout=2"]
)
def test_a_password_in_the_address_is_shown_nowhere(url, tmp_path, monkeypatch):
    pytest.importorskip("psycopg")
    monkeypatch.setenv("DISTILL_JOURNAL", url)
    with pytest.raises((ConfigError, StoreError)) as caught:
        open_store(tmp_path)
    assert "canary" not in str(caught.getrepr(style="short", chain=True))


def test_without_psycopg_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setenv("DISTILL_JOURNAL", "postgresql://h/d")
    with pytest.raises(ConfigError, match=r"distill-dagster\[postgres\]"):
        open_store(tmp_path)
