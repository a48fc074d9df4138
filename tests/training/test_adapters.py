"""LoRA: only the adapter is trained and kept, whatever computes the model sees it, and it knows its base."""

import json
import re
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from distill_dagster.config.models import Recipe
from distill_dagster.errors import ModelError, TrainingError
from distill_dagster.records.messages import from_chat
from distill_dagster.records.tables import build
from distill_dagster.training.launch import launch

pytestmark = pytest.mark.needs_torch

RECIPE = {
    "steps": 12,
    "batch_tokens": 512,
    "learning_rate": 1e-2,
    "warmup_steps": 2,
    "checkpoint_every": 4,
    "log_every": 2,
    "adapter": {"r": 4, "alpha": 8.0, "dropout": 0.1},
}


def recipe(**changes) -> Recipe:
    return Recipe(**{**RECIPE, "adapter": {**RECIPE["adapter"], **changes}})


@pytest.fixture
def base(nano, tokenizer, tmp_path: Path) -> Path:
    from distill_dagster.training import folder

    return folder.save(nano, tokenizer, tmp_path / "base")


@pytest.fixture
def task(base: Path, chats, tmp_path: Path) -> dict:
    rows = [{"origin": "gold", "task": "turn", "split": "train", "messages": from_chat(c.messages)} for c in chats]
    pq.write_table(build("example", rows), tmp_path / "examples.parquet")
    return {
        "examples": str(tmp_path / "examples.parquet"),
        "base": str(base),
        "recipe": RECIPE,
        "out": str(tmp_path / "out"),
        "work": str(tmp_path / "work"),
        "name": "finance/student_checkpoint",
    }


def trained(model, tokenizer, examples, said: Recipe, folder: Path):
    """A model with an adapter, trained in place, and peft's view of it."""
    from distill_dagster.training import adapters
    from distill_dagster.training.trainer import train

    tuned = adapters.attach(model, said, "here")
    return train(model, tokenizer, examples, said, folder), tuned


def logits(model, examples):
    import torch

    with torch.no_grad():
        return [model.eval()(input_ids=torch.tensor([example.ids])).logits[0] for example in examples]


def close(left, right) -> bool:
    import torch

    return all(torch.allclose(one, other, atol=2e-4, rtol=1e-4) for one, other in zip(left, right, strict=True))


def test_only_the_adapter_is_trained_and_kept(nano, tokenizer, examples, tmp_path: Path) -> None:
    from safetensors import safe_open

    from distill_dagster.training import presets

    summary, _ = trained(nano, tokenizer, examples, recipe(), tmp_path)
    untouched = dict(presets.build("nano", tokenizer, 3).named_parameters())
    entries = dict(nano.named_parameters())
    frozen = {name.replace(".base_layer", ""): entry for name, entry in entries.items() if ".lora_" not in name}
    assert set(frozen) == set(untouched)
    assert all(bool((frozen[name] == entry).all()) for name, entry in untouched.items())
    small = {name: entry for name, entry in entries.items() if ".lora_" in name}
    assert all(bool(entry.any()) for entry in small.values())
    assert summary["parameters"] == sum(entry.numel() for entry in small.values()) < 40_000
    assert summary["loss"] < summary["first_loss"]
    (kept,) = tmp_path.glob("step-*")
    with safe_open(kept / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(small)
    # 7 linear layers in each of 2; the output layer, which is the embedding, has none.
    assert len(small) == 2 * 7 * 2 and not any("lm_head" in name or "embed" in name for name in small)


def test_no_way_to_compute_the_model_leaves_the_adapter_out(nano, tokenizer, examples, tmp_path, monkeypatch) -> None:
    import torch

    from distill_dagster.models import llama
    from distill_dagster.training import adapters
    from distill_dagster.training.forward import Forward

    assert llama.supports(nano)
    adapters.attach(nano, recipe(dropout=0.0), "here")
    assert not llama.supports(nano)
    # A fresh adapter adds nothing, so the fast path would give the very same logits; it is found out all the same.
    monkeypatch.setattr(llama, "supports", lambda model: True)
    forward = Forward(nano)
    forward(examples[:4], 0)
    assert forward.way == "decoder"
    assert not any(entry.any() for name, entry in nano.named_parameters() if "lora_B" in name)
    with torch.no_grad():
        for name, entry in nano.named_parameters():
            if "lora_B" in name:
                entry.normal_(0, 0.2, generator=torch.Generator().manual_seed(1))
    positions = forward(examples[:1], 0)
    assert close([positions.logits], [logits(nano, examples[:1])[0][-len(positions.labels) - 1 : -1]])
    head, bias = positions.head
    assert bias is None and torch.allclose(positions.hidden @ head.T, positions.logits, atol=1e-4)


@pytest.mark.parametrize("targets", ["auto", ["q_proj", "down_proj"]])
def test_merged_sealed_and_trained_say_the_same(nano, base, tokenizer, examples, tmp_path: Path, targets) -> None:
    from distill_dagster.models import adapter, llama
    from distill_dagster.training import adapters, folder

    _, tuned = trained(nano, tokenizer, examples, recipe(targets=targets), tmp_path / "work")
    expected = logits(nano, examples[:5])
    small = sum(entry.numel() for name, entry in tuned.named_parameters() if "lora_" in name)
    assert not close(expected, logits(folder.load_model(base), examples[:5]))
    alone, merged = tmp_path / "alone", tmp_path / "merged"
    adapters.save(tuned, tokenizer, alone, recipe(targets=targets, save="adapter"), base, {"path": "../base"})
    adapters.save(tuned, tokenizer, merged, recipe(targets=targets), base, None)
    loaded = folder.load_model(merged)
    assert llama.supports(loaded) and close(logits(loaded, examples[:5]), expected)
    again = folder.load_model(alone)
    assert llama.supports(again) and close(logits(again, examples[:5]), expected)
    assert folder.parameters(alone) == folder.parameters(base) + small
    size = lambda path: sum(file.stat().st_size for file in path.glob("*.safetensors"))  # noqa: E731
    assert size(alone) < 0.25 * size(merged)
    # The same adapter is the same bytes, and its base is part of what it is.
    first = folder.digest(alone)
    said = adapter.reference(alone)
    assert said == {"digest": folder.digest(base), "path": "../base"}
    (alone / "base.json").write_text(json.dumps({**said, "digest": "0" * 64}))
    assert folder.digest(alone) != first


def test_peft_itself_reads_what_is_sealed(nano, base, tokenizer, examples, tmp_path: Path) -> None:
    import peft

    from distill_dagster.training import adapters, folder

    _, tuned = trained(nano, tokenizer, examples, recipe(), tmp_path / "work")
    adapters.save(tuned, tokenizer, tmp_path / "alone", recipe(save="adapter"), base, {"path": "../base"})
    theirs = peft.PeftModel.from_pretrained(folder.load_model(base), str(tmp_path / "alone"))
    assert close(logits(theirs, examples[:3]), logits(nano, examples[:3]))


def test_an_adapter_on_the_wrong_base_names_both_digests(nano, base, tokenizer, examples, tmp_path: Path) -> None:
    from distill_dagster.models import adapter
    from distill_dagster.training import adapters, folder, presets

    tuned = adapters.attach(nano, recipe(), "here")
    alone = tmp_path / "alone"
    adapters.save(tuned, tokenizer, alone, recipe(save="adapter"), base, {"path": "../base", "artifact": "a/start"})
    other = folder.save(presets.build("nano", tokenizer, 4), tokenizer, tmp_path / "other")
    with pytest.raises(ModelError) as caught:
        adapter.load(alone, other)
    assert folder.digest(base) in caught.value.reason and folder.digest(other) in caught.value.reason
    assert close(logits(adapter.load(alone, base), examples[:2]), logits(folder.load_model(base), examples[:2]))
    base.rename(tmp_path / "moved")
    with pytest.raises(ModelError, match=f"a/start@.*{folder.digest(tmp_path / 'moved')}"):
        folder.load_model(alone)
    (alone / "base.json").unlink()
    with pytest.raises(ModelError, match="base.json"):
        folder.load_model(alone)


def test_a_fingerprint_holds_the_frozen_base_too(tokenizer, examples, tmp_path: Path) -> None:
    from distill_dagster.training import presets

    class Stop(Exception):
        pass

    def stop(step: int, steps: int, loss: float) -> None:
        if step == 8:
            raise Stop

    from distill_dagster.training import adapters
    from distill_dagster.training.trainer import train

    def run(seed: int, stops: bool) -> dict:
        model = presets.build("nano", tokenizer, seed)
        adapters.attach(model, recipe(), "here")
        return train(model, tokenizer, examples, recipe(), tmp_path, progress=stop if stops else None)

    with pytest.raises(Stop):
        run(3, True)
    assert list(tmp_path.glob("step-*"))
    assert run(4, False)["resumed_from"] == 0  # the same adapter, drawn from the recipe's seed, on another base


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (["q_prog"], "no linear layer 'q_prog'.*q_proj"),
        (["q_proj", "lm_head"], "output layer"),
        (["embed_tokens"], "embedding"),
    ],
)
def test_targets_that_cannot_be(nano, targets, words: str) -> None:
    from distill_dagster.training import adapters

    with pytest.raises(TrainingError, match=words):
        adapters.attach(nano, recipe(targets=targets), "here")
    assert not any("lora" in name for name, _ in nano.named_parameters())


def test_what_is_missing_is_said_before_anything_starts(task: dict, monkeypatch, tmp_path: Path) -> None:
    from distill_dagster.training import process

    task["base"] = str(tmp_path / "nowhere")  # would be the next thing to go wrong
    task["recipe"] = {**RECIPE, "adapter": {"kind": "qlora"}}
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(TrainingError, match="bitsandbytes.*does not work here.*kind: lora"):
        process.run(task)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=re.escape("distill-dagster[peft]")):
        process.run(task)


def test_an_adapter_alone_needs_a_base_in_a_folder(task: dict, base: Path) -> None:
    from distill_dagster.training import process

    task["base"] = {"preset": "nano", "tokenizer": str(base)}
    task["recipe"] = {**RECIPE, "adapter": {"save": "adapter"}}
    with pytest.raises(TrainingError, match="preset.*save: merged"):
        process.run(task)


@pytest.mark.slow
@pytest.mark.kill
@pytest.mark.parametrize("save", ["merged", "adapter"])
def test_a_killed_run_ends_as_an_undisturbed_one(task: dict, tmp_path: Path, save: str) -> None:
    from distill_dagster.training.folder import digest

    task["recipe"] = {**RECIPE, "adapter": {**RECIPE["adapter"], "save": save}}
    task["base_reference"] = {"path": "../base"}
    volatile = ("elapsed", "tokens_per_second")

    def curve(folder: Path) -> list[dict]:
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
        return [{key: value for key, value in row.items() if key not in volatile} for row in rows]

    assert launch(task, tmp_path / "one")["resumed_from"] == 0
    wanted = digest(tmp_path / "out")
    with pytest.raises(TrainingError, match="SIGKILL"):
        launch(task, tmp_path / "two", env={"DISTILL_FAULT_AT": "13"})
    assert launch(task, tmp_path / "two")["resumed_from"] in (4, 8)
    assert digest(tmp_path / "out") == wanted
    assert curve(tmp_path / "two") == curve(tmp_path / "one")
