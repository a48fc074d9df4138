"""The files that reviewers are given and hand back: CSV for spreadsheets, and Label Studio's JSON.

A spreadsheet runs a cell that begins with = + - @ as a formula, so such a cell is written with an apostrophe before it
(CWE-1236), and loses it again when it is read. Label Studio's tasks and exports are JSON lists; docs/review.md says
which of its settings matter.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from distill_dagster.errors import SourceError

#: What a reviewer reads, and what they fill in.
SHOWN = ("record_id", "task", "question", "answer", "rationale", "shown")
FILLED = ("reviewer", "verdict", "critical_error", "comment")
COLUMNS = (*SHOWN, *FILLED)
#: What spreadsheets take for a formula at the start of a cell; white space before it does not keep them from it.
FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
APOSTROPHE = "'"


@dataclass(frozen=True)
class Given:
    """One row as it came back, with the file and line it stands in."""

    place: str
    record_id: str
    task: str
    question: str
    answer: str
    rationale: str
    shown: str
    reviewer: str
    verdict: str
    critical: tuple[str, ...]
    comment: str


def harmless(cell: str) -> str:
    """The cell with an apostrophe before it, where a spreadsheet would run it, or where it begins with one."""
    bare = cell.lstrip()
    risky = bare.startswith(FORMULA) or cell.startswith(("\t", "\r", "\n", APOSTROPHE))
    return f"{APOSTROPHE}{cell}" if risky else cell


def restored(cell: str) -> str:
    """What `harmless` was given."""
    return cell.removeprefix(APOSTROPHE)


def to_csv(rows: Iterable[Mapping[str, str]]) -> bytes:
    """A CSV file in UTF-8 with a byte order mark, which spreadsheets need to see that it is UTF-8."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([harmless(row.get(column, "")) for column in COLUMNS])
    return text.getvalue().encode("utf-8-sig", "backslashreplace")


def from_csv(path: Path, text: str) -> list[Given]:
    """Rows of a CSV file; a spreadsheet may have made its commas semicolons or tabs.

    Raises:
        SourceError: It has no header, lacks a column or has it twice, or a row has too many cells.
    """
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # one cell may be as long as the file
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    header = [name.strip() for name in next(reader, [])]
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise SourceError(f"{path}:1", f"column {missing[0]!r} is missing.", "Hand back the file that was exported.")
    doubled = next((name for name in COLUMNS if header.count(name) > 1), None)
    if doubled:
        raise SourceError(f"{path}:1", f"column {doubled!r} stands twice.", "Delete the copy.")
    given = []
    line = reader.line_num + 1
    for cells in reader:
        place, line = f"{path}:{line}", reader.line_num + 1
        if not any(cells):
            continue
        if len(cells) > len(header):
            reason = f"{len(cells)} cells in a row of {len(header)} columns."
            raise SourceError(place, reason, "Save the file as CSV again, with quotes around texts.")
        row = dict(zip(header, [*cells, *[""] * (len(header) - len(cells))], strict=True))
        row = {name: restored(value) if name in SHOWN else _typed(value) for name, value in row.items()}
        given.append(_given(place, row, [entry.strip() for entry in row["critical_error"].split(";")]))
    return given


def _typed(value: str) -> str:
    """What a person typed, less the apostrophe that `harmless` puts before a formula."""
    value = value.strip()
    bare = restored(value).lstrip()
    return restored(value) if value.startswith(APOSTROPHE) and bare.startswith((*FORMULA, APOSTROPHE)) else value


def _given(place: str, row: Mapping[str, str], critical: Sequence[str]) -> Given:
    texts = {name: row.get(name) or "" for name in ("record_id", "task", "question", "answer", "rationale", "shown")}
    return Given(
        place,
        **texts,
        reviewer=row["reviewer"].strip(),
        verdict=row["verdict"].strip().lower(),
        critical=tuple(sorted({entry for entry in critical if entry})),
        comment=row["comment"].strip(),
    )


# --- Label Studio ---------------------------------------------------------------------------------------------------


def to_label_studio(rows: Iterable[Mapping[str, str]], critical_errors: Mapping[str, Sequence[str]]) -> bytes:
    """Label Studio's list of tasks. The critical errors of a record's task are choices of that record."""
    tasks = []
    for row in rows:
        data: dict[str, Any] = {name: row.get(name, "") for name in SHOWN}
        if row.get("reviewer"):
            data["reviewer"] = row["reviewer"]
        data["critical_errors"] = [{"value": error} for error in critical_errors.get(row["task"], ())]
        tasks.append({"data": data})
    return (json.dumps(tasks, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "backslashreplace")


def labelling_config(verdicts: Sequence[str], rationale: bool, critical: bool) -> str:
    """Label Studio's labelling interface as XML: the texts, the verdict, the critical errors, a comment."""
    choices = "\n".join(f"    <Choice value={quoteattr(verdict)}/>" for verdict in verdicts)
    texts = [("question", "Question"), ("answer", "Answer"), *([("rationale", "Rationale")] if rationale else [])]
    shown = "\n".join(f'  <Header value="{title}"/>\n  <Text name="{name}" value="${name}"/>' for name, title in texts)
    errors = (
        '  <Header value="Critical errors"/>\n'
        '  <Choices name="critical_error" toName="answer" choice="multiple" value="$critical_errors"/>\n'
    )
    return (
        f'<View>\n  <Header value="$task"/>\n{shown}\n'
        f'  <Choices name="verdict" toName="answer" choice="single" required="true" showInLine="true">\n{choices}\n'
        f"  </Choices>\n{errors if critical else ''}"
        '  <TextArea name="comment" toName="answer" placeholder="Comment" maxSubmissions="1"/>\n</View>\n'
    )


def from_label_studio(path: Path, text: str) -> list[Given]:
    """Rows of a Label Studio export (JSON, not JSON-MIN): one for each annotation that was not cancelled.

    A reviewer is who the task says, or `annotator_<id>`; addresses are not read. A task without an annotation is a row
    without a verdict.

    Raises:
        SourceError: It is not such an export.
    """
    try:
        tasks = json.loads(text)
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise SourceError(f"{path}:{line}", f"it is not JSON ({error}).", "Export as JSON.") from None
    if not isinstance(tasks, list):
        raise SourceError(f"{path}:1", "it is not a list of tasks.", "Export as JSON, not as JSON-MIN or CSV.")
    given = []
    for number, task in enumerate(tasks, 1):
        place = f"{path}, task {number}"
        try:
            data = {name: str(task["data"].get(name) or "") for name in (*SHOWN, "reviewer")}
            annotations = [entry for entry in task.get("annotations", ()) if not entry.get("was_cancelled")]
            if not annotations:
                given.append(_given(place, {**data, "verdict": "", "comment": ""}, ()))
            for annotation in annotations:
                said = _results(annotation["result"])
                row = {
                    **data,
                    "reviewer": data["reviewer"] or f"annotator_{_who(annotation)}",
                    "verdict": "".join(said.get("verdict", ())),
                    "comment": "\n".join(said.get("comment", ())),
                }
                given.append(_given(place, row, said.get("critical_error", ())))
        except (KeyError, TypeError, AttributeError) as error:
            reason = f"it is not a task of Label Studio's JSON export ({type(error).__name__}: {error})."
            raise SourceError(place, reason, "Export as JSON, not as JSON-MIN or CSV.") from None
    return given


def _who(annotation: Mapping[str, Any]) -> str:
    who = annotation["completed_by"]
    return str(who["id"] if isinstance(who, Mapping) else who)


def _results(results: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What was chosen or typed, by the name of the control."""
    said: dict[str, list[str]] = {}
    for entry in results:
        value = entry["value"]
        chosen = value.get("choices", value.get("text", ()))
        said.setdefault(entry["from_name"], []).extend([chosen] if isinstance(chosen, str) else map(str, chosen))
    return said


def read(path: Path) -> list[Given]:
    """Rows of a file that came back: `.json` is Label Studio's, everything else CSV.

    Raises:
        SourceError: It cannot be read as either.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(str(path), f"it is not UTF-8 ({error}).", "Save it as CSV UTF-8.") from None
    except OSError as error:
        raise SourceError(str(path), f"it cannot be read ({error.strerror}).", "Name a file.") from None
    return from_label_studio(path, text) if path.suffix.lower() == ".json" else from_csv(path, text)
