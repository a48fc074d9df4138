"""The training process: `python -m distill_dagster.training.process TASK.json`.

TASK.json:
    examples: parquet file with the columns of EXAMPLE (`record_id`, `messages`, `weight`, `task`); or
    texts: parquet file with a column `text`, for language modelling on every token; or
    pairs: parquet file with the columns of PREFERENCE (`record_id`, `messages`, `chosen`, `rejected`, `task`).
    validation: like `examples`; its loss is measured before and after. Records longer than `max_length` are left out,
        and counted in the summary. Optional; not with `pairs`.
    base: a model folder, or `{"preset": NAME, "tokenizer": FOLDER}`, or `{"encoder": FOLDER}`, which gets a new head.
        The last and an encoder's preset take `labels`.
    recipe: the fields of `Recipe`.
    template: chat (default) or plain.
    signals: `{"path": FILE, "teacher": VERSION}`, what a teacher said beforehand. Optional.
    teacher: `{"path": FOLDER, "dtype": fp32 or bf16}`, a teacher to hold in memory; its `sources` say
        for which objectives: live (default), aligned (by bytes, with a tokenizer of its own). Optional.
    rewards: `{"path": FILE, "domain": NAME, "version": VERSION, "labels": {TASK: [LABEL]}}`, what a student's samples
        are judged by: a parquet file with `record_id`, `task`, `facts` (JSON) and `answer`. Optional.
    base_reference: what an adapter's `base.json` says beside the digest of its base. Optional.
    too_long: error (default) or drop, for records longer than the recipe's `max_length`.
    out: folder for the trained model.
    work: folder for `metrics.jsonl`, checkpoints and `result.json`. One process at a time holds it.

`result.json` says `{ok: true, summary}` or `{ok: false, kind, place, reason, next_step}`. Exit status: 0 done,
1 failed, 3 another process holds the work folder, 75 the parent is gone. The same command runs under torchrun,
Ray or Slurm: the processes share the batches of each step, and rank 0 alone writes and reports to Dagster, through
Pipes, where Dagster started it. Where one fails, it writes `result.json`, and torchrun ends the others.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distill_dagster.errors import DistillError, LeaseError, TrainingError
from distill_dagster.storage.atomic import write_bytes
from distill_dagster.storage.faults import fault_point
from distill_dagster.storage.lease import lease

RESULT = "result.json"
#: Set by a parent that holds this process's standard input open for as long as it lives.
WATCH = "DISTILL_WATCH_STDIN"
#: Names this attempt, so that a parent does not take an earlier attempt's result for this one's.
ATTEMPT = "DISTILL_ATTEMPT"
HELD, ORPHANED = 3, 75

Report = Callable[[int, int, float], None]


def main(arguments: list[str] | None = None) -> int:
    """Run one task; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 1:
        print("usage: python -m distill_dagster.training.process TASK.json", file=sys.stderr)
        return 1
    if os.environ.get(WATCH) == "1" or _several():
        watch(stdin=os.environ.get(WATCH) == "1")
    task = json.loads(Path(given[0]).read_text(encoding="utf-8"))
    work = Path(task["work"])
    if _rank():  # The first holds the folder for all.
        return _held(task, work)
    try:
        with lease(work, "training"):
            return _held(task, work)
    except LeaseError as error:
        print(error, file=sys.stderr)
        return HELD


def _several() -> bool:
    return int(os.environ.get("WORLD_SIZE") or 1) > 1


def _rank() -> int:
    return int(os.environ.get("RANK") or 0)


def _held(task: dict[str, Any], work: Path) -> int:
    if not _rank():
        (work / RESULT).unlink(missing_ok=True)
    try:
        with _reporting() as report:
            result: dict[str, Any] = {"ok": True, "summary": run(task, report)}
    except DistillError as error:
        result = {
            "ok": False,
            "kind": type(error).__name__,
            "place": error.place,
            "reason": error.reason,
            "next_step": error.next_step,
        }
    except Exception as error:
        traceback.print_exc()
        # What gloo and NCCL say where another process is gone.
        lost = "another process of this run was lost. " if "onnection" in str(error) and _several() else ""
        result = {
            "ok": False,
            "kind": "TrainingError",
            "place": str(task.get("name") or work),
            "reason": f"{lost}{type(error).__name__}: {error}.",
            "next_step": ("Run again: it resumes from its last checkpoint. " if lost else "")
            + f"The whole traceback is in {work / 'log.txt'}.",
        }
    if result["ok"] and _rank():
        return 0
    if not result["ok"] and (work / RESULT).exists():
        return 1  # Another process failed first, and this one for want of it.
    result["attempt"] = os.environ.get(ATTEMPT)
    write_bytes(work / RESULT, json.dumps(result, indent=2, sort_keys=True).encode())
    return 0 if result["ok"] else 1


def run(task: dict[str, Any], report: Report | None = None) -> dict[str, Any]:
    """Train as a task says, in this process, and write the model folder; returns the trainer's summary."""
    from distill_dagster.config.models import Recipe
    from distill_dagster.models import classifier
    from distill_dagster.models import folder as folders
    from distill_dagster.training import adapters, classify, data, trainer
    from distill_dagster.training.trl import library as trl_library
    from distill_dagster.training.world import World

    recipe = Recipe(**task["recipe"])
    place = str(task.get("name") or task["work"])
    world = World.join(recipe.device)
    if recipe.accumulate % world.size:
        raise TrainingError(
            place,
            f"{world.size} processes cannot share the {recipe.accumulate} batches of a step evenly.",
            "Make training.accumulate a multiple of the processes, and batch_tokens smaller to keep the step's size.",
        )
    adapters.require(recipe, place)
    trl_library.require(recipe, place)
    model, tokenizer = adapters.start(task["base"], recipe, place) or start(task["base"], recipe.seed)
    tuned = adapters.attach(model, recipe, place)
    if recipe.max_length > folders.context_length(model):
        raise TrainingError(
            place,
            f"max_length {recipe.max_length} is more than the model's context, {folders.context_length(model)} tokens.",
            "Lower training.max_length.",
        )
    template, too_long = task.get("template") or "chat", task.get("too_long") or "error"
    labels = classifier.labels(model)
    if labels:
        classify.refuse_text(recipe)

    def encoded(file: str, too_long: Any = too_long) -> data.Encoded:
        if labels:
            return classify.encode(tokenizer, _conversations(file), labels, recipe.max_length, too_long)
        return data.encode(
            tokenizer, _conversations(file), recipe.max_length, recipe.prompt_loss_weight, template, too_long
        )

    if task.get("pairs"):
        examples = _pairs(task, tokenizer, recipe, template, too_long)
    else:
        examples = encoded(task["examples"] if task.get("examples") else task["texts"])
    # No filter has seen D_val, so a long record of it would stop every run.
    validation = encoded(task["validation"], "drop") if task.get("validation") else data.Encoded([])
    if validation.dropped and not validation.examples:
        raise TrainingError(
            place,
            f"all {len(validation.dropped)} validation records (D_val) are longer than max_length {recipe.max_length}.",
            "Raise training.max_length.",
        )
    if recipe.trainer == "trl":
        summary = _by_trl(task, model, tokenizer, examples.examples, recipe, report, world)
    else:
        summary = trainer.train(
            model,
            tokenizer,
            examples.examples,
            recipe,
            task["work"],
            validation=validation.examples,
            progress=report,
            signals=_signals(task, tokenizer, template, labels),
            rewards=_rewards(task),
            world=world,
        )
    if not world.first:
        return summary
    summary |= {"dropped_too_long": len(examples.dropped), "template": None if labels else template}
    if validation.dropped:
        summary["validation_dropped_too_long"] = len(validation.dropped)
    if labels:
        summary["labels"] = len(labels)
    out = Path(task["out"])
    temporary = out.with_name(f".{out.name}.tmp")
    for stale in (temporary, out):
        shutil.rmtree(stale, ignore_errors=True)
    fault_point("model.write")
    if tuned is None:
        folders.save(model, tokenizer, temporary, recipe.save_precision)
    else:
        adapters.save(tuned, tokenizer, temporary, recipe, task["base"], task.get("base_reference"))
    fault_point("model.rename")
    temporary.rename(out)
    return summary


def _by_trl(
    task: dict[str, Any], model: Any, tokenizer: Any, examples: Any, recipe: Any, report: Any, world: Any
) -> Any:
    """Train through TRL's trainers, which look at no validation records and ask no teacher."""
    from distill_dagster.training.trl import run as by_trl

    given = [name for name in ("validation", "signals", "teacher") if task.get(name)]
    if given:
        raise TrainingError(
            str(task.get("name") or task["work"]),
            f"the task has {' and '.join(map(repr, given))}, and `trainer: trl` takes pairs or rewarded samples alone.",
            "Leave it out, or use the built-in trainer.",
        )
    rewards = _rewards(task)
    return by_trl.train(model, tokenizer, examples, recipe, task["work"], progress=report, rewards=rewards, world=world)


def _signals(task: dict[str, Any], tokenizer: Any, template: Any, labels: tuple[str, ...] = ()) -> list[Any]:
    """Where objectives that ask for more than text find it."""
    found: list[Any] = []
    if task.get("signals"):
        from distill_dagster.training.signals.store import Stored

        said = task["signals"]
        found.append(Stored(Path(said["path"]), tokenizer, template, said.get("teacher"), labels))
    if task.get("teacher") and labels:
        from distill_dagster.training.signals.live_classes import LiveClassifier

        said = task["teacher"]
        found.append(LiveClassifier(Path(said["path"]), labels, said.get("dtype") or "fp32"))
    elif task.get("teacher"):
        from distill_dagster.training.signals.live import LiveTeacher

        said = task["teacher"]
        sources, path, dtype = said.get("sources") or ["live"], Path(said["path"]), said.get("dtype") or "fp32"
        if "live" in sources:
            found.append(LiveTeacher(path, tokenizer, dtype))
        if "aligned" in sources:
            from distill_dagster.training.signals.aligned import AlignedTeacher

            # It is asked about what is trained on, and never about validation records.
            chats = _conversations(task.get("examples") or task["texts"])
            found.append(AlignedTeacher(path, tokenizer, chats, template, dtype))
    return found


def _rewards(task: dict[str, Any]) -> Any:
    """Who judges a student's samples."""
    if not task.get("rewards"):
        return None
    from distill_dagster.training import rewards

    return rewards.load(task["rewards"])


def start(base: str | dict[str, Any], seed: int) -> tuple[Any, Any]:
    """Model and tokenizer that a task starts from, in fp32: a folder, a preset with a fitted tokenizer, or an encoder
    that gets a head."""
    from distill_dagster.models import classifier
    from distill_dagster.models import folder as folders
    from distill_dagster.training import presets

    if isinstance(base, str):
        return folders.load_model(base), folders.load_tokenizer(base)
    labels = base.get("labels") or ()
    if "encoder" in base:
        return classifier.with_head(base["encoder"], labels, seed), folders.load_tokenizer(base["encoder"])
    tokenizer = folders.load_tokenizer(base["tokenizer"])
    return presets.build(base["preset"], tokenizer, seed, labels), tokenizer


def _pairs(task: dict[str, Any], tokenizer: Any, recipe: Any, template: Any, too_long: Any) -> Any:
    import pyarrow.parquet as pq

    from distill_dagster.training import pairs

    if task.get("validation"):
        raise TrainingError(
            str(task.get("name") or task["work"]),
            "a run on preference pairs has no `validation`: its loss is of pairs.",
            "Leave it out; eval_report measures the student.",
        )
    rows = pq.read_table(task["pairs"]).to_pylist()
    return pairs.encode_pairs(tokenizer, pairs.pairs(rows), recipe.max_length, template, too_long)


def _conversations(file: str) -> list[Any]:
    import pyarrow.parquet as pq

    from distill_dagster.training import data

    names = pq.read_schema(file).names
    if "messages" in names:
        columns = [name for name in ("record_id", "messages", "weight", "task") if name in names]
        return data.chats(pq.read_table(file, columns=columns).to_pylist())
    return data.texts(pq.read_table(file, columns=["text"]).column("text").to_pylist())


@contextmanager
def _reporting() -> Iterator[Report | None]:
    """Report to Dagster through Pipes where Dagster started this process, and only from rank 0."""
    if "DAGSTER_PIPES_CONTEXT" not in os.environ or int(os.environ.get("RANK") or 0) != 0:
        yield None
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:

        def report(step: int, steps: int, loss: float) -> None:
            pipes.log.info(f"step {step} of {steps}: loss {loss:.4f}")
            pipes.report_custom_message({"step": step, "steps": steps, "loss": loss})

        yield report


def watch(stdin: bool = True) -> None:
    """End this process at once when its parent goes: its standard input closes, or another process adopts it.

    Without `stdin` only the second counts, where nobody holds standard input open.
    """
    parent = os.getppid()

    def wait() -> None:
        while os.getppid() == parent:
            readable, _, _ = select.select([0] if stdin else [], [], [], 1.0)
            if readable and not os.read(0, 4096):
                break
        os._exit(ORPHANED)

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is written; tearing torch down takes seconds and does nothing for anybody.
    os._exit(status)
