"""The protocol: from item scores of several arms to numbers and the verdict that they allow (DESIGN.md 9).

A gap is divided by only where the teacher beats both the control and the linear baseline; elsewhere the task is
*not informative*. Distillation helped where the student beats the control at its own budget and at every larger
budget that was measured, so that a starved control cannot win a claim.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from distill_dagster.domains.base import Task
from distill_dagster.errors import DistillError
from distill_dagster.evaluation import wording
from distill_dagster.evaluation.baselines import chance
from distill_dagster.evaluation.confusion import confusion
from distill_dagster.evaluation.intervals import Bootstrap, Floats, Interval, codes, no_spread, percentile, seed_weights
from distill_dagster.evaluation.sample import Sample, plain, rounded
from distill_dagster.evaluation.verdicts import judge


@dataclass(frozen=True)
class Options:
    """How an examination is evaluated and described.

    Attributes:
        tasks: Tasks in report order; a task that only the items name counts as `text`.
        title: What the report is about, such as the pipeline's name.
        notice: Printed on every report, such as `wording.AUTHORED_NOTICE` and the domain's own.
        control: `off` says that no control was wanted; its numbers are then "not measured".
        resamples, level, seed: Of the bootstrap.
        resources: `{arm: {parameters, bytes, seconds_per_item, …}}`, kept apart from the deterministic content.
        outputs: `{arm: answers}` in the order of the items, for the confusion matrix of `student`.
    """

    tasks: Sequence[Task] = ()
    title: str = "Evaluation"
    notice: str = ""
    control: Literal["auto", "off"] = "auto"
    resamples: int = 2000
    level: float = 0.95
    seed: int = 0
    resources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    outputs: Mapping[str, Sequence[str | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """An examination's result.

    Attributes:
        content: JSON values that depend on items, scores and options alone, floats rounded to 6 digits.
        resources: What each arm cost on this machine at this time; not part of any version.
    """

    content: dict[str, Any]
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> str:
        """The content as text, equal for equal content."""
        return json.dumps(self.content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, resources: Mapping[str, Mapping[str, Any]] | None = None) -> Report:
        """A report from `to_json`, with the resources that were kept beside it."""
        return cls(json.loads(text), {arm: dict(known) for arm, known in (resources or {}).items()})


def _rows(items: Any) -> list[Mapping[str, Any]]:
    if hasattr(items, "to_pylist"):
        return items.to_pylist()
    if hasattr(items, "to_dict"):
        return items.to_dict("records")
    return list(items)


def _scores(arms: Mapping[str, ArrayLike], count: int) -> tuple[dict[str, Floats], int]:
    """Arms as (seeds, items), and the number of paired seeds."""
    table: dict[str, Floats] = {}
    seeds = 1
    for arm, given in arms.items():
        rows = np.atleast_2d(np.asarray(given, dtype=np.float64))
        if rows.shape[1] != count:
            raise DistillError(f"arm {arm!r}", f"{rows.shape[1]} scores for {count} items.", "Give one score an item.")
        if np.any((rows < 0) | (rows > 1)):
            bad = rows[(rows < 0) | (rows > 1)][0]
            raise DistillError(f"arm {arm!r}", f"a score of {bad} lies outside 0 to 1.")
        if rows.shape[0] > 1:
            if seeds not in (1, rows.shape[0]):
                raise DistillError(
                    f"arm {arm!r}", f"{rows.shape[0]} seeds where another arm has {seeds}.", "Seeds are paired."
                )
            seeds = rows.shape[0]
        table["control_1" if arm == "control" else arm] = rows
    return table, seeds


def _subjects(rows: Sequence[Mapping[str, Any]]) -> list[Hashable]:
    """What an item shares its luck with: its subject, else its record, else itself."""
    keys: list[Hashable] = []
    for index, row in enumerate(rows):
        if row.get("subject_key"):
            keys.append(("subject", row["subject_key"]))
        else:
            keys.append(("record", row["record_id"]) if row.get("record_id") else ("item", index))
    return keys


def examine(items: Any, arms: Mapping[str, ArrayLike], options: Options | None = None) -> Report:
    """Evaluate item scores by the protocol.

    Args:
        items: Mappings, an Arrow table or a data frame with `task`, and where there are any `record_id`,
            `subject_key` and `answer`.
        arms: Scores from 0 to 1 in the order of the items, (items) or (seeds, items), under the names `teacher`,
            `student`, `control_1`, `control_2`, `control_4`, `linear_teacher` (D_T), `linear_gold` (D_G), or any
            other. NaN for all items of a task says that the arm was not measured there.
        options: Tasks, notice, resamples; see `Options`.

    Raises:
        DistillError: No items, scores of another length, outside 0 to 1, or missing for some items of a task.
    """
    options = options or Options()
    rows = _rows(items)
    if not rows:
        raise DistillError(f"evaluation {options.title!r}", "there are no items.", "Check the test part of its source.")
    table, seeds = _scores(arms, len(rows))
    subjects = _subjects(rows)
    base = Bootstrap(options.resamples, options.level, options.seed)
    weights = seed_weights(seeds, base)
    place: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        place.setdefault(row["task"], []).append(index)
    known = {task.name: task for task in options.tasks}
    tasks = [known[name] for name in known if name in place]
    tasks += [Task(name, "text", name, "") for name in place if name not in known]

    # Subjects that occur in several tasks are drawn once for all of them; else every task draws its own number.
    owners: dict[Hashable, set[str]] = {}
    for subject, row in zip(subjects, rows, strict=True):
        owners.setdefault(subject, set()).add(row["task"])
    shared = any(len(owner) > 1 for owner in owners.values())
    everyone, population = codes(subjects)

    entries: list[dict[str, Any]] = []
    samples: list[Sample] = []
    for task in tasks:
        index = np.array(place[task.name])
        measured: dict[str, Floats] = {}
        for arm in wording.arm_order(table):
            part = table[arm][:, index]
            gone = int(np.isnan(part).sum())
            if 0 < gone < part.size:
                raise DistillError(
                    f"arm {arm!r}, task {task.name!r}",
                    f"{gone} of {part.size} scores are missing.",
                    "Score a failed answer 0, or leave the arm out of the task.",
                )
            if not gone:
                measured[arm] = part
        if shared:
            sample = Sample(measured, everyone[index], population, base, weights)
        else:
            clusters, units = codes([subjects[i] for i in index])
            sample = Sample(measured, clusters, units, base.for_name(task.name), weights)
        golds = [rows[i].get("answer") for i in index]
        entry: dict[str, Any] = {
            "name": task.name,
            "title": task.title or task.name,
            "kind": task.kind,
            "description": task.description,
            "version": task.version,
            "n": len(index),
            "subjects": sample.units,
            "chance": {name: rounded(value) for name, value in chance(task.kind, task.labels, golds).items()},
            "arms": {arm: plain(sample.mean(arm)) for arm in measured},
            **judge(task.kind, sample, options.control),
        }
        entry["sentence"] = wording.sentence(entry)
        if task.kind == "label" and "student" in options.outputs:
            entry["confusion"] = confusion(task.labels, golds, [options.outputs["student"][i] for i in index])
        entries.append(entry)
        samples.append(sample)

    content = {
        "title": options.title,
        "notice": options.notice,
        "control": options.control,
        "seeds": seeds,
        "interval_over": "items only" if seeds == 1 else "items and seeds",
        "level": options.level,
        "resamples": options.resamples,
        "n": len(rows),
        "tasks": entries,
        "overall": _overall(entries, samples, options.level),
    }
    return Report(content, {arm: dict(used) for arm, used in options.resources.items()})


def _overall(entries: Sequence[Mapping[str, Any]], samples: Sequence[Sample], level: float) -> dict[str, Any]:
    """Means over tasks, each task counting the same, for arms that every task has."""
    everywhere = [arm for arm in samples[0].names if all(arm in sample.names for sample in samples)]

    def macro(values: Sequence[Floats], each: Sequence[Interval]) -> Interval:
        point = math.fsum(one.value for one in each) / len(each)
        together = np.mean(values, axis=0)
        if no_spread(together) or any(np.isinf(one.low) for one in each):  # nothing to draw from: the tasks' own bounds
            return Interval(point, *(float(np.mean([getattr(one, end) for one in each])) for end in ("low", "high")))
        return Interval(point, *percentile(together, level))

    arms: dict[str, Any] = {}
    for arm in everywhere:
        if len(samples) == 1:
            arms[arm] = entries[0]["arms"][arm]
        else:
            found = macro([sample.values[arm] for sample in samples], [sample.mean(arm) for sample in samples])
            if np.isfinite(found.low):
                found = Interval(found.value, max(found.low, 0.0), min(found.high, 1.0))
            arms[arm] = plain(found)
    gain = None
    if {"student", "control_1"} <= set(everywhere):
        each = [sample.difference("student", "control_1") for sample in samples]
        gain = plain(macro([s.values["student"] - s.values["control_1"] for s in samples], each))
    return {
        "chance": rounded(math.fsum(entry["chance"]["uniform"] for entry in entries) / len(entries)),
        "arms": arms,
        "student_minus_control": gain,
        "informative": sum(entry["informative"] for entry in entries),
        "claims": sum(entry["claim"] for entry in entries),
        "tasks": len(entries),
        "sentence": wording.overall_sentence(list(entries)),
    }
