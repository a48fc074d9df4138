"""Worked solutions as a second task, or before the answer, against answers alone, on a task that a verifier judges.

    label_only   the student learns the answer
    multi_task   the answer and, behind a prefix, the worked solution (Distilling step-by-step, Hsieh et al. 2023)
    in_answer    the worked solution, then a line `Answer: …`; it writes as much when it is examined, and pays for it

All three start from the domain's base student, take the same steps of the same tokens, and learn from the same records.
Answers and worked solutions are the generator's own, because the committed teacher gives no explanations; Hsieh et al.
take a large model's, which are at times wrong. So this measures the mechanism at its best. Models from nothing on
authored text: no evidence of competence in the field.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stories import judged, shown
from study import TUNING, Cell, Study, line, name_of, trials
from verdicts import TUNING_SEED, Asked, Task

from distill_dagster.evaluation.intervals import difference_interval, mean_interval

PART = "rationale"
DOMAIN, TASK = "medicine", "dose"
BASELINE = "label_only"
ARMS = (BASELINE, "multi_task", "in_answer")
SIZES = (1000,)
RATES = (4e-3, 8e-3)
STEPS, BATCH_TOKENS, LENGTH = 600, 2048, 256
#: Share of the explanations' loss in `multi_task`: the library's default.
WEIGHT = 0.5
#: Tokens that `in_answer` gets beside an answer's; the longest worked solution of these tasks takes 68.
MORE_ROOM = 128


def cells(options: dict[str, Any]) -> list[Cell]:
    """Trials of every arm and size, then its seeds, all sizes and arms of one before the next."""
    found = [cell for size in SIZES for arm in ARMS for cell in trials(PART, arm, size)]
    for seed in range(int(options["seeds"])):
        for size in SIZES:
            for arm in ARMS:
                needs = tuple(cell.name for cell in trials(PART, arm, size))
                found.append(Cell(PART, arm, size, seed, needs=needs))
    return found


def run(study: Study, cell: Cell) -> dict[str, Any]:
    """Train and examine one student."""
    from distill_dagster.config.models import Recipe
    from distill_dagster.models import folder
    from distill_dagster.training.trainer import train

    task, options = Task(DOMAIN, TASK), study.options
    steps = max(2, round(STEPS * options["scale"]))
    recipe = Recipe(
        steps=steps,
        batch_tokens=BATCH_TOKENS,
        learning_rate=study.rate(cell, RATES),
        warmup_steps=min(20, steps // 4),
        max_length=LENGTH,
        seed=TUNING_SEED if cell.seed == TUNING else int(cell.seed),
        rationale={"mode": cell.arm, "weight": WEIGHT},  # pyright: ignore[reportArgumentType]
        device=options["device"],
    )
    student = folder.load_model(task.base)
    records = examples(task, task.items("gold", cell.size), recipe)
    summary = train(student, task.tokenizer, records, recipe, study.work(cell.name) / "training")
    place = study.work(cell.name) / "model"
    folder.save(student, task.tokenizer, place)
    items = task.examined(options, cell)
    said = [texts[0] for texts in task.answers(place, items, more_room=MORE_ROOM if cell.arm == "in_answer" else 0)]
    scores = [int(task.right(item, answer_of(cell.arm, text))) for item, text in zip(items, said, strict=True)]
    found = {"validation": sum(scores) / len(scores)} if cell.seed == TUNING else {}
    written = sum(len(task.tokenizer(text)["input_ids"]) for text in said) / len(said)
    kept = ("steps", "tokens", "answer_tokens", "epochs", "parameters", "loss")
    notes = {name: summary[name] for name in kept}
    return {**found, "scores": scores, "rate": recipe.learning_rate, "written": round(written, 2), **notes}


def examples(task: Task, items: Sequence[Asked], recipe: Any) -> list[Any]:
    """Encoded records as the recipe's `rationale.mode` has them."""
    from distill_dagster.records.messages import message
    from distill_dagster.training import data, rationale

    rows = [
        {
            "record_id": f"r{at}",
            "task": task.task.name,
            "messages": [
                *(message(turn["role"], turn["content"]) for turn in item.chat),
                message("assistant", item.answer),
            ],
            "rationale": item.rationale,
            "weight": None,
        }
        for at, item in enumerate(items)
    ]
    return data.encode(task.tokenizer, data.chats(rationale.rows(rows, recipe.rationale)), LENGTH).examples


def answer_of(arm: str, text: str) -> str:
    """What counts of an answer: behind `Answer:` where it is a worked one."""
    from distill_dagster.knowledge.labeling import split_rationale

    answer = split_rationale(text)[1] if arm == "in_answer" else None
    return text if answer is None else answer


def _seeds(study: Study, options: dict[str, Any], arm: str, size: int) -> list[int]:
    return [seed for seed in range(int(options["seeds"])) if study.has(name_of(PART, arm, size, seed))]


def _read(study: Study, arm: str, size: int, seeds: Sequence[int], key: str = "scores") -> list[Any]:
    return [study.read(name_of(PART, arm, size, seed))[key] for seed in seeds]


def table(study: Study, options: dict[str, Any]) -> str:
    """Every arm and size, with the paired difference to answers alone."""
    text = [
        f"{DOMAIN}'s `{TASK}`, judged by the verifier; greedy answers of the base student after {STEPS} steps of",
        f"{BATCH_TOKENS:,} tokens. Answers and worked solutions are the generator's own: the committed teacher",
        "explains nothing (Hsieh et al. take a large model's explanations). 95 % intervals over items and seeds,",
        "differences paired. Models from nothing on authored text: no evidence of competence.",
        "",
        "| records | arm | seeds | right | − `label_only` | | tokens written an answer |",
        "|---:|---|---:|---:|---:|---|---:|",
    ]
    for size in sorted(SIZES):
        for arm in ARMS:
            if not (seeds := _seeds(study, options, arm, size)):
                continue
            scores = _read(study, arm, size, seeds)
            written = sum(_read(study, arm, size, seeds, "written")) / len(seeds)
            parts = [str(size), arm, str(len(seeds)), shown(mean_interval(scores)), "", "", f"{written:.1f}"]
            both = _both(study, options, arm, size)
            if arm != BASELINE and both:
                beside = difference_interval(_read(study, arm, size, both), _read(study, BASELINE, size, both))
                parts[4:6] = [shown(beside, True), judged(beside)]
            text.append(f"| {' | '.join(parts)} |")
    return "\n".join(text)


def _both(study: Study, options: dict[str, Any], arm: str, size: int) -> list[int]:
    """Seeds that both the arm and the baseline have."""
    return sorted(set(_seeds(study, options, arm, size)) & set(_seeds(study, options, BASELINE, size)))


def lines(study: Study, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Share right of each arm and size, beside that of answers alone."""
    found = []
    for size in sorted(SIZES):
        for arm in ARMS[1:]:
            if not (seeds := _both(study, options, arm, size)):
                continue
            ours, peer = (
                sum(map(sum, scores)) / sum(map(len, scores))
                for scores in (_read(study, who, size, seeds) for who in (arm, BASELINE))
            )
            found.append(line(f"rationale {TASK} {arm} {size}", ours, peer, BASELINE))
    return found
