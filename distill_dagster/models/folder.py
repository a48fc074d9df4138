"""Model folders in the Hugging Face layout: checked before anything loads, saved byte for byte the same.

A folder holds safetensors weights, `config.json`, a tokenizer, and where it has one `generation_config.json`.
Pickled weights and remote code are refused: both run whatever their author wrote.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_dagster.errors import ModelError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PICKLED = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"})
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
)
#: A folder has a tokenizer when one of these sets is there.
TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"), ("vocab.txt",))
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
#: What a library writes about itself or its machine; it says nothing about the model.
VOLATILE = frozenset(
    {
        "transformers_version",
        "_name_or_path",
        "name_or_path",
        "_attn_implementation",
        "_commit_hash",
        "_from_model_config",
        "torch_dtype",
    }
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def fetch(model: str | Path, revision: str | None = None) -> Path:
    """The local folder of a model: a folder as it is, a hub id `owner/name` from the hub's cache or the hub.

    Raises:
        ModelError: No such folder, no such model or revision, or the hub cannot be reached.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or not _HUB_ID.fullmatch(str(model)):
        raise ModelError(str(model), "no such model folder.", "Give an existing folder or a hub id such as owner/name.")
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                str(model),
                revision=revision,
                allow_patterns=["*.safetensors", "*.json", "*.jinja", *TOKENIZER_FILES],
            )
        )
    except (OSError, ValueError, RuntimeError) as error:
        at = f" at revision {revision}" if revision else ""
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            str(model),
            f"no such folder here, and the hub model{at} is neither in the local cache nor to be had ({first}).",
            "Check the id and revision, go online once to fill the cache, or give a local folder.",
        ) from error


def fetch_config(model: str, revision: str | None = None) -> dict[str, Any]:
    """The `config.json` of a hub model, from the hub's cache or the hub; empty where it cannot be had."""
    from huggingface_hub import hf_hub_download

    try:
        return read_json(Path(hf_hub_download(model, "config.json", revision=revision)))
    except (OSError, ValueError, RuntimeError, ModelError):
        return {}


def check(folder: str | Path) -> Path:
    """Refuse a folder that is missing, incomplete or unsafe; loads nothing.

    Raises:
        ModelError: Names the path, what is wrong with it, and what to do.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ModelError(str(path), "no such model folder.", "Give a folder with config.json and *.safetensors.")
    names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
    pickled = [name for name in names if Path(name).suffix in PICKLED]
    if pickled:
        raise ModelError(
            str(path / pickled[0]),
            f"{pickled[0]} is pickled: refused, because reading it may run code.",
            "Convert the weights to safetensors and remove this file.",
        )
    weights = [name for name in names if name.endswith(".safetensors")]
    if not weights:
        raise ModelError(
            str(path),
            f"no safetensors weights; there is {', '.join(names) or 'nothing'}.",
            "Save the model as safetensors.",
        )
    if "config.json" not in names:
        raise ModelError(str(path), "no config.json beside the weights.", "Copy it from where the model was saved.")
    for name in ("config.json", "tokenizer_config.json"):
        if name in names and "auto_map" in read_json(path / name):
            raise ModelError(
                str(path / name),
                "auto_map asks for code from the model's author: refused.",
                "Use a model whose architecture transformers itself knows, or remove auto_map.",
            )
    if not any(all(name in names for name in needed) for needed in TOKENIZERS):
        raise ModelError(str(path), "no tokenizer beside the weights.", "Save the tokenizer into this folder, too.")
    for name in names:
        if name.endswith(".safetensors.index.json"):
            missing = sorted(set(read_json(path / name).get("weight_map", {}).values()) - set(names))
            if missing:
                raise ModelError(str(path / missing[0]), f"{name} names it, but it is not there.", "Copy all shards.")
    for name in weights:
        _check_weights(path / name)
    return path


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ModelError where the file holds none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ModelError(str(path), f"is not JSON ({error}).", "Copy it again from where it was saved.") from error
    if not isinstance(value, dict):
        raise ModelError(str(path), "is not a JSON object.", "Copy it again from where it was saved.")
    return value


def _check_weights(path: Path) -> None:
    """A whole safetensors file: header length, JSON header, and tensors that end where the file ends."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length)) if length <= size else None
        assert isinstance(header, dict)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0) == size
    except (struct.error, ValueError, KeyError, TypeError, IndexError, AssertionError):
        whole = False
    if not whole:
        raise ModelError(str(path), f"is not a whole safetensors file ({size} bytes).", "Copy or save it again.")


def matters(folder: str | Path) -> list[Path]:
    """The files that make the model what it is, sorted by name: weights, configs and tokenizer."""
    keep = {"config.json", "generation_config.json", "adapter_config.json", "base.json", *TOKENIZER_FILES}
    return sorted(
        entry
        for entry in Path(folder).iterdir()
        if entry.is_file() and (entry.name in keep or entry.name.endswith((".safetensors", ".safetensors.index.json")))
    )


def digest(folder: str | Path) -> str:
    """SHA-256 over the sorted (name, file SHA-256) of the files that matter, 64 hex digits."""
    whole = hashlib.sha256()
    for path in matters(folder):
        with path.open("rb") as file:
            whole.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def context_length(model: PreTrainedModel) -> int:
    """Tokens a model can look at: `max_position_embeddings`, or 1024 where its config does not say."""
    config = model.config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value - _unused_positions(model)
    return 1024


def _unused_positions(model: PreTrainedModel) -> int:
    """Rows of a position table that no token gets: RoBERTa counts from behind its padding index."""
    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            return int(padding) + 1
    return 0


def parameters(folder: str | Path) -> int:
    """Parameters of a folder, from the headers of its weight files; tied weights count once.

    An adapter counts with its base, as it is used.
    """
    from distill_dagster.models import adapter

    total = parameters(adapter.base_of(folder)) if adapter.is_adapter(folder) else 0
    for name in _weight_files(Path(folder)):
        with (Path(folder) / name).open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header: Mapping[str, Any] = json.loads(file.read(length))
        for name, entry in header.items():
            if name != "__metadata__":
                count = 1
                for size in entry["shape"]:
                    count *= size
                total += count
    return total


def _weight_files(path: Path) -> list[str]:
    """The weight files that are loaded; the same weights may lie beside them in another layout."""
    if (path / WEIGHTS).is_file():
        return [WEIGHTS]
    if (path / INDEX).is_file():
        return sorted(set(read_json(path / INDEX).get("weight_map", {}).values()))
    return sorted(entry.name for entry in path.glob("*.safetensors"))


def load_model(folder: str | Path, dtype: str = "fp32") -> PreTrainedModel:
    """A causal language model or a classifier from a checked folder, in evaluation mode. `dtype` is fp32, fp16 or bf16.

    An adapter is merged into its base.

    Raises:
        ModelError: The folder does not pass `check`, lacks weights, holds an encoder without a head or an
            encoder-decoder, has no key-value cache, or transformers cannot build it.
    """
    path = check(folder)
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from transformers.utils import logging

    from distill_dagster.models import adapter, classifier
    from distill_dagster.models.loading import require_weights, unloadable

    if adapter.is_adapter(path):
        return adapter.load(path).to(getattr(torch, DTYPES[dtype]))  # pyright: ignore[reportArgumentType]

    kind = classifier.kind(path)
    if kind == "encoder":
        raise ModelError(
            str(path),
            "it is an encoder without a classification head: it answers nothing.",
            "Start a student from it, or `fit` a teacher from it on a task of kind `label`: both give it a head.",
        )
    if kind == "causal" and classifier.reads_with_an_encoder(path):
        raise ModelError(
            str(path),
            "it is an encoder-decoder: as a causal language model it would lose its encoder.",
            "Use a decoder-only model, such as a Llama or Qwen.",
        )
    auto = AutoModelForSequenceClassification if kind == "classifier" else AutoModelForCausalLM
    logging.disable_progress_bar()
    try:
        loaded: Any = auto.from_pretrained(
            path,
            dtype=getattr(torch, DTYPES[dtype]),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = f"transformers cannot load it ({error})."
        raise unloadable(path, error, reason, "Check that config.json and the weights belong together.") from error
    model, report = loaded
    require_weights(path, report["missing_keys"])
    if kind == "causal":
        from distill_dagster.models.steppers import can_step

        if not can_step(model):
            raise ModelError(
                str(path),
                f"a {type(model).__name__} has no key-value cache (`past_key_values`), so it cannot be asked here.",
                "Use a model with attention layers, such as a Llama or Qwen, or one that mixes both, such as LFM2.",
            )
    return model.eval()


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder (weights need not be there). It always has an end and a padding token.

    Raises:
        ModelError: No tokenizer there, or one that transformers cannot read.
    """
    path = Path(folder)
    if not any(all((path / name).is_file() for name in needed) for needed in TOKENIZERS):
        raise ModelError(str(path), "no tokenizer in this folder.", "Save a tokenizer into it, or fit one.")
    if (path / "tokenizer_config.json").is_file() and "auto_map" in read_json(path / "tokenizer_config.json"):
        raise ModelError(str(path / "tokenizer_config.json"), "auto_map asks for remote code: refused.", "Remove it.")
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        if not (path / "tokenizer.json").is_file() or ((path / "config.json").is_file() and not _is_its_file(path)):
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
        else:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(str(path), f"the tokenizer cannot be read ({error}).", "Save it again.") from error
    except ImportError as error:  # sentencepiece, protobuf, tiktoken
        reason = f"a package that reads this tokenizer is missing ({' '.join(str(error).split())})."
        step = "Install it, or save the tokenizer elsewhere with `save_pretrained`, which writes tokenizer.json."
        raise ModelError(str(path), reason, step) from error
    if tokenizer.eos_token_id is None and tokenizer.sep_token_id is not None:
        tokenizer.eos_token = tokenizer.sep_token  # An encoder's text ends with its separator.
    if tokenizer.eos_token_id is None:
        raise ModelError(str(path), "the tokenizer has no end token.", "Set eos_token in tokenizer_config.json.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _is_its_file(path: Path) -> bool:
    """Says the folder that its tokenizer is what tokenizer.json says and nothing else?

    `AutoTokenizer` takes the class of some models (Qwen2, Phi-3) all the same, whose own rules then come before the
    file's.
    """
    config = path / "tokenizer_config.json"
    said = read_json(config).get("tokenizer_class") if config.is_file() else None
    return said in ("PreTrainedTokenizerFast", "TokenizersBackend")


def save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path, precision: str = "fp32"
) -> Path:
    """Write a model folder; the same weights, tokenizer and precision give the same bytes on any machine.

    The tokenizer's own files are copied where it was loaded from a folder, so that they never drift with the
    library. Files already there under these names are replaced.
    """
    import torch
    from safetensors.torch import save_file

    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    dtype = getattr(torch, DTYPES[precision])
    tensors: dict[str, torch.Tensor] = {}
    seen: set[tuple[int, tuple[int, ...], tuple[int, ...]]] = set()
    for name, tensor in model.state_dict().items():
        # Tied weights share memory and are stored once, under the name that comes first (the embedding's).
        place = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()))
        if place in seen:
            continue
        seen.add(place)
        tensors[name] = tensor.detach().to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads(model.config.to_json_string(use_diff=True))
    config["architectures"] = [type(model).__name__]
    config["dtype"] = DTYPES[precision]
    _write_json(path / "config.json", config)
    generation = getattr(model, "generation_config", None)
    if generation is not None:
        _write_json(path / "generation_config.json", json.loads(generation.to_json_string(use_diff=True)))
    save_tokenizer(tokenizer, path)
    return path


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    kept = {name: entry for name, entry in value.items() if name not in VOLATILE}
    path.write_text(json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Write a tokenizer's files into a folder: its own where it was loaded from one."""
    origin = Path(tokenizer.name_or_path) if tokenizer.name_or_path else None
    if origin is not None and any((origin / name).is_file() for name in TOKENIZER_FILES):
        for name in TOKENIZER_FILES:
            if (origin / name).is_file() and (origin / name).resolve() != (path / name).resolve():
                shutil.copyfile(origin / name, path / name)
        return
    tokenizer.save_pretrained(path)
    config = path / "tokenizer_config.json"
    _write_json(config, read_json(config))
