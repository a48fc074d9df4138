import json
import shutil
from pathlib import Path

import pytest

from distill_dagster.errors import ModelError
from distill_dagster.training import folder

pytestmark = pytest.mark.needs_torch


@pytest.fixture
def saved(nano, tokenizer, tmp_path: Path) -> Path:
    return folder.save(nano, tokenizer, tmp_path / "model")


def test_a_saved_folder_passes_and_loads_the_same_weights(saved: Path, nano) -> None:
    import torch

    folder.check(saved)
    loaded = folder.load_model(saved)
    assert not loaded.training
    for (name, one), other in zip(nano.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert folder.parameters(saved) == sum(p.numel() for p in nano.parameters())
    assert folder.context_length(loaded) == 1024


def test_the_same_weights_give_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    loaded, words = folder.load_model(saved), folder.load_tokenizer(saved)
    again = folder.save(loaded, words, tmp_path / "elsewhere" / "deep")
    names = sorted(path.name for path in saved.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    for name in names:
        assert (saved / name).read_bytes() == (again / name).read_bytes(), name
        if name.endswith(".json"):
            text = (saved / name).read_text("utf-8")
            assert str(tmp_path) not in text
            assert "transformers_version" not in text
            assert "_from_model_config" not in text
    assert folder.digest(saved) == folder.digest(again)
    folder.save(loaded, words, saved)
    assert folder.digest(saved) == folder.digest(again)


def test_the_digest_follows_what_matters(saved: Path) -> None:
    before = folder.digest(saved)
    (saved / "README.md").write_text("hello")
    (saved / "lineage").mkdir()
    assert folder.digest(saved) == before
    weights = saved / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    changed = folder.digest(saved)
    assert changed != before
    (saved / "generation_config.json").unlink()
    assert folder.digest(saved) not in (before, changed)


@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("fp16", 2), ("bf16", 2)])
def test_saved_precision(nano, tokenizer, tmp_path: Path, precision: str, size: int) -> None:
    path = folder.save(nano, tokenizer, tmp_path, precision)
    assert (path / "model.safetensors").stat().st_size == pytest.approx(folder.parameters(path) * size, rel=0.1)
    assert (
        json.loads((path / "config.json").read_text())["dtype"]
        == folder.load_model(path, precision).dtype.__str__()[6:]
    )


def refuse(path: Path, match: str, place: str = "") -> None:
    with pytest.raises(ModelError, match=match) as caught:
        folder.check(path)
    assert str(path / place) in caught.value.place
    assert caught.value.next_step
    with pytest.raises(ModelError):
        folder.load_model(path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl", "last.ckpt", "training_args.bin"])
def test_pickled_weights_are_refused(saved: Path, name: str) -> None:
    (saved / name).write_bytes(b"\x80\x04.")
    refuse(saved, f"{name} is pickled: refused", name)


def test_incomplete_and_unsafe_folders_are_refused(saved: Path, tmp_path: Path) -> None:
    refuse(tmp_path / "none", "no such model folder")

    def changed(name: str) -> Path:
        shutil.copytree(saved, tmp_path / name)
        return tmp_path / name

    bare = changed("bare")
    (bare / "model.safetensors").unlink()
    refuse(bare, "no safetensors weights; there is config.json")
    no_config = changed("no_config")
    (no_config / "config.json").unlink()
    refuse(no_config, "no config.json")
    no_tokenizer = changed("no_tokenizer")
    (no_tokenizer / "tokenizer.json").unlink()
    refuse(no_tokenizer, "no tokenizer")
    remote = changed("remote")
    config = json.loads((remote / "config.json").read_text())
    (remote / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "modeling.Mine"}}))
    refuse(remote, "auto_map", "config.json")
    not_json = changed("not_json")
    (not_json / "config.json").write_text("{")
    refuse(not_json, "is not JSON", "config.json")
    sharded = changed("sharded")
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-2.safetensors"}}))
    refuse(sharded, "names it", "model-2.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_a_torn_weight_file_is_refused(saved: Path, keep: int) -> None:
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    refuse(saved, "not a whole safetensors file", "model.safetensors")


def test_weights_that_do_not_fit_their_config(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "model_type": "no_such_type"}))
    with pytest.raises(ModelError, match="cannot load"):
        folder.load_model(saved)


def test_fetch(saved: Path, tmp_path: Path) -> None:
    assert folder.fetch(saved) == saved
    with pytest.raises(ModelError, match="no such model folder"):
        folder.fetch(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="no such model folder"):
        folder.fetch("not a hub id")
    with pytest.raises(ModelError, match="at revision abc123 is neither in the local cache") as caught:
        folder.fetch("owner/name-that-is-nowhere", "abc123")
    assert "go online" in caught.value.next_step


@pytest.mark.real_data
def test_a_model_nobody_here_made(stories: Path, tmp_path: Path) -> None:
    import torch

    model, words = folder.load_model(stories), folder.load_tokenizer(stories)
    assert folder.parameters(stories) == 260_032
    again = folder.save(model, words, tmp_path)
    folder.check(again)
    ids = torch.tensor([words("Once upon a time")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, folder.load_model(again)(ids).logits)
    assert folder.load_tokenizer(again)("Lily ran.")["input_ids"] == words("Lily ran.")["input_ids"]


def rewrite(folder: Path, keep) -> None:
    """Leave only the weights for whose name `keep` says yes."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    save_file({name: one for name, one in load_file(path).items() if keep(name)}, path, metadata={"format": "pt"})


def test_a_folder_that_lacks_weights_is_refused(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "one")
    rewrite(tmp_path / "one", lambda name: name != "model.layers.1.mlp.up_proj.weight")
    with pytest.raises(ModelError, match="its weights lack model.layers.1.mlp.up_proj.weight, which") as caught:
        folder.load_model(tmp_path / "one")
    assert str(tmp_path / "one") in caught.value.place and "again" in caught.value.next_step
    rewrite(saved, lambda name: ".layers.1." not in name)  # as a shard without its index
    with pytest.raises(ModelError, match=r"lack model.layers.1.input_layernorm.weight, .* and 3 more, which"):
        folder.load_model(saved)


@pytest.mark.parametrize("tied", [False, True])
def test_a_decoder_without_its_output_layer(tokenizer, tmp_path: Path, tied: bool) -> None:
    """Tied to the embedding it is not missing."""
    from transformers import LlamaConfig, LlamaModel

    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    path = folder.save(LlamaModel(LlamaConfig(**sizes, tie_word_embeddings=tied)), tokenizer, tmp_path)
    if tied:
        assert type(folder.load_model(path)).__name__ == "LlamaForCausalLM"
        return
    with pytest.raises(ModelError, match=r"lack lm_head.weight, which would be drawn at random"):
        folder.load_model(path)


def test_an_encoder_decoder_is_no_causal_model(tokenizer, tmp_path: Path) -> None:
    from transformers import BartConfig, BartForCausalLM, BartForConditionalGeneration

    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    config = BartConfig(vocab_size=len(tokenizer), encoder_attention_heads=2, decoder_attention_heads=2, **sizes)
    path = folder.save(BartForConditionalGeneration(config), tokenizer, tmp_path / "whole")
    with pytest.raises(ModelError, match="encoder-decoder: as a causal language model it would lose its encoder"):
        folder.load_model(path)
    path = folder.save(BartForCausalLM(config), tokenizer, tmp_path / "decoder")
    assert type(folder.load_model(path)).__name__ == "BartForCausalLM"


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors"])
def test_quantized_weights_that_cannot_be_read_are_named(saved: Path, method: str) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4}
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=rf"its weights are quantized \({method}\)") as caught:
        folder.load_model(saved)
    assert "unquantized model" in caught.value.next_step


def test_a_tokenizer_whose_package_is_missing(saved: Path, monkeypatch) -> None:
    import transformers

    def missing(*_, **__) -> None:
        raise ImportError("\nThis requires the SentencePiece library\nbut it was not found\n")

    (saved / "tokenizer.json").rename(saved / "tokenizer.model")
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", missing)
    with pytest.raises(ModelError, match=r"missing \(This requires the SentencePiece library but it") as caught:
        folder.load_tokenizer(saved)
    assert "Install it" in caught.value.next_step


def test_weights_in_two_layouts_count_once(saved: Path, nano) -> None:
    size = sum(p.numel() for p in nano.parameters())
    shutil.copyfile(saved / "model.safetensors", saved / "consolidated.safetensors")
    assert folder.parameters(saved) == size
    (saved / "model.safetensors").rename(saved / "model-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(nano.state_dict(), "model-00001-of-00001.safetensors")}
    (saved / "model.safetensors.index.json").write_text(json.dumps(index))
    assert folder.parameters(saved) == size


def test_a_model_of_text_and_pictures(tokenizer, tmp_path: Path) -> None:
    """Its context stands in the config of its text part, and it takes no adapter."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    from distill_dagster.config.models import Recipe
    from distill_dagster.errors import TrainingError
    from distill_dagster.training import adapters

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(
        text_config={
            **sizes, "vocab_size": len(tokenizer), "num_key_value_heads": 2, "head_dim": 16,
            "max_position_embeddings": 4096, "layer_types": ["full_attention"],
        },
        vision_config={**sizes, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4, image_token_index=5, boi_token_index=6, eoi_token_index=7,
    )  # fmt: skip
    model = folder.load_model(folder.save(Gemma3ForConditionalGeneration(config), tokenizer, tmp_path))
    assert folder.context_length(model) == 4096
    pytest.importorskip("peft")
    with pytest.raises(TrainingError, match="adapters are for models of text alone, and a Gemma3ForConditional"):
        adapters.attach(model, Recipe(adapter={"kind": "lora"}), "here")
