"""Which folders hold a classifier, a head for an encoder without one, and students made of some layers."""

import json
from pathlib import Path

import pytest

from distill_dagster.errors import ModelError

pytestmark = pytest.mark.needs_torch

LABELS = ("turn", "keep", "drop")


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """An encoder's byte tokenizer."""
    from distill_dagster.training import tokenizer

    return tokenizer.fit([], "bytes", tmp_path_factory.mktemp("encoder_bytes"), encoder=True)


@pytest.fixture(scope="module")
def encoded(words):
    from distill_dagster.training.classify import encode
    from distill_dagster.training.data import Chat

    texts = ("keep this", "a longer text to turn", "drop", "x", "and one more")
    chats = [Chat(f"r{n}", ({"role": "user", "content": text},)) for n, text in enumerate(texts)]
    return encode(words, chats, None, 64).examples


def tiny(words, labels=LABELS):
    from distill_dagster.training import presets

    return presets.build("encoder_tiny", words, 3, labels)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"architectures": ["BertForSequenceClassification"], "model_type": "bert"}, "classifier"),
        ({"architectures": ["LlamaForSequenceClassification"], "model_type": "llama"}, "classifier"),
        ({"architectures": ["BertModel"], "model_type": "bert"}, "encoder"),
        ({"architectures": ["RobertaForMaskedLM"], "model_type": "roberta"}, "encoder"),
        ({"architectures": ["BertLMHeadModel"], "model_type": "bert"}, "causal"),
        ({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, "causal"),
        ({"model_type": "llama"}, "causal"),
        ({}, "causal"),
    ],
)
def test_what_a_folder_holds(config: dict, kind: str, tmp_path: Path) -> None:
    from distill_dagster.models import classifier

    (tmp_path / "config.json").write_text(json.dumps(config))
    assert classifier.kind(tmp_path) == kind


@pytest.mark.parametrize("labels", [LABELS, ("no", "yes"), ("LABEL_0", "LABEL_1")])
def test_a_saved_classifier_keeps_its_labels_and_its_bytes(words, tmp_path, labels) -> None:
    from distill_dagster.models import classifier, folder

    place = folder.save(tiny(words, labels), words, tmp_path / "one")
    loaded = folder.load_model(folder.check(place))
    assert classifier.labels(loaded) == labels and classifier.folder_labels(place) == list(labels)
    assert folder.digest(folder.save(loaded, folder.load_tokenizer(place), tmp_path / "two")) == folder.digest(place)


def test_labels_of_one_name_are_refused(words) -> None:
    from distill_dagster.models import classifier

    model = tiny(words)
    model.config.id2label = {0: "a", 1: "b", 2: "a"}
    with pytest.raises(ModelError, match="several classes are named 'a'"):
        classifier.labels(model)


ENCODERS = ["bert", "distilbert", "roberta", "mpnet", "modernbert"]


def encoder(name: str, words, place: Path, layers: int = 4) -> Path:
    """A small random encoder of that architecture, without a head."""
    import torch
    from transformers import AutoConfig, AutoModel

    from distill_dagster.models import folder

    sizes = {"vocab_size": len(words), "pad_token_id": words.pad_token_id, "max_position_embeddings": 80}
    if name == "distilbert":
        sizes |= {"dim": 32, "hidden_dim": 64, "n_layers": layers, "n_heads": 4}
    else:
        sizes |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": layers, "num_attention_heads": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModel.from_config(AutoConfig.for_model(name, **sizes))
    return folder.save(model, words, place)


def test_an_encoder_that_lacks_a_layer_gets_no_head(words, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from distill_dagster.models import classifier

    place = encoder("bert", words, tmp_path)
    weights = place / "model.safetensors"
    kept = {name: one for name, one in load_file(weights).items() if not name.startswith("encoder.layer.2.output")}
    save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack bert.encoder.layer.2.output.LayerNorm.bias, .*output.dense.weight, wh"):
        classifier.with_head(place, LABELS, 0)


@pytest.mark.parametrize("name", ENCODERS)
def test_any_encoder_gets_a_head_and_gives_layers(name: str, words, encoded, tmp_path: Path) -> None:
    import torch

    from distill_dagster.models import classifier, folder, layers
    from distill_dagster.training.forward import Forward

    place = encoder(name, words, tmp_path / "base")
    assert classifier.kind(place) == "encoder"
    with pytest.raises(ModelError, match="an encoder without a classification head"):
        folder.load_model(place)
    one, two, other = (classifier.with_head(place, LABELS, seed) for seed in (5, 5, 6))
    for (key, first), second in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.equal(first, second), key
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))

    smaller = layers.take(one, [0, 3])
    assert layers.count(smaller) == 2 and classifier.labels(smaller) == LABELS
    theirs, ours = one.get_submodule(layers.where(one)), smaller.get_submodule(layers.where(smaller))
    for kept, number in zip(ours, (0, 3), strict=True):
        for value, source in zip(kept.state_dict().values(), theirs[number].state_dict().values(), strict=True):
            assert torch.equal(value, source)
    outside = {key: value for key, value in smaller.state_dict().items() if not key.startswith(layers.where(one))}
    assert all(torch.equal(value, one.state_dict()[key]) for key, value in outside.items())
    # It is a folder like any other, and every layer is where the whole model has it.
    loaded = folder.load_model(folder.save(smaller, words, tmp_path / "smaller"))
    batch = encoded[:5]
    logits = Forward(loaded.eval())(batch, words.pad_token_id).logits
    assert logits.shape == (5, 3)
    for number in (2, 1):
        del theirs[number]
    if name != "modernbert":  # it asks its config which layer is of which sort
        assert torch.allclose(Forward(one)(batch, words.pad_token_id).logits, logits, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2"])
def test_causal_models_give_layers_too(name: str, tokenizer, tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from distill_dagster.models import folder, layers

    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8}
    if name == "gpt2":
        sizes = {"vocab_size": len(tokenizer), "n_embd": 32, "n_layer": 3, "n_head": 4}
        sizes |= {"bos_token_id": 1, "eos_token_id": 1}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **sizes)).eval()
    smaller = layers.take(model, [0, 2])
    loaded = folder.load_model(folder.save(smaller, tokenizer, tmp_path))
    ids = torch.tensor([[5, 9, 20, 7]])
    kept = model.get_submodule(layers.where(model))
    del kept[1]
    for number, layer in enumerate(kept):
        for part in layer.modules():
            if hasattr(part, "layer_idx"):
                part.layer_idx = number
    model.config.num_hidden_layers = 2
    with torch.no_grad():
        assert torch.allclose(loaded(ids).logits, model(ids, use_cache=False).logits, atol=1e-5)


def test_which_layers() -> None:
    from distill_dagster.models import layers

    assert layers.spaced(12, 6) == [0, 2, 4, 7, 9, 11]  # as DistilBERT's own script takes them
    assert layers.spaced(6, 3) == [0, 2, 5] and layers.spaced(4, 1) == [0]
    for total in range(1, 30):
        for count in range(1, total + 1):
            found = layers.spaced(total, count)
            assert len(set(found)) == count and found == sorted(found) and found[-1] < total
    assert layers.chosen([1, 3], 4, "here") == [1, 3] and layers.chosen(None, 2, "here") == [0, 1]
    with pytest.raises(ModelError, match="there is no layer 4: it has 4, from 0 to 3"):
        layers.chosen([0, 4], 4, "here")
    with pytest.raises(ModelError, match="5 layers are wanted, and there are 4"):
        layers.chosen(5, 4, "here")


def test_layers_that_share_their_weights_cannot_be_taken(words, tmp_path) -> None:
    from transformers import AutoConfig, AutoModel

    from distill_dagster.models import layers

    sizes = {"vocab_size": 300, "hidden_size": 32, "embedding_size": 16, "num_hidden_layers": 4}
    model = AutoModel.from_config(AutoConfig.for_model("albert", **sizes, num_attention_heads=4, intermediate_size=64))
    with pytest.raises(ModelError, match="no list of its 4 layers"):
        layers.take(model, [0])


def test_positions_that_nobody_gets_do_not_count(words, tmp_path) -> None:
    """RoBERTa's first position is behind the padding index."""
    from distill_dagster.models import classifier, folder

    model = classifier.with_head(encoder("roberta", words, tmp_path), LABELS, 0)
    assert folder.context_length(model) == 80 - (words.pad_token_id + 1)
