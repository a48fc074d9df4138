"""The ledger: what a chain of digests shows by itself, what only an anchor shows, and two writers."""

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from storage import objects

from distill_dagster.errors import StoreError
from distill_dagster.lineage.ledger import Ledger
from distill_dagster.records.identity import digest
from distill_dagster.storage import atomic
from distill_dagster.storage.names import DamagedError, json_bytes
from distill_dagster.storage.store import Store

COUNT = 5


@pytest.fixture(params=["local", "memory"])
def ledger(request, tmp_path: Path) -> Ledger:
    """A ledger of five promotions."""
    root = tmp_path / "store" if request.param == "local" else f"memory://{tmp_path.name}"
    found = Ledger(Store(root))
    for number in range(COUNT):
        found.append("promoted", pipeline="finance", alias="champion", version=str(number))
    return found


def test_entries_follow_one_another(ledger: Ledger) -> None:
    entries = list(ledger.entries())
    assert [entry["sequence"] for entry in entries] == list(range(COUNT))
    assert [entry["previous"] for entry in entries] == ["0" * 64, *(entry["digest"] for entry in entries[:-1])]
    assert ledger.problems() == [] and ledger.problems(ledger.anchor()) == []
    ledger.append("deployed", where="x")
    assert [entry["payload"]["version"] for entry in ledger.promotions("finance", "champion")] == list("01234")
    assert ledger.promotions("finance", "staging") == ledger.promotions("law", "champion") == []


def test_an_empty_ledger(tmp_path: Path) -> None:
    ledger = Ledger(Store(tmp_path))
    assert list(ledger.entries()) == ledger.problems() == ledger.promotions("a", "b") == []
    assert ledger.problems(ledger.anchor()) == []


def path(ledger: Ledger, number: int):
    return ledger.folder / f"{number:08d}.json"


def rewrite(ledger: Ledger, number: int, **changes) -> None:
    """Change an entry and give it the digest it would have."""
    entry = json.loads(path(ledger, number).read_bytes()) | changes
    entry["digest"] = digest({name: value for name, value in entry.items() if name != "digest"})
    path(ledger, number).write_bytes(json_bytes(entry))


@pytest.mark.parametrize("number", range(COUNT))
def test_an_edited_entry_is_named(ledger: Ledger, number: int) -> None:
    entry = json.loads(path(ledger, number).read_bytes())
    path(ledger, number).write_bytes(json_bytes(entry | {"actor": "somebody else"}))
    assert any(f"{number:08d}.json" in problem for problem in ledger.problems())


@pytest.mark.parametrize("number", range(COUNT - 1))
def test_an_edited_entry_with_a_new_digest_breaks_the_next(ledger: Ledger, number: int) -> None:
    rewrite(ledger, number, actor="somebody else")
    assert any(f"{number + 1:08d}.json" in problem for problem in ledger.problems())


@pytest.mark.parametrize("number", range(COUNT - 1))
def test_a_removed_entry_is_noticed(ledger: Ledger, number: int) -> None:
    path(ledger, number).unlink()
    assert any(f"{number + 1:08d}.json" in problem for problem in ledger.problems())


def test_reordered_entries_are_noticed(ledger: Ledger) -> None:
    one, two = path(ledger, 1).read_bytes(), path(ledger, 2).read_bytes()
    path(ledger, 1).write_bytes(two)
    path(ledger, 2).write_bytes(one)
    assert any("00000001.json" in problem for problem in ledger.problems())


def test_a_renamed_last_entry_is_noticed(ledger: Ledger) -> None:
    path(ledger, 9).write_bytes(path(ledger, 4).read_bytes())
    path(ledger, 4).unlink()
    assert any("00000009.json" in problem for problem in ledger.problems())


def test_only_an_anchor_shows_a_cut_tail_or_a_ledger_rebuilt_whole(ledger: Ledger) -> None:
    anchor, early = ledger.anchor(), f"2:{list(ledger.entries())[1]['digest']}"
    ledger.append("deployed")
    assert ledger.problems(anchor) == []
    path(ledger, 5).unlink()
    path(ledger, 4).unlink()
    assert ledger.problems() == [] and ledger.problems(early) == []
    assert "5 entries" in ledger.problems(anchor)[0]
    for number in range(4):  # rebuilt from entry 0 on by whoever owns the files
        previous = json.loads(path(ledger, number - 1).read_bytes())["digest"] if number else "0" * 64
        rewrite(ledger, number, previous=previous, actor="somebody else")
    assert ledger.problems() == []
    assert "2 entries" in ledger.problems(early)[0]
    assert ledger.problems("nonsense") and ledger.problems("99:" + "0" * 64)


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    ledger = Ledger(Store(tmp_path))
    for number in range(2):
        ledger.append("promoted", pipeline="p", alias="a", note="ü", rate=1e-9, number=number)
    for number in range(2):
        data = path(ledger, number).read_bytes()
        for at in range(len(data)):
            for bit in (0, 5):
                path(ledger, number).write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
                assert any(f"{number:08d}.json" in problem for problem in ledger.problems()), (at, bit)
        path(ledger, number).write_bytes(data)
    assert ledger.problems() == []


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b'{"payload": 1}'])
def test_a_damaged_entry_is_named_and_not_built_upon(ledger: Ledger, damage: bytes) -> None:
    path(ledger, COUNT - 1).write_bytes(damage)
    with pytest.raises(DamagedError, match="00000004.json"):
        ledger.append("promoted")
    with pytest.raises(DamagedError, match="00000004.json"):
        ledger.promotions("finance", "champion")
    assert "00000004.json" in ledger.problems()[0]


def test_what_is_no_json_is_refused(ledger: Ledger) -> None:
    for value in (float("nan"), {1}, object()):
        with pytest.raises(StoreError, match="ledger event 'promoted'"):
            ledger.append("promoted", gates=value)
    assert len(list(ledger.entries())) == COUNT


def test_other_files_are_no_entries(ledger: Ledger) -> None:
    (ledger.folder / ".00000005.json.0123abcd.tmp").write_bytes(b"{")
    (ledger.folder / "README.json").write_bytes(b"{")
    assert ledger.problems() == [] and ledger.append("deployed")["sequence"] == COUNT


@pytest.mark.parametrize("place", ["local", "without links", "objects"])
def test_threads_write_one_chain(tmp_path: Path, monkeypatch, place: str) -> None:
    """Not on fsspec's memory file system: of two threads that create a file there, both may succeed."""
    if place == "without links":
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links here")))
    ledger = Ledger(Store(objects.root(tmp_path) if place == "objects" else tmp_path))

    def write(number: int) -> None:
        for _ in range(10):
            ledger.append("promoted", writer=number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert ledger.problems() == []
    writers = [entry["payload"].get("writer") for entry in ledger.entries()]
    assert [writers.count(number) for number in range(4)] == [10, 10, 10, 10]


def test_what_another_process_appends_to_an_object_store_is_seen(tmp_path: Path) -> None:
    one, two = (Ledger(Store(objects.root(tmp_path, process))) for process in (1, 2))
    one.append("promoted", pipeline="finance", alias="champion", version="0")
    assert len(two.promotions("finance", "champion")) == 1
    one.append("promoted", pipeline="finance", alias="champion", version="1")
    assert len(two.promotions("finance", "champion")) == 2
    assert two.append("deployed")["sequence"] == 2
    assert one.append("deployed")["sequence"] == 3
    assert one.problems() == two.problems() == []


def test_an_entry_that_a_listing_missed_is_no_gap(tmp_path: Path, monkeypatch) -> None:
    """As a large folder is listed on ext4 while entries come: a later one may be there, and an earlier one not."""
    ledger = Ledger(Store(tmp_path))
    for number in range(COUNT):
        ledger.append("promoted", pipeline="finance", alias="champion", version=str(number))
    anchor, whole, missed = ledger.anchor(), type(ledger.folder).iterdir, set()

    def once(folder):
        found = [entry for entry in whole(folder) if entry.name not in missed]
        missed.clear()
        return iter(found)

    monkeypatch.setattr(type(ledger.folder), "iterdir", once)
    promoted = ledger.promotions("finance", "champion")
    for look, expected in (
        (lambda: ledger.promotions("finance", "champion"), promoted),
        (ledger.anchor, anchor),
        (ledger.problems, []),
    ):
        missed.add("00000003.json")
        assert look() == expected


def test_an_entry_that_may_not_be_durable_is_not_written_again(tmp_path: Path, monkeypatch) -> None:
    ledger = Ledger(Store(tmp_path))
    ledger.append("promoted")

    def fail(_folder: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(atomic, "sync_folder", fail)
    with pytest.raises(StoreError, match=os.strerror(errno.EIO)):
        ledger.append("deployed")
    assert [entry["kind"] for entry in ledger.entries()] == ["promoted", "deployed"]


WRITE = """
import sys
from distill_dagster.lineage.ledger import Ledger
from distill_dagster.storage.store import Store
ledger = Ledger(Store(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    ledger.append("promoted", writer=sys.argv[2], number=number)
"""


def test_two_processes_write_one_chain(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE, str(tmp_path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen([*command, name], **pipes) for name in "ab"]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
    for child in children:
        print(file=child.stdin, flush=True)
    for child in children:
        child.communicate(timeout=60)
        assert child.returncode == 0
    ledger = Ledger(Store(tmp_path))
    assert ledger.problems() == []
    for name in "ab":
        numbers = [e["payload"]["number"] for e in ledger.entries() if e["payload"]["writer"] == name]
        assert numbers == list(range(20))
