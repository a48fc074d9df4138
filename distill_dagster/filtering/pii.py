"""Personal data in what the student reads or says: e-mail, telephone, bank, card and national numbers, and the like."""

from __future__ import annotations

from distill_dagster.filtering._private import PrivateRule
from distill_dagster.privacy.mask import is_secret


class Rule(PrivateRule):
    """Drops candidates with personal data, or keeps them masked. Names and street addresses are not found."""

    version = "1"

    def wanted(self, kind: str) -> bool:
        """All kinds but secrets, or those of `kinds`."""
        return not is_secret(kind) and (self.params.kinds is None or kind in self.params.kinds)
