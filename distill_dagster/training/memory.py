"""Out of memory, said so that one knows what to lower."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from distill_dagster.errors import TrainingError

if TYPE_CHECKING:
    from distill_dagster.config.models import Recipe
    from distill_dagster.training.data import Example

#: How torch says it, in lower case: on Linux, on Windows and macOS, by CUDA, by MPS, by NCCL and cuBLAS.
SAID = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "cublas_status_alloc_failed",
)


def exhausted(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in SAID)


@contextmanager
def told(place: str, recipe: Recipe, batches: Sequence[Sequence[Example]], where: str) -> Iterator[None]:
    """Turn out of memory into an error that says what to lower.

    Args:
        place: What the error names.
        recipe: Whose settings are to be lowered.
        batches: The batches at work.
        where: The device.

    Raises:
        TrainingError: Memory ran out inside.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not exhausted(error):
            raise
        longest = max((len(example.ids) for batch in batches for example in batch), default=0)
        said = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise TrainingError(
            place,
            f"out of memory on {where}: batches of up to {recipe.batch_tokens:,} tokens, "
            f"the longest record {longest:,} ({said}).",
            advice(recipe, longest),
        ) from error


def advice(recipe: Recipe, longest: int) -> str:
    """What to lower, the cheapest first."""
    steps = []
    half = max(64, recipe.batch_tokens // 2)
    if half >= longest and half < recipe.batch_tokens:
        more = recipe.accumulate * 2
        steps.append(f"halve batch_tokens to {half} and double accumulate to {more}: as much a step in half the memory")
    if longest > 64:
        steps.append(f"let a filter drop long records and lower max_length (now {recipe.max_length})")
    if recipe.precision == "fp32":
        steps.append("set precision: bf16")
    steps.append("take a smaller student")
    text = "; or ".join(steps)
    return f"{text[0].upper()}{text[1:]}. It resumes from its last checkpoint where the recipe is the same."
