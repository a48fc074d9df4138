"""What a model reads: a conversation in its tokenizer's chat format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from distill_dagster.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def require_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """ModelError where a tokenizer has no chat template."""
    if not tokenizer.chat_template:
        raise ModelError(
            str(tokenizer.name_or_path or "tokenizer"),
            "its tokenizer has no chat template.",
            "Say `template: plain` for it, or use a model that was made for conversations.",
        )


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], prompt: bool) -> str:
    """A conversation as text; with `prompt`, up to where the assistant begins to speak.

    Raises:
        ModelError: The template does not take such a conversation, for example an unknown role.
    """
    from jinja2 import TemplateError

    try:
        return str(
            tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=prompt
            )
        )
    except TemplateError as error:
        raise ModelError(
            str(tokenizer.name_or_path or "tokenizer"),
            f"its chat template refuses the roles {[message['role'] for message in messages]} ({error}).",
            "Use the roles system, user and assistant, in an order the model knows.",
        ) from error


def tokens(tokenizer: PreTrainedTokenizerBase, text: str, special: bool) -> list[int]:
    """Token ids of a text; with `special`, what the tokenizer puts around a text (a beginning token) as well."""
    return list(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])  # pyright: ignore
