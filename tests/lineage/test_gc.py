"""Collecting: nothing that a head, promotion or pin needs ever goes; what goes frees its bytes."""

import os
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_dagster.errors import LeaseError, StoreError
from distill_dagster.lineage import gc
from distill_dagster.lineage.audit import audit_alias
from distill_dagster.lineage.chain import collect, key_of
from distill_dagster.lineage.engine import Job, Services, head_version, hold, materialize
from distill_dagster.lineage.graph import ordered
from distill_dagster.lineage.ledger import Ledger
from distill_dagster.storage.names import DamagedError
from distill_dagster.storage.store import Key, Store
from lineage import graphs, toy


def sealed(store: Store) -> set[tuple[tuple[str, str], str]]:
    """Every version of a store."""
    return {(key, version) for key in store.artifacts() for version in store.versions(key)}


def head(store: Store, key: Key) -> str:
    """Version of an artifact's head."""
    found = store.head(key)
    assert found is not None
    return found["version"]


def above(store: Store, starts: set) -> set:
    """Everything behind some versions, all their runs included."""
    found, queue = set(), list(starts)
    while queue:
        item = queue.pop()
        if item not in found:
            found.add(item)
            for run in store.open(*item).runs():
                queue += [(key_of(parent["artifact"]), parent["version"]) for parent in run["parents"]]
    return found


def size(store: Store) -> int:
    return sum(path.stat().st_size for path in Path(store.base.path).rglob("*") if path.is_file())


@settings(max_examples=12)
@given(graphs.dags(4), st.integers(0, 2), st.data())
def test_nothing_needed_ever_goes(specs, keep_last: int, data) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, state = Store(Path(folder) / "store"), Path(folder)
        for _ in range(4):
            for node in ordered(graphs.nodes(specs)):
                materialize(node, store, Services(state))
            data.draw(graphs.changes(specs))
        every = sorted(sealed(store))
        chosen = st.sets(st.sampled_from(every), max_size=2)
        pins, promoted = data.draw(chosen), data.draw(chosen)
        heads = {(key, head(store, key)) for key in store.artifacts()}
        texts = frozenset(f"{'/'.join(key)}@{version}" for key, version in pins)
        for key, version in sorted(promoted):
            Ledger(store).append("promoted", pipeline=key[0], alias="champion", version=version, report="0" * 32)
        needed = above(store, heads | pins | promoted)
        garbage = gc.plan(store, keep_last, texts)
        planned = {(entry.key, entry.version) for entry in garbage}
        assert not planned & needed
        if keep_last == 0:
            assert planned == set(every) - needed
        before = size(store)
        freed = gc.apply(store, garbage, state / "leases")
        assert freed == sum(entry.size for entry in garbage) == before - size(store)
        assert sealed(store) == set(every) - planned
        for key in store.artifacts():
            found = head_version(store, key)
            assert found is not None
            assert collect(store, [found])["versions"]
        for node in ordered(graphs.nodes(specs)):
            materialize(node, store, Services(state))


def generations(store: Store, state: Path, counts: list[int]) -> None:
    """Run the toy chain with several seed sets, without promoting."""
    for count in counts:
        for node in ordered(toy.graph(count)):
            materialize(node, store, Services(state))


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path: Path) -> Store:
    """An empty store."""
    root = tmp_path / "store" if request.param == "local" else f"memory://gc_{tmp_path.name}"
    return Store(root, cache=tmp_path / "cache")


def test_a_promoted_student_stays_auditable(store: Store, tmp_path: Path) -> None:
    toy.run(toy.graph(2), store, tmp_path)
    generations(store, tmp_path, [4, 6, 8])
    garbage = gc.plan(store, keep_last=1)
    assert {entry.key[1] for entry in garbage} == {"seed_set", "student_checkpoint", "deployed_student"}
    assert len(garbage) == 6
    assert gc.apply(store, garbage, tmp_path / "leases") > 0
    assert gc.plan(store, keep_last=1) == []
    result = audit_alias(store, toy.OWNER, "champion")
    assert (result.integrity, result.completeness) == ([], [])
    assert "6 versions" in gc.describe(garbage)


def test_the_newest_are_kept_and_pins_too(store: Store, tmp_path: Path) -> None:
    generations(store, tmp_path, [2, 4, 6])
    key = (toy.OWNER, "deployed_student")
    assert gc.plan(store, keep_last=3) == []
    assert len(gc.plan(store, keep_last=1)) == 6
    other = next(version for version in store.versions(key) if version != head(store, key))
    planned = gc.plan(store, 1, frozenset([f"toy/deployed_student@{other}"]))
    assert len(planned) == 3 and (key, other) not in {(entry.key, entry.version) for entry in planned}


@pytest.mark.parametrize(
    "pin", ["toy/seed_set", "toy/seed_set@abc", f"toy/seed_set@{'0' * 32}", "nonsense", "law/x@" + "0" * 32]
)
def test_a_pin_that_names_nothing_plans_nothing(store: Store, tmp_path: Path, pin: str) -> None:
    generations(store, tmp_path, [2])
    with pytest.raises(StoreError):
        gc.plan(store, 1, frozenset([pin]))


def test_what_is_needed_since_the_plan_stays(store: Store, tmp_path: Path) -> None:
    generations(store, tmp_path, [2, 4])
    garbage = gc.plan(store, keep_last=1)
    generations(store, tmp_path, [2])  # a known action moves the heads back
    assert gc.apply(store, garbage, tmp_path / "leases") == 0
    assert len(sealed(store)) == 6
    assert [made.reused for made in toy.run(toy.graph(2), store, tmp_path).values()] == [True] * 3


def test_nothing_goes_while_something_is_made(store: Store, tmp_path: Path) -> None:
    generations(store, tmp_path, [2, 4])
    garbage = gc.plan(store, keep_last=1)
    with hold(store, (toy.OWNER, "student_checkpoint"), tmp_path / "leases"), pytest.raises(LeaseError):
        gc.apply(store, garbage, tmp_path / "leases")
    assert len(sealed(store)) == 6


def test_a_deletion_cut_short_is_finished_later(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    generations(store, tmp_path, [2, 4])
    garbage = gc.plan(store, keep_last=1)
    for entry in garbage:
        (store.folder(entry.key) / entry.version / "manifest.json").unlink()
    left = gc.plan(store, keep_last=1)
    assert {(entry.key, entry.version) for entry in left} == {(entry.key, entry.version) for entry in garbage}
    assert gc.apply(store, garbage) > 0 and gc.apply(store, left) == 0
    assert gc.plan(store, keep_last=1) == []


def test_what_was_collected_is_made_again_when_asked_for(store: Store, tmp_path: Path) -> None:
    generations(store, tmp_path, [2, 4])
    gc.apply(store, gc.plan(store, keep_last=1), tmp_path / "leases")
    made = toy.run(toy.graph(2), store, tmp_path)
    assert [one.reused for one in made.values()] == [False] * 3
    assert audit_alias(store, toy.OWNER, "champion").exit_code == 0


def test_an_action_of_a_collected_run_is_no_longer_known(store: Store, tmp_path: Path) -> None:
    """The version may be there again, made by another action: its first run is not."""
    generations(store, tmp_path, [2, 4])
    gc.apply(store, gc.plan(store, keep_last=1), tmp_path / "leases")
    nodes = toy.graph(2)
    key = (toy.OWNER, "seed_set")
    from dataclasses import replace

    other = replace(nodes[key], config={"count": 2, "note": "same records"})
    materialize(other, store, Services(tmp_path))
    made = materialize(nodes[key], store, Services(tmp_path))
    assert not made.reused and made.record["id"] == made.run


def test_a_missing_head_does_not_give_its_parents_away(store: Store, tmp_path: Path) -> None:
    toy.run(toy.graph(2), store, tmp_path)
    generations(store, tmp_path, [4])
    (store.folder((toy.OWNER, "student_checkpoint")) / "head.json").unlink()
    gc.apply(store, gc.plan(store, keep_last=0))
    result = audit_alias(store, toy.OWNER, "champion")
    assert (result.integrity, result.completeness) == ([], [])


def test_nothing_is_planned_on_a_damaged_store(store: Store, tmp_path: Path) -> None:
    toy.run(toy.graph(2), store, tmp_path)
    ledger = store.base / ".ledger" / "00000000.json"
    text = ledger.read_bytes()
    ledger.write_bytes(b"{")
    with pytest.raises(DamagedError, match="00000000.json"):
        gc.plan(store)
    ledger.write_bytes(text)
    assert gc.plan(store) == []


def test_a_failed_runs_work_goes_when_nobody_came_back_to_it(store: Store, tmp_path: Path) -> None:
    toy.run(toy.graph(2), store, tmp_path)

    def fail(job: Job) -> None:
        job.work.mkdir(parents=True)
        (job.work / "checkpoint").write_bytes(b"x" * 10)
        raise StoreError("toy", "it fails.")

    nodes = toy.graph(4, fail)
    materialize(nodes[toy.OWNER, "seed_set"], store, Services(tmp_path))
    with pytest.raises(StoreError, match="it fails"):
        materialize(nodes[toy.OWNER, "student_checkpoint"], store, Services(tmp_path))
    assert gc.abandoned(store, tmp_path) == []  # today somebody may run it again
    (entry,) = gc.abandoned(store, tmp_path, days=0)
    assert entry.size == 10 and "1 work folders, 10 bytes" in gc.describe([], [entry])
    old = time.time() - 8 * 86_400
    for path in (entry.folder / "checkpoint", entry.folder):
        os.utime(path, (old, old))
    assert gc.abandoned(store, tmp_path) == [entry]
    assert gc.apply(store, [], tmp_path / "leases", [entry]) == 10
    assert not entry.folder.exists() and gc.abandoned(store, tmp_path, days=0) == []
    assert gc.abandoned(Store("memory://elsewhere"), tmp_path / "nothing") == []
