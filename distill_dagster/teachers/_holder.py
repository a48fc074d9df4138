"""Which process holds a claim, and whether it is still there."""

from __future__ import annotations

from distill_dagster.storage.holder import place, started

__all__ = ["BEAT", "SILENCE", "place", "started"]

#: Seconds between beats, and without a beat after which a holder elsewhere counts as dead.
BEAT, SILENCE = 5.0, 25.0
