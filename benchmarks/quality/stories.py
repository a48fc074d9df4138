"""stories260K into a smaller student, by every divergence and on-policy, against plain text of the teacher.

The teacher is a Llama that nobody here trained (0.26 M parameters); the student has the sizes of the preset `nano` and
the teacher's own tokenizer (0.12 M), and starts from nothing. All texts were written by the teacher itself at
temperature 1: 915, of which every tenth is D_val, and 85 for the test. So no text here is independent of the teacher,
and nothing is said of how good the stories are, only of how near the student's distribution comes to the teacher's.

Two numbers a held-out story, in nats a token, over the whole vocabulary, behind the story's first 16 tokens:

    forward   KL(teacher ‖ student) where the teacher went: at each token of the story
    reverse   KL(student ‖ teacher) where the student goes: at each token of its own continuation, drawn at
              temperature 1 with random numbers that the story decides

Arms differ in the objective alone: `sft` is the cross-entropy of the teacher's samples, which is sequence-level
distillation (Kim & Rush 2016); the others are `divergence` with the teacher in memory, and `gkd` (Agarwal et al. 2024),
half of whose batches are the student's own samples. Steps and tokens a step are the same.

Where a student gives a token next to nothing, all of them but `sft` and `forward` have next to no gradient, so from
nothing they learn slowly. `then_reverse` and its like begin as the papers do: half of the steps are `sft`, at the rate
that suits it, and the other half the objective, whose rate is tried for itself.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study import TUNING, Cell, Study, line, name_of, trials

from distill_dagster.evaluation.intervals import Interval, difference_interval

if TYPE_CHECKING:
    import torch

PART = "stories"
HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[2] / "shared"
BASELINE = "sft"
ARMS: dict[str, dict[str, Any]] = {
    "sft": {"sft": 1.0},
    **{
        kind: {"divergence": {"kind": kind, "signals": "live", "k": 0}}
        for kind in ("forward", "reverse", "jsd", "skew_forward", "skew_reverse")
    },
    # 25 samples of 16 + 64 tokens fill the batch that 8 stories do.
    "gkd": {"gkd": {"on_policy": 0.5, "kind": "reverse", "prompts": 25, "max_new_tokens": 64}},
}
#: The student after half of the steps of `sft`, from which the arms of that name go on.
START, THEN = "start", "then_"
LATER = tuple(THEN + arm for arm in ARMS if arm != "sft")
#: What is measured unasked: from nothing the others hardly learn (docs/results.md). `--arms all` measures them too.
DEFAULT = (BASELINE, "forward", START, *LATER)
MEASURES = {"forward": "KL(teacher ‖ student), its samples", "reverse": "KL(student ‖ teacher), own samples"}
#: From nothing, and of a student that knows something.
RATES, LATER_RATES = (5e-3, 1e-2), (5e-3, 1e-2)
#: Tokens of a story that are given, and most tokens that a student goes on for.
OPENING, ROOM = 16, 64
STEPS, BATCH_TOKENS, LENGTH = 200, 2048, 256
TUNING_SEED, LATER_SEED = 1000, 500


def cells(options: dict[str, Any]) -> list[Cell]:
    """Trials of every arm, then its seeds, all arms of one before the next."""
    tried = {arm: tuple(cell.name for cell in trials(PART, arm, 0)) for arm in (*ARMS, *LATER)}
    begun = Cell(PART, START, 0, TUNING, needs=tried[BASELINE])
    found = [cell for arm in ARMS for cell in trials(PART, arm, 0)]
    found += [begun, *(cell for arm in LATER for cell in trials(PART, arm, 0, [begun.name]))]
    for seed in range(int(options["seeds"])):
        found += [Cell(PART, arm, 0, seed, needs=tried[arm]) for arm in ARMS]
        begun = Cell(PART, START, 0, seed, needs=tried[BASELINE])
        found += [begun, *(Cell(PART, arm, 0, seed, needs=(*tried[arm], begun.name)) for arm in LATER)]
    return found


def teacher_folder() -> Path:
    """The teacher; `DISTILL_REAL_WEIGHTS` says where, or it stands beside the repository."""
    return Path(os.environ.get("DISTILL_REAL_WEIGHTS", SHARED / "weights")) / "stories260K-hf"


def texts(part: str) -> list[list[int]]:
    """Token ids of the teacher's texts: `train`, `validation` (every tenth of the training file) or `test`."""
    folder = Path(os.environ.get("DISTILL_REAL_DATA", SHARED / "data")) / "general"
    file = folder / f"stories260k_samples.{'test' if part == 'test' else 'train'}.jsonl"
    lines = [json.loads(line)["ids"][:LENGTH] for line in file.read_text("utf-8").splitlines()]
    if part == "test":
        return lines
    return [ids for place, ids in enumerate(lines) if (place % 10 == 0) == (part == "validation")]


def run(study: Study, cell: Cell) -> dict[str, Any]:
    """Train and examine one student."""
    from distill_dagster.config.models import Recipe
    from distill_dagster.models import folder
    from distill_dagster.training.data import Example
    from distill_dagster.training.presets import build
    from distill_dagster.training.signals.live import LiveTeacher
    from distill_dagster.training.trainer import train
    from distill_dagster.training.world import device

    tokenizer = folder.load_tokenizer(teacher_folder())
    seed = TUNING_SEED if cell.seed == TUNING else int(cell.seed)
    # The opening is the prompt that `gkd` samples from; for all arms the loss is behind it.
    examples = [
        Example(f"story {place}", ids, [0.0] * OPENING + [1.0] * (len(ids) - OPENING))
        for place, ids in enumerate(texts("train"))
    ]
    later, arm = cell.arm in LATER, BASELINE if cell.arm == START else cell.arm.removeprefix(THEN)
    steps = max(2, round(STEPS * study.options["scale"]) // (2 if later or cell.arm == START else 1))
    # What is begun with is trained at the rate that the trials chose for `sft`, in a trial as well.
    chosen = Cell(PART, BASELINE, 0) if cell.arm == START else cell
    recipe = Recipe(
        objective=ARMS[arm],
        steps=steps,
        batch_tokens=BATCH_TOKENS,
        learning_rate=study.rate(chosen, LATER_RATES if later else RATES),
        warmup_steps=min(20, steps // 2),
        max_length=LENGTH,
        seed=seed + (LATER_SEED if later else 0),  # Other batches than it began with.
        device=study.options["device"],
    )
    signals = []
    if arm != BASELINE:
        teacher = LiveTeacher(teacher_folder(), tokenizer)
        teacher.model.to(device(recipe.device))
        signals.append(teacher)
    begun = study.model(name_of(PART, START, 0, cell.seed))
    student = folder.load_model(begun) if later else build("nano", tokenizer, seed)
    summary = train(student, tokenizer, examples, recipe, study.work(cell.name), signals=signals)
    if cell.arm == START:
        shutil.rmtree(begun, ignore_errors=True)
        folder.save(student, tokenizer, begun)
    teacher_model, found = folder.load_model(teacher_folder()), {}
    part = "validation" if cell.seed == TUNING else "test"
    scores = measure(teacher_model, student, tokenizer, texts(part))
    if cell.seed == TUNING:
        # Neither measure alone: each divergence minimises one of them. Their mean is the same yardstick for all.
        found["validation"] = -sum(map(sum, scores.values())) / len(scores) / len(scores["forward"])
    kept = ("steps", "tokens", "answer_tokens", "parameters", "samples", "loss")
    notes = {name: summary[name] for name in kept if name in summary}
    return {**found, "scores": scores, "rate": recipe.learning_rate, **notes}


def measure(teacher: Any, student: Any, tokenizer: Any, stories: Sequence[list[int]]) -> dict[str, list[float]]:
    """Both divergences of each story, in nats a token; on the CPU, so that any machine measures alike."""
    own = continued(student, tokenizer, [ids[:OPENING] for ids in stories])
    return {
        "forward": apart(teacher, student, stories),
        "reverse": apart(student, teacher, own),
    }


def continued(model: Any, tokenizer: Any, openings: Sequence[list[int]]) -> list[list[int]]:
    """Each opening with up to `ROOM` tokens that the model draws at temperature 1."""
    import random

    from distill_dagster.models.generation import Generator, Row

    rows = [Row(i, list(ids), ROOM, 1.0, 1.0, (), random.Random(f"story/{i}")) for i, ids in enumerate(openings)]
    said = {row.index: row.prompt + row.said for row in Generator(model, tokenizer, 128).run(rows)}
    return [said[index] for index in range(len(rows))]


def apart(one: Any, other: Any, stories: Sequence[list[int]]) -> list[float]:
    """Mean KL(one ‖ other) of the next token over each text's tokens behind the opening, whole vocabulary."""
    import torch

    found = []
    with torch.inference_mode():
        for start in range(0, len(stories), 16):
            batch = stories[start : start + 16]
            ids = torch.zeros(len(batch), max(map(len, batch)), dtype=torch.long)  # Causal: what follows is not seen.
            for row, text in enumerate(batch):
                ids[row, : len(text)] = torch.tensor(text)
            p, q = _log_probs(one, ids), _log_probs(other, ids)
            values = (p.exp() * (p - q)).sum(-1).double()
            found += [values[row, OPENING - 1 : len(text) - 1].mean().item() for row, text in enumerate(batch)]
    return found


def _log_probs(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)


def rows(study: Study, arm: str, measure_name: str, seeds: Sequence[int]) -> list[list[float]]:
    """Item scores of an arm, seeds × items."""
    return [study.read(name_of(PART, arm, 0, seed))["scores"][measure_name] for seed in seeds]


def done(study: Study, options: dict[str, Any], arm: str) -> list[int]:
    """The seeds of an arm that are measured."""
    return [seed for seed in range(int(options["seeds"])) if study.has(name_of(PART, arm, 0, seed))]


def against(study: Study, options: dict[str, Any], arm: str) -> list[int]:
    """Seeds that both the arm and the baseline have."""
    return sorted(set(done(study, options, arm)) & set(done(study, options, BASELINE)))


def shown(value: Interval, sign: bool = False) -> str:
    """`0.912 [0.902, 0.922]`."""
    form = "+.3f" if sign else ".3f"
    return f"{value.value:{form}} [{value.low:{form}}, {value.high:{form}}]"


def judged(value: Interval, lower_is_better: bool = False) -> str:
    """What an interval of a difference allows to say."""
    if value.low <= 0 <= value.high:
        return "not told apart"
    return "better" if (value.value < 0) == lower_is_better else "worse"


def table(study: Study, options: dict[str, Any]) -> str:
    """Both measures of every arm, and paired differences to `sft`."""
    lines = [
        "stories260K (0.26 M) into a student of 0.12 M from nothing. Every text is the teacher's own: there is **no",
        "independent text**, and no number here says that a story is good. Nats a token over the whole vocabulary,",
        "lower is nearer; 95 % intervals over stories and seeds; differences are paired with `sft` at the same budget.",
        "Learning rates were chosen on D_val by the mean of both measures. `start` is `sft` for half of the steps, and",
        "`then_…` goes on from there with the other half.",
        "",
        "| arm | seeds | forward KL, teacher's samples | − `sft` | | reverse KL, own samples | − `sft` | |",
        "|---|---:|---:|---:|---|---:|---:|---|",
    ]
    for arm in (*ARMS, START, *LATER):
        seeds = done(study, options, arm)
        if not seeds:
            continue
        parts = [arm, str(len(seeds))]
        for name in MEASURES:
            scores = rows(study, arm, name, seeds)
            # Against zero: the interval of a mean is meant for shares, and stops at 1.
            parts.append(shown(difference_interval(scores, [[0.0] * len(scores[0])])))
            both = against(study, options, arm) if arm != BASELINE else []
            if not both:
                parts += ["", ""]
                continue
            difference = difference_interval(rows(study, arm, name, both), rows(study, BASELINE, name, both))
            parts += [shown(difference, True), judged(difference, True)]
        lines.append(f"| {' | '.join(parts)} |")
    return "\n".join(lines)


def lines(study: Study, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Each arm's divergences beside those of `sft`."""
    found = []
    for arm in (*ARMS, *LATER):
        if arm == BASELINE or not (seeds := against(study, options, arm)):
            continue
        for name, title in MEASURES.items():
            ours, peer = (
                sum(map(sum, scores)) / sum(map(len, scores))
                for scores in (rows(study, who, name, seeds) for who in (arm, BASELINE))
            )
            found.append(line(f"stories {arm}: {title}", ours, peer, "sft on the teacher's samples", "nats a token"))
    return found
