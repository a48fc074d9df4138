"""Folding and words: how texts are compared.

Numbers are whole words (`1,200.50` is one), so that a changed figure is a changed word and nothing less. Chinese
and Japanese characters are a word each, since nothing separates their words.
"""

from __future__ import annotations

import re

_NUMBER = r"(?:(?<!\S)[-+\u2212])?\d+(?:[.,:/-]\d+)*"
_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
#: Words first, signs of numbers last, nothing tried twice: half the time of `_NUMBER` on the texts that most are.
_ASCII = re.compile(r"[a-z]++|[0-9]+(?:[.,:/-][0-9]+)*|(?<!\S)[-+][0-9]+(?:[.,:/-][0-9]+)*|[%$]")
_UNICODE = re.compile(rf"{_NUMBER}|[{_CJK}]|(?:(?![{_CJK}])[^\W\d_])+|[%‰$€£¥]")
_THOUSANDS = re.compile(r"[-+\u2212]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")

#: Numbers that are written out. "one" is left out: it is a pronoun more often, and its change to another number
#: still brings in or takes away a word of this list.
# fmt: off
_SPELLED = frozenset(
    (
        "zero", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
        "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty", "thirty",
        "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred", "thousand", "million", "billion",
    )
)
# fmt: on


def fold(text: str) -> str:
    """Text with case and white space folded."""
    return " ".join(text.casefold().split())


def words(text: str) -> list[str]:
    """Lower-case words, numbers and signs that matter (per cent, currencies), in order; punctuation is left out."""
    lowered = text.casefold()
    return (_ASCII if lowered.isascii() else _UNICODE).findall(lowered)


def is_number(word: str) -> bool:
    """Whether a word of `words` is a number, in digits or written out."""
    return word[-1:].isdecimal() or word in _SPELLED


def plain_number(word: str) -> str:
    """A number without thousands separators, so that `1,200` equals `1200`; other words unchanged."""
    return word.replace(",", "") if _THOUSANDS.fullmatch(word) else word
