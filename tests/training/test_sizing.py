"""What training would take, from an architecture alone, against what it takes."""

import json
from pathlib import Path

import pytest

from distill_dagster.config.models import Recipe
from distill_dagster.errors import ConfigError

pytestmark = pytest.mark.needs_torch

REPO = Path(__file__).resolve().parents[2]
SMALL = {
    "model_type": "llama",
    "vocab_size": 1000,
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
OTHERS = [
    {**SMALL, "model_type": "qwen2", "tie_word_embeddings": False},
    {**SMALL, "model_type": "qwen3", "head_dim": 32},
    {"model_type": "gpt2", "vocab_size": 1000, "n_embd": 96, "n_layer": 4, "n_head": 6},
]


SIZES = {"vocab_size": 1000, "num_hidden_layers": 4, "num_attention_heads": 6}
ENCODERS = [
    {"model_type": "bert", "hidden_size": 96, "intermediate_size": 256, **SIZES},
    {
        "model_type": "bert",
        "hidden_size": 96,
        "intermediate_size": 256,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        **SIZES,
    },
    {"model_type": "distilbert", "dim": 96, "hidden_dim": 256, "n_layers": 4, "n_heads": 6, "vocab_size": 1000},
    {
        "model_type": "modernbert",
        "hidden_size": 96,
        "intermediate_size": 256,
        **SIZES,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0),
    },
]


def smollm2() -> dict:
    return json.loads((REPO / "examples/pretrained/smollm2-135m-instruct.json").read_text("utf-8"))


def test_the_example_has_the_published_number_of_parameters() -> None:
    from distill_dagster.training import sizing

    found = sizing.count(sizing.config_of(smollm2(), "here"), Recipe())
    assert found.total == 134_515_008 and found.head == 28_311_552 and found.layers == 30


@pytest.mark.parametrize("architecture", [SMALL, *OTHERS])
@pytest.mark.parametrize("targets", [None, "auto", ["q_proj", "down_proj"]])
def test_parameters_are_those_of_the_model_that_is_trained(architecture: dict, targets) -> None:
    from distill_dagster.training import adapters, sizing

    if architecture["model_type"] == "gpt2" and targets is not None:
        targets = ["c_attn"] if targets != "auto" else None
    recipe = Recipe(adapter=None if targets is None else {"r": 3, "targets": targets})
    config = sizing.config_of(architecture, "here")
    found = sizing.sizes(config, recipe)
    model = sizing.build(config, "cpu")
    assert found.counts.total == sum(entry.numel() for entry in model.parameters())
    adapters.attach(model, recipe, "here")
    assert found.trained == sum(entry.numel() for entry in model.parameters() if entry.requires_grad)


@pytest.mark.parametrize("architecture", [SMALL, OTHERS[0]])
@pytest.mark.parametrize("length", [64, 256])
def test_activations_are_what_the_layers_keep(architecture: dict, length: int) -> None:
    """Counted where autograd keeps a tensor, each storage once."""
    import torch

    from distill_dagster.models import llama
    from distill_dagster.training import sizing

    def kept(layers: int) -> int:
        model = sizing.build(sizing.config_of(architecture, "here", layers), "cpu")
        own = {entry.untyped_storage()._cdata for entry in model.parameters()}
        found, alive = {}, []

        def pack(tensor):
            alive.append(tensor)
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                found[storage._cdata] = storage.nbytes()
            return tensor

        ids = torch.arange(2 * length).view(2, length)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            if llama.supports(model):
                llama.Llama(model).hidden(ids)
            else:
                model.get_decoder()(input_ids=ids, use_cache=False)
        return sum(found.values())

    recipe = Recipe(batch_tokens=2 * length, max_length=length)
    said = [sizing.sizes(sizing.config_of(architecture, "here", layers), recipe).activations for layers in (2, 3)]
    assert kept(3) - kept(2) == pytest.approx(said[1] - said[0], rel=0.05)


@pytest.mark.parametrize("architecture", ENCODERS)
@pytest.mark.parametrize("length", [64, 256])
def test_activations_are_what_an_encoders_layers_keep(architecture: dict, length: int) -> None:
    """In whole, with its head; the estimate is simpler than that of Llama, and nearer to too much."""
    import torch

    from distill_dagster.training import sizing

    def kept(layers: int) -> int:
        model = sizing.build(sizing.config_of(architecture, "here", layers, labels=3), "cpu").train()
        own = {entry.untyped_storage()._cdata for entry in model.parameters()}
        found, alive = {}, []

        def pack(tensor):
            alive.append(tensor)
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                found[storage._cdata] = storage.nbytes()
            return tensor

        ids = torch.arange(2 * length).view(2, length)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
        return sum(found.values())

    recipe = Recipe(batch_tokens=2 * length, max_length=length)
    said = [
        sizing.sizes(sizing.config_of(architecture, "here", layers, labels=3), recipe).activations for layers in (2, 3)
    ]
    assert kept(3) - kept(2) == pytest.approx(said[1] - said[0], rel=0.2)


@pytest.mark.parametrize("architecture", ENCODERS)
def test_a_classifier_is_counted_with_its_head_and_without_logits_of_a_vocabulary(architecture: dict) -> None:
    from distill_dagster.training import sizing

    recipe = Recipe(batch_tokens=512, max_length=128)
    config = sizing.config_of(architecture, "here", labels=7)
    found = sizing.sizes(config, recipe)
    model = sizing.build(config, "cpu")
    assert type(model).__name__.endswith("ForSequenceClassification") and model.config.num_labels == 7
    assert found.counts.total == found.trained == sum(entry.numel() for entry in model.parameters())
    assert found.counts.head == 7 * 96 and found.counts.layers == 4
    assert found.logits == 3 * 4 * 4 * 7  # four records, seven labels
    shorter = sizing.sizes(sizing.config_of(architecture, "here", 2, labels=7), recipe)
    assert shorter.counts.layers == 2 and shorter.operations < found.operations


def test_an_architecture_without_a_language_model_is_said() -> None:
    from distill_dagster.training import sizing

    with pytest.raises(ConfigError, match=r"modernbert.*no language model of this architecture"):
        sizing.sizes(sizing.config_of(ENCODERS[-1], "here"), Recipe())


@pytest.mark.parametrize("architecture", ENCODERS[1:])
def test_a_dry_run_of_a_classifier_fits_its_head_first(architecture: dict) -> None:
    from distill_dagster.training import dry_run

    recipe = Recipe(
        linear_probe={}, batch_tokens=256, max_length=32, objective={"divergence": {"hard": 0.2}}
    ).model_dump()
    found = dry_run.run(architecture, 1, recipe, labels=3)
    assert found["layers"] == 1 and found["forward"] == "classifier" and found["seconds"] > 0
    assert all(loss > 0 for loss in found["losses"])


def test_what_an_adapter_saves_and_a_longer_batch_costs() -> None:
    from distill_dagster.training import sizing

    config = sizing.config_of(smollm2(), "here")
    whole = sizing.sizes(config, Recipe(batch_tokens=1024))
    small = sizing.sizes(config, Recipe(batch_tokens=1024, adapter={"r": 8}))
    four = sizing.sizes(config, Recipe(batch_tokens=1024, adapter={"kind": "qlora", "r": 8}))
    long = sizing.sizes(config, Recipe(batch_tokens=2048))
    many = sizing.sizes(config, Recipe(batch_tokens=1024, accumulate=4))
    assert many.operations == 4 * whole.operations and many.peak == whole.peak
    assert small.trained < 0.02 * whole.trained and small.optimizer < 0.02 * whole.optimizer
    assert four.weights < small.weights < 1.02 * whole.weights
    assert four.peak < small.peak < whole.peak < long.peak
    assert 0.6 * whole.operations < small.operations < 0.75 * whole.operations
    assert long.operations == pytest.approx(2 * whole.operations, rel=0.01)


def test_what_is_kept_beside_the_student_counts() -> None:
    """`early_stop` keeps the best weights, and a divergence from the start keeps the start."""
    from distill_dagster.training.sizing import config_of, sizes

    known = {"model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64}
    config = config_of({**known, "num_hidden_layers": 2, "num_attention_heads": 2}, "here")
    plain, weights = sizes(config, Recipe()), 4 * sizes(config, Recipe()).counts.total
    assert sizes(config, Recipe.model_validate({"early_stop": {}})).peak == plain.peak + weights
    far = sizes(config, Recipe.model_validate({"objective": {"grpo": {"kl": 0.1}}}))
    near = sizes(config, Recipe.model_validate({"objective": {"grpo": {"kl": 0.0}}}))
    assert far.peak == near.peak + weights


def test_what_is_no_architecture_is_said() -> None:
    from distill_dagster.training import sizing

    with pytest.raises(ConfigError, match=r"student.*no model that transformers knows"):
        sizing.config_of({"model_type": "lama"}, "student")


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [None, {"r": 8}])
def test_a_dry_run_trains_and_its_memory_is_near_the_estimate(adapter, tmp_path: Path) -> None:
    import subprocess
    import sys

    from distill_dagster.training import sizing

    architecture = {**smollm2(), "num_hidden_layers": 30}
    recipe = Recipe(batch_tokens=256, max_length=128, adapter=adapter)
    task = {"architecture": architecture, "layers": 6, "recipe": recipe.model_dump()}
    (tmp_path / "task.json").write_text(json.dumps(task), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "distill_dagster.training.dry_run", str(tmp_path / "task.json")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = sizing.sizes(sizing.config_of(architecture, "here", 6), recipe)
    assert found["layers"] == 6 and found["parameters"] == expected.trained
    assert found["losses"][0] > found["losses"][1] > 0 and found["seconds"] > 0
    assert 0.6 < expected.peak / found["peak_bytes"] < 1.6
