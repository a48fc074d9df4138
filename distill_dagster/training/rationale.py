"""Learning from a teacher's explanations: as a second task, or before every answer (Hsieh et al. 2023).

`multi_task` gives two examples a record: the answer to the prompt, and the explanation to the prompt behind a prefix.
The loss is the mean over answers plus weight times the mean over explanations. Whoever asks the student later asks
without the prefix, so that it answers at once, at the cost of an answer alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from distill_dagster.errors import ConfigError
from distill_dagster.records.messages import message, text_of

if TYPE_CHECKING:
    import torch

    from distill_dagster.config.recipe import RationaleOptions
    from distill_dagster.training.data import Example
    from distill_dagster.training.objectives.base import Positions

#: Ends the task name of an example that explains; before the prompt, it asks for the explanation.
MARK, PREFIX = "#rationale", "[rationale] "
#: Name of the term in `metrics.jsonl`.
TERM = "rationale"


def rows(examples: Iterable[Mapping[str, Any]], options: RationaleOptions) -> list[dict[str, Any]]:
    """EXAMPLE rows as the student trains on them; a row without an explanation stays as it is."""
    made: list[dict[str, Any]] = []
    for row in map(dict, examples):
        said = (row.get("rationale") or "").strip()
        if options.mode == "label_only" or not said:
            made.append(row)
        elif options.mode == "in_answer":
            *before, last = row["messages"]
            made.append({**row, "messages": [*before, message("assistant", in_answer(said, text_of([last])))]})
        else:
            *before, asked, _ = row["messages"]
            prompt = message(asked["role"], PREFIX + text_of([asked]))
            made.append(row)
            made.append(
                {**row, "task": f"{row['task']}{MARK}", "messages": [*before, prompt, message("assistant", said)]}
            )
    return made


def in_answer(rationale: str, answer: str) -> str:
    """A worked answer, as `distill_dagster.knowledge.labeling.split_rationale` takes it apart."""
    return f"{rationale}\nAnswer: {answer}"


def explains(example: Example) -> bool:
    """Whether an example is the explanation of another one, which stands before it."""
    return example.task.endswith(MARK)


def groups(examples: Sequence[Example]) -> list[list[int]]:
    """Indices of examples that belong into one batch: an answer with its explanation."""
    found: list[list[int]] = []
    for index, example in enumerate(examples):
        if explains(example) and found:
            found[-1].append(index)
        else:
            found.append([index])
    return found


@dataclass
class Only:
    """An objective on the answers alone, or on the explanations alone.

    Attributes:
        term: The objective.
        explained: Which of the two.
    """

    term: Any
    explained: bool

    def units(self, examples: Sequence[Example]) -> float:
        """Loss weights of its own examples: what its mean is over."""
        own = [example for example in examples if explains(example) == self.explained]
        return math.fsum(weight for example in own for weight in example.weights[1:])

    def __call__(self, positions: Positions) -> torch.Tensor:
        """The term's value on its own positions; 0 where a batch has none."""
        import torch

        own = torch.tensor([explains(example) == self.explained for example in positions.examples])
        kept = own.to(positions.rows.device)[positions.rows]
        if kept.all():
            return self.term(positions)
        if not kept.any():
            return positions.hidden.sum() * 0
        part = {name: getattr(positions, name)[kept] for name in ("hidden", "labels", "weights", "rows")}
        return self.term(replace(positions, **part))


def terms(
    given: Mapping[str, tuple[float, Any]], options: RationaleOptions, examples: Sequence[Example], sft: Any
) -> dict[str, tuple[float, Any]]:
    """The terms of a run: as given, or on the answers alone, with one more on the explanations.

    Raises:
        ConfigError: A term learns from something else than the texts of the records.
    """
    if options.mode != "multi_task" or not any(map(explains, examples)):
        return dict(given)
    for name, (_, term) in given.items():
        if any(getattr(term, other, None) is not None for other in ("need", "feed", "units")):
            raise ConfigError(
                f"training.objective.{name}",
                "rationale.mode multi_task teaches two texts a record, and this objective learns from something else.",
                "Use `sft`, or another rationale.mode.",
            )
    own = {name: (weight, Only(term, False)) for name, (weight, term) in given.items()}
    return {**own, TERM: (options.weight, Only(sft, True))}
