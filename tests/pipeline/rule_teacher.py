"""A teacher in this process that answers by rule, for what no tiny model can do; and a hostile one.

It reads nothing but the messages of a request, as a real one does: the style of a prompt by the keys of the JSON that
it asks for, the texts by their fences.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from distill_dagster.records.identity import digest
from distill_dagster.teachers.base import Request, Response

FENCED = re.compile(r"<<<([0-9a-f]{12})\n(.*?)\n\1>>>", re.S)
LABELS = ("red", "green")

Rule = Callable[[Request], str]


def texts(request: Request) -> list[str]:
    """The fenced texts of a prompt, in order."""
    return [found.group(2) for found in FENCED.finditer(request.messages[-1]["content"])]


def mark(request: Request) -> str:
    """The mark of its fences."""
    found = FENCED.search(request.messages[-1]["content"])
    assert found is not None
    return found.group(1)


def style(request: Request) -> str:
    """What a prompt asks for, by its system turn."""
    system = request.messages[0]["content"] if request.messages[0]["role"] == "system" else ""
    for name, sign in (
        ("evolve", "You rewrite an input"),
        ("subtopics", "You plan a set of inputs"),
        ("curate", "from a topic alone"),
        ("expand", "You write new inputs"),
        ("compare", '"winner"'),
        ("rate", '"scores"'),
        ("critique", '"critique"'),
        ("revise", "You mend an answer"),
    ):
        if sign in system:
            return name
    return "answer"


def colour(text: str) -> str:
    """The label that a text names first."""
    found = re.search("red|green", text)
    return found.group() if found else "red"


def words(*seed: object) -> str:
    """Words that no other seed gives."""
    return " ".join(re.sub("[^a-z]", "", digest([*map(str, seed), at]))[:6] or "word" for at in range(7))


def answer(request: Request) -> str:
    """A right reply to every style; where several samples are asked, every second one is wrong."""
    asked, found = style(request), texts(request)
    text = request.messages[-1]["content"]
    if asked == "expand":
        return json.dumps({"inputs": [f"{words(found, request.sample, at)} {LABELS[at % 2]}" for at in range(2)]})
    if asked == "evolve":
        return json.dumps({"input": f"{found[-1]} {words(found, request.sample)}"})
    if asked == "subtopics":
        return json.dumps({"subtopics": [f"{found[0]} {words(found, at)}" for at in range(2)]})
    if asked == "curate":
        return json.dumps({"inputs": [f"{words(found, at)} {LABELS[at % 2]}" for at in range(2)]})
    if asked == "compare":
        first, second = found[-2:]
        right = colour(found[0])
        winner = "tie" if (first == right) == (second == right) else "first" if first == right else "second"
        return json.dumps({"mark": mark(request), "winner": winner})
    if asked == "rate":
        names = re.findall(r"^- (\w+): ", request.messages[0]["content"], re.M)
        score = 5 if found[-1] == colour(found[0]) else 2
        return json.dumps({"mark": mark(request), "scores": dict.fromkeys(names, score)})
    if asked == "critique":
        return json.dumps({"mark": mark(request), "critique": f"The text says {colour(found[0])}."})
    if asked == "revise":
        return colour(found[-1])
    right = colour(text)
    return right if request.sample % 2 == 0 else LABELS[1 - LABELS.index(right)]


@dataclass
class RuleTeacher:
    """Answers by a rule and keeps what it was asked."""

    rule: Rule = answer
    identity: str = "nano_teacher"
    revision: str = "1"
    asked: list[Request] = field(default_factory=list)

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[int, Response]]:
        """One answer each."""
        for index, request in enumerate(requests):
            self.asked.append(request)
            text = self.rule(request)
            yield index, Response(text, "stop", self.identity, len(str(request.messages)) // 4, len(text) // 4 + 1)
