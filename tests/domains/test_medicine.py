"""The medicine plugin: splits, balance, verifiers against oracles that read the text, and what must not be written."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import islice

import pytest

from distill_dagster.domains import grammar
from distill_dagster.domains.base import PARTS, Item
from distill_dagster.domains.medicine.domain import domain

DOMAIN = domain()
TASKS = [task.name for task in DOMAIN.tasks]
COUNTS = {"teacher": 2000, "gold": 400, "unlabeled": 800, "validation": 400, "test": 800}


def make(task: str, part: str, count: int, seed: int = 0) -> Iterator[Item]:
    assert DOMAIN.items is not None
    return DOMAIN.items(task, part, count, seed)


@cache
def parts(task: str) -> dict[str, list[Item]]:
    return {part: list(make(task, part, count)) for part, count in COUNTS.items()}


def all_items(task: str) -> list[Item]:
    return [item for part in parts(task).values() for item in part]


def ok(task: str, item: Item, output: str) -> bool | None:
    assert DOMAIN.verify is not None
    return DOMAIN.verify(task, item.facts, output).ok


@pytest.mark.parametrize("task", TASKS)
def test_the_first_items_depend_on_the_seed_only(task: str) -> None:
    assert list(make(task, "gold", 30)) == list(islice(make(task, "gold", 300), 30))
    assert list(make(task, "gold", 30)) != list(make(task, "gold", 30, seed=1))


@pytest.mark.parametrize("task", TASKS)
def test_parts_share_no_skeleton_composition_subject_or_text(task: str) -> None:
    for attribute in ("skeleton", "composition", "subject_key", "text"):
        sets = [{getattr(item, attribute) for item in parts(task)[part]} for part in PARTS]
        assert sum(map(len, sets)) == len(set().union(*sets)), attribute


@pytest.mark.parametrize("task", TASKS)
def test_every_part_uses_words_that_the_teacher_part_has(task: str) -> None:
    known = set(re.findall(r"[^\W\d]+", " ".join(item.text.lower() for item in parts(task)["teacher"])))
    for item in all_items(task):
        assert set(re.findall(r"[^\W\d]+", item.text.lower())) <= known


@pytest.mark.parametrize("task", TASKS)
def test_variety(task: str) -> None:
    items = all_items(task)
    assert len({item.skeleton for item in items}) >= 100
    assert len({grammar.mask(item.text) for item in items}) >= 1000
    lengths = sorted(len(item.text.split()) for item in items)
    assert lengths[len(lengths) // 2] <= 50
    assert lengths[-1] <= 100


@pytest.mark.parametrize("task", TASKS)
def test_few_near_duplicates(task: str) -> None:
    shingles: list[set[tuple[str, ...]]] = []
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    near = 0
    items = parts(task)["teacher"][:1000]
    for item in items:
        words = item.text.lower().split()
        own = set(zip(words, words[1:], words[2:], strict=False))
        shared = Counter(index for shingle in own for index in holders[shingle])
        near += any(count >= 0.8 * (len(own) + len(shingles[index]) - count) for index, count in shared.items())
        for shingle in own:
            holders[shingle].append(len(shingles))
        shingles.append(own)
    assert near <= 0.2 * len(items)


@pytest.mark.parametrize("task", TASKS)
def test_the_verifier_knows_gold_from_a_corrupted_answer(task: str) -> None:
    items = parts(task)["test"]
    for item, other in zip(items, items[1:], strict=False):
        assert ok(task, item, item.answer) is True
        assert ok(task, item, f" {item.answer}\n") is True
        if other.answer != item.answer:
            assert ok(task, item, other.answer) is False
        assert ok(task, item, "") is False
    assert DOMAIN.verify is not None
    assert DOMAIN.verify(task, {}, items[0].answer).ok is None


def test_spellings_of_the_same_amount() -> None:
    in_mg = next(item for item in parts("dose")["teacher"] if re.fullmatch(r"\d+ mg", item.answer))
    number = int(in_mg.answer.split()[0])
    assert ok("dose", in_mg, f"{number}.0mg")
    assert ok("dose", in_mg, f"{number * 1000:,} micrograms")
    assert not ok("dose", in_mg, f"{number} micrograms")
    assert not ok("dose", in_mg, str(number))
    assert not ok("dose", in_mg, "refer")
    flags = next(item for item in parts("lab_flags")["teacher"] if item.answer.count(",") == 1)
    assert ok("lab_flags", flags, flags.answer.replace(", ", " and ").capitalize() + ".")
    assert not ok("lab_flags", flags, "none")


def test_labels_are_balanced_in_every_part() -> None:
    labels = DOMAIN.task("assertion").labels
    for part, items in parts("assertion").items():
        counts = Counter(item.answer for item in items)
        assert set(counts) == set(labels)
        assert min(counts.values()) >= 0.6 * len(items) / len(labels), part
        assert max(counts.values()) <= 1.5 * len(items) / len(labels), part


def test_refer_and_none_are_right_in_some_items_of_every_part() -> None:
    for part in PARTS:
        for task, answer, low in (("dose", "refer", 0.08), ("lab_flags", "none", 0.03)):
            share = sum(item.answer == answer for item in parts(task)[part]) / COUNTS[part]
            assert low <= share <= 0.15, (part, task, share)


def test_words_alone_do_not_give_the_status() -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    linear = pytest.importorskip("sklearn.linear_model")
    train, test = parts("assertion")["teacher"], parts("assertion")["test"]
    vectors = text.TfidfVectorizer(ngram_range=(1, 2))
    seen = vectors.fit_transform([item.text for item in train])
    model = linear.LogisticRegression(max_iter=100).fit(seen, [item.answer for item in train])
    right = model.predict(vectors.transform([item.text for item in test])) == [item.answer for item in test]
    assert right.mean() < 0.65


@pytest.mark.parametrize("task", ["lab_flags", "dose"])
def test_the_nearest_seed_does_not_give_the_answer(task: str) -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    train, test = parts(task)["teacher"], parts(task)["test"]
    vectors = text.TfidfVectorizer()
    seen = vectors.fit_transform([item.text for item in train])
    nearest = (vectors.transform([item.text for item in test]) @ seen.T).toarray().argmax(axis=1)
    assert sum(train[i].answer == item.answer for i, item in zip(nearest, test, strict=True)) < 0.4 * len(test)


def flags_by_reading(text: str) -> str:
    """Oracle for `lab_flags`: the current value is the first number of a row that is no limit and not earlier."""
    asked = re.search(r"^Asked: (.+)$", text, re.MULTILINE)
    assert asked
    report = text.replace(asked[0], "").strip().rstrip(".")
    found: dict[str, str] = {}
    for row in re.split(r"\n|; |\. (?=[A-Z])", re.sub(r" \((earlier|before:) [^)]*\)", "", report)):
        limits = re.search(r"(\d+\.?\d*)-(\d+\.?\d*)", row)
        if limits:
            name = re.split(r":| \d| \[|, range| was ", row)[0].lower()
            value = float(re.findall(r"(?<=[ :])\d+\.?\d*(?!\S*-)", row.replace(limits[0], ""))[0])
            found[name] = "low" if value < float(limits[1]) else "high" if value > float(limits[2]) else "normal"
    if asked[1] == "all out of range":
        return ", ".join(f"{name} {flag}" for name, flag in found.items() if flag != "normal") or "none"
    return ", ".join(f"{name} {found[name]}" for name in asked[1].split(", "))


def test_flags_agree_with_a_reading_of_the_text() -> None:
    for item in all_items("lab_flags"):
        assert flags_by_reading(item.text) == item.answer, item.text


def dose_by_reading(text: str) -> str:
    """Oracle for `dose`: works from the words that a model is shown."""
    said = re.search(r"(Patient[: ].*?)\.(?:\s|$)", text)
    assert said
    patient, monograph = said[1], text.replace(said[0], " ")

    def number(pattern: str, where: str) -> int | None:
        match = re.search(pattern, where)
        return int(match[1]) if match else None

    age = number(r"Patient(?: aged|:) (\d+)", patient)
    refers = re.search(r"If ([^;]*), refer|Refer: ([^.]*)\.", monograph)
    bad = re.search(r"liver disease|heart failure|asthma|epilepsy", refers[0] if refers else "")
    assert age and bad
    if age < 18 or bad[0] in patient:
        return "refer"
    basis = re.search(r"(actual|ideal) weight", monograph)
    weight = number(rf"{basis[1]} weight (\d+) kg", patient) if basis else None
    clearance = number(r"clearance (\d+)", patient)
    question = text.split("Question: ")[1]
    unit = "micrograms" if "microgram" in monograph else "mg"
    if split := re.search(r"Daily dose (\d+) \w+, given as (\d)", monograph):
        whole, pieces = int(split[1]), int(split[2])
        return f"{whole if question == 'daily dose?' else whole // pieces} {unit}"
    if often := re.search(
        r"Single dose (\d+) \w+, (\d) times a day; once a day if clearance .*? under (\d+)", monograph
    ):
        dose, times, edge = (int(group) for group in often.groups())
        if question == "single dose?":
            return f"{dose} {unit}"
        return "refer" if clearance is None else f"{dose * (times if clearance >= edge else 1)} {unit}"
    value = weight if basis else clearance
    if value is None:
        return "refer"
    if rate := re.search(r"Single dose (\d) \w+ per kg .*at most (\d+)", monograph):
        return f"{min(int(rate[1]) * value, int(rate[2]))} {unit}"
    outcome = ""
    for tier in re.finditer(r"(under|over)? ?(\d+)(?: to (\d+))?(?: kg)?( or more)?: (refer|\d+)", monograph):
        kind, low, high, more, dose = tier.groups()
        low = int(low)
        fits = value < low if kind == "under" else value > low if kind == "over" else value >= low
        if fits and (high is None or value <= int(high)):
            assert not outcome, "two tiers fit"
            outcome = dose
    if outcome == "refer":
        return "refer"
    if strength := number(r"Whole tablets of (\d+)", monograph):
        count = int(outcome) / strength
        return "refer" if count != int(count) else f"{int(count)} tablet{'' if count == 1 else 's'}"
    return f"{outcome} {unit}"


def test_doses_agree_with_a_reading_of_the_text() -> None:
    for item in all_items("dose"):
        assert dose_by_reading(item.text) == item.answer, item.text


def test_what_makes_a_practitioner_wince_is_not_written() -> None:
    for item in all_items("dose"):
        rule, patient = item.facts["rule"], item.facts["patient"]
        assert rule["unit"] in ("mg", "micrograms")
        assert ("micrograms" in item.text or "microgram " in item.text) == (rule["unit"] == "micrograms")
        assert re.search(r"\bfictional\b", item.text, re.IGNORECASE) and "adults" in item.text
        assert item.answer == "refer" or patient["age"] >= 18
        if rule.get("basis"):
            assert rule["basis"] in item.text
        if "by clearance" in item.text:
            assert "Cockcroft-Gault" in item.text
    for item in all_items("lab_flags"):
        assert "adult ranges" in item.text.lower() and "limits" in item.text
        assert all(result["unit"] in item.text for result in item.facts["results"])
    for task in TASKS:
        for item in all_items(task):
            assert not re.search(r"\b(race|black|white|urgent|emergency)\b", item.text, re.IGNORECASE)
        full, short = DOMAIN.template(task, "full"), DOMAIN.template(task, "short")
        assert "no medical advice" in full.system and "{{ input }}" not in full.system
        assert "{{ input }}" in full.user and "{{ input }}" in short.user and not short.system
    assert "No medical advice" in DOMAIN.notice
