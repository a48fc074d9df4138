"""The law domain: its grammar keeps the promises of `Grammar`, its gold is right, and its words do not give it away."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from datetime import date, timedelta
from functools import cache

import pytest

from distill_dagster.domains.base import PARTS, Item
from distill_dagster.domains.grammar import mask
from distill_dagster.domains.law.domain import GRAMMARS, domain

DOMAIN = domain()
NAMES = [task.name for task in DOMAIN.tasks]
COUNTS = {"teacher": 1800, "gold": 300, "unlabeled": 400, "validation": 300, "test": 500}
MONTHS = [date(2001, month, 1).strftime("%B") for month in range(1, 13)]


@cache
def made(task: str, part: str) -> tuple[Item, ...]:
    assert DOMAIN.items is not None
    return tuple(DOMAIN.items(task, part, COUNTS[part], 11))


def everything(task: str) -> list[Item]:
    return [item for part in PARTS for item in made(task, part)]


def judged(task: str, item: Item, output: str) -> bool | None:
    assert DOMAIN.verify is not None
    return DOMAIN.verify(task, item.facts, output).ok


def test_one_task_of_each_kind_with_both_templates() -> None:
    assert [task.kind for task in DOMAIN.tasks] == ["label", "text", "verified"]
    for name in NAMES:
        for style in ("full", "short"):
            template = DOMAIN.template(name, style)
            assert "{{ input }}" in template.user and "{{ input }}" not in template.system
        assert "fictional" in DOMAIN.template(name, "full").system
        assert "not legal advice" in DOMAIN.template(name, "full").system


@pytest.mark.parametrize("task", NAMES)
def test_items_are_deterministic_and_prefix_stable(task: str) -> None:
    assert DOMAIN.items is not None
    first = list(DOMAIN.items(task, "gold", 60, 11))
    assert first == list(made(task, "gold")[:60])
    assert first != list(DOMAIN.items(task, "gold", 60, 12))


@pytest.mark.parametrize("task", NAMES)
@pytest.mark.parametrize("aspect", ["skeleton", "composition", "subject_key", "text"])
def test_parts_are_disjoint(task: str, aspect: str) -> None:
    owner: dict[str, str] = {}
    for part in PARTS:
        for item in made(task, part):
            assert owner.setdefault(getattr(item, aspect), part) == part


@pytest.mark.parametrize("task", NAMES)
def test_skeletons_and_masked_texts_are_many(task: str) -> None:
    assert len(GRAMMARS[task].skeletons) >= 100
    assert len({mask(item.text) for item in everything(task)}) >= 1000


@pytest.mark.parametrize("task", NAMES)
def test_held_out_parts_use_only_words_of_the_teacher_part(task: str) -> None:
    def words(part: str) -> set[str]:
        return {
            word for item in made(task, part) for word in re.findall(r"[a-z]+", f"{item.text} {item.answer}".lower())
        }

    known = words("teacher")
    assert len(known) <= 1200
    for part in PARTS:
        assert words(part) <= known


@pytest.mark.parametrize("task", NAMES)
def test_texts_are_short(task: str) -> None:
    lengths = sorted(len(item.text.split()) for item in everything(task))
    assert lengths[len(lengths) // 2] <= 52 and lengths[-1] <= 100


@pytest.mark.parametrize("task", NAMES)
def test_few_near_duplicates(task: str) -> None:
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    sizes: list[int] = []
    near = 0
    for number, item in enumerate(made(task, "teacher")):
        words = item.text.lower().split()
        shingles = {tuple(words[at : at + 3]) for at in range(len(words) - 2)}
        shared: Counter[int] = Counter()
        for shingle in shingles:
            shared.update(holders[shingle])
            holders[shingle].append(number)
        sizes.append(len(shingles))
        near += any(both / (sizes[other] + len(shingles) - both) >= 0.8 for other, both in shared.items())
    assert near / len(made(task, "teacher")) <= 0.2


@pytest.mark.parametrize("task", NAMES)
def test_every_record_names_jurisdiction_instrument_and_date(task: str) -> None:
    for item in everything(task):
        assert item.facts["jurisdiction"] == "Norland (fictional)"
        as_of = date.fromisoformat(item.facts["as_of"])
        head = item.text.split("\n")[0]
        assert "Norland" in head and str(as_of.year) in head
        assert item.facts["instrument"].removeprefix("Norland ").split()[0].lower() in head.lower()
        assert item.answer not in item.facts.values()


@pytest.mark.parametrize("part", PARTS)
def test_labels_are_balanced(part: str) -> None:
    labels = DOMAIN.task("clause_type").labels
    counts = Counter(item.answer for item in made("clause_type", part))
    fair = COUNTS[part] / len(labels)
    assert all(0.5 * fair <= counts[label] <= 1.5 * fair for label in labels)


@pytest.mark.parametrize("part", PARTS)
def test_shares_of_the_other_answers(part: str) -> None:
    counts = Counter(item.answer for item in made("deadline", part))
    total = COUNTS[part]
    assert 0.08 <= counts["cannot be determined"] / total <= 0.16
    assert abs(counts["yes"] - counts["no"]) / total <= 0.1
    duties = Counter("no days" in item.answer or item.answer == "no duty" for item in made("duty", part))
    assert 0.1 <= duties[True] / total <= 0.4


def test_pointed_clause_decides_the_type() -> None:
    """The same clauses with another pointer have another answer: the words are the same."""
    for item in made("clause_type", "test"):
        lines = item.text.split("\n")
        letter = lines[-1].removeprefix("Clause: ")
        place = "ABC".index(letter)
        assert item.facts["asked_clause"] == letter and lines[1 + place].startswith(f"{letter}. ")
        assert item.composition.split(" of ")[1].split(",")[place].split(".")[0] == item.answer


def test_a_linear_model_of_the_words_does_not_solve_clause_types() -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    linear = pytest.importorskip("sklearn.linear_model")
    vectorizer = text.TfidfVectorizer(ngram_range=(1, 2))
    seen = vectorizer.fit_transform([item.text for item in made("clause_type", "teacher")])
    model = linear.LogisticRegression(C=3, max_iter=200).fit(
        seen, [item.answer for item in made("clause_type", "teacher")]
    )
    unseen = vectorizer.transform([item.text for item in made("clause_type", "test")])
    assert model.score(unseen, [item.answer for item in made("clause_type", "test")]) < 0.65


@pytest.mark.parametrize("task", ["duty", "deadline"])
def test_the_nearest_seed_does_not_answer(task: str) -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    vectorizer = text.TfidfVectorizer(ngram_range=(1, 2))
    seen = vectorizer.fit_transform([item.text for item in made(task, "teacher")])
    unseen = vectorizer.transform([item.text for item in made(task, "test")[:300]])
    nearest = (unseen @ seen.T).toarray().argmax(axis=1)
    answers = [made(task, "teacher")[at].answer for at in nearest]
    hits = sum(answer == item.answer for answer, item in zip(answers, made(task, "test"), strict=False))
    assert hits / len(answers) < 0.3


def read_duty(text: str) -> str:
    """The answer read off the text: drop what is not bound or no longer holds, then look for the duty."""
    *clauses, question = text.split("\n")[1:]
    verb, thing = question.removeprefix("Duty: ").split(" the ")
    stem = verb[:5]
    for clause in clauses:
        plain = re.sub(r" \((not|formerly) [^)]*\)", "", clause.lower())
        plain = re.sub(r"not (by )?the \w+ but ", "", plain)
        plain = re.sub(r"no longer within \d+ but ", "", plain)
        if not re.search(rf"\b{stem}", plain) or f"the {thing}" not in plain or " may" in plain:
            continue
        parties = [name for name in re.findall(r"the (\w+)", plain) if name != thing]
        days = re.findall(r"(\d+) days", plain)
        assert len(parties) == 1 and len(days) == (0 if "without delay" in plain else 1)
        return f"{parties[0]} | {days[0] if days else 'no'} days"
    return "no duty"


def test_duties_agree_with_a_reading_of_the_text() -> None:
    for item in everything("duty"):
        assert read_duty(item.text) == item.answer, item.text


def read_deadline(text: str) -> str:
    """The answer read off the text and counted day by day on a real calendar."""
    head, body, question = text.split("\n")
    year = int(re.findall(r"as of (\d{4})", head)[0])
    body = body.lower()

    def day(words: str) -> date:
        number, month = words.split()
        return date(year, [name.lower() for name in MONTHS].index(month) + 1, int(number))

    verbs = {
        "sending": "sent",
        "receipt": "received",
        "the ruling": "given",
        "service": "served",
        "the damage": "caused",
        "discovery": "found",
        "signing": "signed",
        "registration": "registered",
        "issue": "issued",
        "acceptance": "accepted",
    }
    period = re.search(r"(\d+) (calendar|business) days (?:of|from) ([a-z ]+)\.", body)
    assert period is not None
    length, unit, event = int(period[1]), period[2], period[3]
    start = re.search(rf"{verbs[event]} (?:on )?(\w+day) (\d+ \w+)", body)
    if start is None:
        return "cannot be determined"
    first = day(start[2])
    assert first.strftime("%A").lower() == start[1]
    listed = re.search(r"holidays?: (\d+ \w+)(?: and (\d+ \w+))?\.", body)
    assert listed is not None
    free = [day(words) for words in listed.groups() if words]
    rule = re.search(rf"day of {event}(?: |: )(counts|does not count|counted|not counted)\.", body)
    moves = "moves to the next business day" in body
    assert unit == "business" or moves or "stays" in body
    results = set()
    for counts in [rule[1] in ("counts", "counted")] if rule else [True, False]:
        today, number = first - timedelta(days=1), 0
        if not counts:
            today += timedelta(days=1)
        while number < length:
            today += timedelta(days=1)
            number += 1 if unit == "calendar" or (today.weekday() < 5 and today not in free) else 0
        while moves and (today.weekday() >= 5 or today in free):
            today += timedelta(days=1)
        assert today.month == first.month
        asked = re.search(r"is (\d+ \w+) in time", question.lower())
        if asked:
            results.add("yes" if day(asked[1]) <= today else "no")
        else:
            results.add(f"{today.day} {MONTHS[today.month - 1]}")
    return results.pop() if len(results) == 1 else "cannot be determined"


def test_deadlines_agree_with_a_count_from_the_text() -> None:
    for item in everything("deadline"):
        assert read_deadline(item.text) == item.answer, item.text


def test_every_deadline_has_a_worked_solution_that_ends_in_its_date() -> None:
    for item in everything("deadline"):
        assert item.rationale
        if re.fullmatch(r"\d+ \w+", item.answer):
            assert item.rationale.endswith(f"the last day is {item.answer}.")


@pytest.mark.parametrize("task", ["duty", "deadline"])
def test_verifier_accepts_gold_and_rejects_other_answers(task: str) -> None:
    others = sorted({item.answer for item in made(task, "gold")})
    for number, item in enumerate(everything(task)):
        assert judged(task, item, item.answer) is True
        other = others[number % len(others)]
        assert judged(task, item, other) is (other == item.answer)
        assert judged(task, item, "") is False
        assert judged(task, item, f"{item.answer} or not") is False


def test_verifier_of_labels_rejects_only_what_is_no_label() -> None:
    item = made("clause_type", "gold")[0]
    assert judged("clause_type", item, "payment") is None
    assert judged("clause_type", item, "an invoice") is False


def test_verifier_accepts_equal_spellings() -> None:
    dated = next(item for item in made("deadline", "gold") if re.fullmatch(r"\d+ \w+", item.answer))
    number, month = dated.answer.split()
    year = dated.facts["as_of"][:4]
    same = [f"{month} {number}", f"{number} {month} {year}", f"{dated.answer}.", f"{number}th {month.upper()}"]
    same.append(f"{year}-{MONTHS.index(month) + 1:02d}-{int(number):02d}")
    for said in same:
        assert judged("deadline", dated, said) is True
    assert judged("deadline", dated, f"{number} {month} {int(year) + 1}") is False
    owed = next(item for item in made("duty", "gold") if re.search(r"\d", item.answer))
    assert judged("duty", owed, f"The {owed.answer.replace(' | ', '|')}.") is True


@pytest.mark.parametrize("task", ["duty", "deadline"])
def test_verifier_cannot_tell_without_facts(task: str) -> None:
    assert DOMAIN.verify is not None
    assert DOMAIN.verify(task, {}, "yes").ok is None
