"""Making nodes: known actions are not made again, those whose inputs differ are, and failures change nothing."""

import copy
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_dagster.errors import LeaseError, StoreError
from distill_dagster.lineage.engine import Services, action_key, hold, materialize
from distill_dagster.lineage.graph import Node, Parent, descendants, ordered
from distill_dagster.lineage.status import status
from distill_dagster.storage.store import Store
from lineage import graphs, toy


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")


def test_a_second_run_makes_nothing(store: Store, tmp_path: Path) -> None:
    first = toy.run(toy.graph(), store, tmp_path)
    second = toy.run(toy.graph(), store, tmp_path)
    assert not any(made.reused for made in first.values())
    assert all(made.reused for made in second.values())
    assert {key: (made.version.version, made.run) for key, made in first.items()} == {
        key: (made.version.version, made.run) for key, made in second.items()
    }
    assert [state.state for state in status(toy.graph(), store)] == ["fresh"] * 3


def test_what_is_incomplete_is_sealed_and_made_again(store: Store, tmp_path: Path) -> None:
    lacks = ["2 of 6 questions have no answer: server 2"] * 2 + [""]

    def seeds(job) -> None:
        toy.make_seeds(job, 6)
        job.incomplete = lacks.pop(0)

    nodes = toy.graph()
    nodes[toy.OWNER, "seed_set"] = replace(nodes[toy.OWNER, "seed_set"], make=seeds)
    first = toy.run(nodes, store, tmp_path)
    assert first[toy.OWNER, "seed_set"].record["incomplete"] == "2 of 6 questions have no answer: server 2"
    found = status(nodes, store)
    assert [state.state for state in found] == ["stale", "downstream", "downstream"]
    assert found[0].reason == "2 of 6 questions have no answer: server 2"
    again = toy.run(nodes, store, tmp_path)  # the same is missing: the same version, and nothing below is remade
    assert [made.reused for made in again.values()] == [False, True, True]
    assert [made.version.version for made in again.values()] == [made.version.version for made in first.values()]
    whole = toy.run(nodes, store, tmp_path)
    assert [made.reused for made in whole.values()] == [False, True, True]
    assert "incomplete" not in whole[toy.OWNER, "seed_set"].record
    assert [state.state for state in status(nodes, store)] == ["fresh"] * 3
    assert all(made.reused for made in toy.run(nodes, store, tmp_path).values())


def test_two_folders_give_the_same_versions(tmp_path: Path) -> None:
    one, two = (toy.run(toy.graph(), Store(tmp_path / name / "store"), tmp_path / name) for name in "ab")
    assert {key: made.version.version for key, made in one.items()} == {
        key: made.version.version for key, made in two.items()
    }


def test_a_change_of_an_unread_part_remakes_nothing_below(store: Store, tmp_path: Path) -> None:
    toy.run(toy.graph(5), store, tmp_path)  # gold: 0, 2, 4
    again = toy.run(toy.graph(6), store, tmp_path)  # 5 is unlabeled
    assert [made.reused for made in again.values()] == [False, True, True]
    again = toy.run(toy.graph(7), store, tmp_path)  # 6 is gold
    assert [made.reused for made in again.values()] == [False, False, False]


def test_going_back_finds_what_was_made(store: Store, tmp_path: Path) -> None:
    first = toy.run(toy.graph(6), store, tmp_path)
    toy.run(toy.graph(9), store, tmp_path)
    assert [state.state for state in status(toy.graph(6), store)] == ["stale", "downstream", "downstream"]
    back = toy.run(toy.graph(6), store, tmp_path)
    assert all(made.reused for made in back.values())
    for key, made in first.items():
        assert store.head(key) == {"version": made.version.version, "run": made.run, "action": made.action}


@pytest.mark.parametrize("field", ["version", "config", "outside", "reads", "key"])
def test_an_action_is_all_that_shapes_it(field: str) -> None:
    def make(job) -> None:
        raise AssertionError

    node = Node(("a", "b"), "1", (Parent("x", ("a", "c")),), {"steps": 1, "rate": [0.1]}, make)
    reads, outside = {"x": {"data_version": "0"}}, {"files": {}}
    known = action_key(node, reads, outside)
    assert action_key(replace(node, title="another", make=lambda job: None), dict(reads), dict(outside)) == known
    changed = {
        "version": (replace(node, version="2"), reads, outside),
        "config": (replace(node, config={"steps": 1, "rate": [0.2]}), reads, outside),
        "outside": (node, reads, {"files": {"a": "1"}}),
        "reads": (node, {"x": {"data_version": "1"}}, outside),
        "key": (replace(node, key=("other", "b")), reads, outside),
    }[field]
    assert action_key(*changed) != known
    if field in ("version", "config"):
        assert changed[0].code_version != node.code_version


def test_two_owners_of_the_same_recipe_both_keep_theirs(store: Store, tmp_path: Path) -> None:
    nodes = [replace(toy.graph()[toy.OWNER, "seed_set"], key=(owner, "seed_set")) for owner in ("one", "two")]
    first = [materialize(node, store, Services(tmp_path)) for node in nodes]
    second = [materialize(node, store, Services(tmp_path)) for node in nodes]
    assert [made.reused for made in first + second] == [False, False, True, True]


def test_a_failure_leaves_earlier_versions_and_the_head(store: Store, tmp_path: Path) -> None:
    toy.run(toy.graph(6), store, tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()}

    def fail(job) -> None:
        job.draft.write_json("model/config.json", {"layers": 2})
        job.work.mkdir(parents=True)
        (job.work / "checkpoint").touch()
        raise RuntimeError("a NaN loss")

    node = replace(toy.graph(make=fail)[toy.OWNER, "student_checkpoint"], config={"steps": 2})
    with pytest.raises(RuntimeError, match="NaN"):
        materialize(node, store, Services(tmp_path))
    assert {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()} == before
    assert not list((tmp_path / "store").rglob(".draft-*"))
    assert len(list((tmp_path / "work").rglob("checkpoint"))) == 1

    def resume(job) -> None:
        assert (job.work / "checkpoint").exists()
        toy.make_student(job)

    assert not materialize(replace(node, make=resume), store, Services(tmp_path)).reused
    assert not list((tmp_path / "work").rglob("checkpoint"))


def test_work_that_a_killed_run_left_after_sealing_is_cleared(store: Store, tmp_path: Path) -> None:
    node = toy.graph()[toy.OWNER, "seed_set"]
    made = materialize(node, store, Services(tmp_path))
    left = tmp_path / "work" / store.scope / made.action[:32]
    left.mkdir(parents=True)
    assert materialize(node, store, Services(tmp_path)).reused
    assert not left.exists()


def test_namespaces_share_no_work_folder(tmp_path: Path) -> None:
    seen = []

    def make(job) -> None:
        seen.append(job.work)
        toy.make_seeds(job, 2)

    for space in ("one", "two"):
        materialize(Node(("a", "b"), "1", (), {}, make), Store(tmp_path / "store", space), Services(tmp_path))
    assert len(set(seen)) == 2


def test_a_missing_parent_says_what_to_run(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"toy/seed_set was never materialized.*distill-dagster run toy"):
        materialize(toy.graph()[toy.OWNER, "student_checkpoint"], store, Services(tmp_path))
    assert store.artifacts() == []


def test_the_run_record_tells_what_was_read(store: Store, tmp_path: Path) -> None:
    made = toy.run(toy.graph(), store, tmp_path)
    seeds, student = made[toy.OWNER, "seed_set"], made[toy.OWNER, "student_checkpoint"]
    record = student.record
    assert record["parents"] == [
        {
            "role": "seeds",
            "artifact": "toy/seed_set",
            "version": seeds.version.version,
            "run": seeds.run,
            "reads": {"seed": {"gold": seeds.version.manifest["tables"]["seed"]["roots"]["gold"]}},
        }
    ]
    assert (
        record["action"] == student.action and record["config"] == {"steps": 1} and record["started"] <= record["ended"]
    )
    assert set(record["side"]) == {"metrics.jsonl"}
    assert {"package", "commit", "dirty"} == set(record["code"]) and record["environment"]["packages"]["pyarrow"]


HOLD = """
import sys, time
from pathlib import Path
from distill_dagster.lineage.engine import hold
from distill_dagster.storage.store import Store
with hold(Store(sys.argv[1]), ("toy", "seed_set"), Path(sys.argv[2]) / "leases"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_maker_at_a_time(store: Store, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "store"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        node = toy.graph()[toy.OWNER, "seed_set"]
        with pytest.raises(LeaseError, match=f"toy/seed_set.*process {child.pid}"):
            materialize(node, store, Services(tmp_path))
        other = Store(tmp_path / "store", "another")
        assert not materialize(node, other, Services(tmp_path)).reused
        child.kill()
        child.wait()
        assert not materialize(node, store, Services(tmp_path)).reused


def test_a_held_lease_needs_the_same_scope(store: Store, tmp_path: Path) -> None:
    with hold(store, ("a", "b"), tmp_path), hold(Store(tmp_path / "store", "default", "team"), ("a", "b"), tmp_path):
        pass


@settings(max_examples=40)
@given(graphs.dags(), st.data())
@pytest.mark.slow
def test_status_and_run_against_a_plain_model(specs, data) -> None:
    """`stale` differs from its head; `downstream` reads what is not fresh; a run remakes exactly what differs."""
    with tempfile.TemporaryDirectory() as folder:
        store, state = Store(Path(folder) / "store"), Path(folder)
        assert {one.state for one in status(graphs.nodes(specs), store)} == {"missing"}
        heads: dict[int, graphs.Spec] = {}
        known: set[tuple[int, str]] = set()
        world = copy.deepcopy(specs)  # what the store holds, node by node
        for _ in range(3):
            nodes = graphs.nodes(specs)
            states = {one.key: one.state for one in status(nodes, store)}
            expected: dict[int, str] = {}
            for number in sorted(specs):
                if number not in heads:
                    expected[number] = "missing"
                    continue
                # Its action over the parents' heads, as they are in the store.
                now = {**world, number: specs[number]}
                if graphs.action(now, number) != graphs.action(world, number):
                    expected[number] = "stale"
                elif any(expected[parent] != "fresh" for parent in specs[number].parents):
                    expected[number] = "downstream"
                else:
                    expected[number] = "fresh"
            assert states == {graphs.key(number): one for number, one in expected.items()}
            not_fresh = {number for number, one in expected.items() if one != "fresh"}
            roots = [number for number, one in expected.items() if one in ("stale", "missing")]
            reach = set(roots).union(
                *({int(k[0].split("_")[1]) for k in descendants(nodes, graphs.key(n))} for n in roots)
            )
            assert not_fresh == reach

            made: list[int] = []
            for node in ordered(graphs.nodes(specs, made)):
                materialize(node, store, Services(state))
            wanted = [number for number in sorted(specs) if (number, graphs.action(specs, number)) not in known]
            assert sorted(made) == wanted
            known |= {(number, graphs.action(specs, number)) for number in specs}
            heads = copy.deepcopy(specs)
            world = copy.deepcopy(specs)
            assert {one.state for one in status(graphs.nodes(specs), store)} == {"fresh"}
            data.draw(graphs.changes(specs))


def test_status_sees_what_is_gone(store: Store, tmp_path: Path) -> None:
    made = toy.run(toy.graph(), store, tmp_path)
    version = made[toy.OWNER, "seed_set"].version
    (version.place / "manifest.json").unlink()
    states = {one.key[1]: one for one in status(toy.graph(), store)}
    assert [one.state for one in states.values()] == ["missing", "downstream", "downstream"]
    assert "gone" in states["seed_set"].reason
    again = toy.run(toy.graph(), store, tmp_path)
    assert [one.reused for one in again.values()] == [False, True, True]
    assert again[toy.OWNER, "seed_set"].version.version == version.version


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda node: replace(node, version="2"), "stage version 1 became 2"),
        (lambda node: replace(node, config={"count": 6, "more": (1,)}), "config changed: more (new)"),
        (
            lambda node: replace(node, outside=lambda: {"files": {"file:a.csv": "x"}}),
            "data or model files changed: a.csv",
        ),
    ],
)
def test_status_says_why(store: Store, tmp_path: Path, change, reason: str) -> None:
    nodes = toy.graph()
    key = (toy.OWNER, "seed_set")
    nodes[key] = replace(nodes[key], config={"count": 6, "pair": (1, 2)})
    toy.run(nodes, store, tmp_path)
    assert status(nodes, store)[0].fresh
    if reason.startswith("config"):
        change = lambda node: replace(node, config={**nodes[key].config, "more": (1,)})  # noqa: E731
    found = status({**nodes, key: change(nodes[key])}, store)[0]
    assert (found.state, found.reason) == ("stale", reason)


def test_parents_come_first_and_circles_are_named() -> None:
    def make(job) -> None:
        pass

    def node(name: str, *parents: str) -> Node:
        return Node(("a", name), "1", tuple(Parent(one, ("a", one)) for one in parents), {}, make)

    nodes = {n.key: n for n in (node("d", "b", "c"), node("c", "a"), node("b", "a"), node("a"))}
    names = [n.key[1] for n in ordered(nodes)]
    assert names == ["a", "b", "c", "d"]
    assert descendants(nodes, ("a", "a")) == {("a", "b"), ("a", "c"), ("a", "d")}
    nodes["a", "a"] = node("a", "d")
    with pytest.raises(ValueError, match="circle: .*a/d -> .*a/d"):
        ordered(nodes)
