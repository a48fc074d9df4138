"""Does a student that learns from verdicts on its own answers pass its teacher?

The task is one whose answers the domain's verifier computes. From N prompts, whose gold answers nobody sees:

    imitate    the domain's base student learns the teacher's answers (greedy, unverified)
    rft        that student samples, and learns from those of its answers that the verifier finds right: rejection
               sampling fine-tuning (Yuan et al. 2023)
    grpo       that student learns from the verifier's verdicts by `grpo` (Shao et al. 2024)
    self_rft   the same as rft, but the student starts as a copy of the teacher, at the teacher's size
    self_grpo  the same as grpo, from a copy of the teacher

Each is examined beside the teacher on the same test items, greedily. The task was chosen on D_val and D_U,
learning rates are chosen on D_val, steps were set by time. Small models, trained from nothing on authored text: they
show what the mechanism does, and nothing about competence in the field.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from stories import judged, shown
from study import TUNING, Cell, Study, line, name_of, trials

from distill_dagster.evaluation.intervals import difference_interval, mean_interval

PART = "verdicts"
DOMAIN, TASK = "medicine", "lab_flags"
TEACHER = "teacher"
ARMS = ("imitate", "rft", "grpo", "self_rft", "self_grpo")
#: What is measured unasked: only a student of the teacher's size can be asked whether it passes it. `--arms all`
#: measures the others too.
DEFAULT = (TEACHER, "self_rft")
SIZES = (30, 100, 300, 1000)
#: Learning rates are tried with so many prompts, and hold for every number of them.
TUNED_AT = 1000
#: From the base student, and from a model that knows the task already.
RATES = {True: (4e-3, 8e-3), False: (3e-4, 1e-3)}
#: Samples a prompt, and their temperature: nearly as often right as greedy answers, and most groups are still mixed.
GROUP, TEMPERATURE = 8, 0.7
#: Prompts of one sampling of `grpo`. The divergence from the start has no weight: with one, groups of equal verdicts
#: are trained on as well, and a cell takes too long.
PROMPTS, KL = 16, 0.0
STEPS = {"imitate": 600, "rft": 250, "grpo": 60}
LENGTH = 256
TEST_ITEMS, VALIDATION_ITEMS = 600, 300
#: Seed of the authored items, and of trials.
ITEMS_SEED, TUNING_SEED = 17, 1000


class Asked(NamedTuple):
    """An authored item as a model is asked about it."""

    chat: list[dict[str, str]]
    facts: Any
    answer: str
    rationale: str | None


class Task:
    """One task of a domain, with its committed models and its verifier."""

    def __init__(self, domain: str, task: str) -> None:
        # Not by its entry point: the repository may not be installed where a study runs.
        self.domain = importlib.import_module(f"distill_dagster.domains.{domain}.domain").domain()
        self.task = self.domain.task(task)
        self.teacher, self.base = (Path(self.domain.models or "") / name for name in ("teacher", "student_base"))

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of teacher and student."""
        from distill_dagster.models import folder

        return folder.load_tokenizer(self.teacher)

    def items(self, part: str, count: int) -> list[Asked]:
        """The first items of a part, in the prompt that small models are given."""
        from distill_dagster.knowledge.prompts import render
        from distill_dagster.records.messages import message

        assert self.domain.items is not None
        template = self.domain.template(self.task.name, "short")
        prompt = {"system": template.system, "user": template.user, "labels": list(self.task.labels)}
        prompt |= {"task": self.task.name, "style": "short"}
        return [
            Asked(render(prompt, {"messages": [message("user", item.text)]}), item.facts, item.answer, item.rationale)
            for item in self.domain.items(self.task.name, part, count, ITEMS_SEED)
        ]

    def answers(
        self, model: Path, items: Sequence[Asked], group: int = 1, more_room: int = 0, **sampling: Any
    ) -> list[list[str]]:
        """What a model folder says, `group` times to each item: items × group."""
        from distill_dagster.teachers.base import Request
        from distill_dagster.teachers.transformers import Backend

        backend = Backend(model, identity=model.name, revision="", batch_size=64, threads=1)
        settings = {"max_new_tokens": self.task.max_new_tokens + more_room, **sampling}
        requests = [Request(tuple(item.chat), settings, sample) for item in items for sample in range(group)]
        said = [["" for _ in range(group)] for _ in items]
        for index, response in backend.ask(requests):
            said[index // group][index % group] = response.text
        return said

    def right(self, item: Asked, text: str) -> bool:
        """The verifier's word, from the item's facts."""
        assert self.domain.verify is not None
        return bool(self.domain.verify(self.task.name, item.facts, text).ok)

    def score(self, model: Path, items: Sequence[Asked]) -> list[int]:
        """1 for each item that a model answers rightly, greedily."""
        said = self.answers(model, items)
        return [int(self.right(item, texts[0])) for item, texts in zip(items, said, strict=True)]

    def encode(self, pairs: Sequence[tuple[list[dict[str, str]], str]], length: int = LENGTH) -> list[Any]:
        """Examples of chats with an answer; their record ids are their numbers."""
        from distill_dagster.training.data import Chat, encode

        chats = [
            Chat(f"r{at}", [*chat, {"role": "assistant", "content": said}]) for at, (chat, said) in enumerate(pairs)
        ]
        return encode(self.tokenizer, chats, length).examples

    def examined(self, options: dict[str, Any], cell: Cell) -> list[Asked]:
        """What a cell is examined on: D_val where it is a trial, else the test."""
        trial = cell.seed == TUNING
        count = int(options.get("items", VALIDATION_ITEMS if trial else TEST_ITEMS))
        return self.items("validation" if trial else "test", count)


def _start(arm: str) -> str:
    """The arm whose weights an arm starts from; empty for the base student."""
    return TEACHER if arm.startswith("self_") else "" if arm == "imitate" else "imitate"


def _trial_names(arm: str) -> tuple[str, ...]:
    return tuple(cell.name for cell in trials(PART, arm, TUNED_AT))


def cells(options: dict[str, Any]) -> list[Cell]:
    """The teacher, trials of every arm, then its seeds, all sizes and arms of one before the next."""
    found = [Cell(PART, TEACHER)]
    for arm in ARMS:
        found += trials(PART, arm, TUNED_AT, _trial_names("imitate") if _start(arm) == "imitate" else ())
    for seed in range(int(options["seeds"])):
        for size in reversed(SIZES):
            for arm in ARMS:
                before = (name_of(PART, "imitate", size, seed),) if _start(arm) == "imitate" else ()
                found.append(Cell(PART, arm, size, seed, needs=(*_trial_names(arm), *before)))
    return found


def run(study: Study, cell: Cell) -> dict[str, Any]:
    """Train and examine one student; or examine the teacher."""
    from distill_dagster.models import folder

    task = Task(DOMAIN, TASK)
    items = task.examined(study.options, cell)
    if cell.arm == TEACHER:
        return {"scores": task.score(task.teacher, items), "parameters": _parameters(task.teacher)}
    start, rates = _from(study, cell, task), RATES[not _start(cell.arm)]
    model, seed = folder.load_model(start), TUNING_SEED if cell.seed == TUNING else int(cell.seed)
    rate = study.rate(cell, rates, TUNED_AT)
    method = cell.arm.removeprefix("self_")
    asked = task.items("unlabeled", cell.size)
    notes = METHODS[method](Training(study, cell, task, model, start, rate, seed), asked)
    place = study.model(cell.name) if cell.arm == "imitate" else study.work(cell.name) / "model"
    shutil.rmtree(place, ignore_errors=True)
    folder.save(model, task.tokenizer, place)
    scores = task.score(place, items)
    found = {"validation": sum(scores) / len(scores)} if cell.seed == TUNING else {}
    return {**found, "scores": scores, "rate": rate, "prompts": len(asked), **notes}


def _from(study: Study, cell: Cell, task: Task) -> Path:
    """The model folder that a cell starts from."""
    start = _start(cell.arm)
    if start == TEACHER:
        return task.teacher
    if not start:
        return task.base
    if cell.seed != TUNING:
        return study.model(name_of(PART, start, cell.size, cell.seed))
    return study.model(max(_trial_names(start), key=lambda name: study.read(name)["validation"]))


def _parameters(place: Path) -> int:
    from distill_dagster.models import folder

    return sum(entry.numel() for entry in folder.load_model(place).parameters())


class Training(NamedTuple):
    """What every method works with: the model is trained in place."""

    study: Study
    cell: Cell
    task: Task
    model: Any
    start: Path
    rate: float
    seed: int

    def train(self, examples: list[Any], method: str, **more: Any) -> dict[str, Any]:
        """Train, and what is worth telling of it."""
        from distill_dagster.config.models import Recipe
        from distill_dagster.training import metrics
        from distill_dagster.training.trainer import train

        steps = max(2, round(STEPS[method] * self.study.options["scale"]))
        rewards = more.pop("rewards", None)
        settings = {"batch_tokens": 2048, "warmup_steps": min(20, steps // 4), "checkpoint_every": 50, **more}
        recipe = Recipe(
            steps=steps,
            learning_rate=self.rate,
            max_length=LENGTH,
            seed=self.seed,
            device=self.study.options["device"],
            **settings,
        )
        work = self.study.work(self.cell.name) / "training"
        summary = train(self.model, self.task.tokenizer, examples, recipe, work, rewards=rewards)
        kept = ("steps", "tokens", "samples", "groups", "equal", "warnings", "parameters")
        curve = [
            {name: row[name] for name in ("step", "right", "entropy", "kl", "generation_share") if name in row}
            for row in metrics.read(work / metrics.FILE)
        ]
        return {**{name: summary[name] for name in kept if name in summary}, "curve": curve}


def imitate(training: Training, asked: Sequence[Asked]) -> dict[str, Any]:
    """Learn the teacher's answers, right or wrong."""
    task = training.task
    said = task.answers(task.teacher, asked)
    pairs = [(item.chat, texts[0]) for item, texts in zip(asked, said, strict=True) if texts[0]]
    return training.train(task.encode(pairs), "imitate")


def rft(training: Training, asked: Sequence[Asked]) -> dict[str, Any]:
    """Learn from one's own right answers, each different one of a prompt once."""
    task = training.task
    said = task.answers(training.start, asked, GROUP, temperature=TEMPERATURE, seed=training.seed)
    pairs, solved = [], 0
    for item, texts in zip(asked, said, strict=True):
        right = [text for text in sorted(set(texts)) if task.right(item, text)]
        solved += bool(right)
        pairs += [(item.chat, text) for text in right]
    notes = {"drawn": len(asked) * GROUP, "kept": len(pairs), "solved": solved}
    if not pairs:
        return {**notes, "warnings": ["no sample was right: the student stays as it was"]}
    return {**training.train(task.encode(pairs), "rft"), **notes}


def grpo(training: Training, asked: Sequence[Asked]) -> dict[str, Any]:
    """Learn from the verdicts on one's own answers."""
    from distill_dagster.training.rewards import Rewards

    task = training.task
    # The prompt is what counts of a record; its answer, here a full stop, is never learned from.
    examples = task.encode([(item.chat, ".") for item in asked])
    rows = [
        {"record_id": f"r{at}", "task": task.task.name, "facts": item.facts, "answer": None}
        for at, item in enumerate(asked)
    ]
    term: dict[str, Any] = {"prompts": PROMPTS, "group": GROUP, "kl": KL, "sampling_temperature": TEMPERATURE}
    term["max_new_tokens"] = task.task.max_new_tokens
    judge = Rewards(rows, task.domain, {}, task.domain.verifier_version)
    # One sampling fills one step.
    more: dict[str, Any] = {"objective": {"grpo": term}, "batch_tokens": 32768, "checkpoint_every": 10, "log_every": 5}
    return training.train(examples, "grpo", rewards=judge, **more)


METHODS = {"imitate": imitate, "rft": rft, "grpo": grpo}


def _seeds(study: Study, options: dict[str, Any], arm: str, size: int) -> list[int]:
    return [seed for seed in range(int(options["seeds"])) if study.has(name_of(PART, arm, size, seed))]


def _scores(study: Study, arm: str, size: int, seeds: Sequence[int]) -> list[list[int]]:
    return [study.read(name_of(PART, arm, size, seed))["scores"] for seed in seeds]


def table(study: Study, options: dict[str, Any]) -> str:
    """Every arm and number of prompts beside the teacher, and beside what it started from."""
    known = name_of(PART, TEACHER)
    if not study.has(known):
        return "The teacher of `verdicts` is not measured yet."
    teacher = study.read(known)["scores"]
    text = [
        f"{DOMAIN}'s `{TASK}`, {len(teacher)} test items, judged by the verifier; greedy answers; 95 % intervals over",
        "items and seeds, differences paired. Models from nothing on authored text: no evidence of competence.",
        f"The teacher is right on {shown(mean_interval(teacher))}.",
        "",
        "| prompts | arm | seeds | right | − teacher | passes it? | − its start | |",
        "|---:|---|---:|---:|---:|---|---:|---|",
    ]
    for size in SIZES:
        for arm in ARMS:
            if not (seeds := _seeds(study, options, arm, size)):
                continue
            scores = _scores(study, arm, size, seeds)
            difference = difference_interval(scores, [teacher])
            passes = {"better": "yes", "worse": "no"}.get(judged(difference), judged(difference))
            parts = [str(size), arm, str(len(seeds)), shown(mean_interval(scores)), shown(difference, True), passes]
            if _start(arm) == "imitate":
                beside = difference_interval(scores, _scores(study, "imitate", size, seeds))
                parts += [shown(beside, True), judged(beside)]
            else:
                parts += ["", ""]
            text.append(f"| {' | '.join(parts)} |")
    return "\n".join(text)


def lines(study: Study, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Share right of each arm and number of prompts, beside the teacher's."""
    if not study.has(name_of(PART, TEACHER)):
        return []
    teacher = study.read(name_of(PART, TEACHER))["scores"]
    theirs, found = sum(teacher) / len(teacher), []
    for size in SIZES:
        for arm in ARMS:
            if not (seeds := _seeds(study, options, arm, size)):
                continue
            scores = _scores(study, arm, size, seeds)
            ours = sum(map(sum, scores)) / sum(map(len, scores))
            found.append(line(f"verdicts {TASK} {arm} {size}", ours, theirs, "its teacher"))
    return found
