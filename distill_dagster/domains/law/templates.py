"""Prompt templates of the law domain: `full` for a general-purpose model, `short` for a fitted one."""

from __future__ import annotations

from distill_dagster.domains.base import PromptTemplate

_FICTION = (
    "Contracts and acts below belong to the fictional jurisdiction of Norland, in the wording of the year they name. "
    "Use only what the text says, no law of any real country. This is an exercise, not legal advice.\n"
)

TEMPLATES = (
    PromptTemplate(
        "clause_type",
        "full",
        system=_FICTION
        + "A contract excerpt has lettered clauses; the last line names one of them. Say of which type that clause is, "
        "by what it orders or permits, not by what it merely mentions.\n"
        "Types: {{ labels | join(', ') }}.\n"
        "Answer with the type alone.",
        user="{{ input }}",
    ),
    PromptTemplate("clause_type", "short", user="clause type:\n{{ input }}"),
    PromptTemplate(
        "duty",
        "full",
        system=_FICTION
        + "A contract excerpt has one clause a line; the last line names a duty. Find the party that shall do it and "
        "the days it has, leaving aside parties that are not bound and periods that no longer hold.\n"
        "Answer 'party | N days', for example 'supplier | 30 days'; 'party | no days' where the clause gives no "
        "number of days; 'no duty' where a party may do it but none shall.",
        user="{{ input }}",
    ),
    PromptTemplate("duty", "short", user="duty:\n{{ input }}"),
    PromptTemplate(
        "deadline",
        "full",
        system=_FICTION
        + "The text gives a period, the event it runs from, and the rules for counting it. Where the day of the event "
        "counts, it is day 1; otherwise day 1 is the day after. Business days are Monday to Friday except the "
        "holidays listed.\n"
        "Answer the question at the end with a date such as '12 May', or with 'yes' or 'no'. Answer 'cannot be "
        "determined' where the day of the event or the counting rule is missing and the answer depends on it.",
        user="{{ input }}",
    ),
    PromptTemplate("deadline", "short", user="deadline:\n{{ input }}"),
)
