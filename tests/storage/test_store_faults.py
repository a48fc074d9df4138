"""A store that cannot be written, or is full: a clear error, and everything made before stays as it was."""

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from distill_dagster.errors import StoreError
from distill_dagster.lineage.ledger import Ledger
from distill_dagster.storage import atomic
from distill_dagster.storage.atomic import create_bytes, make_folder, write_bytes
from distill_dagster.storage.store import Store
from storage.samples import KEY, run_record


def everything(folder: Path) -> dict[str, bytes]:
    """Every file below a folder that is no draft."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".draft-" not in str(path)}


def test_a_root_below_a_file(tmp_path: Path, seal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_STORE", str(tmp_path / "file" / "store"))
    (tmp_path / "file").write_bytes(b"")
    store = Store(tmp_path / "file" / "store")
    assert store.versions(KEY) == [] and store.artifacts() == []
    with pytest.raises(StoreError, match="a file stands where a folder is needed"):
        store.head(KEY)
    with pytest.raises(StoreError, match=r"a file stands where a folder is needed: .*/file.*another root") as caught:
        seal(store)
    assert str(tmp_path) in caught.value.place
    with pytest.raises(StoreError, match="a file stands"):
        Ledger(store).append("promoted")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_root_that_may_not_be_written(tmp_path: Path, seal, monkeypatch, number: int) -> None:
    monkeypatch.setenv("DISTILL_STORE", str(tmp_path / "store"))
    store = Store(tmp_path / "store")
    version = seal(store, 0)
    before = everything(tmp_path)

    def refuse(*_args, **_kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match=r"cannot be written.*DISTILL_STORE"):
        seal(store, 1)
    assert everything(tmp_path) == before
    assert store.open(KEY, version.version).table("seed").num_rows == 3


@pytest.mark.parametrize(
    ("number", "place", "hint"),
    [
        (errno.EACCES, "store/x", "Mend that, or choose another root with DISTILL_STORE."),
        (errno.EROFS, "state/leases/x", "Mend that, or choose another root with DISTILL_STATE."),
        (errno.EACCES, "state/pilot/store/x", "Mend that, or choose another root with DISTILL_STATE."),
        (errno.EACCES, "exported.jsonl", "Mend that, or name another place."),
        (errno.ENOENT, "state", "Mend it, or choose another root with DISTILL_STATE, and run again;"),
        (errno.ENOENT, "exported.jsonl", "Mend it and run again;"),
        (errno.ENOTDIR, "state/x", "Move it away, or choose another root with DISTILL_STATE."),
    ],
)
def test_the_hint_names_the_root_that_the_place_lies_under(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, place: str, hint: str
) -> None:
    monkeypatch.setenv("DISTILL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("DISTILL_STATE", str(tmp_path / "state"))
    said = atomic.store_error(OSError(number, os.strerror(number)), tmp_path / place)
    assert said.next_step.startswith(hint)


def test_the_roots_of_a_project_without_variables_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISTILL_STORE", raising=False)
    monkeypatch.setenv("DISTILL_STATE", "")
    said = atomic.store_error(OSError(errno.EROFS, "read-only"), tmp_path / ".distill" / "state" / "leases")
    assert "DISTILL_STATE" in said.next_step


#: Calls that write, each with the moment at which it meets a full disk.
WRITES = {
    "table": lambda patch, full: patch.setattr(pq, "write_table", full),
    "json": lambda patch, full: patch.setattr(Path, "write_bytes", full),
    "fsync": lambda patch, full: patch.setattr(os, "fsync", full),
    "rename": lambda patch, full: patch.setattr(os, "rename", full),
    "replace": lambda patch, full: patch.setattr(os, "replace", full),
    "link": lambda patch, full: patch.setattr(os, "link", full),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(tmp_path: Path, seal, rows, write: str, number: int) -> None:
    store = Store(tmp_path / "store")
    version = seal(store, 0)
    head, before = store.head(KEY), everything(tmp_path)

    def full(*_args, **_kwargs):
        raise OSError(number, os.strerror(number))

    patch = pytest.MonkeyPatch()
    with patch.context() as context, pytest.raises(StoreError, match=r"the disk is full.*gc plan") as caught:
        draft = store.draft(KEY)
        WRITES[write](context, full)
        from distill_dagster.records import tables

        draft.write_table("seed", tables.build("seed", rows[:1]), by="part")
        draft.write_json("labels.json", ["a"])
        store.seal(draft, run_record(1, "b"))
    assert str(tmp_path) in caught.value.place
    assert store.head(KEY) == head and store.action("b" * 64) is None
    after = everything(tmp_path)
    assert {path: after.get(path) for path in before} == before
    assert not [path for path in after if path.endswith(".tmp")]
    assert store.open(KEY, version.version).table("seed").num_rows == 3
    assert seal(store, 2, content=rows[:1]).table("seed").num_rows == 1


LIMITED = """
import resource, sys
from pathlib import Path
from distill_dagster.errors import StoreError
from distill_dagster.records import tables
from distill_dagster.storage.store import Store

root, what = Path(sys.argv[1]), sys.argv[2]
store = Store(root)
draft = store.draft(("finance", "seed_set"))
import hashlib
noise = ["".join(hashlib.sha256(f"{n}.{i}".encode()).hexdigest() for i in range(8)) for n in range(400)]
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    if what == "table":
        draft.write_table("seed", tables.build("seed", [{"answer": text} for text in noise]))
    else:
        draft.write_json("labels.json", noise)
    sys.exit("nothing was refused")
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize("what", ["table", "json"])
def test_a_size_limit(tmp_path: Path, seal, what: str) -> None:
    store = Store(tmp_path / "store")
    version = seal(store, 0)
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "store"), what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "size limit" in done.stdout and "bytes were to be written" in done.stdout and "gc plan" in done.stdout
    assert store.versions(KEY) == [version.version]
    assert version.table("seed").num_rows == 3


def test_a_write_shows_old_bytes_or_new_ones(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "deep" / "er" / "head.json"
    write_bytes(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and [entry.name for entry in path.parent.iterdir()] == ["head.json"]
    monkeypatch.undo()
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_what_is_named_was_synced_first(tmp_path: Path, monkeypatch) -> None:
    """The bytes before the name, and after it every folder that got an entry, new ones above included."""
    events: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: (events.append(("sync", os.readlink(f"/proc/self/fd/{fd}"))), fsync(fd))[1]
    )
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(("name", str(b))), replace(a, b))[1])
    path = tmp_path / "a" / "b" / "head.json"
    write_bytes(path, b"x")
    named = events.index(("name", str(path)))
    before, after = {place for _, place in events[:named]}, {place for _, place in events[named:]}
    assert {str(tmp_path), str(tmp_path / "a")} <= before
    assert any(Path(place).name.startswith(".head.json.") for place in before)
    assert str(tmp_path / "a" / "b") in after


@pytest.mark.parametrize("links", [True, False])
def test_of_many_writers_exactly_one_creates(tmp_path: Path, monkeypatch, links: bool) -> None:
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links here")))
    path, won = tmp_path / "entry.json", []
    gate = threading.Barrier(8)

    def write(number: int) -> None:
        gate.wait()
        try:
            create_bytes(path, str(number).encode())
            won.append(number)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and path.read_bytes() == str(won[0]).encode()
    assert [entry.name for entry in tmp_path.iterdir()] == ["entry.json"]


def test_without_links_a_name_is_there_once_its_bytes_are(tmp_path: Path, monkeypatch) -> None:
    def die(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links here")))
    path = tmp_path / "entry.json"
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(os, "replace", die)
        create_bytes(path, b"x")
    assert list(tmp_path.iterdir()) == []
    create_bytes(path, b"x")
    assert path.read_bytes() == b"x"


def test_making_a_folder_that_is_there_is_no_error(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EROFS, "read-only"),
        (errno.ENOTDIR, "a file stands"),
        (errno.EIO, "Mend it"),
    ],
)
def test_every_error_says_what_to_do(number: int, says: str) -> None:
    error = atomic.store_error(OSError(number, os.strerror(number)), "/some/place", 12)
    assert error.place == "/some/place" and error.next_step and says in str(error)
    json.dumps(str(error))
