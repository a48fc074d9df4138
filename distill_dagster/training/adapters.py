"""Training an adapter beside a frozen base: low-rank matrices, by peft (LoRA, Hu et al. 2021; QLoRA, Dettmers 2023).

peft puts its layers into the model in place, so the trainer sees a model of which only the adapter asks for gradients,
and its checkpoints hold nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_dagster.config.registry import nearest
from distill_dagster.errors import TrainingError
from distill_dagster.models import adapter as folders_of_adapters
from distill_dagster.models.classifier import is_classifier

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from distill_dagster.config.models import Recipe


def require(recipe: Recipe, place: str) -> None:
    """Refuse a recipe whose adapter cannot be trained on this machine; loads no model.

    Raises:
        ModelError: peft is not installed.
        TrainingError: `qlora` without a bitsandbytes that works here.
    """
    if recipe.adapter is None:
        return
    folders_of_adapters.library(place)
    if recipe.adapter.kind != "qlora":
        return
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        import bitsandbytes.functional as kernels  # pyright: ignore[reportMissingImports]

        kernels.dequantize_4bit(*kernels.quantize_4bit(torch.ones(64, 64, device=device), quant_type="nf4"))
    except Exception as error:  # whatever a missing or broken native library raises
        first = (str(error).strip().splitlines() or [""])[0]
        gpu = "" if device == "cuda" else ", and there is no GPU"
        raise TrainingError(
            place,
            f"`adapter: {{kind: qlora}}` keeps the base in 4 bits by bitsandbytes, which does not work here"
            f"{gpu} ({type(error).__name__}: {first}).",
            "Install 'distill-dagster[qlora]' on a machine with a GPU that bitsandbytes knows, or use `kind: lora`.",
        ) from error


def start(base: Any, recipe: Recipe, place: str) -> tuple[Any, Any] | None:
    """Model and tokenizer of a base that is kept in 4 bits; None where the recipe starts as any other.

    Raises:
        TrainingError: `qlora`, or an adapter to seal alone, on a base that has no folder.
    """
    options = recipe.adapter
    if options is None:
        return None
    if not isinstance(base, (str, Path)) and (options.kind == "qlora" or options.save == "adapter"):
        raise TrainingError(
            place,
            "an adapter in 4 bits, or one that is sealed alone, needs a base in a folder, and this one is a preset.",
            "Use `adapter: {kind: lora, save: merged}`, or start from a folder or hub model.",
        )
    if options.kind != "qlora":
        return None
    from distill_dagster.models import folder as folders

    return load_4bit(Path(base)), folders.load_tokenizer(base)


def load_4bit(folder: Path) -> PreTrainedModel:
    """A model folder with its linear layers in 4 bits (NF4, scales quantized too); all else fp32."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from distill_dagster.models import folder as folders

    device = "cuda" if torch.cuda.is_available() else "cpu"
    quantized = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if device == "cuda" else torch.float32,
    )
    return AutoModelForCausalLM.from_pretrained(
        folders.check(folder),
        quantization_config=quantized,
        dtype=torch.float32,
        device_map={"": device},
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
    ).eval()


def attach(model: PreTrainedModel, recipe: Recipe, place: str) -> Any:
    """Put the recipe's adapter into `model`, in place, and freeze all else; initial weights follow the recipe's seed.

    Returns:
        peft's view of the model; None where the recipe has no adapter.

    Raises:
        TrainingError: A target that is no linear layer of the model, or the embedding or output layer; a model that
            is no language model.
    """
    options = recipe.adapter
    if options is None:
        return None
    import torch

    peft = folders_of_adapters.library(place)
    if not type(model).__name__.endswith(("ForCausalLM", "LMHeadModel")):
        reason = (
            f"an adapter would freeze the classifier of a {type(model).__name__}."
            if is_classifier(model)
            else f"adapters are for models of text alone, and a {type(model).__name__} has other parts beside."
        )
        raise TrainingError(place, reason, "Train it whole: leave out `adapter`.")
    targets = "all-linear" if options.targets == "auto" else _targets(model, options.targets, place)
    config = peft.LoraConfig(
        r=options.r,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=targets,
        fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in model.modules()),  # GPT-2's layers
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return peft.get_peft_model(model, config)


def _targets(model: PreTrainedModel, wanted: list[str], place: str) -> list[str]:
    """The names, each of them a linear layer inside the model."""
    linear = {name for name, module in model.named_modules() if type(module).__name__.startswith(("Linear", "Conv1D"))}
    known = sorted({name.rsplit(".", 1)[-1] for name in linear})
    edges = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if module is model.get_input_embeddings() or module is model.get_output_embeddings()
    }
    for name in wanted:
        if name in edges:
            raise TrainingError(
                place,
                f"adapter target {name!r} is the embedding or the output layer, which stay as they are.",
                f"Name some of {', '.join(word for word in known if word not in edges)}.",
            )
        if not any(entry == name or entry.endswith(f".{name}") for entry in linear):
            near = nearest(name, known)
            raise TrainingError(place, f"the model has no linear layer {name!r} for an adapter.", near)
    return sorted(wanted)


@contextmanager
def stirred(model: Any) -> Iterator[None]:
    """Adapters that add nothing yet add something in here.

    A fresh adapter's second matrix is zero, so a way to compute the model that left it out would give the same
    numbers: whoever compares ways does so in here.
    """
    import torch

    silent = [
        entry
        for name, entry in model.named_parameters()
        if ".lora_B." in name and entry.is_floating_point() and not entry.any()
    ]
    with torch.no_grad():
        for number, entry in enumerate(silent):
            entry.copy_(torch.linspace(-0.1, 0.1, entry.numel(), device=entry.device).view_as(entry) * (1 + number % 3))
        try:
            yield
        finally:
            for entry in silent:
                entry.zero_()


def save(
    tuned: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    recipe: Recipe,
    base: Any,
    said: Mapping[str, Any] | None,
) -> None:
    """Write what was trained: the merged model, or the adapter with a reference to its base.

    Args:
        tuned: What `attach` gave.
        tokenizer: The base's tokenizer.
        folder: Where.
        recipe: Its `adapter.save` decides, and `save_precision` for a merged model.
        base: The folder that training started from.
        said: What `base.json` says beside the digest.
    """
    from distill_dagster.models import folder as folders

    options, peft = recipe.adapter, folders_of_adapters.library()
    assert options is not None
    if options.save == "merged" and options.kind == "lora":
        folders.save(tuned.merge_and_unload(), tokenizer, folder, recipe.save_precision)
        return
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in peft.get_peft_model_state_dict(tuned).items()
    }
    written = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": options.r,
        "lora_alpha": options.alpha,
        "lora_dropout": options.dropout,
        "target_modules": sorted(tuned.peft_config["default"].target_modules),
        "fan_in_fan_out": tuned.peft_config["default"].fan_in_fan_out,
        "inference_mode": True,
    }
    if options.save == "adapter":
        folders_of_adapters.save(tensors, written, tokenizer, folder, Path(base), said)
        return
    # Merging into 4 bits would round what was learned away: it goes into the base as it was before.
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as place:
        folders_of_adapters.save(tensors, written, tokenizer, place, Path(base))
        folders.save(folders_of_adapters.load(place, base), tokenizer, folder, recipe.save_precision)
