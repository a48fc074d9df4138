"""`eval_report`: student, control and teacher examined on the same test items, by the protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill_dagster.config.styles import ALWAYS
from distill_dagster.domains.base import Task
from distill_dagster.evaluation import baselines, metrics, protocol, report
from distill_dagster.knowledge import prompts as prompting
from distill_dagster.knowledge.base import Question
from distill_dagster.lineage import laws
from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Node, Parent
from distill_dagster.records import tables
from distill_dagster.records.messages import text_of
from distill_dagster.stages import egress, examination, panel, seeds, teacher_model, teaching, training
from distill_dagster.stages.context import PipelineContext, prompts_by
from distill_dagster.stages.teacher_outputs import call_row, call_summary
from distill_dagster.storage.store import Version
from distill_dagster.teachers import recorded
from distill_dagster.teachers.base import Request

VERSION = "2"

Rows = list[dict[str, Any]]


def node(pipeline: PipelineContext) -> Node:
    """The node `<pipeline>/eval_report`."""
    source = pipeline.source.key
    options = pipeline.config.evaluation
    return Node(
        key=(pipeline.key, "eval_report"),
        version=VERSION,
        parents=(
            Parent("evals", (source, "eval_set"), {"seed": ("test",)}),
            Parent("seeds", (source, "seed_set"), {"seed": _seed_parts(pipeline)}),
            Parent("prompts", (source, "prompt_set"), {"prompt": ALWAYS}),
            Parent("teacher", (pipeline.data, "teacher_model")),
            Parent("student", (pipeline.key, "student_checkpoint")),
            Parent("control", (pipeline.key, "control_checkpoint")),
        ),
        config={
            **options.model_dump(exclude={"batch_size", "threads"}),
            "control": pipeline.config.control.mode,
            "teacher_style": pipeline.teacher.prompt_style,
            "template": pipeline.teacher.template,
            "define": [task.model_dump() for task in pipeline.source.config.define],
            "notice": pipeline.source.domain.notice,
            "sampling": pipeline.teacher.sampling.model_dump(),
            "tasks": pipeline.known_tasks,
            "versions": {task.name: task.version for task in pipeline.source.domain.tasks},
            **pipeline.source.verifier(),
            **egress.identity(pipeline),
            **panel.described(pipeline, {member.teacher.name: _manner(member) for member in pipeline.panel}),
        },
        outside=lambda: egress.outside(pipeline),
        make=lambda job: make(job, pipeline),
        title="Scores of student, control and teacher, with intervals and the gap closed",
    )


def _seed_parts(pipeline: PipelineContext) -> tuple[str, ...]:
    """Baselines learn from two parts; where answers are joined by id, those of all are compared with the items'."""
    by_id = any(member.teacher.recorded and member.teacher.recorded.id for member in pipeline.asked)
    return ("teacher", "gold", "unlabeled") if by_id else ("teacher", "gold")


def _manner(member: PipelineContext) -> dict[str, Any]:
    """How one of several teachers is examined."""
    teacher = member.teacher
    return {"style": teacher.prompt_style, "template": teacher.template, "sampling": teacher.sampling.model_dump()}


def make(job: Job, pipeline: PipelineContext) -> None:
    """Ask every arm the test items, score the answers, and write the report."""
    options, tasks = pipeline.config.evaluation, pipeline.tasks
    items = test_items(job.inputs["evals"], set(tasks), options.max_items)
    outputs, resources = _model_outputs(job, pipeline, items)
    if options.baselines:
        outputs |= {arm: [answers] for arm, answers in _baseline_outputs(job, items, tasks).items()}
    # One row an arm and seed; what no seed changes has one.
    scores = {
        arm: [_scores(pipeline, items, answers, outputs["teacher"][0]) for answers in each]
        for arm, each in outputs.items()
    }
    served = _served(job.inputs["student"])
    result = protocol.examine(
        items,
        scores,
        protocol.Options(
            tasks=list(tasks.values()),
            title=pipeline.key,
            notice=" ".join(filter(None, (notice(pipeline, items), _several(pipeline, job), egress.notice(job.notes)))),
            control=pipeline.config.control.mode,
            resamples=options.resamples,
            level=options.level,
            resources=resources,
            outputs={"student": outputs["student"][served]},
        ),
    )
    first = pipeline.config.training.seed
    if options.seeds > 1:
        result.content["served_seed"] = first + served
    rows = [
        {
            "seed_record_id": item["record_id"],
            "task": item["task"],
            "part": "test",
            "subject_key": item["subject_key"],
            "arm": arm,
            "seed": first + seed,
            "output": answers[index],
            "score": scores[arm][seed][index],
        }
        for arm, each in outputs.items()
        for seed, answers in enumerate(each)
        for index, item in enumerate(items)
    ]
    job.draft.write_table("item_score", tables.build("item_score", rows), by="arm")
    job.draft.write_json("report.json", result.content)
    job.draft.write_json("resources.json", result.resources, side=True)
    report.to_html(
        result, job.draft.side / "report.html", samples=_samples(pipeline, items, outputs, served), show_records=True
    )
    job.notes["counts"] = {"items": len(items), "arms": len(outputs), "tasks": laws.counts(i["task"] for i in items)}
    job.notes["scores"] = {
        task["name"]: {arm: entry["value"] for arm, entry in task["arms"].items()} for task in result.content["tasks"]
    }
    job.notes["resources"] = result.resources


def test_items(evals: Version, tasks: set[str], limit: int | None) -> Rows:
    """Test rows of some tasks in order, at most `limit` a task."""
    taken: dict[str, int] = {}
    kept = []
    for row in evals.table("seed", filters=[("part", "==", "test")]).to_pylist():
        if row["task"] not in tasks:
            continue
        taken[row["task"]] = taken.get(row["task"], 0) + 1
        if limit is None or taken[row["task"]] <= limit:
            kept.append(row)
    return kept


def notice(pipeline: PipelineContext, items: Rows) -> str:
    """What a reader of the report must know about the data."""
    from distill_dagster.evaluation.wording import AUTHORED_NOTICE

    source = pipeline.source
    # A domain's notice speaks of the records that it authors itself.
    parts = [AUTHORED_NOTICE, source.domain.notice] if source.config.grammar is not None else []
    bare = sorted({item["task"] for item in items if item["answer"] is None})
    if bare:
        parts.append(
            f"There is no gold for {', '.join(bare)}: a score there is the token F1 with the teacher's own text, so it "
            "shows agreement with the teacher, whose score is 1 by definition, and no quality."
        )
    return " ".join(filter(None, parts))


def _several(pipeline: PipelineContext, job: Job) -> str:
    """What stands in the teacher's column where there are several."""
    options = pipeline.teachers
    if options is None:
        return ""
    names = ", ".join(options.names())
    if options.vote is None:
        way = "task" if options.by_task is not None else "weight"
        return f"The teacher's column is that of {names} together: each item went to the one that teaches it, by {way}."
    none = job.notes["vote"]["without a winner"]
    return (
        f"The teacher's column is the vote of {names}; {none} of {job.notes['vote']['items']} items had no winner and "
        "count as not answered."
    )


def _model_outputs(
    job: Job, pipeline: PipelineContext, items: Rows
) -> tuple[dict[str, list[Sequence[str]]], dict[str, dict[str, Any]]]:
    """Answers of teacher, student and every control, once a seed, and what they took."""
    from distill_dagster.models import folder

    styles = prompts_by(job.inputs["prompts"])
    outputs: dict[str, list[Sequence[str]]] = {
        arm: [answers] for arm, answers in _teachers_outputs(job, pipeline, styles, items).items()
    }
    resources: dict[str, dict[str, Any]] = {"teacher": {}}
    for arm, places in _folders(job, pipeline.config.evaluation.seeds).items():
        outputs[arm] = []
        for place in places:
            answers, used = examination.ask_student(
                place,
                arm,
                pipeline,
                styles,
                items,
                progress=lambda done, total, arm=arm: job.progress(done, total, f"{arm} on test items"),
            )
            outputs[arm].append(answers)
            resources.setdefault(
                arm,
                {
                    "parameters": folder.parameters(place),
                    "bytes": sum(path.stat().st_size for path in place.glob("*.safetensors")),
                    "seconds_per_item": used["seconds_per_item"],
                    "peak_memory_bytes": used["peak_memory_bytes"],
                },
            )
    place = job.inputs["teacher"]
    sizes = [
        json.loads(place.local(teacher_model.record_file(member)).read_text("utf-8")).get("parameters")
        for member in pipeline.asked
    ]
    resources["teacher"]["parameters"] = None if None in sizes else sum(sizes)
    return outputs, resources


def _teachers_outputs(
    job: Job, pipeline: PipelineContext, styles: Mapping[tuple[str, str], Any], items: Rows
) -> dict[str, Sequence[str]]:
    """What the teacher says of each item; of several, what the one says that would teach it, or what they vote for.

    Teachers that vote have an arm of their own beside `teacher`, since each of them answers every item.
    """
    rows: Rows = []
    by_id = "unlabeled" in _seed_parts(pipeline)
    given = job.inputs["seeds"].table("seed").to_pylist() if by_id else []
    said: dict[str, dict[int, str | None]] = {}
    for member in pipeline.asked:
        places = [at for at, item in enumerate(items) if is_asked(member, item)]
        mine = [items[at] for at in places]
        teacher = teaching.open_teacher(member, job.inputs["teacher"])
        requests = teacher_requests(member, styles, mine, given)
        who = "teacher" if pipeline.teachers is None else f"teacher {member.teacher.name}"
        responses, calls, _ = teaching.ask(job, member, teacher, requests, f"{who} on test items", [[i] for i in mine])
        style = member.teacher.prompt_style
        for item, request, response, info in zip(mine, requests, responses, calls, strict=True):
            question = Question(request, item["task"], styles[item["task"], style]["record_id"], ())
            rows.append(call_row(len(rows), member, teacher.revision, question, response, info))
        said[member.teacher.name] = {
            at: None if response.failure is not None else response.text
            for at, response in zip(places, responses, strict=True)
        }
    call_table = tables.build("call", rows)
    job.draft.write_table("call", call_table, side=True)
    egress.write(job, f"{pipeline.key}/eval_report", call_table)
    job.notes["calls"] = call_summary(rows)
    # Making the report again examines every student again: too much for questions that the server refuses each time.
    job.incomplete = teaching.unanswered(job.notes, teaching.FINAL | teaching.REFUSED)
    options = pipeline.teachers
    if options is None or options.vote is None:
        together = {at: answer for found in said.values() for at, answer in found.items()}
        return {"teacher": [together[at] or "" for at in range(len(items))]}
    winners, none = [], 0
    for at, item in enumerate(items):
        answers = [said[name][at] for name in options.names()]
        task = pipeline.tasks[item["task"]]
        same = [None if one is None else panel.canonical(task, item.get("choices"), one) for one in answers]
        winner = panel.elect(options, same).winner
        winners.append("" if winner is None else answers[winner] or "")
        none += winner is None
    job.notes["vote"] = {"items": len(items), "without a winner": none}
    each = {f"teacher_{name}": [said[name][at] or "" for at in range(len(items))] for name in options.names()}
    return {"teacher": winners, **each}


def is_asked(member: PipelineContext, item: Mapping[str, Any]) -> bool:
    """Does an item go to this teacher?"""
    options = member.teachers
    if options is None or options.vote is not None:
        return True
    return panel.teacher_of(options, item["task"], item["record_id"]) == member.teacher.name


def _served(student: Version) -> int:
    """Which of the student's seeds is served."""
    if "seeds.json" not in student.manifest["files"]:
        return 0
    return int(json.loads(student.local("seeds.json").read_text("utf-8"))["served"])


def _folders(job: Job, count: int) -> dict[str, list[Path]]:
    """Weights of the student and of every control, a folder a seed."""
    student, control = job.inputs["student"], job.inputs["control"]
    served = _served(student)
    found = {
        "student": [
            training.weights(student, "model" if index == served else f"model_s{index}") for index in range(count)
        ]
    }
    said = json.loads(control.local("control.json").read_text("utf-8"))
    arms = {f"control_{multiple}": f"{multiple}x" for multiple in said["multiples"]}
    for arm, name in (arms | {arm: arm for arm in said.get("arms", ())}).items():
        found[arm] = [training.weights(control, f"model_{name}{seeds.suffix(index)}") for index in range(count)]
    return found


def teacher_requests(
    pipeline: PipelineContext, styles: Mapping[tuple[str, str], Any], items: Rows, given: Rows
) -> list[Request]:
    """What the teacher is asked about test items; `given` are the source's seeds, which no recorded answer may mix up
    with them."""
    style = pipeline.teacher.prompt_style
    requests = [
        Request(
            tuple(prompting.render(styles[item["task"], style], item)),
            teaching.sampling(pipeline.teacher, pipeline.tasks[item["task"]]),
        )
        for item in items
    ]
    return recorded.addressed(pipeline.teacher.recorded, requests, items, others=given)


def _baseline_outputs(job: Job, items: Rows, tasks: Mapping[str, Task]) -> dict[str, list[str]]:
    """Linear baseline (nearest seed for generative tasks) fitted on D_T and on D_G."""
    job.progress(0, None, "baselines")
    outputs: dict[str, list[str]] = {}
    for part, arm in (("teacher", "linear_teacher"), ("gold", "linear_gold")):
        rows = job.inputs["seeds"].table("seed", filters=[("part", "==", part)]).to_pylist()
        answers = [""] * len(items)
        covered = True
        for name, task in tasks.items():
            own = [row for row in rows if row["task"] == name and row["answer"] is not None]
            where = [index for index, item in enumerate(items) if item["task"] == name]
            if not own:
                covered = covered and not where
                continue
            said = baselines.baseline(
                task.kind,
                [text_of(row["messages"]) for row in own],
                [row["answer"] for row in own],
                [text_of(items[index]["messages"]) for index in where],
            )
            for index, answer in zip(where, said, strict=True):
                answers[index] = answer
        if covered:
            outputs[arm] = answers
    return outputs


def _scores(pipeline: PipelineContext, items: Rows, outputs: Sequence[str], teacher: Sequence[str]) -> list[float]:
    """One score an item: against gold, or, where a record has none, the token F1 with what the teacher wrote."""
    scores = examination.scores(pipeline, items, outputs)
    for index, item in enumerate(items):
        if item["answer"] is None:
            scores[index] = metrics.token_f1(outputs[index], teacher[index])
    return scores


def _samples(
    pipeline: PipelineContext, items: Rows, outputs: Mapping[str, Sequence[Sequence[str]]], served: int
) -> list[dict[str, Any]]:
    """A few items with every model's answer, where the source allows records to be shown."""
    if not pipeline.source.config.show_records:
        return []
    shown = []
    for name in pipeline.tasks:
        for index in [index for index, item in enumerate(items) if item["task"] == name][:3]:
            shown.append(
                {
                    "task": name,
                    "text": text_of(items[index]["messages"]),
                    "answer": items[index]["answer"],
                    "outputs": {
                        arm: (each[served] if len(each) > 1 else each[0])[index]
                        for arm, each in outputs.items()
                        if not arm.startswith("linear")
                    },
                }
            )
    return shown
