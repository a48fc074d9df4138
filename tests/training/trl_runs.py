"""Runs through TRL and through the built-in trainer, side by side, for the tests of the first."""

import json
from pathlib import Path
from typing import Any

import distill_dagster
from distill_dagster.config.models import Recipe
from distill_dagster.records.messages import from_chat
from distill_dagster.records.tables import build

MODEL = Path(distill_dagster.__file__).parent / "domains" / "finance" / "models" / "teacher"
VOLATILE = ("elapsed", "tokens_per_second")
#: Recipes of the pairs and of the samples, beside what a test varies.
PAIRS: dict[str, Any] = {"steps": 5, "batch_tokens": 768, "warmup_steps": 2, "log_every": 1, "trainer": "trl"}
SAMPLES: dict[str, Any] = {"prompts": 3, "group": 4, "equal_groups": "keep", "well_formed": 0.1, "cut": 0.2}


class Stop(Exception):
    """Stands for a kill: nothing of the run is told beforehand."""


def pair_rows(chats) -> list[dict]:
    """PREFERENCE rows of many lengths."""
    made = []
    for number, (prompt, answer) in enumerate(chat.messages for chat in chats[:40]):
        content = {"chosen": answer["content"], "rejected": "wxyz "[number % 3 :] * (1 + number % 5) + "w"}
        made.append({"task": "turn", "split": "train", "messages": from_chat([prompt]), **content})
    return build("preference", made).to_pylist()


def encoded(tokenizer, rows: list[dict]) -> list[Any]:
    """The pairs of these rows."""
    from distill_dagster.training.pairs import encode_pairs, pairs

    return encode_pairs(tokenizer, pairs(rows), 128).examples


def through(trainer: str, model, tokenizer, examples, recipe: Recipe, folder: Path, **given: Any) -> dict[str, Any]:
    from distill_dagster.training import trainer as builtin
    from distill_dagster.training.trl import run as by_trl

    train = by_trl.train if trainer == "trl" else builtin.train
    return train(model, tokenizer, examples, recipe.model_copy(update={"trainer": trainer}), folder, **given)


def fresh(tokenizer, seed: int = 3):
    from distill_dagster.training import presets

    return presets.build("nano", tokenizer, seed)


def lines(folder: Path) -> list[dict]:
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{name: value for name, value in row.items() if name not in VOLATILE} for row in read]


def weights(model) -> bytes:
    return b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())


def apart(start, one, other) -> float:
    """Distance between where two runs from one start have gone, by the way that the first has gone."""
    parts = [
        [dict(model.named_parameters())[name] for model in (start, one, other)] for name, _ in one.named_parameters()
    ]
    gone = sum((left - at).square().sum().item() for at, left, _ in parts)
    return (sum((left - right).square().sum().item() for _, left, right in parts) / gone) ** 0.5


def start():
    """A model that finds some covenants right."""
    from distill_dagster.models import folder

    return folder.load_model(MODEL)
