"""A file of answers as a teacher: what a model said earlier, joined to the questions by record, never by order.

A question carries the key of the record it is about (`addressed`): the digest of the record's input, with Unicode
in form C and white space folded, or the data set's own id. A question without a recorded answer fails with class
`not_recorded`, and nothing is made up for it.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from distill_dagster.config.models import RecordedOptions, identity
from distill_dagster.config.registry import nearest
from distill_dagster.domains import formats, readers
from distill_dagster.errors import ConfigError, SourceError
from distill_dagster.records.identity import digest
from distill_dagster.records.messages import text_of
from distill_dagster.teachers.base import Request, Response

FINISH_REASONS = ("stop", "length", "refusal", "content_filter")

_SPACE = re.compile(r"\s+")
_ANSWER_LINE = re.compile(r"^[\W_]*(?:the |my )?(?:final )?answer(?: is)?\**[ \t]*[:\uff1a]", re.I | re.M)


class _Answer(NamedTuple):
    """One recorded answer, and where it stands."""

    text: str
    rationale: str | None
    model: str
    finish_reason: str
    place: str


class Backend:
    """A file of teacher outputs that answers.

    Args:
        options: Files and columns.
        folder: Folder of the YAML file; paths are relative to it.
        identity: Declared name of the teacher.

    Attributes:
        files: SHA-256 of each file, in the order of `path`.
        revision: Digest of the files and of the mapping, so that a changed column asks anew.

    Raises:
        SourceError: A file is missing, or (at the first question) it is not what the mapping says.
    """

    def __init__(self, options: RecordedOptions, folder: Path, *, identity: str) -> None:
        self.options, self.identity = options, identity
        self._files = [formats.locate(text, folder, "recorded.path") for text in options.paths]
        self.files = [formats.sha256(path) for path in self._files]
        self.revision = digest({"files": self.files, "mapping": mapping(options)})
        self._known: dict[str, list[_Answer]] | None = None

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[int, Response]]:
        """Look every request up by the record it carries."""
        if requests and self._known is None:
            self._known = self._read()
        for index, request in enumerate(requests):
            yield index, self._response(request)

    def _response(self, request: Request) -> Response:
        record = request.record or {}
        answers = (self._known or {}).get(record.get("key", ""), [])
        if request.sample >= len(answers):
            return Response("", "error", self.identity, 0, 0, failure="not_recorded")
        found = answers[request.sample]
        text = found.text
        if record.get("form") == "rationale":
            if _ANSWER_LINE.search(text):  # nobody could tell where the rationale ends
                return Response("", "error", found.model, 0, 0, failure="ambiguous_answer")
            gap = "\n" if "\n" in text else " "
            text = f"{found.rationale or ''}\nAnswer:{gap}{text}".strip()
        return Response(text, found.finish_reason, found.model, 0, 0)

    def _read(self) -> dict[str, list[_Answer]]:
        """Answers by key, in the order of the files."""
        options = self.options
        entry = [options.each] if options.each else [options.answer, *self._optional(), *options.where]
        columns = [name for name in (*options.inputs, options.id, *entry) if name]
        known: dict[str, list[_Answer]] = {}
        present: set[str] = set()
        seen: set[str] = set()
        for path, before in zip(self._files, self.files, strict=True):
            kind = formats.guess(path, options.format)
            for _, place, row in formats.READERS[kind](path, columns):
                seen.update(row)
                for entry in self._entries(row, place):
                    found = self._answer(entry, place, present)
                    if found is not None:
                        _keep(known.setdefault(self._key(row, place), []), found, options.differ)
            formats.unchanged(path, before)  # `revision` is the digest of what was there before
        for name in filter(None, (*options.where, options.answer, *self._optional())):
            if name not in present:
                raise SourceError(str(self._files[0]), f"no row has the column {name!r}.", nearest(name, seen))
        if not known:
            raise SourceError(str(self._files[0]), "no row holds an answer.", "Check `answer` and `where`.")
        return known

    def _optional(self) -> tuple[str | None, ...]:
        return self.options.rationale, self.options.model, self.options.finish_reason

    def _entries(self, row: Mapping[str, Any], place: str) -> list[Mapping[str, Any]]:
        """The row itself, or the entries of its list laid over it."""
        if self.options.each is None:
            return [row]
        entries = readers.find(row, self.options.each)
        if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
            reason = f"column {self.options.each!r} holds no list of objects."
            raise SourceError(place, reason, "Leave `each` out where a row holds one answer.")
        return [{**row, **entry} for entry in entries]

    def _answer(self, row: Mapping[str, Any], place: str, present: set[str]) -> _Answer | None:
        options = self.options

        def value(column: str | None) -> str | None:
            found = readers.find(row, column) if column else None
            if found is readers.MISSING or column is None:
                return None
            present.add(column)
            return readers.as_text(found, place, column)

        for column, wanted in options.where.items():
            value(column)
            if not readers.equals(readers.find(row, column), wanted):
                return None
        said, rationale, model = value(options.answer), value(options.rationale), value(options.model)
        finish = value(options.finish_reason) or "stop"
        if finish not in FINISH_REASONS:
            raise SourceError(place, f"finish reason {finish!r} is not known.", nearest(finish, FINISH_REASONS))
        if said is None:
            return None
        return _Answer(said.strip(), rationale and rationale.strip(), model or self.identity, finish, place)

    def _key(self, row: Mapping[str, Any], place: str) -> str:
        parts = []
        for column in self.options.inputs or [str(self.options.id)]:
            found = readers.find(row, column)
            text = None if found is readers.MISSING else readers.as_text(found, place, column)
            if text is None:
                raise SourceError(
                    place, f"the record lacks {column!r}, which says what it answers.", nearest(column, row)
                )
            parts.append(text)
        return key_of("\n\n".join(parts)) if self.options.inputs else parts[0].strip()


def key_of(text: str) -> str:
    """Key of a record by its input: SHA-256 of the text in Unicode form C with white space folded. 64 hex digits."""
    folded = _SPACE.sub(" ", unicodedata.normalize("NFC", text)).strip()
    return hashlib.sha256(folded.encode("utf-8", "surrogatepass")).hexdigest()


def mapping(options: RecordedOptions) -> dict[str, Any]:
    """What of the options can change an answer: all but where the files lie."""
    return {name: value for name, value in identity(options).items() if name != "path"}


def addressed(
    options: RecordedOptions | None,
    requests: Sequence[Request],
    seeds: Sequence[Mapping[str, Any] | None],
    rationale: bool = False,
    others: Sequence[Mapping[str, Any]] = (),
) -> list[Request]:
    """Requests that say which record they are about, where the teacher is a file; else the requests as they are.

    Args:
        options: The teacher's `recorded`, or None.
        requests: The questions.
        seeds: The SEED row that each question is about; None where there is not exactly one.
        rationale: Whether the rationale is wanted before the answer.
        others: SEED rows of the source that are asked about elsewhere, and whose ids must not stand for these as well.

    Raises:
        ConfigError: A seed has no id to join by, or one key means two records that differ.
    """
    if options is None:
        return list(requests)
    marked = []
    meant: dict[str, tuple] = {}
    elsewhere = _by_id(others) if options.id is not None else {}
    for request, seed in zip(requests, seeds, strict=True):
        if seed is None:
            marked.append(request)
            continue
        key = _seed_key(options, seed)
        says = _says(seed)
        if key in elsewhere and _apart(_says(elsewhere[key]), says):
            raise ConfigError(
                "teacher.recorded.id",
                f"id {key!r} stands for two records that differ: {_place(elsewhere[key])}, and {_place(seed)}.",
                "Ids must be unique over `seeds` and `evaluation` of the source: name the rows apart, such as train-1 "
                "and test-1, there and in the answers, or join by `input`.",
            )
        if _apart(meant.setdefault(key, says), says):
            raise ConfigError(
                "teacher.recorded",
                f"two records share the {'id' if options.id else 'input'} of {says[0][:60]!r}, but are not the same.",
                "Join by `id`, and give the source's rows ids of their own; of two tasks each has its own."
                if options.id is None
                else "Ids must be unique over the files of the source.",
            )
        marked.append(replace(request, record={"key": key, "form": "rationale" if rationale else "answer"}))
    return marked


def _says(seed: Mapping[str, Any]) -> tuple:
    """What a record asks: its text first, then what else an answer hangs on."""
    return text_of(seed["messages"]), seed.get("context"), tuple(seed.get("choices") or ()), seed.get("task")


def _place(seed: Mapping[str, Any]) -> str:
    return f"{seed.get('part')} record {seed.get('source_id')}, row {seed.get('source_row')}"


def _by_id(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Records by their own id, those without one left out."""
    return {str(found).strip(): seed for seed in seeds if (found := _own_id(seed)) is not None}


def _own_id(seed: Mapping[str, Any]) -> Any:
    return json.loads(seed.get("meta") or "{}").get("id")


def _apart(one: tuple, other: tuple) -> bool:
    """Are two records different ones, white space aside?"""
    return key_of(one[0]) != key_of(other[0]) or one[1:] != other[1:]


def _seed_key(options: RecordedOptions, seed: Mapping[str, Any]) -> str:
    if options.id is None:
        return key_of(text_of(seed["messages"]))
    found = _own_id(seed)
    if found is None:
        raise ConfigError(
            "teacher.recorded.id",
            f"the record from {seed.get('source_id')}, row {seed.get('source_row')}, has no id.",
            "Map `columns.id` in the source, or join by `input`.",
        )
    return str(found).strip()


def _keep(answers: list[_Answer], found: _Answer, differ: str) -> None:
    """Add an answer to those of its key; in mode `error`, equal ones are one and different ones a fault."""
    if differ == "samples" or not answers:
        answers.append(found)
    elif (answers[0].text, answers[0].rationale) != (found.text, found.rationale):
        raise SourceError(
            found.place,
            f"another answer than the one at {answers[0].place} for the same record.",
            "Choose with `where`, or take them as samples: `differ: samples`.",
        )
