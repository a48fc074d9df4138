"""Near duplicates against an oracle that shares no code with the package: plain sets and all pairs."""

from __future__ import annotations

import json
import random
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_dagster.config.models import Block
from distill_dagster.filtering import engine
from distill_dagster.filtering._leakage import leaks
from distill_dagster.filtering._minhash import bands_for, near_pairs, stand_ins
from distill_dagster.filtering._text import words
from distill_dagster.records.tables import build

VOCABULARY = [a + b for a in ("bal", "cor", "dem", "fin", "gur", "hol", "jin") for b in ("a", "eto", "is", "um", "ock")]


def tokens(text):
    return re.findall(r"\d+|[a-z]+", text.lower())


def oracle(a, b, figures=True):
    """Jaccard similarity of the sets of three words in a row; 0 where the figures differ."""
    left, right = tokens(a), tokens(b)
    if figures and [w for w in left if w.isdigit()] != [w for w in right if w.isdigit()]:
        return 0.0
    sets = [{tuple(w[at : at + 3]) for at in range(max(1, len(w) - 2))} if w else set() for w in (left, right)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1]) if sets[0] and sets[1] else 0.0


def corpus(seed, count):
    """Texts with planted repeats: none, one or a few words changed, one number changed, words moved."""
    rng = random.Random(seed)
    texts = []
    for at in range(count):
        if at > 5 and rng.random() < 0.5:
            w = rng.choice(texts).split()
            kind = rng.randrange(5)
            if kind == 1:
                for _ in range(rng.randrange(1, 4)):
                    w[rng.randrange(len(w))] = rng.choice(VOCABULARY)
            elif kind == 2:
                places = [i for i, word in enumerate(w) if word.isdigit()]
                if places:
                    w[rng.choice(places)] = str(rng.randrange(100))
            elif kind == 3:
                cut = rng.randrange(len(w))
                w = w[cut:] + w[:cut]
            elif kind == 4:
                w = [word.upper() + rng.choice(("", ",", ".")) for word in w]
            texts.append(" ".join(w))
        else:
            size = rng.choice((1, 2, 3, 8, 20, 40, 60))
            texts.append(
                " ".join(
                    str(rng.randrange(100)) if rng.random() < 0.08 else rng.choice(VOCABULARY) for _ in range(size)
                )
            )
    return texts


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("figures", [True, False])
def test_pairs_equal_the_oracle(threshold, figures):
    texts = corpus(7, 260)
    wanted = {
        (i, j): round(oracle(texts[i], texts[j], figures), 9)
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
        if oracle(texts[i], texts[j], figures) >= threshold
    }
    pairs = near_pairs(texts, threshold=threshold, numbers="distinct" if figures else "words")
    found = {(int(i), int(j)): round(float(s), 9) for i, j, s in zip(*pairs, strict=True)}
    assert len(wanted) > 100 and found == wanted


def test_pairs_between_two_sets_equal_the_oracle():
    texts = corpus(3, 300)
    left, right = texts[:120], texts[120:]
    wanted = {(i, j) for i, a in enumerate(left) for j, b in enumerate(right) if oracle(a, b) >= 0.8}
    pairs = near_pairs(left, right)
    assert wanted and set(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)) == wanted
    assert len(near_pairs([], right).left) == len(near_pairs(left, []).left) == len(near_pairs([]).left) == 0


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), anchors=st.integers(0, 60))
def test_stand_ins_equal_the_greedy_oracle(seed, anchors):
    texts = corpus(seed, 60)
    kept: list[int] = []
    wanted = []
    for at, text in enumerate(texts):
        near = [other for other in kept if other < anchors and oracle(texts[other], text) >= 0.8]
        wanted.append(near[0] if near else -1)
        if not near:
            kept.append(at)
    twins, similarity = stand_ins(texts, anchors=anchors)
    assert twins.tolist() == wanted
    for at, twin in enumerate(wanted):
        assert similarity[at] == pytest.approx(oracle(texts[twin], texts[at]) if twin >= 0 else 0.0)


def test_one_number_makes_another_question(make, candidate):
    base = (
        "please pay {} euros to the supplier named in the order on the last working day of the month and charge "
        "the fee of the bank to our current account as we agreed in the spring of the year before"
    )
    texts = [base.format(n) for n in (120, 130, "1,200", "1200", "three", "four")] + [base.format(120) + " please"]
    assert oracle(texts[0], texts[1], figures=False) >= 0.8
    table, context = make([candidate(number, text) for number, text in enumerate(texts)])
    kept = engine.run(table, [Block(name="near_duplicate")], "first", context).kept
    assert kept == [0, 1, 2, 4, 5]
    kept = engine.run(
        table, [Block.model_validate({"name": "near_duplicate", "numbers": "words"})], "first", context
    ).kept
    assert kept == [0]


def test_near_duplicate_stays_inside_task_and_group(make, candidate):
    text = "my new card has not come yet although it was sent two weeks ago by post to my old address"
    rows = [
        candidate(0, text, "card arrival"),
        candidate(1, text + " again", "card arrival", task="sum"),
        candidate(2, text + " again", "other", sample=1),
        candidate(3, text + " again", "Card  Arrival"),
    ]
    table, context = make(rows)

    def kept(**params):
        block = Block.model_validate({"name": "near_duplicate", **params})
        return engine.run(table, [block], "first", context).kept

    assert kept() == [0, 1]
    assert kept(per="answer") == [0, 1, 2]
    assert kept(per="sample") == [0, 1, 2]


def test_words_of_other_scripts_and_numbers():
    assert words("Pay 1,200.50 EUR (5%) by 2031-05-14, or -3!") == [
        "pay", "1,200.50", "eur", "5", "%", "by", "2031-05-14", "or", "-3"
    ]  # fmt: skip
    assert words("合同第3条 ABC") == ["合", "同", "第", "3", "条", "abc"]
    chinese = "租户应当在发现缺陷之后的第一个月之内以书面形式通知房东并附上照片和说明材料"
    assert len(near_pairs([chinese, chinese.replace("照片", "图片"), chinese[::-1]], threshold=0.7).left) == 1


def test_a_pair_at_the_threshold_is_hardly_ever_missed():
    for threshold in (0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0):
        bands, rows = bands_for(threshold)
        assert bands * rows <= 128 and (1 - threshold**rows) ** bands <= 1e-4


def test_ten_thousand_texts_take_seconds():
    rng = random.Random(1)
    vocabulary = [f"{a}{b}" for a in VOCABULARY for b in VOCABULARY]
    texts = [" ".join(rng.choices(vocabulary, k=40)) for _ in range(7_000)]
    texts += [text.rsplit(" ", 1)[0] for text in texts[:3_000]]
    start = time.process_time()
    twins, _ = stand_ins(texts)
    assert time.process_time() - start < 3
    assert np.array_equal(np.flatnonzero(twins >= 0), np.arange(7_000, 10_000))


def seeds_of(texts, subjects=None):
    rows = [
        {
            "task": "t",
            "part": "gold",
            "messages": [{"role": "user", "parts": [{"type": "text", "text": text, "blob": None, "media_type": None}]}],
            "subject_key": (subjects or {}).get(at),
        }
        for at, text in enumerate(texts)
    ]
    return build("seed", rows)


def test_leaks_by_text_subject_and_near_match():
    long = "my new card has not come yet although it was sent some weeks ago by post to my old address in town"
    seeds = seeds_of(["Where is it?", long, "pay 5 now", "a fee"], {3: "customer 9"})
    items = seeds_of(
        ["Where is it?", "where IS it?", long + " again", "pay 6 now", "nothing in common here", "another fee"],
        {4: "customer 9", 5: "customer 8"},
    )
    found = leaks(seeds, items)
    samples = found.pop("samples")
    assert found == {"record": 1, "folded": 2, "near": 3, "subject": 1}
    assert {sample["kind"] for sample in samples} == {"record", "folded", "near", "subject"}
    assert all(set(sample) == {"kind", "eval_record", "seed_record", "similarity"} for sample in samples)
    clean = leaks(seeds, seeds_of(["quite another question"]))
    assert clean == {"record": 0, "folded": 0, "near": 0, "subject": 0, "samples": []}


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "record", "folded"), [("finance/banking77", 6, 7), ("medicine/medquad", 0, 9)])
def test_known_leaks_of_real_data_are_found(real_data, name, record, folded):
    def inputs(split):
        lines = (real_data / f"{name}.{split}.jsonl").read_text(encoding="utf-8").splitlines()
        return seeds_of([json.loads(line)["input"] for line in lines])

    found = leaks(inputs("train"), inputs("test"))
    assert (found["record"], found["folded"]) == (record, folded) and found["near"] >= folded


@pytest.mark.real_data
def test_known_duplicates_of_real_data_are_found(real_data, make, candidate):
    lines = (real_data / "medicine/medquad.train.jsonl").read_text(encoding="utf-8").splitlines()
    inputs = [json.loads(line)["input"] for line in lines]
    table, context = make([candidate(at, text) for at, text in enumerate(inputs)])
    outcome = engine.run(table, [Block(name="exact_duplicate")], "first", context)
    assert outcome.funnel == {"exact_duplicate": 80}
    # Of the 80, those whose very bytes stood there before.
    clusters: dict[int, set[str]] = {}
    byte_equal = 0
    for row in outcome.duplicates.to_pylist():
        known = clusters.setdefault(row["cluster"], {inputs[row["kept_no"]]})
        byte_equal += inputs[row["dropped_no"]] in known
        known.add(inputs[row["dropped_no"]])
    assert byte_equal == 63


@pytest.mark.real_data
def test_the_known_numbers_are_what_counting_gives(real_data):
    """By brute force, with nothing of the package: the numbers that the tests above expect."""

    def inputs(name):
        return [json.loads(line)["input"] for line in (real_data / name).read_text("utf-8").splitlines()]

    def folded(texts):
        return [re.sub(r"\s+", " ", text.casefold()).strip() for text in texts]

    for name, byte_equal, fold_equal in (("finance/banking77", 6, 7), ("medicine/medquad", 0, 9)):
        train, test = inputs(f"{name}.train.jsonl"), inputs(f"{name}.test.jsonl")
        known, known_folded = set(train), set(folded(train))
        assert sum(text in known for text in test) == byte_equal
        assert sum(text in known_folded for text in folded(test)) == fold_equal
    assert (len(train) - len(set(train)), len(train) - len(set(folded(train)))) == (63, 80)


@given(st.text("ab1 2,.:/-+%$\t\n", max_size=60))
def test_words_of_ascii_are_those_of_the_plain_definition(text):
    """The quick pattern gives what the slow one says: signed numbers only behind white space, separators inside."""
    slow = re.compile(r"(?:(?<!\S)[-+])?\d+(?:[.,:/-]\d+)*|[a-z]+|[%$]")
    assert words(text) == slow.findall(text)
