"""Sequence classifiers: which folders hold one, what it reads, what it answers, and a head for an encoder without.

A classifier reads the text of the user turns, without a chat template, and answers one of the labels that its config
lists (`id2label`). Whatever asks a model for text asks a classifier the same way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distill_dagster.errors import ModelError
from distill_dagster.models.draw import normal

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Kind = Literal["causal", "classifier", "encoder"]

CLASSIFIES = "ForSequenceClassification"
_WRITES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def kind(folder: str | Path) -> Kind:
    """What a model folder holds, from its `config.json`: a causal language model, a classifier, or a bare encoder.

    A bare encoder (`BertModel`, `RobertaForMaskedLM`) becomes a classifier with `with_head`.
    """
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "causal"  # `folder.check` says what is wrong with it.
    return kind_of(config if isinstance(config, dict) else {})


def kind_of(config: Mapping[str, Any]) -> Kind:
    """As `kind`, from what a `config.json` says."""
    name = str((config.get("architectures") or [""])[0])
    if name.endswith(CLASSIFIES):
        return "classifier"
    if name.endswith(_WRITES):
        return "causal"
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return "encoder" if config.get("model_type") in MODEL_FOR_MASKED_LM_MAPPING_NAMES else "causal"


def reads_with_an_encoder(folder: str | Path) -> bool:
    """Does a checked folder hold an encoder-decoder (BART, T5)? Its decoder alone says something else."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError):
        return False  # Loading the model says what is wrong with it.
    return bool(getattr(config, "is_encoder_decoder", False))


def is_classifier(model: PreTrainedModel) -> bool:
    """Is it a classifier, and no language model?"""
    return type(model).__name__.endswith(CLASSIFIES)


def labels(model: PreTrainedModel) -> tuple[str, ...]:
    """The answers of a classifier in the order of its logits; empty for any other model.

    Raises:
        ModelError: Two classes have one name, so an answer would not say which.
    """
    if not is_classifier(model):
        return ()
    named = {int(number): str(name) for number, name in (model.config.id2label or {}).items()}
    found = tuple(named[number] for number in sorted(named))
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise ModelError(
            str(model.name_or_path or "model"), f"several classes are named {twice[0]!r}.", "Rename them in id2label."
        )
    return found


def folder_labels(folder: str | Path) -> list[str]:
    """The labels of a classifier's folder in the order of its logits, from its `config.json` alone."""
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    named = {int(number): str(name) for number, name in (config.get("id2label") or {}).items()}
    # Two labels with the names that transformers gives are not written down.
    return [named[number] for number in sorted(named)] or ["LABEL_0", "LABEL_1"]


def shown(names: Sequence[str], most: int = 6) -> str:
    """Some labels for a message."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def text(messages: Sequence[Mapping[str, str]]) -> str:
    """What a classifier reads of a conversation: the user turns, a line each."""
    return "\n".join(message["content"] for message in messages if message["role"] == "user")


def name_labels(config: Any, names: Sequence[str]) -> None:
    """Write label names into a model's config."""
    config.num_labels = len(names)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    config.problem_type = "single_label_classification"


def with_head(folder: str | Path, names: Sequence[str], seed: int) -> PreTrainedModel:
    """A bare encoder's weights with a classification head of those labels, fp32.

    What the folder does not hold (the head, often a pooler) is drawn by name from `seed`, as BERT does: normal with
    the config's `initializer_range`, biases 0, norms 1.

    Raises:
        ModelError: transformers knows no classifier of this architecture, or cannot load it, or the folder lacks
            weights of the encoder itself.
    """
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    from distill_dagster.models.folder import check
    from distill_dagster.models.loading import require_weights, unloadable

    path = check(folder)
    before = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # It warns of the missing head, which is drawn below.
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            path,
            num_labels=len(names),
            dtype="float32",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = f"transformers cannot put a classification head on it ({error})."
        step = "Start from an encoder such as BERT, DistilBERT, RoBERTa or ModernBERT."
        raise unloadable(path, error, reason, step) from error
    finally:
        logging.set_verbosity(before)
    missing = set(report["missing_keys"])
    own = f"{model.base_model_prefix}."
    require_weights(path, (name for name in missing if name.startswith(own) and "pooler" not in name))
    name_labels(model.config, names)
    draw_missing(model, missing, seed)
    return model.eval()


def draw_missing(model: torch.nn.Module, missing: set[str], seed: int) -> None:
    """Draw the named parameters of a model from a seed."""
    import torch

    spread = float(getattr(model.config, "initializer_range", None) or 0.02)  # pyright: ignore
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name not in missing:
                continue
            if parameter.dim() >= 2:
                parameter.copy_(normal(seed, name, tuple(parameter.shape), spread))
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
