"""The artifact store, on a local folder and on an object store: versions, runs, heads, actions, drafts."""

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from distill_dagster.errors import StoreError
from distill_dagster.lineage.chain import content_root
from distill_dagster.records import tables
from distill_dagster.storage.draft import PREFIX
from distill_dagster.storage.names import DamagedError
from distill_dagster.storage.store import Draft, Store
from storage.samples import KEY, run_record


def everything(store: Store) -> dict[str, bytes]:
    """Every file of a store and its bytes."""
    fs: Any = store.base.fs
    return {path: fs.cat_file(path) for path in fs.find(store.base.path)}


def test_a_version_is_its_content_root(store: Store, seal, rows) -> None:
    version = seal(store, fill=lambda draft: draft.write_json("labels.json", ["a"]))
    assert version.version == content_root(version.manifest)
    assert version.manifest["tables"]["seed"]["roots"] == tables.roots(tables.build("seed", rows), "part")
    assert version.table("seed").equals(tables.build("seed", rows))
    assert version.table("seed", columns=["task"], filters=[("part", "==", "unlabeled")]).to_pylist() == [
        {"task": "routing"}
    ]
    assert json.loads(version.local("labels.json").read_bytes()) == ["a"]
    assert store.versions(KEY) == [version.version]
    assert store.artifacts() == [KEY]


def test_the_same_content_is_one_version_with_two_runs(store: Store, seal, rows) -> None:
    first = seal(store, 0)
    before = everything(store)
    second = seal(store, 1, content=rows[::-1])
    assert second.version == first.version
    assert [run["id"] for run in second.runs()] == [run_record(0)["id"], run_record(1)["id"]]
    after = everything(store)
    changed = {path.rsplit("/", 1)[-1] for path in before if after[path] != before[path]}
    assert changed == {"head.json"}


@pytest.mark.parametrize("what", ["record", "file", "name of a file", "name of a table", "empty file"])
def test_other_content_is_another_version(store: Store, seal, rows, what: str) -> None:
    def fill(draft) -> None:
        if what == "file":
            draft.write_json("labels.json", ["b"])
        elif what == "name of a file":
            draft.write_json("label.json", ["a"])
        else:
            draft.write_json("labels.json", ["a"])
        if what == "name of a table":
            draft.write_table("seed2", tables.build("seed", rows))
        if what == "empty file":
            (draft.content / "empty").touch()

    first = seal(store, 0, fill=lambda draft: draft.write_json("labels.json", ["a"]))
    content = [*rows[:-1], {**rows[-1], "answer": "y"}] if what == "record" else rows
    second = seal(store, 1, fill=fill, content=content)
    assert second.version != first.version
    assert store.versions(KEY) == sorted([first.version, second.version])


def test_side_files_and_attached_files_are_guarded_but_no_part_of_the_version(store: Store, seal) -> None:
    def fill(cost: int):
        def add(draft) -> None:
            draft.write_table("call", tables.build("call", [{"cost_micros": cost}]), side=True)
            draft.write_json("report/resources.json", {"cost": cost}, side=True)
            draft.write_json("./model/lineage/chain.json", {"cost": cost}, attach=True)

        return add

    first, second = seal(store, 0, fill=fill(1)), seal(store, 1, fill=fill(2))
    assert first.version == second.version == content_root(first.manifest)
    assert set(first.manifest["attached"]) == {"model/lineage/chain.json"} and first.manifest["files"] == {}
    for number, cost in ((0, 1), (1, 2)):
        run = second.run(run_record(number)["id"])
        assert second.side_table(run["id"], "call")["cost_micros"].to_pylist() == [cost]
        assert set(run["side"]) == {"call.parquet", "report/resources.json"}
        assert run["side"]["call.parquet"]["rows"] == 1
        for entry in run["side"].values():
            assert len(entry["sha256"]) == 64
    assert json.loads(second.local("model/lineage/chain.json").read_bytes()) == {"cost": 1}


def test_a_file_and_a_table_of_one_stem_are_two_things(store: Store, seal) -> None:
    def fill(draft) -> None:
        (draft.content / "seed").write_bytes(b"not a table")

    version = seal(store, fill=fill)
    assert set(version.manifest["files"]) == {"seed"}
    assert version.table("seed").num_rows == 3
    assert version.local("seed").read_bytes() == b"not a table"
    assert version.version != seal(store, 1).version


def test_a_reader_of_one_part_is_not_moved_by_another(store: Store, seal, rows) -> None:
    first = seal(store, 0)
    second = seal(store, 1, content=[*rows, {**rows[2], "answer": "more"}])
    gold, unlabeled = {"seed": ("gold",)}, {"seed": ("unlabeled", "nothing")}
    assert first.roots(gold) == second.roots(gold)
    assert first.roots(unlabeled) != second.roots(unlabeled)
    assert second.roots(unlabeled)["seed"]["nothing"] is None
    assert first.roots() != second.roots()
    with pytest.raises(StoreError, match="no table 'prompt'"):
        first.roots({"prompt": ("short",)})


def test_heads_and_actions(store: Store, seal, rows) -> None:
    assert store.head(KEY) is None and store.action("a" * 64) is None and store.artifacts() == []
    first = seal(store, 0)
    run = run_record(0)
    assert store.head(KEY) == {"version": first.version, "run": run["id"], "action": run["action"]}
    known = {"owner": KEY[0], "artifact": KEY[1], "version": first.version, "run": run["id"]}
    assert store.action(run["action"]) == known
    second = seal(store, 1, content=rows[:1])
    assert (store.head(KEY) or {})["version"] == second.version
    store.move_head(KEY, first.version, run["id"], run["action"])
    assert (store.head(KEY) or {})["version"] == first.version
    assert (store.action("b" * 64) or {})["version"] == second.version


def test_an_action_is_forgotten_with_its_version_and_with_its_run(store: Store, seal) -> None:
    version = seal(store, 0)
    action = run_record(0)["action"]
    record = version.place / "runs" / f"{run_record(0)['id']}.json"
    text = record.read_bytes()
    record.unlink()
    assert store.action(action) is None
    record.write_bytes(text)
    assert store.action(action) is not None
    (version.place / "manifest.json").unlink()
    assert store.action(action) is None
    store._put(store._action_path(action), b"{")
    assert store.action(action) is None


def test_drafts_of_dead_writers_are_cleared_and_no_version(store: Store, seal) -> None:
    dead = store.draft(KEY)
    dead.write_json("labels.json", ["a"])
    _written_by(dead, started="0")
    hardly_begun = store.draft(KEY)
    for folder in (hardly_begun.content, hardly_begun.side):
        folder.rmdir()
    _written_by(hardly_begun, started="0")
    torn = dead.folder.parent / ".head.json.0123abcd.tmp"
    torn.write_bytes(b"{")
    assert store.versions(KEY) == []
    seal(store)
    assert not dead.folder.exists() and not hardly_begun.folder.exists() and not torn.exists()
    assert not list(dead.folder.parent.glob(".*"))
    assert len(store.versions(KEY)) == 1


def _written_by(draft: Draft, **changed: str) -> None:
    """Change what a draft's name says of its writer."""
    start, place, pid, started, ending = draft.folder.name.rsplit("-", 4)
    said = {"place": place, "pid": pid, "started": started, **changed}
    name = "-".join([start, said["place"], said["pid"], said["started"], ending])
    draft.folder = draft.folder.rename(draft.folder.with_name(name))


def test_a_draft_of_a_live_writer_stays(store: Store, seal) -> None:
    """Another state folder on this store has leases of its own, so that only the writer itself vouches for a draft."""
    here, elsewhere, bare = (store.draft(KEY) for _ in range(3))
    _written_by(elsewhere, place="e15e33e4e000", pid="1")
    bare.folder = bare.folder.rename(bare.folder.with_name(f"{PREFIX}{uuid.uuid4().hex}"))
    seal(store)
    assert here.folder.exists() and elsewhere.folder.exists() and bare.folder.exists()
    days_ago = time.time() - 25 * 3600
    for draft in (here, elsewhere, bare):
        for path in (*draft.folder.rglob("*"), draft.folder):
            os.utime(path, (days_ago, days_ago))
    seal(store)
    assert here.folder.exists() and not elsewhere.folder.exists() and not bare.folder.exists()
    here.write_json("labels.json", ["here"])
    assert store.seal(here, run_record(5, "f")).local("labels.json").exists()


def test_a_discarded_draft_leaves_nothing(store: Store) -> None:
    draft = store.draft(KEY)
    draft.write_json("labels.json", ["a"])
    draft.discard()
    assert store.versions(KEY) == [] and not draft.folder.exists()


def test_what_is_not_there_is_said_clearly(store: Store, seal) -> None:
    version = seal(store)
    with pytest.raises(StoreError, match="no such version"):
        store.open(KEY, "0" * 32)
    with pytest.raises(StoreError, match="no such version"):
        store.open(("law", "seed_set"), version.version)
    with pytest.raises(StoreError, match="no table 'example'.*'seed'"):
        version.table("example")
    with pytest.raises(StoreError, match="no run"):
        version.run("20260101T000000Z-ffffffff")
    with pytest.raises(StoreError, match="no file 'model'"):
        version.local("model")
    with pytest.raises(StoreError, match="no table 'call'"):
        version.side_table(run_record()["id"], "call")


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a\x00b", "a\\b"])
def test_names_that_leave_their_folder_are_refused(store: Store, seal, name: str) -> None:
    version, draft = seal(store), store.draft(KEY)
    for action in (
        lambda: draft.write_json(name, {}),
        lambda: draft.write_json(name, {}, side=True),
        lambda: draft.write_table(name, tables.build("seed", [])),
        lambda: version.local(name),
        lambda: store.folder(("finance", name)),
        lambda: store.folder((name, "seed_set")),
        lambda: store.open(KEY, name),
        lambda: version.run(name),
        lambda: version.side_table(name, "call"),
        lambda: Store("memory://store", namespace=name),
    ):
        with pytest.raises(StoreError):
            action()


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden"])
def test_names_that_are_no_step_of_a_path_are_refused(store: Store, name: str) -> None:
    with pytest.raises(StoreError):
        store.folder(("finance", name))
    with pytest.raises(StoreError):
        Store("memory://store", namespace=name)
    if name:
        with pytest.raises(StoreError):
            Store("memory://store", prefix=f"team/{name}")


@pytest.mark.parametrize("name", ["manifest.json", "runs/x.json", "runs"])
def test_names_that_the_store_keeps_for_itself_are_refused(store: Store, seal, name: str) -> None:
    with pytest.raises(StoreError, match="keeps this name"):
        seal(store, fill=lambda draft: draft.write_json(name, {}))
    assert store.versions(KEY) == []


def test_links_are_refused(store: Store, seal, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"1")
    with pytest.raises(StoreError, match="it is a link"):
        seal(store, fill=lambda draft: (draft.content / "weights").symlink_to(tmp_path / "weights"))
    assert store.versions(KEY) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"x"])
def test_what_is_not_json_is_refused_by_name(store: Store, value) -> None:
    with pytest.raises(StoreError, match="seed_set: report.json"):
        store.draft(KEY).write_json("report.json", {"score": value})


def test_a_run_record_has_null_for_what_json_cannot_say(store: Store) -> None:
    run = {**run_record(), "notes": {"loss": float("nan"), "scores": [1.0, float("inf")]}}
    version = store.seal(store.draft(KEY), run)
    assert version.run(run["id"])["notes"] == {"loss": None, "scores": [1.0, None]}
    with pytest.raises(StoreError, match="run record"):
        store.seal(store.draft(KEY), {**run, "id": "other", "notes": {"loss": {1}}})
    assert len(list(version.runs())) == 1


def test_namespaces_and_prefixes_keep_apart(tmp_path: Path, seal) -> None:
    stores = [Store(tmp_path, space, prefix) for space in ("default", "client") for prefix in ("", "team", "team/x")]
    seal(stores[0])
    assert [store.artifacts() for store in stores] == [[KEY], [], [], [], [], []]
    assert len({store.scope for store in stores}) == 6


def test_a_file_url_is_a_local_store(tmp_path: Path, seal) -> None:
    store = Store(f"file://{tmp_path}/with space")
    assert store.is_local
    version = seal(store)
    assert version.local("seed.parquet").is_relative_to(tmp_path)
    assert Store(tmp_path / "with space").versions(KEY) == [version.version]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b"\xff\xfe"])
def test_a_damaged_manifest_head_or_run_is_named(store: Store, seal, damage: bytes) -> None:
    version = seal(store)
    for name, read in (
        (f"runs/{run_record()['id']}.json", lambda: version.run(run_record()["id"])),
        ("manifest.json", lambda: store.open(KEY, version.version)),
        ("../head.json", lambda: store.head(KEY)),
    ):
        path = version.place.parent / "head.json" if name.startswith("..") else version.place / name
        path.write_bytes(damage)
        with pytest.raises(DamagedError, match=path.name):
            read()


def test_a_remote_store_hands_out_what_was_sealed_and_nothing_else(tmp_path: Path, seal) -> None:
    store = Store("memory://remote_damage", cache=tmp_path / "cache")

    def fill(draft) -> None:
        draft.write_json("model/config.json", {"layers": 1})
        draft.write_json("model_2x/config.json", {"layers": 2})

    version = seal(store, fill=fill)
    place = version.local("model")
    assert [path.name for path in place.iterdir()] == ["config.json"]
    assert not (place.parent / "model_2x").exists()
    (version.place / "model_2x/config.json").write_bytes(b"{}")
    with pytest.raises(DamagedError, match="model_2x/config.json"):
        version.local("model_2x")
    version.place.fs.rm(store.base.path, recursive=True)
    assert json.loads((version.local("model") / "config.json").read_bytes()) == {"layers": 1}


def test_an_object_store_version_is_there_once_its_manifest_is(tmp_path: Path, seal, monkeypatch) -> None:
    store = Store("memory://half_put", cache=tmp_path / "cache")
    monkeypatch.setattr(Store, "create", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        seal(store)
    assert store.versions(KEY) == [] and store.head(KEY) is None
    monkeypatch.undo()
    version = seal(store)
    assert version.table("seed").num_rows == 3


def test_of_two_writers_of_a_manifest_the_first_stays(store: Store) -> None:
    path = store.base / "finance" / "once.json"
    store.create(path, b"first")
    with pytest.raises(FileExistsError):
        store.create(path, b"second")
    assert path.read_bytes() == b"first"
