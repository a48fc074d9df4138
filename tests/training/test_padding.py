"""Which token fills batches up: one that the model knows, and the one that a decoder finds a text's end by."""

import copy
from pathlib import Path

import pytest

from distill_dagster.config.models import Recipe
from distill_dagster.errors import TrainingError

pytestmark = pytest.mark.needs_torch

LABELS = ("turn", "keep", "drop")


@pytest.fixture
def added(tokenizer):
    """The tokenizer with a padding token that was added to it, and that no model's embedding has a row for."""
    words = copy.deepcopy(tokenizer)
    words.add_special_tokens({"pad_token": "[PAD]"})
    assert words.pad_token_id == len(tokenizer)
    return words


def test_padding_that_the_model_does_not_know_gives_the_same_weights(
    nano, tokenizer, added, examples, tmp_path
) -> None:
    import torch

    from distill_dagster.models.padding import padding
    from distill_dagster.training.trainer import train

    assert padding(nano, tokenizer) == tokenizer.pad_token_id and padding(nano, added) == added.eos_token_id
    other = copy.deepcopy(nano)
    recipe = Recipe(steps=3, batch_tokens=256)
    usual = train(nano, tokenizer, examples, recipe, tmp_path / "usual")
    assert train(other, added, examples, recipe, tmp_path / "added")["loss"] == usual["loss"]
    assert all(torch.equal(one, two) for one, two in zip(nano.parameters(), other.parameters(), strict=True))


def decoder(sort: str, words, pad: int | None):
    """A small random decoder with a classification head."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from distill_dagster.models.classifier import name_labels

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    sizes |= {
        "vocab_size": len(words),
        "intermediate_size": 64,
        "pad_token_id": pad,
        "eos_token_id": words.eos_token_id,
    }
    config = AutoConfig.for_model(sort, **sizes, bos_token_id=None)
    name_labels(config, LABELS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_config(config).eval()


@pytest.mark.parametrize(("sort", "pad"), [("gpt2", None), ("qwen2", None), ("llama", 70)])
def test_a_decoder_that_classifies_reads_a_text_to_its_end(sort: str, pad: int | None, tokenizer, tmp_path) -> None:
    """Its config names no padding token, or one of the text's own: beside a longer text it says what it says alone."""
    import torch

    from distill_dagster.models import folder
    from distill_dagster.teachers.base import Request
    from distill_dagster.teachers.transformers import Backend
    from distill_dagster.training.classify import encode
    from distill_dagster.training.data import Chat
    from distill_dagster.training.signals import capture, store
    from distill_dagster.training.signals.live_classes import LiveClassifier
    from distill_dagster.training.trainer import train

    texts = ["turn abc", "a much longer text than the one before", tokenizer.decode([80, 70, 70])]
    chats = [
        Chat(str(at), ({"role": "user", "content": text}, {"role": "assistant", "content": LABELS[at]}))
        for at, text in enumerate(texts)
    ]
    examples = encode(tokenizer, chats, LABELS, 64).examples
    model = decoder(sort, tokenizer, pad)
    with torch.no_grad():
        body = getattr(model, model.base_model_prefix)
        alone = [model.score(body(torch.tensor([one.ids])).last_hidden_state[0, -1]) for one in examples]
    alone = torch.stack(alone)
    place = folder.save(model, tokenizer, tmp_path / "teacher")

    live = LiveClassifier(place, LABELS)
    assert torch.allclose(live(examples, None).said.hidden, alone, atol=1e-5)
    asked = [Request(({"role": "user", "content": text},), {"top_logprobs": 3}) for text in texts]
    answers = dict(Backend(place, identity="m", revision="1").ask(asked))
    for at, said in enumerate(alone.log_softmax(-1)):
        found = dict(answers[at].logprobs[0].top)
        assert [found[label] for label in LABELS] == pytest.approx(said.tolist(), abs=1e-4)
    meta = store.Meta("v1", "", "", 3, 3, (1.0,), labels=LABELS)
    signal = capture.Scorer(place, meta)(examples[2])
    assert signal.ids[0].tolist() == alone[2].argsort(descending=True).tolist()

    train(model, tokenizer, examples, Recipe(steps=2, batch_tokens=256), tmp_path / "work", validation=examples)
    assert model.config.pad_token_id == tokenizer.pad_token_id
    again = folder.load_model(folder.save(model, tokenizer, tmp_path / "student"))
    assert again.config.pad_token_id == tokenizer.pad_token_id


def test_the_config_of_an_encoder_stays_as_it_is(tokenizer) -> None:
    """RoBERTa counts positions from its config's padding token."""
    from distill_dagster.models.padding import padding

    model = decoder("roberta", tokenizer, 1)
    assert padding(model, tokenizer) == tokenizer.pad_token_id != 1 and model.config.pad_token_id == 1


@pytest.mark.parametrize("stored", [False, True])
def test_a_record_longer_than_the_teachers_context_is_named(tokenizer, examples, tmp_path: Path, stored: bool) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    from distill_dagster.models import folder
    from distill_dagster.training.signals import capture, store
    from distill_dagster.training.signals.live import LiveTeacher

    long = max(examples, key=lambda one: len(one.ids))
    room = len(long.ids) - 1
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=room)
    place = folder.save(GPT2LMHeadModel(config), tokenizer, tmp_path)
    meta = store.Meta("v", store.tokenizer_digest(tokenizer), "", len(tokenizer), 4, (1.0,))
    teacher = LiveTeacher(place, tokenizer) if not stored else capture.Scorer(place, meta)
    with pytest.raises(TrainingError, match=f"record {long.record_id}.*{room + 1} of the teacher's.*context, {room}"):
        teacher(long) if stored else teacher([long], None)


def test_trl_pads_by_the_tokenizer_so_it_must_be_a_token_of_the_model(nano, added, examples, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from distill_dagster.training.trl.run import train

    recipe = Recipe(steps=1, batch_tokens=256, trainer="trl", objective={"dpo": {}})
    with pytest.raises(
        TrainingError, match=f"token {added.pad_token_id}, and the model has embeddings for {len(added) - 1}"
    ):
        train(nano, added, examples, recipe, tmp_path)
