"""Auditing a deployed student from an alias or from a weights folder, with Dagster and MLflow switched off.

Three separate verdicts: *integrity* (every file is what it was), *completeness* (every link is there), *policy*
(the gates passed, the licences are known). What cannot be answered is listed as a hole.

What binds what: the ledger binds the deployed version's manifest and run record, that manifest binds the chain that
is served with the weights, the chain binds every manifest and run record above, and these bind content and evidence.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill_dagster.errors import StoreError
from distill_dagster.lineage import chain
from distill_dagster.lineage.audit_files import Stored, served
from distill_dagster.lineage.ledger import Ledger
from distill_dagster.storage.names import DamagedError
from distill_dagster.storage.store import Store, Version

CHAIN = "model/lineage/chain.json"


@dataclass
class Audit:
    """What an audit found.

    Attributes:
        subject: What was audited.
        links: The versions, the deployed one first: artifact, version, made when, files hashed, records.
        integrity, completeness, policy: Problems found; a verdict is clean where its list is empty.
        holes: Questions this audit cannot answer, and why.
        licences: Records by licence, in the data set that the student was trained on where it says so.
    """

    subject: str
    links: list[dict[str, Any]] = field(default_factory=list)
    integrity: list[str] = field(default_factory=list)
    completeness: list[str] = field(default_factory=list)
    policy: list[str] = field(default_factory=list)
    holes: list[str] = field(default_factory=list)
    files_hashed: int = 0
    licences: dict[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 clean, 1 policy, 2 integrity, 3 evidence incomplete; the gravest wins."""
        return 2 if self.integrity else 3 if self.completeness else 1 if self.policy else 0


def audit_alias(store: Store, pipeline: str, alias: str, anchor: str | None = None) -> Audit:
    """Audit what an alias points at, by the ledger.

    Args:
        store: The store.
        pipeline: Owner of the deployed student.
        alias: Alias in the ledger.
        anchor: What `Ledger.anchor` gave earlier, kept outside the store.

    Raises:
        StoreError: Nothing was ever promoted under that name.
    """
    ledger = Ledger(store)
    result = Audit(f"{pipeline}@{alias}")
    result.integrity += ledger.problems(anchor)
    try:
        promotions = ledger.promotions(pipeline, alias)
    except DamagedError:  # listed among the ledger's problems
        return result
    if not promotions:
        raise StoreError(
            f"{pipeline}@{alias}",
            f"nothing was ever promoted under this alias in {store.base}.",
            "Run the pipeline first. Where its assets have a key prefix in Dagster, set DISTILL_PREFIX to the same.",
        )
    payload = promotions[-1]["payload"]
    for gate in payload.get("gates", []):
        if not gate["passed"]:
            why = f"overridden: {payload['override']}" if "override" in payload else "the ledger holds the promotion"
            result.policy.append(f"it was promoted though gate {gate['gate']} had not passed ({why})")
    if anchor is None:
        result.holes.append(
            "no anchor was given: a ledger whose tail was cut, or that was rebuilt whole, looks the same"
        )
    try:
        deployed = store.open((pipeline, "deployed_student"), payload["version"])
        links = _links(result, store, deployed, payload)
    except DamagedError as error:
        result.integrity.append(str(error))
    except (StoreError, FileNotFoundError) as error:
        result.completeness.append(f"a link of the chain is gone: {error}")
    else:
        _chain(result, links, store)
    return result


def _links(result: Audit, store: Store, deployed: Version, payload: dict[str, Any]) -> dict[str, Any]:
    """The chain behind a promoted version, as far as possible from what was bound when it was promoted."""
    bound = payload.get("sha256")
    if bound is None:
        result.holes.append("the ledger does not bind the deployed version's manifest and run record")
    elif bound != (found := chain.seals(deployed, payload["run"])):
        names = {"manifest": "manifest.json", "run": f"runs/{payload['run']}.json"}
        result.integrity += [
            f"{deployed}: {names[what]} is not what was promoted" for what in names if bound.get(what) != found[what]
        ]
    run = deployed.run(payload["run"])
    own = chain.checked(
        {
            "starts": [],
            "versions": [
                {
                    "artifact": "/".join(deployed.key),
                    "version": deployed.version,
                    "run_id": payload["run"],
                    "manifest": deployed.manifest,
                    "run": run,
                    "sha256": chain.seals(deployed, payload["run"]),
                }
            ],
        },
        str(deployed),
    )["versions"]
    served_chain = _served_chain(result, deployed)
    if served_chain is not None:
        known = {(e["artifact"], e["version"], e["run_id"]) for e in served_chain["versions"]}
        if all((p["artifact"], p["version"], p["run"]) in known for p in run["parents"]):
            return {"versions": own + served_chain["versions"]}
        result.holes.append(
            "the served lineage tells of an earlier run that made the same bytes; the store's own was read"
        )
    return chain.checked(chain.collect(store, [(deployed, payload["run"])]), str(deployed))


def _served_chain(result: Audit, deployed: Version) -> dict[str, Any] | None:
    """The chain that lies beside the deployed weights, where it is the one that was sealed."""
    entry = deployed.manifest["attached"].get(CHAIN)
    if entry is None:
        result.holes.append("no lineage is served with the weights; the store's own manifests and runs were read")
        return None
    path = deployed.place / CHAIN
    if not path.exists():  # named when the stored files are compared
        return None
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        return None
    return chain.checked(json.loads(data), CHAIN)


def audit_folder(folder: Path, store: Store | None) -> Audit:
    """Audit a served weights folder by the `lineage/` it carries; the store, where at hand, adds the records.

    Raises:
        StoreError: The folder carries no lineage.
    """
    place = next((p for p in (folder / "lineage/chain.json", folder / CHAIN) if p.exists()), None)
    if place is None:
        raise StoreError(str(folder), "it carries no lineage/chain.json.", "Audit the folder of a deployed student.")
    result = Audit(str(folder))
    try:
        links = chain.checked(json.loads(place.read_bytes()), "lineage/chain.json")
        student = next(
            entry
            for start in links["starts"]
            for entry in links["versions"]
            if entry["artifact"].endswith("/student_checkpoint")
            and (entry["artifact"], entry["version"]) == (start["artifact"], start["version"])
        )
    except (ValueError, StopIteration, DamagedError) as error:
        result.integrity.append(f"lineage/chain.json cannot be read ({error!r})")
        return result
    hashed, problems = served(place.parent.parent, student["manifest"]["files"])
    result.files_hashed += hashed
    result.integrity += problems
    if store is None:
        result.holes.append("the store is not at hand: the records behind the student were not re-hashed")
        result.holes.append("the store is not at hand: nothing vouches for lineage/chain.json itself")
    elif not _sealed_with(store, student["artifact"].split("/")[0], hashlib.sha256(place.read_bytes()).hexdigest()):
        result.integrity.append("lineage/chain.json: no deployed student in the store was sealed with it")
    _chain(result, links, store)
    return result


def _sealed_with(store: Store, owner: str, sha256: str) -> bool:
    key = (owner, "deployed_student")
    try:
        versions = [store.open(key, version) for version in store.versions(key)]
    except StoreError:
        return False
    return any(version.manifest["attached"].get(CHAIN, {}).get("sha256") == sha256 for version in versions)


def _chain(result: Audit, links: dict[str, Any], store: Store | None) -> None:
    known = {(e["artifact"], e["version"], e["run_id"]) for e in links["versions"]}
    counted: dict[str, dict[str, int]] = {}
    for entry in links["versions"]:
        where = f"{entry['artifact']}@{entry['version'][:12]}"
        if chain.content_root(entry["manifest"]) != entry["version"]:
            result.integrity.append(f"{where}: its manifest does not amount to its version")
        for parent in entry["run"]["parents"]:
            if (parent["artifact"], parent["version"], parent["run"]) not in known:
                result.completeness.append(f"{where}: its parent {parent['artifact']} is not in the chain")
        hashed = None
        if store is not None:
            stored = Stored(store, entry)
            result.integrity += stored.integrity
            result.completeness += stored.completeness
            result.files_hashed += stored.hashed
            hashed = stored.hashed
        if licences := entry["run"]["notes"].get("counts", {}).get("licences"):
            counted.setdefault(entry["artifact"].split("/")[-1], licences)
        if entry["artifact"].endswith("/deployed_student"):
            for finding in entry["run"]["notes"].get("gates", []):
                if not finding["passed"]:
                    result.policy.append(f"{where}: gate {finding['gate']} had not passed")
        result.links.append(_link(entry, hashed))
        if entry["run"]["code"]["dirty"]:
            result.holes.append(f"{where}: made from code with uncommitted changes; only their digest is known")
    if not any(entry["artifact"].endswith("/seed_set") for entry in links["versions"]):
        result.completeness.append("the chain does not reach a seed set")
    result.licences = dict(counted.get("filtered_dataset") or counted.get("seed_set") or {})
    if any(name in ("", "unknown") for licences in counted.values() for name in licences):
        result.policy.append("some seed records have no known licence")


def _link(entry: dict[str, Any], hashed: int | None) -> dict[str, Any]:
    """One line of the chain for people."""
    return {
        "artifact": entry["artifact"],
        "version": entry["version"],
        "made": entry["run"]["ended"],
        "stage": entry["run"]["stage_version"],
        "commit": entry["run"]["code"]["commit"],
        "dirty": bool(entry["run"]["code"]["dirty"]),
        "records": sum(table["rows"] for table in entry["manifest"]["tables"].values()) or None,
        "files": hashed,
    }
