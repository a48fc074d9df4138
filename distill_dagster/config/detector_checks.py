"""Whether the detectors that files name can be had here: told by `check` with file, key and next step."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from distill_dagster.config.detector import DetectorOptions
from distill_dagster.config.models import PipelineConfig, SourceConfig
from distill_dagster.config.problems import Key, Problem
from distill_dagster.config.yaml_reader import Document


def named(config: object) -> Iterator[tuple[Key, DetectorOptions]]:
    """The detectors that a file names, and the keys where they stand."""
    if isinstance(config, SourceConfig) and config.egress.detector is not None:
        yield ("egress", "detector"), config.egress.detector
    for index, block in enumerate(config.filtering if isinstance(config, PipelineConfig) else ()):
        if block.name == "pii" and block.params.get("detector") is not None:
            try:
                yield ("filtering", index, "detector"), DetectorOptions.model_validate(block.params["detector"])
            except ValidationError:  # reported where the block itself is looked at
                continue


def problem(key: Key, options: DetectorOptions, document: Document) -> Problem | None:
    """What stands against a detector: it is not installed, has no such model, or nothing finds an entity."""
    from distill_dagster.privacy import presidio

    try:
        presidio.detector(options, document.path.parent)
    except presidio.DetectorError as error:
        at = (*key, error.field) if (*key, error.field) in document.lines else key
        return document.problem(at, error.reason, error.next_step)
    return None
