"""Routing: which queue handles the one open issue of a customer's message.

A message names two or three issues in the same words that any of them could be open in. Exactly one is open; the
others are settled, withdrawn, somebody else's or only imagined. The clause around an issue says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from random import Random
from typing import Any

from distill_dagster.domains.base import Item, PromptTemplate, Task, Verdict
from distill_dagster.domains.finance.words import person, sentence, with_article

#: Noun phrases of each queue, without a determiner, so that any determiner fits.
ISSUES: dict[str, tuple[str, ...]] = {
    "card_lost": ("lost card", "stolen card", "card left in a taxi", "missing bank card"),
    "card_fee": ("yearly card fee", "fee for the new card", "charge on the card", "double card fee"),
    "transfer_missing": (
        "missing transfer", "transfer that never arrived", "lost transfer", "transfer the payee has not received",
    ),
    "transfer_wrong_amount": (
        "transfer of the wrong amount", "transfer that was too high", "transfer that arrived too low",
        "wrong sum in a transfer",
    ),
    "direct_debit": (
        "unknown direct debit", "direct debit for a gym", "old direct debit", "double direct debit",
    ),
    "login": ("failed login", "locked login", "forgotten password", "login code that never arrived"),
    "cash_withdrawal": (
        "failed cash withdrawal", "cash machine fault", "cash withdrawal nobody made",
        "wrong sum from a cash machine",
    ),
    "exchange_rate": (
        "exchange rate on a trip", "wrong exchange rate", "poor exchange rate", "rate used for a payment abroad",
    ),
    "statement": ("missing statement", "error in a statement", "double statement", "statement with the wrong address"),
    "account_closure": (
        "closure of the account", "account closure", "late account closure", "closure of the old account",
    ),
}  # fmt: skip

QUEUES = tuple(ISSUES)

#: Clauses by status and voice; {x} takes the issue with "my" or "the", after a preposition sometimes with "a", and
#: {who} is another person. Most words next to the issue serve several states, so that they give little away.
CLAUSES: dict[str, dict[str, tuple[str, ...]]] = {
    "open": {
        "issue-first": (
            "{x} is still open",
            "{x} has not been settled",
            "{x} still needs your help",
        ),
        "issue-last": (
            "please look into {x}",
            "I am still waiting for an answer about {x}",
            "I do need your help with {x}",
            "nobody has dealt with {x} yet",
        ),
    },
    "settled": {
        "issue-first": (
            "{x} is no longer open",
            "{x} has been settled",
        ),
        "issue-last": (
            "you have already dealt with {x}",
            "I have had a good answer about {x}",
        ),
    },
    "withdrawn": {
        "issue-first": (
            "{x} is something I no longer ask about",
            "{x} no longer needs your help",
        ),
        "issue-last": (
            "please do not look into {x} any more",
            "I take back what I wrote about {x}",
            "I no longer want help with {x}",
        ),
    },
    "other": {
        "issue-first": (
            "{x} is a matter for {who}, not for me",
            "{x} has to do with {who}, not with me",
        ),
        "issue-last": (
            "it is {who} who is still waiting for an answer about {x}",
            "{who} will write to you about {x}",
            "not I but {who} needs your help with {x}",
        ),
    },
    "imagined": {
        "issue-first": (
            "{x} is only an example, it never happened to me",
            "{x} has not happened to me, I only asked in general",
        ),
        "issue-last": (
            "if I ever need help with {x}, I will write again",
            "I only asked in general about {x}",
        ),
    },
}

OTHERS = ("my sister", "my brother", "my neighbour", "my father", "a colleague", "my mother")

ASIDES: dict[str, tuple[str, ...]] = {
    "none": ("",),
    "years": ("I have been a customer for many years.", "I have banked with you for years."),
    "phone": ("I can be reached by phone in the morning.", "Please reply by mail, not by phone."),
    "app": ("I could not find this in the app.", "The app did not help me."),
    "branch": ("The branch sent me to you.", "I was at the branch on Monday."),
    "earlier": ("This follows my mail of last week.", "You may have my earlier mail."),
}

#: Positions: number of issues and place of the open one.
ORDERS = ("1of2", "2of2", "1of3", "2of3", "3of3")
VOICES = ("issue-first", "issue-last")
JOINTS = ("sentences", "semicolons", "numbered", "and-but")
ENVELOPES = ("bare", "hello", "reference-first", "signed")

SKELETONS = ["/".join(parts) for parts in product(ORDERS, VOICES, JOINTS, ENVELOPES)]

TASK = Task(
    name="routing",
    kind="label",
    title="Message routing",
    description="The queue for the one open issue of a customer's message to a fictional bank, "
    "among issues that are settled, withdrawn, somebody else's or only imagined.",
    labels=QUEUES,
    max_new_tokens=12,
)

TEMPLATES = (
    PromptTemplate(
        task="routing",
        style="full",
        system="You route customer messages of a fictional bank to the queue that must work on them. "
        "A message may name several issues. Exactly one is open and the customer's own; the others are settled, "
        "withdrawn, somebody else's or only imagined. Ignore names and places.\n"
        "Queues: {{ labels | join(', ') }}.\n"
        "Answer with the name of the queue of the open issue and nothing else.",
        user="Message:\n{{ input }}\n\nQueue:",
    ),
    PromptTemplate(task="routing", style="short", user="queue:\n{{ input }}"),
)


def _clause(rng: Random, noun: str, status: str, voice: str) -> str:
    given = ("my", "the") if status in ("open", "settled", "withdrawn") else ("a", "the")
    if voice == "issue-last" or status == "imagined":
        given = ("my", "the", "a") if status in ("open", "settled", "withdrawn") else ("a", "the")
    determiner = rng.choice(given)
    issue = with_article(noun) if determiner == "a" else f"{determiner} {noun}"
    return rng.choice(CLAUSES[status][voice]).format(x=issue, who=rng.choice(OTHERS))


def _join(clauses: list[str], opened: int, joint: str) -> str:
    if joint == "numbered":
        return " ".join(f"{number}. {sentence(clause)}." for number, clause in enumerate(clauses, start=1))
    if joint == "semicolons":
        return sentence("; ".join(clauses)) + "."
    if joint == "sentences":
        return " ".join(f"{sentence(clause)}." for clause in clauses)
    text = clauses[0]
    for place, clause in enumerate(clauses[1:], start=1):
        text += (", but " if place == max(opened, 1) else ", and ") + clause
    return sentence(text) + "."


def draw(rng: Random, skeleton: str, subject: int) -> Item:
    """One message: the open issue's queue first, then the others and their states."""
    order, voice, joint, envelope = skeleton.split("/")
    opened, count = int(order[0]) - 1, int(order[3])
    queue = rng.choice(QUEUES)
    queues = [queue]
    statuses = ["open"]
    while len(queues) < count:
        queues.append(rng.choice([name for name in QUEUES if name not in queues]))
        statuses.append(rng.choice([status for status in CLAUSES if status not in statuses]))
    states = [(name, status, rng.randrange(len(ISSUES[name]))) for name, status in zip(queues, statuses, strict=True)]
    issues = states[1 : opened + 1] + states[:1] + states[opened + 1 :]
    clauses = [
        _clause(rng, ISSUES[name][noun], status, voice if status == "open" else rng.choice(VOICES))
        for name, status, noun in issues
    ]
    aside = rng.choice(tuple(ASIDES))
    customer = f"{subject:04d}"
    body = f"{_join(clauses, opened, joint)} {rng.choice(ASIDES[aside])}".strip()
    text = {
        "bare": body,
        "hello": f"{rng.choice(('Hello', 'Good morning', 'Dear team'))}, this is {person(rng)}. {body}",
        "reference-first": f"Customer {customer}. {body}",
        "signed": f"{body} Regards, {person(rng)}",
    }[envelope]
    return Item(
        text=text,
        answer=queue,
        skeleton=skeleton,
        composition="+".join([f"{name}.{noun}:{status}" for name, status, noun in states] + [aside]),
        subject_key=f"customer-{customer}",
        facts={"mentioned": sorted(queues)},
    )


def verify(facts: Mapping[str, Any], output: str) -> Verdict:
    """Reject what is no queue or a queue that the message does not touch; the state of an issue is not checked."""
    mentioned = facts.get("mentioned")
    if not isinstance(mentioned, list) or not mentioned:
        return Verdict(None, "facts name no issues")
    queue = output.strip().strip(".").lower().replace(" ", "_")
    if queue not in QUEUES:
        return Verdict(False, "not a queue")
    if queue not in mentioned:
        return Verdict(False, "the message mentions no such issue")
    return Verdict(None, "mentioned; whether it is the open one is not checked")
