"""Does a student that learns from verdicts on its own answers pass its teacher?

    make bench-rl

The task is one whose answers the domain's verifier computes. From N prompts, whose gold answers nobody sees:

    imitate    the domain's base student learns the teacher's answers (greedy, unverified)
    rft        that student samples, and learns from those of its answers that the verifier finds right
    grpo       that student learns by `grpo` from the verifier's verdicts
    self_rft   the same as rft, but the student starts as a copy of the teacher, at the teacher's size
    self_grpo  the same as grpo, from a copy of the teacher

Each is examined beside the teacher on the same test items, greedily; the difference has a paired 95 % interval. A cell
is one arm, size and seed; what is measured already is not measured again, and a cell that was stopped goes on from its
last checkpoint. Small models, trained from nothing on authored text: they show what the mechanism does, and nothing
about competence in the field.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import time
from functools import cached_property
from pathlib import Path
from typing import Any

ARMS = ("imitate", "rft", "grpo", "self_rft", "self_grpo")
LENGTH = 256


class Bench:
    """One task of one domain, with everything that its cells share."""

    def __init__(self, options: argparse.Namespace) -> None:
        from distill_dagster.domains.registry import discover
        from distill_dagster.models import folder

        self.options = options
        self.domain = discover().get(options.domain)
        self.task = self.domain.task(options.task)
        self.folder = Path(options.out) / f"{options.domain}-{options.task}"
        self.models = Path(self.domain.models or "")
        self.tokenizer = folder.load_tokenizer(self.models / "teacher")
        template = self.domain.template(self.task.name, "short")
        self.prompt = {"system": template.system, "user": template.user, "labels": list(self.task.labels)}

    def items(self, part: str, count: int) -> list[tuple[list[dict[str, str]], Any, str]]:
        """Chat, facts and gold answer of authored items."""
        from distill_dagster.knowledge.prompts import render
        from distill_dagster.records.messages import message

        assert self.domain.items is not None
        row = {**self.prompt, "task": self.task.name, "style": "short"}
        return [
            (render(row, {"messages": [message("user", item.text)]}), item.facts, item.answer)
            for item in self.domain.items(self.task.name, part, count, 17)
        ]

    @cached_property
    def test(self) -> list[tuple[list[dict[str, str]], Any, str]]:
        """What everybody is examined on, `--part`."""
        return self.items(self.options.part, self.options.items)

    def answers(self, model: Path, chats: Any, **sampling: Any) -> list[str]:
        """What a model folder says."""
        from distill_dagster.evaluation.examine_model import answer
        from distill_dagster.teachers.transformers import Backend

        backend = Backend(model, identity=model.name, revision="", batch_size=64, threads=1)
        return answer(backend, chats, {"max_new_tokens": self.task.max_new_tokens, **sampling})

    def right(self, facts: Any, text: str) -> bool:
        """The verifier's word."""
        assert self.domain.verify is not None
        return bool(self.domain.verify(self.task.name, facts, text).ok)

    def score(self, model: Path) -> list[int]:
        """1 for each test item that a model answers rightly."""
        said = self.answers(model, [chat for chat, _, _ in self.test])
        return [int(self.right(facts, text)) for (_, facts, _), text in zip(self.test, said, strict=True)]

    def cell(self, arm: str, count: int, seed: int) -> dict[str, Any]:
        """Train and examine one student, or read what was measured."""
        place = self.folder / f"{arm}-{count}-{seed}"
        done = place / "cell.json"
        if done.exists():
            return json.loads(done.read_text("utf-8"))
        print(f"{arm}, {count} prompts, seed {seed}", flush=True)
        began = time.process_time()
        notes = getattr(self, f"_{arm.removeprefix('self_')}")(place, self._start(arm, count, seed), count, seed)
        found = {"scores": self.score(place / "model"), "cpu_seconds": time.process_time() - began, **notes}
        done.write_text(json.dumps(found), "utf-8")
        return found

    def _start(self, arm: str, count: int, seed: int) -> Path:
        if arm.startswith("self_"):
            return self.models / "teacher"
        if arm == "imitate":
            return self.models / "student_base"
        self.cell("imitate", count, seed)
        return self.folder / f"imitate-{count}-{seed}" / "model"

    def _imitate(self, place: Path, start: Path, count: int, seed: int) -> dict[str, Any]:
        chats = [chat for chat, _, _ in self.items("unlabeled", count)]
        said = self.answers(self.models / "teacher", chats)
        return self._sft(place, start, list(zip(chats, said, strict=True)), seed, self.options.imitate_steps, 4e-3)

    def _rft(self, place: Path, start: Path, count: int, seed: int) -> dict[str, Any]:
        asked = [item for item in self.items("unlabeled", count) for _ in range(self.options.group)]
        kept: dict[str, Any] = {}
        from distill_dagster.teachers.base import Request
        from distill_dagster.teachers.transformers import Backend

        backend = Backend(start, identity="start", revision="", batch_size=64, threads=1)
        settings = {"max_new_tokens": self.task.max_new_tokens, "temperature": 1.0, "seed": seed}
        requests = [
            Request(tuple(chat), settings, number % self.options.group) for number, (chat, _, _) in enumerate(asked)
        ]
        for index, response in backend.ask(requests):
            chat, facts, _ = asked[index]
            if self.right(facts, response.text):
                kept.setdefault(json.dumps([chat, response.text]), (chat, response.text))
        if not kept:
            shutil.copytree(start, place / "model", dirs_exist_ok=True)
            return {"samples": len(asked), "kept": 0}
        done = self._sft(place, start, [kept[key] for key in sorted(kept)], seed, self.options.steps, self.options.rate)
        return {**done, "samples": len(asked), "kept": len(kept)}

    def _sft(self, place: Path, start: Path, pairs: Any, seed: int, steps: int, rate: float) -> dict[str, Any]:
        from distill_dagster.config.models import Recipe
        from distill_dagster.training.data import Chat, encode

        chats = [
            Chat(f"r{number}", [*chat, {"role": "assistant", "content": said}])
            for number, (chat, said) in enumerate(pairs)
        ]
        examples = encode(self.tokenizer, chats, LENGTH).examples
        recipe = Recipe(steps=steps, batch_tokens=2048, learning_rate=rate, max_length=LENGTH, seed=seed)
        return self._train(place, start, examples, recipe)

    def _grpo(self, place: Path, start: Path, count: int, seed: int) -> dict[str, Any]:
        from distill_dagster.config.models import Recipe
        from distill_dagster.training.data import Chat, encode
        from distill_dagster.training.rewards import Rewards

        items = self.items("unlabeled", count)
        # The prompt is what counts of a record; its answer, here a full stop, is never learned from.
        chats = [Chat(f"r{n}", [*chat, {"role": "assistant", "content": "."}]) for n, (chat, _, _) in enumerate(items)]
        rows = [
            {"record_id": f"r{n}", "task": self.task.name, "facts": facts, "answer": None}
            for n, (_, facts, _) in enumerate(items)
        ]
        room = self.task.max_new_tokens
        term: Any = {"prompts": self.options.prompts, "group": self.options.group, "max_new_tokens": room}
        recipe = Recipe(
            objective={"grpo": term},
            steps=self.options.steps,
            batch_tokens=32768,
            learning_rate=self.options.rate,
            warmup_steps=5,
            max_length=LENGTH,
            seed=seed,
            checkpoint_every=10,
            log_every=5,
        )
        judge = Rewards(rows, self.domain, {}, self.domain.verifier_version)
        return self._train(place, start, encode(self.tokenizer, chats, LENGTH).examples, recipe, rewards=judge)

    def _train(self, place: Path, start: Path, examples: Any, recipe: Any, **more: Any) -> dict[str, Any]:
        from distill_dagster.models import folder
        from distill_dagster.training import metrics
        from distill_dagster.training.trainer import train

        model = folder.load_model(start)
        summary = train(model, self.tokenizer, examples, recipe, place / "work", **more)
        shutil.rmtree(place / "model", ignore_errors=True)
        folder.save(model, self.tokenizer, place / "model")
        kept = ("steps", "tokens", "seconds", "samples", "groups", "equal", "warnings", "parameters")
        curve = [
            {name: row[name] for name in ("step", "right", "entropy", "generation_share") if name in row}
            for row in metrics.read(place / "work" / metrics.FILE)
        ]
        return {**{name: summary[name] for name in kept if name in summary}, "curve": curve}


def apart(student: list[int], teacher: list[int]) -> tuple[float, float, float]:
    """Mean difference a test item, and its 95 % interval."""
    own = [one - other for one, other in zip(student, teacher, strict=True)]
    mean = statistics.fmean(own)
    half = 1.96 * statistics.stdev(own) / math.sqrt(len(own))
    return mean, mean - half, mean + half


def main() -> None:
    """Measure what is missing, and print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domain", default="medicine")
    parser.add_argument("--task", default="dose", help="one whose answers a verifier computes")
    parser.add_argument("--sizes", default="30,100,300,1000", help="prompts")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=100, help="of rft and grpo")
    parser.add_argument("--rate", type=float, default=1.5e-4, help="learning rate of rft and grpo")
    parser.add_argument("--imitate-steps", type=int, default=600)
    parser.add_argument("--prompts", type=int, default=16, help="of a sampling")
    parser.add_argument("--group", type=int, default=8, help="samples a prompt")
    parser.add_argument(
        "--part", default="test", choices=("validation", "test"), help="validation: to choose a setting"
    )
    parser.add_argument("--items", type=int, default=600, help="of the examination")
    parser.add_argument("--out", default=".distill/bench-rl", help="folder of the cells")
    options = parser.parse_args()
    import torch

    from distill_dagster import __version__
    from distill_dagster.records.identity import digest

    torch.set_num_threads(1)
    fixed = {name: value for name, value in vars(options).items() if name not in ("sizes", "arms", "seeds", "out")}
    options.out = str(Path(options.out) / digest(fixed)[:8])
    bench = Bench(options)
    bench.folder.mkdir(parents=True, exist_ok=True)
    known = bench.folder / "teacher.json"
    if not known.exists():
        known.write_text(json.dumps(bench.score(bench.models / "teacher")), "utf-8")
    teacher = json.loads(known.read_text("utf-8"))
    print(f"{options.domain}/{options.task}: {len(teacher)} test items, teacher {statistics.fmean(teacher):.3f}")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; scores depend on no time\n")
    rows = []
    for count in map(int, options.sizes.split(",")):
        for arm in options.arms.split(","):
            for seed in range(options.seeds):
                found = bench.cell(arm, count, seed)
                rows.append((arm, count, seed, found, apart(found["scores"], teacher)))
    print("\n| prompts | arm | seed | right | student − teacher | passes? | cpu s |\n|---:|---|---:|---:|---|---|---:|")
    for arm, count, seed, found, (mean, low, high) in rows:
        verdict = "yes" if low > 0 else "no" if high < 0 else "not told apart"
        score, spent = statistics.fmean(found["scores"]), found["cpu_seconds"]
        span = f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
        print(f"| {count} | {arm} | {seed} | {score:.3f} | {span} | {verdict} | {spent:.0f} |")
    print()
    theirs = statistics.fmean(teacher)
    peer = {"peer": round(theirs, 4), "peer_name": "its teacher", "peer_version": __version__}
    for arm, count, seed, found, _ in rows:
        ours = statistics.fmean(found["scores"])
        line = {"name": f"rl {options.task} {arm} {count} seed {seed}", "ours": round(ours, 4), **peer}
        print(json.dumps({**line, "ratio": round(ours / max(theirs, 1e-9), 3), "unit": "share right"}))


if __name__ == "__main__":
    main()
