"""Encoder against causal students at equal data and size: banking77, both from nothing.

Both learn the labels that the fitted MiniLM gives to D_U, and gold of D_G (1,000 records); controls see D_G alone.
The encoder answers with one of the 77 classes, the causal student writes the label's name. Both read as many records
a step for as many steps; the sizes are a few per cent apart. Everybody else is better off with a pretrained student:
this part says what the shape of the answer does, not what is reached.
"""

from __future__ import annotations

from typing import Any

from banking import TEACHER, logits, said_of_pool
from questions import GOLD, MAX_LENGTH, Questions, chats, right, share
from study import TRIALS, TUNING, Cell, Study, name_of, trials

PART = "writers"
ARMS = ("encoder", "causal", "encoder_control", "causal_control")
#: Learning rates of the trials: an encoder from nothing learns nothing at higher ones.
RATES = {"encoder": (5e-4, 1e-3), "causal": (1e-3, 2e-3)}
STEPS, RECORDS, VOCABULARY = 240, 64, 2048


def cells(options: dict[str, Any]) -> list[Cell]:
    """Trials, then all arms of one seed after the other."""
    found: list[Cell] = []
    for arm in ARMS:
        found += trials(PART, arm, GOLD, TEACHER)
    for seed in range(options["seeds"]):
        for arm in ARMS:
            tried = tuple(name_of(PART, arm, GOLD, TUNING, trial) for trial in range(TRIALS))
            found.append(Cell(PART, arm, GOLD, seed, 0, (*TEACHER, *tried)))
    return found


def run(study: Study, cell: Cell) -> dict[str, Any]:
    """Train and examine one student."""
    from distill_dagster.config.models import Recipe
    from distill_dagster.training import presets
    from distill_dagster.training.classify import encode as classes
    from distill_dagster.training.data import encode as writing
    from distill_dagster.training.tokenizer import fit
    from distill_dagster.training.trainer import train

    sizes()
    questions = Questions(study)
    seed = GOLD if cell.seed == TUNING else int(cell.seed)
    encoder = cell.arm.startswith("encoder")
    gold, unlabeled = questions.gold(GOLD), questions.unlabeled(GOLD)
    records, labels = list(gold), [row.label for row in gold]
    if not cell.arm.endswith("control"):
        known = {
            row.record_id: number for row, number in zip(questions.pool, said_of_pool(study).argmax(1), strict=True)
        }
        records += unlabeled
        labels += [questions.labels[known[row.record_id]] for row in unlabeled]
    # Both read the same texts; the causal one's vocabulary is fitted on the labels that it writes as well.
    texts = [row.text for row in (*gold, *unlabeled)] + ([] if encoder else questions.labels * 20)
    tokenizer = fit(texts, VOCABULARY, study.work(cell.name) / "tokenizer", encoder=encoder)
    name = "bench_encoder" if encoder else "bench_causal"
    model = presets.build(name, tokenizer, seed, questions.labels if encoder else ())
    rows = chats(records, labels)
    if encoder:
        examples = classes(tokenizer, rows, questions.labels, MAX_LENGTH).examples
    else:
        examples = writing(tokenizer, rows, MAX_LENGTH).examples
    mean = sum(len(example.ids) for example in examples) / len(examples)
    recipe = Recipe(
        steps=max(2, round(STEPS * study.options["scale"])),
        batch_tokens=max(MAX_LENGTH, round(RECORDS * mean)),
        learning_rate=study.rate(cell, RATES["encoder" if encoder else "causal"]),
        warmup_steps=30,
        max_length=MAX_LENGTH,
        seed=seed,
        device=study.options["device"],
        log_every=50,
    )
    summary = train(model, tokenizer, examples, recipe, study.work(cell.name))
    found: dict[str, Any] = {"rate": recipe.learning_rate, "run": summary_of(summary), "records_a_step": RECORDS}
    found["validation"] = share(
        right(questions.validation, _answers(model, tokenizer, questions, questions.validation))
    )
    if cell.seed != TUNING:
        found["scores"] = right(questions.test, _answers(model, tokenizer, questions, questions.test))
    return found


def summary_of(summary: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a run's summary."""
    kept = ("steps", "tokens", "epochs", "seconds", "parameters", "loss", "device")
    return {name: summary[name] for name in kept if name in summary}


def sizes() -> None:
    """Two presets of like size: a causal model of 1.07 M parameters, an encoder of 1.10 M."""
    from distill_dagster.training import presets

    presets.PRESETS["bench_causal"] = presets.Preset(
        hidden=128, layers=4, heads=4, feed_forward=352, context=MAX_LENGTH
    )
    presets.PRESETS["bench_encoder"] = presets.EncoderPreset(
        hidden=128, layers=4, heads=4, feed_forward=512, context=MAX_LENGTH
    )


def _answers(model: Any, tokenizer: Any, questions: Questions, records: Any) -> list[str]:
    if hasattr(model.config, "id2label") and type(model).__name__.endswith("ForSequenceClassification"):
        return [questions.labels[number] for number in logits(model, tokenizer, records).argmax(1)]
    import random

    from distill_dagster.evaluation.metrics import match_label
    from distill_dagster.models.chat import chat_tokens
    from distill_dagster.models.generation import Generator, Row

    # Generation is for CPUs; a model of this size takes seconds there.
    generator = Generator(model.to("cpu").eval(), tokenizer, 128, 1)
    rows = []
    for index, record in enumerate(records):
        prompt = chat_tokens(tokenizer, [{"role": "user", "content": record.text}], True)
        rows.append(Row(index, prompt, 24, 0.0, 1.0, (), random.Random(0)))
    said = [""] * len(records)
    for row in generator.run(rows):
        said[row.index] = match_label(row.text or "", questions.labels) or ""
    return said
