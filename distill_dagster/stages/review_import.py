"""Taking verdicts in: every row is checked against the data set, then they become the next version of the review."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_dagster.config.models import ReviewOptions
from distill_dagster.config.registry import nearest
from distill_dagster.config.review import PSEUDONYM
from distill_dagster.errors import SourceError
from distill_dagster.filtering._review import BLANK, VERDICTS
from distill_dagster.lineage import laws
from distill_dagster.lineage.engine import Job, Made, Services, head_version, materialize
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.records import tables
from distill_dagster.records.identity import digest
from distill_dagster.stages import review
from distill_dagster.stages.project import Project
from distill_dagster.stages.review_files import Given, read
from distill_dagster.storage.store import Key

VERSION = "1"
#: Faulty rows that are told at once.
MOST = 20
#: Whose row it is that came back without a name or a verdict.
NOBODY = "nobody"

Row = dict[str, Any]


@dataclass(frozen=True)
class Taken:
    """What an import brought.

    Attributes:
        made: The new version of the review; None where nothing new was said.
        verdicts: Rows with a verdict in the files.
        blank: Rows without one.
    """

    made: Made | None
    verdicts: int
    blank: int


def take(project: Project, pipeline: str, files: Sequence[Path]) -> Taken:
    """Check the rows of some files, and make them the next version of a pipeline's verdicts.

    Of one reviewer's verdicts on one record the newest import counts; a row without a verdict takes none back.

    Raises:
        ConfigError: The pipeline does not use verdicts.
        SourceError: Rows that cannot be taken, with file and line each; nothing was written then.
    """
    context = project.pipeline(project.pipeline(pipeline).data)
    options = review.options_for(context)
    given = [row for path in files for row in read(path)]
    known = {item.record_id: item for item in review.population(project.store, context.key)}
    rows = checked(given, known, options)
    key = (context.key, review.ARTIFACT)
    head = head_version(project.store, key)
    before = [] if head is None else head[0].table("verdict").to_pylist()
    counts = Taken(None, sum(row["verdict"] != BLANK for row in rows), sum(row["verdict"] == BLANK for row in rows))
    if [_content(row) for row in merged(before, rows)] == [_content(row) for row in merged(before, [])]:
        return counts
    made = materialize(node(key, rows, [path.name for path in files]), project.store, Services(project.state))
    return Taken(made, counts.verdicts, counts.blank)


def node(key: Key, rows: Sequence[Row], files: Sequence[str]) -> Node:
    """The node that adds rows to the verdicts there are."""

    def make(job: Job) -> None:
        before = job.inputs["earlier"].table("verdict").to_pylist() if "earlier" in job.inputs else []
        table = tables.build("verdict", merged(before, rows))
        job.draft.write_table("verdict", table)
        job.notes["files"] = list(files)
        job.notes["counts"] = {
            "verdicts": table.num_rows,
            "reviewers": laws.counts(table["reviewer"].to_pylist()),
            "said": laws.counts(table["verdict"].to_pylist()),
        }

    earlier = Parent("earlier", key, resolve=lambda store: store.head(key), optional=True)
    return Node(key, VERSION, (earlier,), {"rows": digest(list(rows))}, make, title="What people said of a sample")


def merged(before: Iterable[Row], rows: Iterable[Row]) -> list[Row]:
    """The verdicts of before with newer ones in their place, by record and reviewer."""
    said = {(row["candidate_record_id"], row["reviewer"]): _content(row) for row in before}
    for row in rows:
        place = (row["candidate_record_id"], row["reviewer"])
        if row["verdict"] != BLANK or place not in said:
            said[place] = _content(row)
    return [said[place] for place in sorted(said)]


def _content(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in ("verdict_no", "record_id")}


def checked(given: Sequence[Given], known: dict[str, review.Item], options: ReviewOptions) -> list[Row]:
    """VERDICT rows.

    Raises:
        SourceError: Names up to 20 faulty rows.
    """
    faults: list[str] = []
    rows: dict[tuple[str, str], tuple[Row, Given]] = {}
    for row in given:
        found = list(_faults(row, known, options))
        reviewer = row.reviewer or (NOBODY if not row.verdict else "")
        earlier = rows.get((row.record_id, reviewer))
        verdict = {
            "candidate_record_id": row.record_id,
            "task": row.task,
            "reviewer": reviewer,
            "verdict": row.verdict or BLANK,
            "critical": list(row.critical),
            "comment": row.comment or None,
            "shown": row.shown,
        }
        if earlier is not None and BLANK not in (verdict["verdict"], earlier[0]["verdict"]) and earlier[0] != verdict:
            found.append(f"{reviewer!r} has judged this record otherwise in {earlier[1].place}")
        faults += [f"{row.place}: {reason}." for reason in found]
        if earlier is None or verdict["verdict"] != BLANK:
            rows[row.record_id, reviewer] = verdict, row
    if faults:
        more = f"\n… and {len(faults) - MOST} more" if len(faults) > MOST else ""
        reason = f"{len(faults)} rows cannot be taken; nothing was written.\n" + "\n".join(faults[:MOST]) + more
        raise SourceError("review import", reason, "Mend them, or export the sample again.")
    return [row for row, _ in rows.values()]


def _faults(row: Given, known: dict[str, review.Item], options: ReviewOptions) -> Iterator[str]:
    item = known.get(row.record_id)
    if item is None:
        yield f"record {row.record_id!r} is not in the newest data set"
        return
    if review.digest_of(row.record_id, row.task, row.question, row.answer, row.rationale) != row.shown:
        yield f"the text of record {row.record_id} is not what was exported: a cell was edited or moved"
    elif item.reason is None and item.shown != row.shown:
        yield f"record {row.record_id} is kept in another form now than when it was exported"
    if row.verdict and row.verdict not in VERDICTS:
        yield f"verdict {row.verdict!r} is none of {', '.join(VERDICTS)}"
    if row.verdict and not row.reviewer:
        yield "a verdict without a reviewer"
    if row.reviewer and not re.fullmatch(PSEUDONYM, row.reviewer):
        yield f"reviewer {row.reviewer!r} is no pseudonym (letters, digits, . _ -); it would be stored for ever"
    allowed = options.critical_errors.get(row.task, [])
    for error in row.critical:
        if error not in allowed:
            yield f"critical error {error!r} is not listed for task {row.task!r}. {nearest(error, allowed)}".rstrip(".")
    if row.critical and row.verdict != "reject":
        yield f"a critical error with the verdict {row.verdict or BLANK!r}; such a record is to be rejected"
