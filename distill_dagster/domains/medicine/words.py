"""Word lists and small text helpers that the tasks of this domain share."""

from __future__ import annotations

from random import Random

from distill_dagster.domains import grammar

#: Symptoms and illnesses, all singular and without an article, so that a clause reads well with any of them.
CONDITIONS = (
    "cough", "wheeze", "chest pain", "back pain", "joint pain", "neck pain", "headache", "migraine", "dizziness",
    "fatigue", "insomnia", "tremor", "numbness", "rash", "itching", "heartburn", "constipation", "diarrhoea",
    "vomiting", "fever", "hearing loss", "blurred vision", "weight loss", "ankle swelling", "asthma", "eczema",
    "gout", "anaemia", "pneumonia", "bronchitis", "sinusitis", "depression", "jaundice", "sciatica", "psoriasis",
    "pleurisy",
)  # fmt: skip

#: Passing complaints that no one takes a family history of.
NOT_FAMILIAL = ("cough", "wheeze", "vomiting", "fever", "numbness", "constipation", "diarrhoea", "ankle swelling")

#: Courses of treatment, all singular and without an article.
MEASURES = (
    "physiotherapy", "dialysis", "oxygen therapy", "speech therapy", "counselling", "radiotherapy", "light therapy",
    "tube feeding", "wound care", "compression therapy", "bladder training", "hydrotherapy",
)  # fmt: skip

RELATIVES = ("mother", "father", "sister", "brother", "grandmother", "aunt")
OTHERS = ("neighbour", "colleague", "flatmate", "friend")


def sentence(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def join(words: list[str], conjunction: str) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"


def patient_key(subject: int) -> str:
    """Key of a patient; all records with one key stay in one part."""
    return f"patient-{subject:05d}"


def adult_age(rng: Random) -> int:
    """An age of 19 to 88 years."""
    return rng.randrange(19, 89)


def owned(task: str, composition: str, subject: int) -> bool:
    """Whether the part that owns the subject also owns the composition.

    A draw that fixes the label and retries the rest until this holds keeps its labels balanced in every part;
    left to `Grammar`, which throws away the label together with the rest, small parts would lean.
    """
    return grammar.owner(task, composition) == grammar.part_of(subject % 100)
