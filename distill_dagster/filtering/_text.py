"""Folding and words: how texts are compared.

Numbers are whole words (`1,200.50` is one), so that a changed figure is a changed word and nothing less. Chinese
and Japanese characters are a word each, since nothing separates their words, and so are Thai, Lao, Khmer and Burmese
letters with their vowels. Emoji are words too: two texts may differ in nothing else.
"""

from __future__ import annotations

import html
import re
import unicodedata

_NUMBER = r"(?:(?<!\S)[-+\u2212])?\d+(?:[.,:/-]\d+)*"
_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
#: Words first, signs of numbers last, nothing tried twice: half the time of `_NUMBER` on the texts that most are.
_ASCII = re.compile(r"[a-z]++|[0-9]+(?:[.,:/-][0-9]+)*|(?<!\S)[-+][0-9]+(?:[.,:/-][0-9]+)*|[%$]")
#: Letters of scripts that set no blanks between words, and vowels that stand before and after their consonant.
_UNSPACED, _BEFORE, _AFTER = (
    r"\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff",
    r"\u0e40-\u0e44\u0ec0-\u0ec4",
    r"\u0e30\u0e32\u0eb0\u0eb2",
)
#: Vowel signs, accents: no letters to `re`, and yet parts of a word.
_MARKS = "".join(char for code in range(0x300, 0xAC00) if unicodedata.category(char := chr(code))[0] == "M")
_ALONE = rf"{_CJK}{_UNSPACED}"
_EMOJI = r"\u2600-\u27bf\U0001f300-\U0001faff"
_UNICODE = re.compile(
    rf"{_NUMBER}|[{_CJK}]|[{_BEFORE}]?(?![{_BEFORE}])(?:(?=[{_UNSPACED}])[^\W\d_])[{_MARKS}{_AFTER}]*"
    rf"|(?![{_ALONE}])[^\W\d_](?:(?![{_ALONE}])[^\W\d_]|[{_MARKS}])*|[%‰$€£¥{_EMOJI}]"
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_RAISED = re.compile("[\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209c\u2150-\u215f\u2189]+")
_DIGIT = re.compile(r"(?![0-9])\d")
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0]"
)
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


def plain(text: str) -> str:
    """Text in the one form of all that read the same.

    Compatibility forms (NFKC), HTML entities, other scripts' digits and characters that show nothing (zero-width,
    soft hyphens, marks of direction) make no other text. Superscripts and fractions stay numbers of their own.
    """
    if "&" in text:
        text = _ENTITY.sub(lambda found: html.unescape(found.group()), text)
    if text.isascii():
        return text
    text = unicodedata.normalize("NFKC", _RAISED.sub(r" \g<0> ", text)).replace("\u2044", "/")
    return _DIGIT.sub(lambda found: str(unicodedata.decimal(found.group())), _UNSEEN.sub("", text))


def fold(text: str) -> str:
    """Text in its plain form with case and white space folded."""
    return " ".join(plain(text).casefold().split())


def words(text: str) -> list[str]:
    """Lower-case words, numbers and signs that matter (per cent, currencies), in order; punctuation is left out."""
    lowered = plain(text).casefold()
    return (_ASCII if lowered.isascii() else _UNICODE).findall(lowered)


def is_number(word: str) -> bool:
    """Whether a word of `words` is a number, in digits or written out."""
    return word[-1:].isdecimal() or word in _SPELLED


def plain_number(word: str) -> str:
    """A number without thousands separators, so that `1,200` equals `1200`; other words unchanged."""
    return word.replace(",", "") if _THOUSANDS.fullmatch(word) else word
