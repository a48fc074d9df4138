"""What a domain plugin contributes: tasks, templates, a grammar, verifiers, and optional extra nodes.

A plugin is a function without arguments that returns a `Domain`, named in the entry-point group
`distill_dagster.domains`. Loading one imports no torch, no transformers, no datasets and no Dagster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from distill_dagster.config.styles import StyleName

ENTRY_POINT_GROUP = "distill_dagster.domains"

#: The disjoint parts of a task's records. The first three make the seed set, the last two the evaluation set.
#: `teacher` is D_T (fits a teacher), `gold` is D_G (student and control see it), `unlabeled` is D_U (the teacher
#: labels it, its gold is never shown to student or control), `validation` is D_val, `test` is D_test.
SEED_PARTS = ("teacher", "gold", "unlabeled")
EVAL_PARTS = ("validation", "test")
PARTS = SEED_PARTS + EVAL_PARTS

TaskKind = Literal["label", "text", "verified"]
Part = Literal["teacher", "gold", "unlabeled", "validation", "test"]


@dataclass(frozen=True)
class Item:
    """One authored record, before it is numbered and hashed.

    Attributes:
        text: All that a model is shown besides the instruction: the rule, ranges or statute included.
        answer: Gold answer in its canonical form.
        skeleton: Template skeleton the text was made from; parts never share one.
        composition: What was put together (label, modifiers, distractors); parts never share one.
        subject_key: Patient, contract or customer the record is about; parts never share one.
        facts: The generator's own numbers, for the verifier; never shown to a model. JSON values only.
        rationale: A worked solution, where the task has one.
    """

    text: str
    answer: str
    skeleton: str
    composition: str
    subject_key: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    rationale: str | None = None


@dataclass(frozen=True)
class Verdict:
    """A verifier's opinion: `ok` is None where it cannot tell."""

    ok: bool | None
    reason: str = ""


@dataclass(frozen=True)
class Passage:
    """A text that a teacher may be shown beside an input.

    Attributes:
        text: The passage.
        source_id: Where it is from: a document and place that a person can find again.
        licence: SPDX id; an answer that was made from it is under it as well.
    """

    text: str
    source_id: str
    licence: str = ""


@dataclass(frozen=True)
class Task:
    """One thing a student is taught and examined on.

    Attributes:
        name: `[a-z][a-z0-9_]*`, unique within the domain.
        kind: `label` (one of `labels`), `text` (short free text or extraction), or `verified` (an answer that a
            verifier computes).
        title: A few words for reports.
        description: One or two sentences a practitioner recognises.
        labels: Classes of a label task, in a fixed order.
        max_new_tokens: Room for an answer.
        version: Bumped when the make of the items or the meaning of the answer changes.
    """

    name: str
    kind: TaskKind
    title: str
    description: str
    labels: tuple[str, ...] = ()
    max_new_tokens: int = 32
    version: str = "1"


@dataclass(frozen=True)
class PromptTemplate:
    """How a task is put to a model. Jinja2 source, rendered in a sandbox with `input`, `labels` and `context`.

    Two styles a task: `full` explains everything to a general-purpose teacher; `short` is what a small model
    that was fitted on the task is given, and what students read. A domain may ship the styles of single kinds of
    knowledge as well (`config.styles`); a task without one gets a generic template.
    """

    task: str
    style: StyleName
    user: str
    system: str = ""
    version: str = "1"


@dataclass(frozen=True)
class Domain:
    """A vertical domain as a plugin describes it.

    Attributes:
        name: Registry name, `[a-z][a-z0-9_]*`.
        title: For people.
        description: What the domain teaches and what it must not be taken for.
        owners: E-mail addresses or `team:...` names, shown in the UI.
        tasks: The tasks, in report order.
        templates: Prompt templates, both styles for every task.
        licence: SPDX id of the authored records.
        items: `items(task, part, count, seed)` yields authored items, or None where the domain has no grammar.
            The first n items do not depend on `count`.
        verify: `verify(task, facts, output)` judges an output from the generator's own numbers, never from gold.
        passages: `passages(task, input, count)` finds at most `count` passages for an input, best first, or None where
            the domain has no texts to look up. The same arguments give the same passages.
        passages_version: Bumped when they would not.
        nodes: Optional `module:function` returning extra Dagster definitions for a source; imported lazily.
        models: Folder (inside the package) with the committed `teacher` and `student_base` models, if any.
        notice: A sentence printed on every report about this domain.
        verifier_version: Bumped when the verdicts of `verify` change: students that learned from them are made anew.
    """

    name: str
    title: str
    description: str
    owners: tuple[str, ...]
    tasks: tuple[Task, ...]
    templates: tuple[PromptTemplate, ...]
    licence: str = "Apache-2.0"
    items: Callable[[str, str, int, int], Iterator[Item]] | None = None
    verify: Callable[[str, Mapping[str, Any], str], Verdict] | None = None
    passages: Callable[[str, str, int], Sequence[Passage]] | None = None
    passages_version: str = "1"
    nodes: str | None = None
    models: str | None = None
    notice: str = ""
    verifier_version: str = "1"

    def task(self, name: str) -> Task:
        """The task of that name; KeyError names the known ones."""
        for task in self.tasks:
            if task.name == name:
                return task
        raise KeyError(f"domain {self.name} has no task {name!r}; it has {', '.join(t.name for t in self.tasks)}")

    def template(self, task: str, style: str) -> PromptTemplate:
        """The template of a task in one style; KeyError where the domain ships none."""
        for template in self.templates:
            if template.task == task and template.style == style:
                return template
        raise KeyError(f"domain {self.name} has no {style} template for task {task!r}")
