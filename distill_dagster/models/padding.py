"""Which token fills the rows of a batch up to one length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_dagster.models.classifier import is_classifier

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokenizer's padding token; its end token, or 0, where the model has no embedding of that one.

    Nothing that is computed depends on which it is, since it stands behind a text or is masked; but for a decoder with
    a classification head, which finds the end of a text by the padding token of its config. There it is written down.
    """
    size = model.get_input_embeddings().weight.shape[0]  # pyright: ignore
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    number = next(int(one) for one in known if one is not None and int(one) < size)  # pyright: ignore
    if is_classifier(model) and _pools_by_padding(model):
        model.config.get_text_config().pad_token_id = number
    return number


def _pools_by_padding(model: PreTrainedModel) -> bool:
    # An encoder pools at the start, or by the mask; RoBERTa's positions even count from its config's padding token.
    from transformers.models.auto import modeling_auto as known

    sort = model.config.model_type
    return sort in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and sort not in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES
