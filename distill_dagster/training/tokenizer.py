"""Tokenizers for presets: byte-level BPE fitted on texts, or bytes alone.

Every digit is a token of its own, so that numbers are read digit by digit. The chat format is one special token a
role, the content, and `<|end|>`; its template lies in `tokenizer_config.json`. An encoder's has no chat format: it
puts `<|cls|>` before a text, where a classifier pools, and `<|end|>` behind it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distill_dagster.errors import TrainingError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAD, END = "<|pad|>", "<|end|>"
SPECIAL = (PAD, END, "<|user|>", "<|assistant|>", "<|system|>")
CLASSIFY = "<|cls|>"
SMALLEST = 256 + len(SPECIAL)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role ' + message['role']) }}{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def fit(
    texts: Iterable[str], vocabulary: int | Literal["bytes"], folder: str | Path, encoder: bool = False
) -> PreTrainedTokenizerBase:
    """Fit a tokenizer of at most `vocabulary` tokens and save it; `"bytes"` needs no texts.

    `encoder` makes one for a classifier instead of a conversation.

    The result depends on the set of texts only, not on their order or repetition (Sennrich et al. 2016, on bytes).

    Raises:
        TrainingError: No text to fit on, or a vocabulary too small for 256 bytes and the special tokens.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    special = (PAD, END, CLASSIFY) if encoder else SPECIAL
    smallest = 256 + len(special)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    if vocabulary != "bytes" and vocabulary < smallest:
        raise TrainingError(
            "tokenizer", f"a vocabulary of {vocabulary} is too small.", f"Give at least {smallest}, or `bytes`."
        )
    distinct = [] if vocabulary == "bytes" else sorted({text for text in texts if text})
    if vocabulary != "bytes" and not distinct:
        raise TrainingError("tokenizer", "there is no text to fit it on.", "Give texts, or the vocabulary `bytes`.")
    trainer = trainers.BpeTrainer(
        vocab_size=smallest if vocabulary == "bytes" else vocabulary,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(distinct, trainer)
    if encoder:
        numbered = [(token, tokenizer.token_to_id(token)) for token in (CLASSIFY, END)]
        tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
            single=f"{CLASSIFY} $A {END}", special_tokens=numbered
        )
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    (path / "tokenizer.json").write_text(tokenizer.to_str(pretty=False), encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": list(SPECIAL[2:]),
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000,
        "chat_template": CHAT_TEMPLATE,
    }
    if encoder:
        del config["chat_template"], config["additional_special_tokens"]
        config |= {"cls_token": CLASSIFY, "sep_token": END}
    (path / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    from distill_dagster.models.folder import load_tokenizer

    return load_tokenizer(path)
