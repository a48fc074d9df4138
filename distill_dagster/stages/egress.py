"""The egress gate in a stage: every question passes it, and every look is a row sealed with the version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from distill_dagster.config.egress import Policy, endpoint_class, policy
from distill_dagster.knowledge.base import Question
from distill_dagster.lineage import laws
from distill_dagster.lineage.engine import Job
from distill_dagster.privacy import presidio
from distill_dagster.privacy.mask import VERSION
from distill_dagster.records import tables
from distill_dagster.stages.context import PipelineContext
from distill_dagster.teachers.base import Request, Response
from distill_dagster.teachers.egress import Gate, Look, refusal, status
from distill_dagster.teachers.journal import CallInfo

#: The seed records that one question was made of.
Origin = Sequence[Mapping[str, Any]]

NOT_SENT = CallInfo(key="", reused=False, sent_at="", received_at="")


def gate(pipeline: PipelineContext, local: bool = False) -> Gate:
    """The gate between a pipeline's source and its teacher, or a model on this machine."""
    here = _policy(pipeline, local)
    if here.detector is None:
        return Gate(here)
    folder = pipeline.source.folder
    return Gate(here, presidio.detector(here.detector, folder), presidio.identity(here.detector, folder))


def _policy(pipeline: PipelineContext, local: bool = False) -> Policy:
    return policy(pipeline.source.config.egress, "local" if local else endpoint_class(pipeline.teacher))


def identity(pipeline: PipelineContext) -> dict[str, Any]:
    """Identity config of a stage that asks; empty where the gate changes and refuses nothing."""
    if pipeline.panel:
        each = {member.teacher.name: identity(member).get("egress") for member in pipeline.panel}
        return {"egress": each} if any(each.values()) else {}
    said = _policy(pipeline).identity()
    return {"egress": {**said, "finds": VERSION}} if said else {}


def outside(pipeline: PipelineContext) -> dict[str, Any]:
    """Identity of the detector that questions pass beside the built-in patterns; empty where there is none.

    Raises:
        DetectorError: It, or its model, is not installed.
    """
    # All teachers of a pipeline stand before the same source.
    for member in pipeline.asked:
        options = _policy(member).detector
        if options is not None:
            return {"detector": presidio.identity(options, pipeline.source.folder)}
    return {}


def origins(
    questions: Iterable[Question], seeds: Mapping[int, Mapping[str, Any]], inputs: Iterable[Mapping[str, Any]] = ()
) -> list[Origin]:
    """The seed records behind each question, those behind the calls that it read included.

    Args:
        questions: Questions with their references.
        seeds: SEED rows by number.
        inputs: CALL_INPUT rows of earlier calls.
    """
    behind: dict[int, dict[int, None]] = {}
    for row in inputs:
        mine = behind.setdefault(row["call_no"], {})
        mine.update({row["ref_no"]: None} if row["kind"] in _SEEDS else behind.get(row["ref_no"], {}))
    found = []
    for question in questions:
        numbers: dict[int, None] = {}
        for kind, ref in question.refs:
            numbers.update({ref: None} if kind in _SEEDS else behind.get(ref, {}) if kind in _CALLS else {})
        found.append([seeds[number] for number in numbers if number in seeds])
    return found


_SEEDS, _CALLS = ("seed", "exemplar"), ("call", "judged")


@dataclass(frozen=True)
class Passed:
    """Questions that were looked at.

    Attributes:
        requests: Those that may be asked, as they may be asked, in order.
        looks: One look a question.
        rows: EGRESS rows, one a question.
    """

    requests: list[Request]
    looks: list[Look]
    rows: list[dict[str, Any]]

    def answers(
        self, job: Job, responses: Sequence[Response], infos: Sequence[CallInfo]
    ) -> tuple[list[Response], list[CallInfo]]:
        """One response and one info for every question, refused ones in their places; the looks go to the job."""
        given = iter(zip(responses, infos, strict=True))
        both = [(refusal(look), NOT_SENT) if look.request is None else next(given) for look in self.looks]
        job.looks += [{**row, "request_key": info.key or None} for row, (_, info) in zip(self.rows, both, strict=True)]
        return [response for response, _ in both], [info for _, info in both]


def look(
    pipeline: PipelineContext, requests: Sequence[Request], origins: Sequence[Origin] | None, student: bool = False
) -> Passed:
    """Look at every question before it is asked.

    Args:
        pipeline: Whose source and teacher.
        requests: The questions.
        origins: The seed records that each was made of; None where the caller does not know.
        student: They are put to the pipeline's student, whose weights are on this machine, not to its teacher.
    """
    here = gate(pipeline, local=student)
    looks, rows = [], []
    for number, request in enumerate(requests):
        origin = None if origins is None else origins[number]
        licences = None if not origin else {row.get("licence") for row in origin}
        seen = here.look(request, licences)
        looks.append(seen)
        first = origin[0] if origin else {}
        rows.append(
            {
                "seed_no": first.get("seed_no"),
                "seed_record_id": first.get("record_id"),
                "endpoint": here.policy.endpoint,
                "verdict": seen.verdict,
                "reason": seen.reason,
                "findings": [{"kind": kind, "count": count} for kind, count in seen.findings.items()],
                "policy": here.version,
            }
        )
    return Passed([one.request for one in looks if one.request is not None], looks, rows)


def mark(candidates: Iterable[dict[str, Any]]) -> None:
    """Give candidates of refused questions their status: they are neither answered nor failed."""
    for row in candidates:
        if status(row.get("failure")) == "refused":
            row["status"] = "refused"


def write(job: Job, place: str, calls: pa.Table) -> None:
    """Seal the looks with the version: one for every call, the refused ones without a key.

    Raises:
        LawError: A call was not looked at, or a look has no call.
    """
    looks = tables.build("egress", job.looks)
    job.looks.clear()
    laws.looked(place, looks, calls)
    job.draft.write_table("egress", looks, side=True)
    reasons = [
        f"{verdict}: {reason}" if reason else verdict
        for verdict, reason in zip(looks["verdict"].to_pylist(), looks["reason"].to_pylist(), strict=True)
    ]
    job.notes["egress"] = laws.counts(reasons)


def notice(notes: Mapping[str, Any]) -> str:
    """What a reader of a report must know about questions that the teacher was not asked, or was asked otherwise."""
    counts: dict[str, int] = {"mask": 0, "refuse": 0}
    for reason, count in notes.get("egress", {}).items():
        verdict = reason.partition(":")[0]
        counts[verdict] = counts.get(verdict, 0) + count
    said = []
    if counts["refuse"]:
        said.append(
            f"The egress gate kept {counts['refuse']} items from the teacher: they count as not answered by it."
        )
    if counts["mask"]:
        said.append(f"The teacher was shown {counts['mask']} items with tags in place of personal data or secrets.")
    return " ".join(said)
