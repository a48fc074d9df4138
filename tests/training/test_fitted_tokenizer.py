import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_dagster.errors import ModelError, TrainingError
from distill_dagster.models.chat import render
from distill_dagster.training import tokenizer as tokenizers
from distill_dagster.training.folder import load_tokenizer

pytestmark = pytest.mark.needs_torch

TEXTS = [f"The invoice {n} over USD {n}.{n % 90 + 10} was paid in {n % 7} parts, née Müller." for n in range(300)]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    return tokenizers.fit([*TEXTS, "née Müller"], 290, tmp_path_factory.mktemp("fitted"))


def test_every_digit_is_its_own_token(fitted) -> None:
    pieces = fitted.tokenize("paid 4521 USD in 2026")
    assert [piece for piece in pieces if any(sign.isdigit() for sign in piece)] == list("45212026")
    vocabulary = fitted.get_vocab()
    assert not [word for word in vocabulary if sum(sign.isdigit() for sign in word) and len(word) > 1]


def test_order_and_repeats_of_the_texts_do_not_matter(fitted, tmp_path: Path) -> None:
    assert len(fitted) == 290  # Fewer merges than there is room for would hide an order.
    again = tokenizers.fit([*reversed(TEXTS), *["née Müller"] * 900, *TEXTS[:50]], 290, tmp_path)
    first, second = (Path(made.name_or_path) for made in (fitted, again))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
        assert str(first) not in (first / name).read_text("utf-8")


def test_special_tokens_and_size(fitted) -> None:
    assert [fitted.convert_tokens_to_ids(token) for token in tokenizers.SPECIAL] == [0, 1, 2, 3, 4]
    assert (fitted.pad_token, fitted.eos_token) == ("<|pad|>", "<|end|>")
    assert tokenizers.SMALLEST < len(fitted) <= 290


def test_the_chat_template(fitted) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>"
    assert render(fitted, chat, True) == text
    said = [*chat, {"role": "assistant", "content": "Yes"}]
    assert render(fitted, said, False) == text + "Yes<|end|>"
    with pytest.raises(ModelError, match="tool"):
        render(fitted, [{"role": "tool", "content": "x"}], True)


@given(text=st.text(alphabet=st.characters(codec="utf-8")))
def test_bytes_lose_nothing(text: str, tokenizer) -> None:
    assert len(tokenizer) == tokenizers.SMALLEST
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert tokenizer.decode(ids) == text


@given(text=st.text(alphabet=st.characters(codec="utf-8", exclude_characters="<|>")))
def test_a_fitted_vocabulary_loses_nothing(text: str, fitted) -> None:
    assert fitted.decode(fitted(text, add_special_tokens=False)["input_ids"]) == text


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="261"):
        tokenizers.fit(["a"], 100, tmp_path)
    with pytest.raises(TrainingError, match="no text"):
        tokenizers.fit(["", ""], 300, tmp_path)
    with pytest.raises(ModelError, match="no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": "x.Y"}}))
    with pytest.raises(ModelError, match="auto_map"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("model_type", ["qwen2", "phi3", "llama"])
def test_a_tokenizer_that_is_its_file_is_read_from_it_beside_any_model(fitted, tmp_path: Path, model_type: str) -> None:
    """transformers takes Qwen2's own class for a folder of its architecture, with other tokens and rules."""
    fitted.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}), "utf-8")
    loaded = load_tokenizer(tmp_path)
    assert len(loaded) == len(fitted) and loaded.all_special_tokens == fitted.all_special_tokens
    text = "The invoice 12 over USD 12.22, ne\u0301e \ufb01 Müller  was paid."
    assert loaded(text)["input_ids"] == fitted(text)["input_ids"]
