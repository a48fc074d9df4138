"""`make teacher`: the small teacher and base student that a domain ships, trained from nothing on its own D_T.

The teacher is fitted on D_T with answers. The base student has only read D_T's inputs, as a pretrained base model
has read text without labels. Both share one tokenizer fitted on D_T. A model that already stands, made from the same
D_T by the same recipe, is kept: to train it again, remove its folder.
"""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import distill_dagster
from distill_dagster.config.models import GrammarOptions, Recipe, SourceConfig, identity
from distill_dagster.domains import sampler
from distill_dagster.domains.base import Domain
from distill_dagster.domains.registry import discover
from distill_dagster.errors import ConfigError
from distill_dagster.evaluation import baselines, metrics
from distill_dagster.evaluation.examine_model import measure
from distill_dagster.knowledge import prompts as prompting
from distill_dagster.lineage.engine import Progress
from distill_dagster.records import tables
from distill_dagster.records.messages import message, text_of
from distill_dagster.stages.context import SourceContext, facts_of
from distill_dagster.stages.prompt_set import templates

TEACHER_PRESET, STUDENT_PRESET = "micro", "nano"
VOCABULARY = 2048

#: Small batches and a light loss on the prompt: what the answer points at is learned suddenly, after some epochs,
#: and sooner when the answer makes half of the gradient. One thread: two collapse where the machine is busy.
TEACHER_RECIPE = Recipe(
    steps=3600,
    batch_tokens=3072,
    learning_rate=2.5e-3,
    warmup_steps=100,
    weight_decay=0.05,
    prompt_loss_weight=0.05,
    precision="bf16",
    save_precision="fp16",
    checkpoint_every=200,
    log_every=50,
)
STUDENT_RECIPE = Recipe(
    steps=2000,
    batch_tokens=3072,
    learning_rate=3e-3,
    warmup_steps=50,
    prompt_loss_weight=1.0,
    save_precision="fp16",
    checkpoint_every=200,
    log_every=50,
)


def make(name: str, target: Path | None, progress: Progress) -> Path:
    """Train and score a domain's models; returns their folder.

    Args:
        name: Domain with a grammar.
        target: Folder to write; the domain's own `models` folder by default.
        progress: Told how far it is.

    Raises:
        ConfigError: The domain has no grammar.
    """
    from distill_dagster.training import tokenizer

    domain = discover().get(name)
    if domain.items is None:
        raise ConfigError(f"domain {name}", "it has no grammar, so there is nothing to fit on.", "Use a `fit` instead.")
    source = SourceContext(SourceConfig(kind="source", domain=name, grammar=GrammarOptions()), domain, Path.cwd())
    final = target or Path(domain.models or Path(distill_dagster.__file__).parent / "domains" / name / "models")
    work = Path(tempfile.gettempdir()) / f"distill-teacher-{name}"
    work.mkdir(parents=True, exist_ok=True)
    rows = tables.build("seed", sampler.records(source.config, domain, "seed", Path.cwd()))
    fitted = [row for row in rows.to_pylist() if row["part"] == "teacher"]
    styles = {(t.task, t.style): _prompt_row(source, t) for t in templates(source)}
    asked = [prompting.render(styles[row["task"], "short"], row) for row in fitted]
    root = tables.roots(rows, "part")["teacher"]
    roles = {"teacher": (TEACHER_PRESET, TEACHER_RECIPE), "student_base": (STUDENT_PRESET, STUDENT_RECIPE)}
    manifests = {role: _manifest(domain, role, preset, recipe, root) for role, (preset, recipe) in roles.items()}
    kept = [role for role in roles if _stands(final / role, manifests[role])]
    tokens = final / kept[0] if kept else work / "tokenizer"
    if not (tokens / "tokenizer_config.json").exists():
        tokenizer.fit(
            [c["content"] for chat in asked for c in chat] + [r["answer"] for r in fitted], VOCABULARY, tokens
        )
    gold = [
        {
            "origin": "gold",
            "task": row["task"],
            "messages": [*(message(m["role"], m["content"]) for m in chat), message("assistant", row["answer"])],
            "weight": 1.0,
        }
        for row, chat in zip(fitted, asked, strict=True)
    ]
    for role, (preset, recipe) in roles.items():
        if role not in kept:
            examples = gold if role == "teacher" else [_unanswered(row) for row in gold]
            started = time.time()
            _train(role, preset, recipe, examples, tokens, work / role, progress)
            _install(work / role / "model", final / role, manifests[role], time.time() - started)
    scores = _scores(domain, source, styles, final / "teacher", fitted, progress)
    final.joinpath("scores.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    final.joinpath("README.md").write_text(_card(domain, scores, _minutes(final, roles)), encoding="utf-8")
    shutil.rmtree(work)
    return final


def _prompt_row(source: SourceContext, template: Any) -> dict[str, Any]:
    labels = list(source.tasks[template.task].labels)
    return {"task": template.task, "style": template.style, "system": template.system, "user": template.user} | {
        "labels": labels
    }


def _unanswered(row: dict[str, Any]) -> dict[str, Any]:
    """An example with an empty answer: every prompt token is trained on, no answer is seen."""
    return {**row, "messages": [turn for turn in row["messages"] if turn["role"] != "assistant"]}


def _train(
    role: str, preset: str, recipe: Recipe, examples: list[dict[str, Any]], tokens: Path, work: Path, progress: Progress
) -> None:
    import pyarrow.parquet as pq

    from distill_dagster.training import launch

    if (work / "model" / "config.json").exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    pq.write_table(tables.build("example", examples), work / "examples.parquet")
    task = {
        "examples": str(work / "examples.parquet"),
        "base": {"preset": preset, "tokenizer": str(tokens)},
        "recipe": recipe.model_dump(),
        "out": str(work / "model"),
        "work": str(work),
        "name": role,
    }
    launch.launch(task, work, progress=lambda step, total, loss: progress(step, total, f"{role}: loss {loss:.3f}"))


def _scores(
    domain: Domain, source: SourceContext, styles: Any, model: Path, fitted: list[dict[str, Any]], progress: Progress
) -> list[dict[str, Any]]:
    """The teacher on D_val beside the linear baseline on the same D_T."""
    from distill_dagster.teachers.transformers import Backend

    rows = tables.build("seed", sampler.records(source.config, domain, "evaluation", Path.cwd())).to_pylist()
    items = [row for row in rows if row["part"] == "validation"]
    backend = Backend(model, identity="teacher", revision="", template="chat", batch_size=64, threads=2)
    chats = [prompting.render(styles[item["task"], "short"], item) for item in items]
    room = [{"max_new_tokens": source.tasks[item["task"]].max_new_tokens} for item in items]
    outputs, _ = measure(backend, chats, room, progress=lambda done, total: progress(done, total, "scoring"))
    table = []
    for name, task in source.tasks.items():
        where = [index for index, item in enumerate(items) if item["task"] == name]
        own = [row for row in fitted if row["task"] == name]
        said = baselines.baseline(
            task.kind,
            [text_of(row["messages"]) for row in own],
            [row["answer"] for row in own],
            [text_of(items[index]["messages"]) for index in where],
        )
        golds, facts = [items[i]["answer"] for i in where], [facts_of(items[i]) for i in where]
        ours = metrics.score_all(task, [outputs[i] for i in where], golds, facts, domain.verify)
        theirs = metrics.score_all(task, said, golds, facts, domain.verify)
        table.append(
            {
                "task": name,
                "kind": task.kind,
                "items": len(where),
                "teacher": round(sum(ours) / len(ours), 4),
                "baseline": round(sum(theirs) / len(theirs), 4),
            }
        )
    return table


def _manifest(domain: Domain, role: str, preset: str, recipe: Recipe, root: str) -> dict[str, Any]:
    return {
        "domain": domain.name,
        "role": role,
        "preset": preset,
        "licence": domain.licence,
        "trained_on": {"part": "teacher (D_T)", "record_root": root, "grammar": GrammarOptions().model_dump()},
        "answers_seen": role == "teacher",
        "recipe": recipe.model_dump(),
        "vocabulary": VOCABULARY,
        "package": distill_dagster.__version__,
        "command": f"make teacher DOMAIN={domain.name}",
    }


def _stands(place: Path, manifest: dict[str, Any]) -> bool:
    """Whether a folder holds, unharmed, what the manifest is about to describe."""
    from distill_dagster.models import folder
    from distill_dagster.training import presets

    if not (place / "manifest.json").exists():
        return False
    found = json.loads((place / "manifest.json").read_text("utf-8"))
    config = json.loads((place / "config.json").read_text("utf-8"))
    sizes = presets.find(manifest["preset"])
    return (
        all(found.get(key) == value for key, value in manifest.items() if key not in ("package", "recipe"))
        # A recipe that an older release wrote lacks the fields of newer ones, which then have their defaults.
        and identity(Recipe(**found.get("recipe", {}))) == identity(Recipe(**manifest["recipe"]))
        and found.get("digest") == folder.digest(place)
        and (sizes.hidden, sizes.layers, sizes.heads, sizes.feed_forward)
        == tuple(
            config[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        )
    )


def _minutes(final: Path, roles: Iterable[str]) -> dict[str, float | None]:
    """What each model took to train, as its manifest says."""
    return {role: json.loads((final / role / "manifest.json").read_text("utf-8")).get("minutes") for role in roles}


def _install(source: Path, target: Path, manifest: dict[str, Any], seconds: float) -> None:
    from distill_dagster.models import folder

    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)
    manifest |= {"digest": folder.digest(target), "parameters": folder.parameters(target)}
    manifest |= {"minutes": round(seconds / 60, 1)}
    target.joinpath("manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _card(domain: Domain, scores: list[dict[str, Any]], minutes: dict[str, float | None]) -> str:
    took = ", ".join(f"{role} {'not known' if value is None else value}" for role, value in minutes.items())
    lines = [
        f"# Models of the {domain.name} domain",
        "",
        "A small teacher fitted from nothing on the domain's authored D_T, and a smaller base student that has only",
        "read the same inputs, without answers. They show that the mechanism works; they are no evidence of competence",
        f"in the field. Remade by `make teacher DOMAIN={domain.name}`.",
        "",
        f"Scores on D_val, {platform.machine()}. Minutes of training, one thread each: {took}.",
        "",
        "| task | kind | items | teacher | linear or nearest-seed baseline on the same D_T |",
        "|---|---|---:|---:|---:|",
        *(
            f"| {row['task']} | {row['kind']} | {row['items']} | {row['teacher']:.3f} | {row['baseline']:.3f} |"
            for row in scores
        ),
    ]
    return "\n".join(lines) + "\n"
