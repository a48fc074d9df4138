"""Operative phrases of ten clause types, and the phrases that mention a type without being of it.

A clause is of the type of its operative phrase. Its topic (`{doc}`, `{thing}`, `{event}`, `{fee}`) and its
condition speak of other types, with the same words.
"""

from __future__ import annotations

from typing import NamedTuple

LABELS = (
    "payment",
    "termination",
    "confidentiality",
    "liability",
    "delivery",
    "warranty",
    "insurance",
    "audit",
    "assignment",
    "disputes",
)


class Cue(NamedTuple):
    """One operative phrase: modal and verb phrase, and the same said of its object (`{p}` is the party)."""

    modal: str
    active: str
    passive: str


#: Slot -> (type it speaks of, phrase). An empty type speaks of none.
TOPICS: dict[str, tuple[tuple[str, str], ...]] = {
    "doc": (
        ("payment", "payment plan"),
        ("termination", "termination notice"),
        ("confidentiality", "confidential file"),
        ("liability", "damage report"),
        ("delivery", "delivery schedule"),
        ("warranty", "warranty terms"),
        ("insurance", "insurance policy"),
        ("audit", "audit report"),
        ("assignment", "assignment deed"),
        ("disputes", "dispute file"),
    ),
    "thing": (
        ("", "equipment"),
        ("", "materials"),
        ("payment", "payment terminal"),
        ("insurance", "insured goods"),
        ("warranty", "warranty parts"),
        ("audit", "audit software"),
        ("confidentiality", "confidential samples"),
        ("assignment", "assigned machines"),
        ("disputes", "disputed goods"),
        ("delivery", "delivery van"),
    ),
    "event": (
        ("payment", "late payment"),
        ("termination", "early termination"),
        ("confidentiality", "loss of confidential data"),
        ("delivery", "late delivery"),
        ("warranty", "breach of warranty"),
        ("insurance", "lapse of insurance"),
        ("audit", "a failed audit"),
        ("assignment", "an invalid assignment"),
        ("disputes", "a lost dispute"),
        ("liability", "failure to pay damages"),
    ),
    "fee": (
        ("delivery", "delivery"),
        ("audit", "audit"),
        ("insurance", "insurance"),
        ("warranty", "warranty"),
        ("disputes", "arbitration"),
        ("termination", "termination"),
        ("assignment", "assignment"),
    ),
}

#: (type it speaks of, condition). Each fits before, inside and after a clause.
CONDITIONS: tuple[tuple[str, str], ...] = (
    ("payment", "after payment of an invoice"),
    ("payment", "where a payment is late"),
    ("termination", "after termination of this contract"),
    ("termination", "where notice to terminate is given"),
    ("confidentiality", "despite any duty of confidence"),
    ("confidentiality", "where a secret is disclosed"),
    ("liability", "despite any limit of liability"),
    ("liability", "where damages are claimed"),
    ("delivery", "before delivery is complete"),
    ("delivery", "where a delivery is late"),
    ("warranty", "during the warranty period"),
    ("warranty", "where a defect is found"),
    ("insurance", "during the insured period"),
    ("insurance", "where cover has lapsed"),
    ("audit", "during the yearly audit"),
    ("audit", "where an inspection is due"),
    ("assignment", "after an assignment of rights"),
    ("assignment", "where rights are transferred"),
    ("disputes", "while a dispute is pending"),
    ("disputes", "during any arbitration"),
)

#: Type -> which party it binds: the performer, the payer or either.
BINDS = {"payment": "payer", "delivery": "performer", "warranty": "performer", "audit": "payer"}

CUES: dict[str, tuple[Cue, ...]] = {
    "payment": (
        Cue(
            "shall", "pay the {fee} charges by bank transfer", "the {fee} charges shall be paid by {p} by bank transfer"
        ),
        Cue("shall", "pay the {fee} fee in advance", "the {fee} fee shall be paid in advance by {p}"),
        Cue("shall", "settle each invoice for {fee} costs", "each invoice for {fee} costs shall be settled by {p}"),
        Cue("shall", "refund the {fee} costs in full", "the {fee} costs shall be refunded in full by {p}"),
        Cue("shall", "pay the agreed sum for {event}", "the agreed sum for {event} shall be paid by {p}"),
    ),
    "termination": (
        Cue("may", "terminate this contract for {event}", "this contract may be terminated by {p} for {event}"),
        Cue("may", "end this contract at once for {event}", "this contract may be ended at once by {p} for {event}"),
        Cue("may", "cancel this contract after {event}", "this contract may be cancelled by {p} after {event}"),
        Cue(
            "may",
            "give notice to end this contract for {event}",
            "notice to end this contract may be given by {p} for {event}",
        ),
        Cue(
            "may",
            "withdraw from this contract after {event}",
            "withdrawal from this contract is open to {p} after {event}",
        ),
    ),
    "confidentiality": (
        Cue("shall", "keep the {doc} secret", "the {doc} shall be kept secret by {p}"),
        Cue("shall", "not disclose the {doc} to others", "the {doc} shall not be disclosed to others by {p}"),
        Cue("shall", "treat the {doc} as confidential", "the {doc} shall be treated as confidential by {p}"),
        Cue("shall", "hold the {doc} in confidence", "the {doc} shall be held in confidence by {p}"),
        Cue("shall", "not publish the {doc}", "the {doc} shall not be published by {p}"),
    ),
    "liability": (
        Cue("shall", "not be liable for {event}", "liability of {p} for {event} is excluded"),
        Cue(
            "shall",
            "be liable for {event} only up to the price",
            "liability of {p} for {event} is limited to the price",
        ),
        Cue("shall", "owe damages for {event}", "damages for {event} shall be owed by {p}"),
        Cue("shall", "bear any loss caused by {event}", "any loss caused by {event} shall be borne by {p}"),
        Cue("shall", "make good the harm from {event}", "the harm from {event} shall be made good by {p}"),
    ),
    "delivery": (
        Cue("shall", "deliver the {thing} to the site", "the {thing} shall be delivered to the site by {p}"),
        Cue("shall", "hand over the {thing} at the depot", "the {thing} shall be handed over at the depot by {p}"),
        Cue("shall", "ship the {thing} by road", "the {thing} shall be shipped by road by {p}"),
        Cue("shall", "bring the {thing} to the depot", "the {thing} shall be brought to the depot by {p}"),
        Cue("shall", "send the {thing} to the site", "the {thing} shall be sent to the site by {p}"),
    ),
    "warranty": (
        Cue("shall", "warrant the {thing} against defects", "the {thing} shall be warranted by {p} against defects"),
        Cue("shall", "guarantee the quality of the {thing}", "the quality of the {thing} shall be guaranteed by {p}"),
        Cue(
            "shall",
            "repair any defect in the {thing} free of charge",
            "any defect in the {thing} shall be repaired free of charge by {p}",
        ),
        Cue(
            "shall",
            "keep the {thing} free of defects for a year",
            "the {thing} shall be kept free of defects for a year by {p}",
        ),
        Cue(
            "shall",
            "correct any fault in the {thing} free of charge",
            "any fault in the {thing} shall be corrected free of charge by {p}",
        ),
    ),
    "insurance": (
        Cue("shall", "insure the {thing} against theft", "the {thing} shall be insured against theft by {p}"),
        Cue("shall", "take out cover for {event}", "cover for {event} shall be taken out by {p}"),
        Cue("shall", "hold a policy against {event}", "a policy against {event} shall be held by {p}"),
        Cue("shall", "keep the {thing} insured against fire", "the {thing} shall be kept insured against fire by {p}"),
        Cue("shall", "renew its cover for {event}", "cover for {event} shall be renewed by {p}"),
    ),
    "audit": (
        Cue("may", "inspect the {doc} on any working day", "the {doc} may be inspected on any working day by {p}"),
        Cue("may", "audit the {doc} once a year", "the {doc} may be audited once a year by {p}"),
        Cue("may", "examine the {doc} and take copies", "the {doc} may be examined and copied by {p}"),
        Cue(
            "may", "have the {doc} checked by an accountant", "the {doc} may be given by {p} to an accountant to check"
        ),
        Cue("may", "review the {doc} on request", "the {doc} may be reviewed on request by {p}"),
    ),
    "assignment": (
        Cue("shall", "not assign its rights in the {thing}", "rights in the {thing} shall not be assigned by {p}"),
        Cue(
            "may",
            "transfer its claims for {event} to a bank",
            "claims for {event} may be transferred to a bank by {p}",
        ),
        Cue(
            "shall",
            "not transfer this contract on account of {event}",
            "this contract shall not be transferred by {p} on account of {event}",
        ),
        Cue("may", "assign its claims for {event}", "claims for {event} may be assigned by {p}"),
        Cue(
            "may",
            "pass its rights in the {thing} to a new owner",
            "rights in the {thing} may be passed to a new owner by {p}",
        ),
    ),
    "disputes": (
        Cue(
            "shall",
            "refer any claim about the {doc} to arbitration",
            "any claim about the {doc} shall be referred to arbitration by {p}",
        ),
        Cue(
            "shall",
            "settle any dispute about the {doc} before a mediator",
            "any dispute about the {doc} shall be settled before a mediator by {p}",
        ),
        Cue(
            "shall",
            "sue for {event} only in the courts of Norland",
            "any action for {event} shall be brought by {p} only in the courts of Norland",
        ),
        Cue(
            "shall",
            "submit any quarrel about the {doc} to an expert",
            "any quarrel about the {doc} shall be submitted to an expert by {p}",
        ),
        Cue(
            "shall",
            "bring any claim for {event} before an arbitrator",
            "any claim for {event} shall be brought before an arbitrator by {p}",
        ),
    ),
}
