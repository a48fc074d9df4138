"""A classifier's head, fitted to the frozen encoder: the optimum it claims, any encoder, and nothing else touched."""

import copy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_dagster.config.recipe import LinearProbe, Recipe
from distill_dagster.errors import TrainingError

pytestmark = pytest.mark.needs_torch

LABELS = ("turn", "keep", "drop", "never")
RECIPE = Recipe(
    steps=12, batch_tokens=256, learning_rate=1e-3, warmup_steps=2, checkpoint_every=4, linear_probe=LinearProbe()
)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    from distill_dagster.training import tokenizer

    return tokenizer.fit([], "bytes", tmp_path_factory.mktemp("probe_bytes"), encoder=True)


@pytest.fixture(scope="module")
def encoded(words):
    """Records of three labels, which their words tell; nobody gives the fourth."""
    import random

    from distill_dagster.training.classify import encode
    from distill_dagster.training.data import Chat

    rng, made = random.Random(3), []
    for number in range(90):
        label = rng.choice(LABELS[:3])
        noise = "".join(rng.choice("xyz ") for _ in range(rng.randint(0, 30)))
        turns = ({"role": "user", "content": f"{noise}{label}"}, {"role": "assistant", "content": label})
        made.append(Chat(f"r{number}", turns, 1.0 + number % 2))
    return encode(words, made, LABELS, 64).examples


def tiny(words, seed=3):
    from distill_dagster.training import presets

    return presets.build("encoder_tiny", words, seed, LABELS)


def fit(model, examples, words, recipe=RECIPE, place="here"):
    from distill_dagster.training import probe
    from distill_dagster.training.world import World

    return probe.fit(model, examples, recipe, int(words.pad_token_id), World(), place)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    count=st.integers(2, 6),
    width=st.integers(1, 8),
    records=st.integers(3, 40),
    l2=st.sampled_from([1e-3, 1e-2, 1.0]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_no_other_head_has_a_lower_loss(seed, count, width, records, l2, scale) -> None:
    """The gradient of the objective vanishes, at any scale of the features, and with a constant one among them."""
    import torch

    from distill_dagster.training.probe import regression

    rng = np.random.RandomState(seed)
    features = torch.from_numpy(rng.randn(records, width) * scale + 5 * scale)
    features[:, 0] = 3.0
    labels = torch.from_numpy(rng.randint(0, count, records))
    shares = torch.from_numpy(rng.rand(records) + 0.1)
    shares = shares / shares.sum()
    plain, bias = regression(features, labels, shares, count, l2)
    assert bool(plain.isfinite().all()) and bool(bias.isfinite().all())
    centre = (shares[:, None] * features).sum(0)
    spread = (shares[:, None] * (features - centre) ** 2).sum(0).sqrt()
    spread = spread.clamp_min(max(1e-6 * float(spread.max()), 1e-12))
    weight = (plain * spread).requires_grad_()
    offset = (bias + plain @ centre).requires_grad_()
    logits = ((features - centre) / spread) @ weight.T + offset
    own = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    ((shares * own).sum() + l2 * (weight.square().sum() + offset.square().sum())).backward()
    assert weight.grad is not None and offset.grad is not None
    assert max(weight.grad.abs().max(), offset.grad.abs().max()) < 1e-4


def test_the_head_alone_changes_and_a_drawn_one_does_not_matter(words, encoded) -> None:
    import torch

    one, other = tiny(words), tiny(words)
    with torch.no_grad():
        other.classifier.weight.normal_(0, 3)
    before = copy.deepcopy(one.state_dict())
    said, again = fit(one, encoded, words), fit(other, encoded, words)
    assert said == again and said["records"] == 90 and said["right"] > 0.9
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
        assert torch.equal(value, before[name]) == (not name.startswith("classifier.")), name
    assert not one.training
    # Nobody gives the last label, so nobody gets it.
    from distill_dagster.training.forward import Forward

    with torch.no_grad():
        assert 3 not in Forward(one)(encoded, 0).hidden.argmax(1)


def test_weights_of_records_count(words, encoded) -> None:
    """A record of weight 2 is two records."""
    from dataclasses import replace

    twice = [replace(example, weights=[0.0] * (len(example.ids) - 1) + [1.0]) for example in encoded]
    twice += [replace(twice[number], record_id=f"again {number}") for number in range(1, 90, 2)]
    one, other = tiny(words), tiny(words)
    fit(one, encoded, words)
    fit(other, twice, words)
    assert (one.classifier.weight - other.classifier.weight).abs().max() < 2e-3 * one.classifier.weight.abs().max()


def test_a_run_begins_with_it(words, encoded, tmp_path: Path) -> None:
    """Its first loss is lower than from a drawn head; it says what it did; the same again, through a kill, too."""
    from distill_dagster.training import metrics
    from distill_dagster.training.trainer import train

    class Stop(Exception):
        pass

    def stop(step: int, steps: int, loss: float) -> None:
        if step >= 7:
            raise Stop

    often = RECIPE.model_copy(update={"log_every": 1})
    plain = train(tiny(words), words, encoded, often.model_copy(update={"linear_probe": None}), tmp_path / "plain")
    model, killed = tiny(words), tiny(words)
    summary = train(model, words, encoded, often, tmp_path / "whole")
    assert summary["linear_probe"]["records"] == 90 and "linear_probe" not in plain
    assert summary["first_loss"] < plain["first_loss"] / 2
    with pytest.raises(Stop):
        train(killed, words, encoded, often, tmp_path / "killed", progress=stop)
    killed = tiny(words)
    assert train(killed, words, encoded, often, tmp_path / "killed")["resumed_from"] == 4
    curves = [[row["loss"] for row in metrics.read(tmp_path / name / "metrics.jsonl")] for name in ("whole", "killed")]
    assert curves[0] == curves[1]
    assert all(bool((a == b).all()) for a, b in zip(model.parameters(), killed.parameters(), strict=True))


def test_some_records_stand_for_all(words, encoded) -> None:
    few = RECIPE.model_copy(update={"linear_probe": LinearProbe(records=30)})
    model = tiny(words)
    assert fit(model, sorted(encoded, key=lambda one: one.label), words, few)["records"] == 30
    # Sorted by label, and yet every label is among them: the taken lie evenly over all.
    assert fit(model, sorted(encoded, key=lambda one: one.label), words, few)["right"] > 0.8


def configs() -> dict:
    from transformers import DistilBertConfig, ElectraConfig, ModernBertConfig, RobertaConfig

    size = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    size |= {"intermediate_size": 64, "max_position_embeddings": 80, "num_labels": len(LABELS)}
    narrow = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "vocab_size": 300, "num_labels": len(LABELS)}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    return {
        "DistilBert": DistilBertConfig(**narrow, max_position_embeddings=80),
        "Roberta": RobertaConfig(**size, pad_token_id=0),
        "Electra": ElectraConfig(**size, embedding_size=32),
        "ModernBert": ModernBertConfig(**size, **ends),
    }


@pytest.mark.parametrize("name", ["DistilBert", "Roberta", "Electra", "ModernBert"])
def test_the_heads_of_other_encoders(name: str, words, encoded) -> None:
    import transformers

    model = getattr(transformers, f"{name}ForSequenceClassification")(configs()[name]).eval()
    assert fit(model, encoded, words)["right"] > 0.6


def test_models_without_such_a_head_are_refused(words, encoded, tokenizer, examples) -> None:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    from distill_dagster.training import presets

    writer = presets.build("nano", tokenizer, 3)
    with pytest.raises(TrainingError, match="there: linear_probe fits a classifier's head") as caught:
        fit(writer, examples, tokenizer, place="there")
    assert "encoder" in caught.value.next_step
    config = LlamaConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        num_labels=len(LABELS), pad_token_id=0,
    )  # fmt: skip
    with pytest.raises(TrainingError, match="answers from one vector a record"):
        fit(LlamaForSequenceClassification(config).eval(), encoded, words)


def test_an_encoder_that_is_broken_stops_here(words, encoded) -> None:
    import torch

    model = tiny(words)
    with torch.no_grad():
        next(iter(model.bert.encoder.parameters())).fill_(float("nan"))
    with pytest.raises(TrainingError, match="records r.* is not finite") as caught:
        fit(model, encoded, words)
    assert "weights" in caught.value.next_step
