"""Which student layer learns from which teacher layer, as a recipe says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import PlainValidator

from distill_dagster.errors import TrainingError

if TYPE_CHECKING:
    from distill_dagster.training.layers import Shape

UNIFORM, LAST = "uniform", "last"
_SAYS = "give `uniform`, `last`, or teacher layers by student layer, such as {1: 2, 2: 4}"


def _read(value: Any) -> Any:
    """Keys of YAML and JSON are words: numbers again."""
    if isinstance(value, str) and value in (UNIFORM, LAST):
        return value
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"{value!r} says no layers: {_SAYS}")
    found: dict[int, int] = {}
    for student, teacher in value.items():
        if not str(student).isdigit() or isinstance(teacher, bool) or not str(teacher).isdigit():
            raise ValueError(f"{student}: {teacher!r} are not two numbers of layers: {_SAYS}")
        found[int(student)] = int(teacher)
    return found


#: `uniform`: each student layer learns from the one at the same relative depth; `last`: the last from the last; or
#: teacher layers by student layer, 0 being the embedding output.
LayerMap = Annotated[dict[int, int] | str, PlainValidator(_read)]


def resolve(said: dict[int, int] | str, student: Shape, teacher: Shape, place: str, lowest: int = 0) -> dict[int, int]:
    """Teacher layer by student layer.

    Args:
        said: The recipe's word.
        student: The student's shape.
        teacher: The teacher's shape.
        place: Key of the recipe, for errors.
        lowest: 0, or 1 where the embedding output has no such thing.

    Raises:
        TrainingError: A layer that one of them does not have.
    """
    if said == LAST:
        return {student.depth: teacher.depth}
    if isinstance(said, str):
        # The nearest layer at the same relative depth, a half rounding up.
        return {
            number: max(1, (2 * number * teacher.depth + student.depth) // (2 * student.depth))
            for number in range(1, student.depth + 1)
        }
    for whose, shape, asked in (("student", student, said.keys()), ("teacher", teacher, said.values())):
        for number in asked:
            if not lowest <= number <= shape.depth:
                counted = "0 being the embedding output" if lowest == 0 else "and the embedding output has no attention"
                raise TrainingError(
                    f"training.objective.{place}.layers",
                    f"the {whose} ({shape.name}) has no layer {number}: it has {shape.depth} layers, {counted}.",
                    f"Give layers from {lowest} to {shape.depth}, or `uniform`.",
                )
    return dict(sorted(said.items()))
