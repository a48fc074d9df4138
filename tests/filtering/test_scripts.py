"""One text in many writings: whatever looks the same to a reader is compared as the same, in every script."""

from __future__ import annotations

import unicodedata

import pytest

from distill_dagster.config.models import Block
from distill_dagster.filtering import engine
from distill_dagster.filtering._text import fold, plain, words

ITEM = "Does the résumé of the café's naïve owner mention the façade of the old hotel in Zürich, or not?"
KOREAN = "이 계약은 해지 통지 기간을 명시하고 있습니까 아니면 그렇지 않습니까"
COPIES = {
    "decomposed": unicodedata.normalize("NFD", ITEM),
    "full width": "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in ITEM),
    "zero width": "\u200b".join(ITEM),
    "soft hyphens": ITEM.replace("owner", "ow\u00adner").replace("hotel", "ho\u00adtel").replace("old", "o\u00adld"),
    "direction": ITEM.replace(" ", "\u200f "),
    "HTML": "<p>" + ITEM.replace(" ", "&nbsp;").replace("é", "&eacute;").replace("'", "&#39;") + "</p>",
}


@pytest.mark.parametrize("name", COPIES)
def test_another_writing_of_an_evaluation_item_is_found(make, candidate, name) -> None:
    table, context = make([candidate(0, COPIES[name])], evaluation=[ITEM])
    assert engine.run(table, [Block(name="decontamination")], "first", context).kept == []
    table, context = make([candidate(0, ITEM), candidate(1, COPIES[name])])
    assert engine.run(table, [Block(name="near_duplicate")], "first", context).kept == [0]


def test_korean_in_single_letters_is_the_same_text(make, candidate) -> None:
    table, context = make([candidate(0, unicodedata.normalize("NFD", KOREAN))], evaluation=[KOREAN])
    decision = engine.run(table, [Block(name="decontamination")], "first", context).decisions.to_pylist()[0]
    assert decision["reason"] == "decontamination.exact"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("राम ने काम की किताब पढ़ी", "रीम नि कमी का कोताब पाढ़ो"),  # vowel signs are no letters to `re`
        ("we love it 😀", "we love it 😡"),
        ("a field of 10² m", "a field of 102 m"),
        ("¾ of a cup of it", "34 of a cup of it"),
    ],
)
def test_other_words_in_any_script_are_other_texts(make, candidate, one, other) -> None:
    table, context = make([candidate(0, one), candidate(1, other)])
    rules = [Block(name="exact_duplicate"), Block(name="near_duplicate")]
    assert engine.run(table, rules, "first", context).kept == [0, 1]


def test_words_of_many_scripts() -> None:
    assert words("समाप्ति की सूचना") == ["समाप्ति", "की", "सूचना"]
    assert words("هَلْ يَذكُرُ") == ["هَلْ", "يَذكُرُ"]
    assert words("ไม่รู้") == ["ไม่", "รู้"]
    assert words("ไป เวลา") == ["ไป", "เว", "ลา"]
    assert words("東京は") == ["東", "京", "は"]
    assert words("٣٫٥ kg, ３ kg") == ["3", "5", "kg", "3", "kg"]
    assert words("m² ½") == ["m", "2", "1/2"]
    assert fold("Ｃａｒｄ\u00a0 ＦＥＥ") == "card fee"


@pytest.mark.parametrize("text", ["", "plain", "AT&T; R&D", "a & b", "x\0y", "&unknown;", "&#xd800;", "\ud800 é"])
def test_odd_texts_have_a_plain_form(text) -> None:
    assert plain(plain(text)) == plain(text)
    assert isinstance(words(text), list)
