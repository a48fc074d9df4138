"""Masking: nothing that is found survives it, twice is once, and equal values keep equal tags."""

from __future__ import annotations

import random
import re

from hypothesis import given
from hypothesis import strategies as st

from distill_dagster.privacy.mask import find, is_secret, mask
from privacy.identifiers import PLAIN, disguised

PIECES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["&amp;#64;", "%40", "[EMAIL_1]", "@", "+49 ", "1-", "://", ":", "\\u0040", "born ", "tel ", "\u200b"]
    ),
    st.builds(lambda kind, seed: PLAIN[kind](random.Random(seed)), st.sampled_from(sorted(PLAIN)), st.integers(0, 999)),
    st.builds(
        lambda kind, seed: disguised(random.Random(seed), PLAIN[kind](random.Random(seed))),
        st.sampled_from(sorted(PLAIN)),
        st.integers(0, 999),
    ),
)
TEXTS = st.lists(PIECES, max_size=6).map("".join)


@given(st.lists(TEXTS, max_size=3))
def test_no_finding_survives_and_twice_is_once(texts: list[str]) -> None:
    masked, counts = mask(texts)
    assert len(masked) == len(texts)
    assert all(not find(text) for text in masked)
    assert mask(masked) == (masked, {})
    assert (masked == texts) == (not counts)


@given(TEXTS)
def test_what_is_not_found_stays(text: str) -> None:
    found = find(text)
    rest, at = [], 0
    for one in found:
        assert at <= one.start < one.end <= len(text)
        rest.append(text[at : one.start])
        at = one.end
    rest.append(text[at:])
    (masked,), _ = mask([text])
    if len(found) == sum(mask([text])[1].values()):  # one round was enough
        assert re.sub(r"\[[A-Z_]+_\d+\]", "\0", masked) == re.sub(r"\[[A-Z_]+_\d+\]", "\0", "\0".join(rest))


def test_equal_values_get_equal_tags_in_one_record() -> None:
    texts = [
        "Ask jane@example.com or joe@example.com.",
        "JANE@example.com, card 4111 1111 1111 1111",
        "4111-1111-1111-1111",
    ]
    masked, counts = mask(texts)
    assert masked == ["Ask [EMAIL_1] or [EMAIL_2].", "[EMAIL_1], card [CARD_1]", "[CARD_1]"]
    assert counts == {"CARD": 2, "EMAIL": 3}
    assert mask(["joe@example.com"])[0] == ["[EMAIL_1]"]


def test_a_tag_of_the_record_is_not_taken() -> None:
    assert mask(["[EMAIL_1] is not jane@example.com"])[0] == ["[EMAIL_1] is not [EMAIL_2]"]


def test_only_the_wanted_kinds() -> None:
    from distill_dagster.privacy.mask import Masker

    text = "jane@example.com has AKIAIOSFODNN7EXAMPLE"
    assert Masker([text], is_secret).mask(text) == "jane@example.com has [API_KEY_1]"
