"""Names of the divergences; light, so that a config can be checked without torch."""

from __future__ import annotations

from typing import Literal

Kind = Literal["forward", "reverse", "jsd", "skew_forward", "skew_reverse"]
