"""Secrets in what the student reads or says: keys with an issuer's prefix, private keys, tokens, passwords."""

from __future__ import annotations

from pydantic import field_validator

from distill_dagster.filtering._private import PrivateRule, known_kinds
from distill_dagster.privacy.mask import is_secret
from distill_dagster.privacy.secrets import KINDS


class Rule(PrivateRule):
    """Drops candidates with secrets, or keeps them masked."""

    version = "1"

    class Params(PrivateRule.Params):
        @field_validator("kinds")
        @classmethod
        def _known(cls, kinds: list[str] | None) -> list[str] | None:
            return known_kinds(kinds, KINDS)

    params: Params

    def wanted(self, kind: str) -> bool:
        """Secrets, or those of `kinds`."""
        return is_secret(kind) and (self.params.kinds is None or kind in self.params.kinds)
