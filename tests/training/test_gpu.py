"""Training, capturing and answering on a GPU: what the CPU says, within rounding; and the same bytes every time.

On a CPU the same inputs give the same bytes on any machine. On a GPU they do on the same model of GPU with the same
libraries, since every kernel is a deterministic one; against a CPU sums are in another order, so numbers are compared.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, get_args

import pytest
from training import fused_cases

from distill_dagster.config.models import Recipe
from distill_dagster.domains.base import Domain, Task, Verdict
from distill_dagster.training.losses.kinds import Kind
from distill_dagster.training.rewards import Rewards

pytestmark = [pytest.mark.needs_torch, pytest.mark.gpu]

DEVICE = "cuda"
LABELS = ("turn", "keep", "drop")
RECIPE: dict[str, Any] = {
    "steps": 4, "batch_tokens": 512, "learning_rate": 1e-3, "warmup_steps": 2, "log_every": 1
}  # fmt: skip
SAMPLES: dict[str, Any] = {"prompts": 4, "max_new_tokens": 5}


class Stop(Exception):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def teacher(tokenizer, tmp_path_factory) -> Path:
    """A model twice as wide as the student, with a layer more."""
    return saved(stirred("micro", tokenizer, 11), tokenizer, tmp_path_factory)


@pytest.fixture(scope="module")
def stored(teacher, tokenizer, examples, tmp_path_factory) -> Path:
    """Its signals, captured on the CPU."""
    from distill_dagster.training.signals import capture, store

    meta = signals_of(tokenizer)
    rows = capture.capture(examples, meta, capture.Scorer(teacher, meta), tmp_path_factory.mktemp("shards")).rows
    path = tmp_path_factory.mktemp("signals") / store.FILE
    store.write(path, rows, meta)
    return path


def saved(model: Any, tokenizer: Any, folders: Any) -> Path:
    from distill_dagster.models import folder

    return folder.save(model, tokenizer, folders.mktemp("teacher") / "model")


def signals_of(tokenizer: Any) -> Any:
    from distill_dagster.training.signals import store

    digests = store.tokenizer_digest(tokenizer), store.template_digest(tokenizer, "chat")
    return store.Meta("t1", *digests, len(tokenizer), 16, (1.0, 2.0))


def stirred(preset: str, tokenizer: Any, seed: int = 3) -> Any:
    """A preset's model that is surer of some tokens than of others."""
    import torch

    from distill_dagster.training import presets

    model = presets.build(preset, tokenizer, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2 if parameter.dim() > 1 else 1)
    return model


def rewards(chats: Any) -> Rewards:
    rows = [{"record_id": chat.record_id, "task": "turn", "facts": {"known": True}, "answer": None} for chat in chats]

    def verify(task: str, facts: Any, output: str) -> Verdict:
        return Verdict(len(output) % 2 == 0)

    return Rewards(rows, Domain("toy", "", "", (), (Task("turn", "verified", "", ""),), (), verify=verify), {}, "1")


def curve(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def weights(model: Any) -> bytes:
    return b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())


def divergence(kind: str, signals: str, **more: Any) -> dict[str, Any]:
    params = {"kind": kind, "signals": signals, "k": 16 if signals == "stored" else 0, "temperature": 2.0, "hard": 0.2}
    return {"objective": {"divergence": {**params, **more}}}


CASES: dict[str, dict[str, Any]] = {
    "sft": {},
    "bf16": {"precision": "bf16"},
    "packing": {"packing": True},
    "accumulate": {"accumulate": 3},
    "early_stop": {"early_stop": {"every": 2}},
    "lora": {"adapter": {"kind": "lora", "r": 4}},
    **{f"{kind} {signals}": divergence(kind, signals) for kind in get_args(Kind) for signals in ("stored", "live")},
    "stored bf16 packed": divergence("forward", "stored") | {"precision": "bf16", "packing": True},
    "layers": {
        "objective": {
            "hidden": {"weight": 0.1, "layers": {"0": 0, "2": 3}},
            "attention": 1.0,
            "relation": 1.0,
            "sft": 0.5,
        }
    },
    "gkd": {"objective": {"gkd": {**SAMPLES, "on_policy": 0.6, "every": 2}}},
    "grpo": {"objective": {"grpo": {**SAMPLES, "group": 4, "kl": 0.1}}},
}


def trained(name: str, device: str, folder: Path, given: Any, **more: Any) -> tuple[dict[str, Any], Any]:
    """Summary and model of a case; `given` looks fixtures up by name."""
    from distill_dagster.training import adapters
    from distill_dagster.training.signals.live import LiveTeacher
    from distill_dagster.training.signals.store import Stored
    from distill_dagster.training.trainer import train

    recipe = Recipe(**{**RECIPE, **CASES[name], "device": device, **more.pop("changes", {})})
    tokenizer, examples = given("tokenizer"), given("examples")
    model = stirred("nano", tokenizer)
    adapters.attach(model, recipe, "test")
    kinds = {name: params.get("signals") for name, (_, params) in recipe.terms.items()}
    if "stored" in kinds.values():
        more["signals"] = [Stored(given("stored"), tokenizer)]
    elif "live" in kinds.values() or kinds.keys() & {"hidden", "gkd"}:
        more["signals"] = [LiveTeacher(given("teacher"), tokenizer)]
    if "grpo" in kinds:
        more["rewards"] = rewards(given("chats"))
    if recipe.early_stop:
        more["validation"] = examples[:16]
    return train(model, tokenizer, examples, recipe, folder, **more), model


@pytest.mark.parametrize("name", CASES)
def test_losses_are_those_of_the_cpu(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if name == "lora":
        pytest.importorskip("peft")
    for device in ("cpu", DEVICE):
        summary, _ = trained(name, device, tmp_path / device, request.getfixturevalue)
    assert summary["device"].startswith(DEVICE) and summary.get("deterministic", True)
    assert summary.get("packed", True)
    same(curve(tmp_path / "cpu"), curve(tmp_path / DEVICE), 2e-2 if "bf16" in name else 1e-3)


def same(here: list[dict[str, float]], there: list[dict[str, float]], allowed: float) -> None:
    """Everything that a run says of its steps, but for what a clock says."""
    assert len(here) == len(there) == 4
    for one, other in zip(here, there, strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() - {"elapsed", "tokens_per_second", "generation_share"}:
            assert other[key] == pytest.approx(one[key], rel=allowed, abs=allowed / 10), (one["step"], key)


@pytest.mark.parametrize("name", ["dpo", "simpo"])
def test_pairs(name: str, tokenizer: Any, chats: Any, tmp_path: Path) -> None:
    from distill_dagster.training.pairs import Pair, encode_pairs
    from distill_dagster.training.trainer import train

    told = [(chat.record_id, chat.messages[:1], chat.messages[1]["content"]) for chat in chats]
    given = [Pair(record, prompt, said, said.replace("a", "x") + "y") for record, prompt, said in told]
    examples = encode_pairs(tokenizer, given, 128).examples
    for device in ("cpu", DEVICE):
        recipe = Recipe(**RECIPE, objective={name: 1.0, "sft": 0.1}, device=device)  # pyright: ignore[reportArgumentType]
        train(stirred("nano", tokenizer), tokenizer, examples, recipe, tmp_path / device)
    same(curve(tmp_path / "cpu"), curve(tmp_path / DEVICE), 1e-3)


@pytest.mark.parametrize("signals", [None, "live"])
def test_classifiers(signals: str | None, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    from distill_dagster.training import presets
    from distill_dagster.training import tokenizer as tokenizers
    from distill_dagster.training.classify import encode
    from distill_dagster.training.data import Chat
    from distill_dagster.training.signals.live_classes import LiveClassifier
    from distill_dagster.training.trainer import train

    words = tokenizers.fit([], "bytes", tmp_path_factory.mktemp("encoder_bytes"), encoder=True)
    rng = random.Random(3)
    chats = []
    for number in range(60):
        label = rng.choice(LABELS)
        asked = "".join(rng.choice("xyz ") for _ in range(rng.randint(1, 30))) + label
        chats.append(Chat(f"r{number}", ({"role": "user", "content": asked}, {"role": "assistant", "content": label})))
    examples = encode(words, chats, LABELS, 64).examples
    own: list[Any] = []
    if signals:
        own.append(
            LiveClassifier(saved(presets.build("encoder_tiny", words, 9, LABELS), words, tmp_path_factory), LABELS)
        )
    objective = divergence("forward", "live")["objective"] if signals else {"sft": 1.0}
    for device in ("cpu", DEVICE):
        recipe = Recipe(**RECIPE, objective=objective, device=device)  # pyright: ignore[reportArgumentType]
        train(presets.build("encoder_tiny", words, 3, LABELS), words, examples, recipe, tmp_path / device, signals=own)
    same(curve(tmp_path / "cpu"), curve(tmp_path / DEVICE), 1e-3)


def test_a_teacher_with_other_tokens(tokenizer: Any, chats: Any, tmp_path_factory: Any, tmp_path: Path) -> None:
    from distill_dagster.training import tokenizer as tokenizers
    from distill_dagster.training.data import encode
    from distill_dagster.training.signals.aligned import AlignedTeacher
    from distill_dagster.training.trainer import train

    other = tokenizers.fit([" ".join(chat.messages[1]["content"] for chat in chats)], 300, tmp_path / "words")
    teacher = saved(stirred("nano", other, 5), other, tmp_path_factory)
    examples = encode(tokenizer, chats[:40], 128).examples
    for device in ("cpu", DEVICE):
        recipe = Recipe(**RECIPE, objective={"cross_tokenizer": 1.0}, device=device)  # pyright: ignore[reportArgumentType]
        source = AlignedTeacher(teacher, tokenizer, chats[:40])
        train(stirred("nano", tokenizer), tokenizer, examples, recipe, tmp_path / device, signals=[source])
    same(curve(tmp_path / "cpu"), curve(tmp_path / DEVICE), 1e-3)


@pytest.mark.parametrize("name", ["accumulate", "forward stored", "layers", "grpo"])
def test_a_resumed_run_ends_like_an_undisturbed_one(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Bit for bit, on the same GPU: weights, and all that was logged."""

    def kill(step: int, steps: int, loss: float) -> None:
        if step == 5:
            raise Stop

    more: dict[str, Any] = {"changes": {"steps": 8, "checkpoint_every": 3}}
    given = request.getfixturevalue
    _, whole = trained(name, DEVICE, tmp_path / "whole", given, **more)
    with pytest.raises(Stop):
        trained(name, DEVICE, tmp_path / "killed", given, progress=kill, **more)
    summary, again = trained(name, DEVICE, tmp_path / "killed", given, **more)
    assert summary["resumed_from"] == 3 and weights(again) == weights(whole)
    clocks = ("elapsed", "tokens_per_second", "generation_share")
    told = [[{key: row[key] for key in row if key not in clocks} for row in curve(tmp_path / part)]
            for part in ("whole", "killed")]  # fmt: skip
    assert told[0] == told[1]


def test_captured_signals_are_those_of_the_cpu(teacher: Path, tokenizer: Any, examples: Any) -> None:
    import numpy as np

    from distill_dagster.training.signals import capture

    meta = signals_of(tokenizer)
    here, there = (capture.Scorer(teacher, meta, device=device) for device in ("cpu", DEVICE))
    for example in examples[:8]:
        one, other = here(example), there(example)
        assert np.allclose(one.log_probs, other.log_probs, atol=1e-4)
        assert np.allclose(one.log_rest, other.log_rest, atol=1e-4)
        assert (one.ids == other.ids).mean() > 0.99  # Tokens as likely as each other may change places.


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_are_those_of_the_cpu(temperature: float, tokenizer: Any, examples: Any) -> None:
    """With a key-value cache, rows that stop at different times, and prompts of several lengths."""
    from distill_dagster.models.generation import Generator, Row

    model, said = stirred("nano", tokenizer), []
    prompts = [example.ids[: example.weights.index(1.0)] for example in examples[:24]]
    for device in ("cpu", DEVICE):
        generator = Generator(model.to(device), tokenizer)
        rows = [
            Row(number, prompt, 8 + number % 3 * 4, temperature, 0.9 if number % 2 else 1.0, (), random.Random(number))
            for number, prompt in enumerate(prompts)
        ]
        said.append({row.index: (row.said, row.finish) for row in generator.run(rows)})
    assert said[0].keys() == said[1].keys()
    equal = sum(said[0][index] == said[1][index] for index in said[0])
    assert equal >= len(prompts) - 1  # A draw on the edge between two tokens may fall to either side.


def test_the_loss_never_holds_all_logits() -> None:
    import torch

    from distill_dagster.training.losses.sparse import Mix, Rows, sparse_loss
    from distill_dagster.training.losses.targets import TopK

    if DEVICE == "cpu":
        pytest.skip("memory is measured on a GPU")
    rows, size, width = 16_384, 64_000, 64
    hidden = torch.randn(rows, width, device=DEVICE, requires_grad=True)
    head = torch.randn(size, width, device=DEVICE, requires_grad=True)
    ids = torch.arange(16).expand(rows, -1)
    log_probs = torch.full((rows, 16), 1 / 32).log()
    weights = torch.ones(rows, device=DEVICE)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    targets = TopK(ids, log_probs, torch.full((rows,), 0.5).log())
    labels = torch.zeros(rows, dtype=torch.long, device=DEVICE)
    loss, *_ = sparse_loss(hidden, head, Rows(labels, weights, weights.sum()), targets, Mix())
    loss.backward()
    assert torch.cuda.max_memory_allocated() - before < rows * size * 4 / 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", fused_cases.CASES + fused_cases.ODD, ids=str)
def test_kernels_of_the_loss(case: fused_cases.Case, dtype: str) -> None:
    kernels_run()
    fused_cases.compare(case, DEVICE, dtype)


def test_kernels_of_the_loss_at_the_edges() -> None:
    kernels_run()
    fused_cases.logits_alone(DEVICE)
    fused_cases.extremes(DEVICE)


def test_kernels_reach_beyond_32_bits() -> None:
    import torch

    fused = kernels_run()
    size = 32_003
    rows = 2**31 // size + 3
    if torch.cuda.mem_get_info()[0] < 3 * 4 * rows * size:
        pytest.skip("needs 26 GB of a GPU's memory")
    logits = torch.randn(8, size, device=DEVICE).repeat(rows // 8 + 1, 1)[:rows].contiguous()
    made, ones = torch.empty_like(logits, dtype=torch.bfloat16), torch.ones(rows, device=DEVICE)
    sums, plain = fused.log_sums(logits, 2.0, True)
    assert torch.allclose(sums[-8:], torch.logsumexp(logits[-8:] / 2, 1), atol=1e-5)
    assert torch.allclose(plain[-8:], torch.logsumexp(logits[-8:], 1), atol=1e-5)
    fused.write(logits, made, 2.0, (sums, ones), (plain, ones))
    right = (logits[-8:] / 2).softmax(1) + logits[-8:].softmax(1)
    assert torch.allclose(made[-8:].float(), right, rtol=1e-2, atol=1e-9)


def kernels_run() -> Any:
    """The module of kernels, which must work on a GPU that has Triton."""
    import torch

    from distill_dagster.training.losses import sparse

    pytest.importorskip("triton")
    fused = sparse._kernels(torch.zeros(1, 1, device=DEVICE))
    assert fused is not None
    return fused
