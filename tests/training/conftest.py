"""Small models, tokenizers and data for the training tests."""

import os
import random
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
WEIGHTS = Path(os.environ.get("DISTILL_REAL_WEIGHTS", REPO.parent / "shared" / "weights"))


@pytest.fixture(scope="session")
def stories() -> Path:
    """A Llama that nobody here trained; skips where this machine has none (set DISTILL_REAL_WEIGHTS)."""
    folder = WEIGHTS / "stories260K-hf"
    if not folder.is_dir():
        pytest.skip("no real weights on this machine; set DISTILL_REAL_WEIGHTS to their folder")
    return folder


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """The byte tokenizer."""
    from distill_dagster.training import tokenizer

    return tokenizer.fit([], "bytes", tmp_path_factory.mktemp("bytes"))


@pytest.fixture(scope="session")
def chats():
    """120 conversations: turn a short word around."""
    from distill_dagster.training.data import Chat

    rng = random.Random(5)
    made = []
    for number in range(120):
        word = "".join(rng.choice("abcd") for _ in range(rng.randint(2, 9)))
        made.append(
            Chat(
                f"r{number}",
                ({"role": "user", "content": f"turn {word}"}, {"role": "assistant", "content": word[::-1]}),
            )
        )
    return made


@pytest.fixture(scope="session")
def examples(tokenizer, chats):
    """The conversations, encoded."""
    from distill_dagster.training.data import encode

    return encode(tokenizer, chats, 128).examples


@pytest.fixture
def nano(tokenizer):
    """A fresh nano model."""
    from distill_dagster.training import presets

    return presets.build("nano", tokenizer, 3)
