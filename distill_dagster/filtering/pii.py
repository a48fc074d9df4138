"""Personal data in what the student reads or says: e-mail, telephone, bank, card and national numbers, and the like.

With `detector: presidio` (extra `pii`) what presidio-analyzer finds as well, and with a spaCy model names of people.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from distill_dagster.config.detector import DetectorOptions
from distill_dagster.filtering._private import PrivateRule, known_kinds
from distill_dagster.filtering.base import Batch, Context, Look
from distill_dagster.privacy import presidio
from distill_dagster.privacy.mask import is_secret
from distill_dagster.privacy.personal import KINDS


class Rule(PrivateRule):
    """Drops candidates with personal data, or keeps them masked. Names are found by a model alone."""

    version = "1"

    class Params(PrivateRule.Params):
        detector: DetectorOptions | None = Field(
            default=None, description="presidio, beside the built-in patterns; its model's path starts at this file"
        )

        @model_validator(mode="after")
        def _known(self):
            if self.detector is None:  # which has kinds of its own
                known_kinds(self.kinds, KINDS)
            return self

    params: Params

    def wanted(self, kind: str) -> bool:
        """All kinds but secrets, or those of `kinds`."""
        return not is_secret(kind) and (self.params.kinds is None or kind in self.params.kinds)

    def outside(self, folder: Path | None) -> Mapping[str, Any]:
        """What presidio finds by: its options, the versions installed, and its model's files. Nothing without it."""
        options = self.params.detector
        return {} if options is None else {"detector": presidio.identity(options, folder)}

    def look(self, candidates: Batch, context: Context) -> list[Look]:
        """As every rule of its sort; the version names the detector."""
        options = self.params.detector
        if options is not None:
            self.detector = presidio.detector(options, context.folder)
            self.version = f"{type(self).version}+{presidio.short(presidio.identity(options, context.folder))}"
        return super().look(candidates, context)
