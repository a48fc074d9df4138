"""Secrets in what the student reads or says: keys with an issuer's prefix, private keys, tokens, passwords."""

from __future__ import annotations

from distill_dagster.filtering._private import PrivateRule
from distill_dagster.privacy.mask import is_secret


class Rule(PrivateRule):
    """Drops candidates with secrets, or keeps them masked."""

    version = "1"

    def wanted(self, kind: str) -> bool:
        """Secrets, or those of `kinds`."""
        return is_secret(kind) and (self.params.kinds is None or kind in self.params.kinds)
