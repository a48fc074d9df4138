"""Audits: clean where nothing was touched; every byte, file and link that was is found out and named."""

import json
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from distill_dagster.errors import StoreError
from distill_dagster.lineage import chain
from distill_dagster.lineage.audit import Audit, audit_alias, audit_folder
from distill_dagster.lineage.chain import collect
from distill_dagster.lineage.engine import Services, head_version, materialize
from distill_dagster.lineage.ledger import Ledger
from distill_dagster.records import tables
from distill_dagster.storage.names import json_bytes
from distill_dagster.storage.store import Store
from lineage import toy

DEPLOYED = (toy.OWNER, "deployed_student")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    """A store whose student is promoted."""
    folder = tmp_path_factory.mktemp("pristine")
    toy.run(toy.graph(), Store(folder / "store"), folder)
    return folder / "store"


@pytest.fixture
def store(pristine: Path, tmp_path: Path) -> Store:
    """A copy of it that a test may damage."""
    shutil.copytree(pristine, tmp_path / "store")
    return Store(tmp_path / "store")


@pytest.fixture
def served(store: Store, tmp_path: Path) -> Path:
    """The weights as they are served, copied out of the store."""
    found = head_version(store, DEPLOYED)
    assert found is not None
    shutil.copytree(found[0].local("model"), tmp_path / "served")
    return tmp_path / "served"


def evidence(store: Store) -> list[Path]:
    """Every file that is content or evidence; heads and known actions are only pointers."""
    base = Path(store.base.path)
    files = [path for path in sorted(base.rglob("*")) if path.is_file()]
    return [path for path in files if path.name != "head.json" and ".actions" not in path.parts]


def flipped(path: Path, at: int, bit: int) -> bytes:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    return bytes(data)


def offsets(path: Path, count: int = 6) -> list[tuple[int, int]]:
    """First, last and some other bytes, each with a bit."""
    size, drawn = path.stat().st_size, random.Random(path.name)
    places = {0, size - 1, *(drawn.randrange(size) for _ in range(count))}
    return [(at, drawn.randrange(8)) for at in sorted(places)]


def said(result: Audit) -> str:
    return "\n".join([*result.integrity, *result.completeness])


def test_a_clean_audit(store: Store) -> None:
    result = audit_alias(store, toy.OWNER, "champion")
    assert (result.integrity, result.completeness, result.policy, result.exit_code) == ([], [], [], 0)
    assert [link["artifact"] for link in result.links] == [
        "toy/deployed_student",
        "toy/student_checkpoint",
        "toy/seed_set",
    ]
    assert result.licences == {"CC0-1.0": 6}
    # All of the evidence but the ledger is hashed.
    assert result.files_hashed == sum(".ledger" not in path.parts for path in evidence(store))
    assert result.links[-1]["records"] == 6 and result.links[0]["made"]
    assert any("no anchor" in hole for hole in result.holes)
    again = audit_alias(store, toy.OWNER, "champion", Ledger(store).anchor())
    assert again.exit_code == 0 and not any("anchor" in hole for hole in again.holes)


def test_a_clean_audit_of_a_folder(store: Store, served: Path) -> None:
    result = audit_folder(served, store)
    assert (result.integrity, result.completeness, result.policy) == ([], [], [])
    alone = audit_folder(served, None)
    assert alone.exit_code == 0 and alone.files_hashed == 2 and len(alone.holes) >= 2
    whole = head_version(store, DEPLOYED)
    assert whole is not None and audit_folder(whole[0].local(), store).exit_code == 0


def test_a_flipped_byte_in_any_stored_file_is_named(store: Store) -> None:
    files = evidence(store)
    assert {path.suffix for path in files} == {".json", ".jsonl", ".parquet", ".safetensors"}
    assert len(files) >= 12
    for path in files:
        data = path.read_bytes()
        for at, bit in offsets(path):
            path.write_bytes(flipped(path, at, bit))
            result = audit_alias(store, toy.OWNER, "champion")
            assert result.exit_code == 2, (path, at, bit)
            assert path.name in "\n".join(result.integrity), (path, at, bit, result.integrity)
            path.write_bytes(data)
    assert audit_alias(store, toy.OWNER, "champion").exit_code == 0


def test_a_missing_file_is_named(store: Store) -> None:
    for path in evidence(store):
        if ".ledger" in path.parts:
            continue
        data = path.read_bytes()
        path.unlink()
        result = audit_alias(store, toy.OWNER, "champion")
        assert result.exit_code in (2, 3)
        artifact = "/".join(path.relative_to(store.base.path).parts[:2])
        assert artifact in said(result), path
        if path.name != "manifest.json" and "deployed_student/" not in str(path):
            assert path.name in said(result), path
        path.write_bytes(data)


def test_an_added_file_is_named(store: Store) -> None:
    for path in {path.parent for path in evidence(store) if ".ledger" not in path.parts}:
        if path.name == "runs":
            continue  # further runs of the same content may always come
        added = path / "added.bin"
        added.write_bytes(b"x")
        result = audit_alias(store, toy.OWNER, "champion")
        assert result.exit_code == 2 and "added.bin was added" in said(result), path
        added.unlink()


def test_a_flipped_byte_in_any_served_file_is_named(store: Store, served: Path) -> None:
    for path in sorted(path for path in served.rglob("*") if path.is_file()):
        data = path.read_bytes()
        for at, bit in offsets(path):
            path.write_bytes(flipped(path, at, bit))
            result = audit_folder(served, store)
            assert result.exit_code == 2 and path.name in "\n".join(result.integrity), (path, at, bit)
            if path.name != "chain.json":
                assert audit_folder(served, None).exit_code == 2
        path.write_bytes(data)


@pytest.mark.parametrize("change", ["added", "missing", "beside the lineage", "linked folder"])
def test_a_served_folder_must_hold_the_students_files_and_no_others(
    served: Path, store: Store, tmp_path, change
) -> None:
    if change == "added":
        (served / "chat_template.jinja").write_text("{{ x }}")
    elif change == "missing":
        (served / "config.json").unlink()
    elif change == "beside the lineage":
        (served / "lineage" / "code.py").write_text("")
    else:
        (tmp_path / "elsewhere").mkdir()
        (served / "linked").symlink_to(tmp_path / "elsewhere")
    for at_hand in (store, None):
        assert audit_folder(served, at_hand).exit_code == 2


def edit(path: Path, change) -> None:
    value = json.loads(path.read_bytes())
    change(value)
    path.write_bytes(json_bytes(value))


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["tables"]["seed"].update(rows=7),
        lambda manifest: manifest["tables"]["seed"].update(bytes=7),
        lambda manifest: manifest["tables"]["seed"]["roots"].update(gold="0" * 64),
        lambda manifest: manifest["tables"].clear(),
        lambda manifest: manifest.update(data_version="0" * 32),
        lambda manifest: manifest.update(note="x"),
    ],
)
def test_an_edited_manifest_is_named(store: Store, change) -> None:
    found = head_version(store, (toy.OWNER, "seed_set"))
    assert found is not None
    edit(Path(found[0].place.path) / "manifest.json", change)
    result = audit_alias(store, toy.OWNER, "champion")
    assert result.exit_code == 2 and "toy/seed_set" in said(result) and "manifest" in said(result)


@pytest.mark.parametrize("artifact", ["seed_set", "student_checkpoint", "deployed_student"])
@pytest.mark.parametrize("field", ["code", "config", "ended", "notes", "side"])
def test_an_edited_run_record_is_named(store: Store, artifact: str, field: str) -> None:
    found = head_version(store, (toy.OWNER, artifact))
    assert found is not None
    name = f"runs/{found[1]}.json"

    def change(run) -> None:
        run[field] = (
            {"commit": "0" * 40, "dirty": None} if field == "code" else "2030" if field == "ended" else {"edited": {}}
        )

    edit(Path(found[0].place.path) / name, change)
    result = audit_alias(store, toy.OWNER, "champion")
    assert result.exit_code == 2 and name in said(result)


@pytest.mark.parametrize(
    "change",
    [
        lambda links: links["versions"].pop(),
        lambda links: links["versions"].pop(0),
        lambda links: links["versions"][0]["run"]["code"].update(commit="0" * 40),
        lambda links: links["versions"][0]["manifest"]["files"].clear(),
        lambda links: links["versions"][0].pop("manifest"),
        lambda links: links["versions"][0]["run"]["parents"][0].update(artifact="toy/another"),
        lambda links: links["starts"].clear(),
        lambda links: links.update(versions=[]),
        lambda links: links.update(versions={"a": 1}),
        lambda links: links["versions"][0].update(artifact="../../x", version="../../../x"),
        lambda links: links["versions"][1].update(artifact="../../x", version="../../../x"),
        lambda links: links["versions"][1].update(run_id="../../../../x"),
        lambda links: links.update(note="x"),
    ],
)
def test_an_edited_chain_is_named(store: Store, served: Path, change) -> None:
    edit(served / "lineage" / "chain.json", change)
    result = audit_folder(served, store)
    assert result.exit_code == 2 and "chain.json" in "\n".join(result.integrity)
    audit_folder(served, None)


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"\xff", b'{"versions": [1], "starts": []}'])
def test_a_chain_that_is_none_is_named(store: Store, served: Path, data: bytes) -> None:
    (served / "lineage" / "chain.json").write_bytes(data)
    for at_hand in (store, None):
        result = audit_folder(served, at_hand)
        assert result.exit_code == 2 and "chain.json" in result.integrity[0]


def test_records_are_compared_with_their_ids_not_with_their_bytes_alone(store: Store, tmp_path: Path) -> None:
    """Whoever rewrites a table, its hash, the manifest and the chain still cannot make the records fit their root."""
    found = head_version(store, (toy.OWNER, "seed_set"))
    assert found is not None
    version = found[0]
    table = version.table("seed")
    forged = table.set_column(table.column_names.index("answer"), "answer", [["forged"] * table.num_rows])
    import pyarrow.parquet as pq

    path = Path(version.place.path) / "seed.parquet"
    pq.write_table(forged.cast(table.schema), path)
    assert "a record of seed is not what its id says" in said(audit_alias(store, toy.OWNER, "champion"))
    ids = list(tables.record_ids(forged.cast(table.schema)))
    forged = forged.set_column(table.column_names.index("record_id"), "record_id", [ids]).cast(table.schema)
    pq.write_table(forged, path)
    assert "do not amount to their root" in said(audit_alias(store, toy.OWNER, "champion"))


def test_nothing_promoted_and_no_lineage(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing was ever promoted"):
        audit_alias(store, toy.OWNER, "staging")
    with pytest.raises(StoreError, match="no lineage"):
        audit_folder(tmp_path, store)


def test_verdicts_are_separate(store: Store, tmp_path: Path) -> None:
    """A failed gate and an unknown licence are policy, a version that is gone completeness; damage outweighs both."""

    def unlicensed(job) -> None:
        toy.make_seeds(job, 4)
        job.notes["counts"]["licences"] = {"unknown": 4}

    def failed(job) -> None:
        toy.make_deployed(job)
        job.notes["gates"] = [{"gate": "floor", "passed": False, "reason": "below"}]

    nodes = toy.graph(4)
    nodes[toy.OWNER, "seed_set"] = replace(nodes[toy.OWNER, "seed_set"], make=unlicensed)
    nodes[DEPLOYED] = replace(nodes[DEPLOYED], make=failed)
    toy.run(nodes, store, tmp_path / "state")
    result = audit_alias(store, toy.OWNER, "champion")
    assert (result.integrity, result.completeness, result.exit_code) == ([], [], 1)
    assert len(result.policy) == 3
    found = head_version(store, (toy.OWNER, "seed_set"))
    assert found is not None
    shutil.rmtree(found[0].place.path)
    result = audit_alias(store, toy.OWNER, "champion")
    assert (result.integrity, result.exit_code) == ([], 3) and "toy/seed_set" in said(result)
    found = head_version(store, DEPLOYED)
    assert found is not None
    (found[0].local("model") / "config.json").write_bytes(b"{}")
    assert audit_alias(store, toy.OWNER, "champion").exit_code == 2


def test_an_old_promotion_is_audited_as_of_then(store: Store, tmp_path: Path) -> None:
    """The chain is that of the promotion, whatever was made since, and of a run that made the same bytes again."""
    first = audit_alias(store, toy.OWNER, "champion")
    state = tmp_path / "state"
    for count in (8, 10):
        for node in toy.graph(count).values():
            materialize(node, store, Services(state))
    again = audit_alias(store, toy.OWNER, "champion")
    assert (again.links, again.exit_code) == (first.links, 0)
    # Another action with the same bytes: the served chain stays that of the first run.
    nodes = toy.graph()
    key = (toy.OWNER, "student_checkpoint")
    nodes[key] = replace(nodes[key], version="2")
    nodes[DEPLOYED] = replace(nodes[DEPLOYED], version="2")
    made = {node.key: materialize(node, store, Services(state)) for node in nodes.values()}
    ledger = Ledger(store)
    payload = ledger.promotions(toy.OWNER, "champion")[-1]["payload"]
    ledger.append("promoted", **{**payload, "run": made[DEPLOYED].run, "version": made[DEPLOYED].version.version})
    result = audit_alias(store, toy.OWNER, "champion")
    assert any("earlier run" in hole for hole in result.holes)
    assert result.completeness == [] and [link["stage"] for link in result.links] == ["2", "2", "1"]


def test_what_the_ledger_does_not_bind_is_a_hole(store: Store) -> None:
    ledger = Ledger(store)
    payload = ledger.promotions(toy.OWNER, "champion")[-1]["payload"]
    ledger.append("promoted", **{name: value for name, value in payload.items() if name != "sha256"})
    result = audit_alias(store, toy.OWNER, "champion")
    assert result.exit_code == 0 and any("does not bind" in hole for hole in result.holes)


def test_the_chain_holds_no_record_text(store: Store) -> None:
    found = head_version(store, DEPLOYED)
    assert found is not None
    text = json.dumps(collect(store, [found]))
    assert "question" not in text and "answer 1" not in text
    assert chain.checked(json.loads(text), "x")["versions"][0]["artifact"] == "toy/deployed_student"


def test_an_audit_of_an_object_store(tmp_path: Path) -> None:
    store = Store(f"memory://audit_{tmp_path.name}", cache=tmp_path / "cache")
    made = toy.run(toy.graph(), store, tmp_path)
    assert audit_alias(store, toy.OWNER, "champion").exit_code == 0
    place = made[toy.OWNER, "seed_set"].version.place
    (place / "added.bin").write_bytes(b"x")
    assert "added.bin was added" in said(audit_alias(store, toy.OWNER, "champion"))


BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"dagster", "mlflow", "torch", "transformers", "datasets"}:
            raise ImportError(f"{name} is switched off")

sys.meta_path.insert(0, Block())
from pathlib import Path
from distill_dagster.lineage.audit import audit_alias, audit_folder
from distill_dagster.storage.store import Store

store = Store(sys.argv[1])
print(audit_alias(store, "toy", "champion").exit_code, audit_folder(Path(sys.argv[2]), store).exit_code)
"""


def test_it_needs_neither_dagster_nor_mlflow(store: Store, served: Path) -> None:
    command = [sys.executable, "-c", BLOCKED, store.root.path, str(served)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("0 0\n", 0), done.stderr
