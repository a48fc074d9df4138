"""Adapters as data: which small matrices are trained beside a base that stays as it is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distill_dagster.config.strict import Strict


class AdapterOptions(Strict):
    """Train low-rank matrices beside a frozen base (LoRA, Hu et al. 2021), by the extra `peft`.

    `qlora` keeps the base in 4 bits while it trains (Dettmers et al. 2023), by bitsandbytes.
    """

    kind: Literal["lora", "qlora"] = Field(default="lora", description="qlora: the base in 4 bits, by bitsandbytes")
    r: int = Field(default=8, ge=1, le=1024, description="Rank of the two matrices of a layer")
    alpha: float = Field(default=16.0, gt=0, description="What they add is scaled by alpha / r")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout on what goes into them")
    targets: Literal["auto"] | list[str] = Field(
        default="auto", description="Names of linear layers, such as q_proj; auto: all but the output layer"
    )
    save: Literal["merged", "adapter"] = Field(
        default="merged", description="What is sealed: a whole model, or the adapter with a reference to its base"
    )
