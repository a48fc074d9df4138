"""What a model reads: a conversation in its tokenizer's chat format."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from distill_dagster.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: The day in every template that writes today's date, as in Llama's own where nobody tells it the day. By the clock,
#: a conversation would be other tokens tomorrow, and no signals, checkpoint or measurement of today would fit it.
DATE = "26 Jul 2024"
#: What `strftime_now` says on that day, a Friday, at midnight.
_CODES = {
    "%d": "26", "%-d": "26", "%e": "26", "%j": "208", "%m": "07", "%-m": "7", "%b": "Jul", "%B": "July", "%Y": "2024",
    "%y": "24", "%a": "Fri", "%A": "Friday", "%F": "2024-07-26", "%H": "00", "%I": "12", "%p": "AM", "%M": "00",
    "%S": "00", "%T": "00:00:00",
}  # fmt: skip
#: Stands before such a template: a macro of this name hides the function that asks the clock. What a caller hands to
#: a template beside it loses its functions, so it cannot be handed one. The template begins on a line of its own.
_NOW = (
    "{% macro strftime_now(format) %}{% set said = namespace(text=format) %}"
    f"{{% for code, text in {_CODES!r}.items() %}}"
    "{% set said.text = said.text | replace(code, text) %}{% endfor %}{{ said.text }}{% endmacro %}\n"
)


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

    Where its template writes today's date, it is always that of `DATE`.

    Raises:
        ModelError: The template does not take such a conversation, for example an unknown role.
    """
    from jinja2 import TemplateError

    template = str(tokenizer.get_chat_template())
    fixed: dict[str, Any] = {"chat_template": _NOW + template} if "strftime_now" in template else {}
    try:
        return str(
            tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=prompt, **fixed
            )
        )
    except TemplateError as error:
        raise ModelError(
            str(tokenizer.name_or_path or "tokenizer"),
            f"its chat template refuses the roles {[message['role'] for message in messages]} ({error}).",
            "Use the roles system, user and assistant, in an order the model knows.",
        ) from error


def chat_tokens(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], prompt: bool) -> list[int]:
    """Token ids of a conversation in its chat format; with `prompt`, up to where the assistant begins to speak.

    Control tokens come from the template alone: a record whose text spells one (`<|im_end|>`) could otherwise end its
    own turn and speak as somebody else.

    Raises:
        ModelError: As `render`.
    """
    control = _control(tokenizer)
    if control is None or not any(control.search(message["content"]) for message in messages):
        return tokens(tokenizer, render(tokenizer, messages, prompt), False)
    said = "".join(message["content"] for message in messages)
    # A character for private use that nobody used stands around the number of what was taken out.
    fence = next(sign for sign in map(chr, range(0xE000, 0xF900)) if sign not in said)
    spelled: list[str] = []

    def take_out(found: re.Match[str]) -> str:
        spelled.append(found.group())
        return f"{fence}{len(spelled) - 1}{fence}"

    fenced = [{**message, "content": control.sub(take_out, message["content"])} for message in messages]
    ids: list[int] = []
    for place, piece in enumerate(render(tokenizer, fenced, prompt).split(fence)):
        ids += plain_tokens(tokenizer, spelled[int(piece)], False) if place % 2 else tokens(tokenizer, piece, False)
    return ids


@lru_cache(maxsize=8)
def _control(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str] | None:
    """Finds what a tokenizer reads as a control token, the longest first; None where it has none."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    names = sorted({*added, *tokenizer.all_special_tokens} - {""}, key=lambda name: (-len(name), name))
    return re.compile("|".join(map(re.escape, names))) if names else None


def plain_tokens(tokenizer: PreTrainedTokenizerBase, text: str, special: bool) -> list[int]:
    """Token ids of a text in which nothing is a control token; `special` as in `tokens`."""
    return list(
        tokenizer(text, add_special_tokens=special, split_special_tokens=True, verbose=False)["input_ids"]  # pyright: ignore
    )


def tokens(tokenizer: PreTrainedTokenizerBase, text: str, special: bool) -> list[int]:
    """Token ids of a text; with `special`, what the tokenizer puts around a text (a beginning token) as well."""
    return list(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])  # pyright: ignore
