"""Out of memory says what to lower; other errors stay what they are."""

from pathlib import Path

import pytest

from distill_dagster.config.models import Recipe
from distill_dagster.errors import TrainingError
from distill_dagster.training import memory
from distill_dagster.training.data import Example

pytestmark = pytest.mark.needs_torch

RECIPE = Recipe(steps=6, batch_tokens=512, max_length=128, warmup_steps=1, checkpoint_every=2, log_every=2)


def too_much():
    """The CPU allocator's own words, for more than any address space holds."""
    import torch

    torch.empty(1 << 56, dtype=torch.uint8)


def cuda():
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 8 GiB")


def python():
    raise MemoryError


def windows():
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:72] data. DefaultCPUAllocator: not enough memory: you tried ...")


@pytest.mark.parametrize("fail", [too_much, cuda, python, windows])
def test_a_step_that_has_no_room_says_what_to_lower(tokenizer, examples, tmp_path: Path, fail, monkeypatch) -> None:
    from distill_dagster.training import presets
    from distill_dagster.training.forward import Forward
    from distill_dagster.training.trainer import train

    usual, calls = Forward.__call__, []

    def forward(self, chosen, padding):
        calls.append(max(len(example.ids) for example in chosen))
        if len(calls) == 5:
            fail()
        return usual(self, chosen, padding)

    monkeypatch.setattr(Forward, "__call__", forward)
    with pytest.raises(TrainingError, match="step 5 of 6: out of memory on cpu: batches of up to 512 tokens") as caught:
        train(presets.build("nano", tokenizer, 3), tokenizer, examples, RECIPE, tmp_path)
    assert f"longest record {calls[-1]} " in caught.value.reason
    for word in ("batch_tokens to 256", "accumulate to 2", "bf16", "smaller student"):
        assert word in caught.value.next_step
    # The checkpoint stays, and the run goes on from it.
    monkeypatch.undo()
    summary = train(presets.build("nano", tokenizer, 3), tokenizer, examples, RECIPE, tmp_path)
    assert summary["resumed_from"] == 4


def test_memory_that_ends_outside_a_step_is_told_too(tokenizer, examples, tmp_path: Path, monkeypatch) -> None:
    from distill_dagster.training import presets
    from distill_dagster.training.trainer import Run, train

    monkeypatch.setattr(Run, "loss", lambda self, chosen: too_much())
    with pytest.raises(TrainingError, match="out of memory on cpu"):
        train(presets.build("nano", tokenizer, 3), tokenizer, examples, RECIPE, tmp_path, validation=examples[:4])


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory.told("here", RECIPE, (), "cpu"):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(TrainingError, match="there"), memory.told("here", RECIPE, (), "cpu"):
        raise TrainingError("there", "the server is out of memory.", "Wait.")


def test_advice_fits_the_recipe() -> None:
    batch = [[Example("long", list(range(500)), [1.0] * 500)]]
    with pytest.raises(TrainingError) as caught, memory.told("here", RECIPE, batch, "cuda:0"):
        raise MemoryError
    # Half a batch would not hold the longest record.
    assert "batch_tokens to" not in caught.value.next_step and "max_length (now 128)" in caught.value.next_step
    assert "bf16" not in memory.advice(RECIPE.model_copy(update={"precision": "bf16"}), 20)
