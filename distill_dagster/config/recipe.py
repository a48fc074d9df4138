"""How a model is trained, as data: objective terms, steps, schedule."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from distill_dagster.config.adapter import AdapterOptions
from distill_dagster.config.strict import Strict, free, later


class Term(Strict):
    """An objective term with parameters of its own."""

    model_config = ConfigDict(extra="allow")
    weight: float = Field(default=1.0, ge=0, description="Share in the loss; every other key is a parameter")

    @property
    def params(self) -> dict[str, Any]:
        """The parameters beside the weight."""
        return dict(self.model_extra or {})


def _number_or_term(value: Any) -> str:
    return "term" if isinstance(value, (dict, Term)) else "number"


#: A weight, or a weight with parameters; told apart before validation, so that a fault is named once.
AnyTerm = Annotated[Annotated[float, Tag("number")] | Annotated[Term, Tag("term")], Discriminator(_number_or_term)]


class EarlyStop(Strict):
    """Stop where the validation loss no longer falls, and keep the weights of its lowest value."""

    every: int = Field(default=50, ge=1, description="Optimizer steps between looks at the validation loss")
    patience: int = Field(default=3, ge=1, description="Looks in a row without a new best before training stops")
    min_delta: float = Field(default=0.0, ge=0, description="How much lower a loss must be to be a new best")
    share: float = Field(default=0.5, gt=0, le=1, description="Share of the validation records (D_val) it looks at")


class RationaleOptions(Strict):
    """What a student learns of the teacher's explanations."""

    mode: Literal["label_only", "multi_task", "in_answer"] = Field(
        default="label_only",
        description="label_only: nothing; multi_task: to write them as a second task (Distilling step-by-step); "
        "in_answer: to write them before every answer",
    )
    weight: float = Field(
        default=0.5, gt=0, description="multi_task: share of the explanations' loss beside the labels'"
    )


class LinearProbe(Strict):
    """How a classifier's head is fitted to the frozen encoder, before the rest is trained."""

    l2: float = Field(default=0.01, gt=0, description="Weight of the squared parameters beside the mean cross-entropy")
    records: int = Field(default=20000, ge=1, description="Most records it is fitted on, evenly over all")


class Recipe(Strict):
    """How a model is trained: data alone decides the rest.

    `threads` is identity because sums in another order round differently; checkpoint and log intervals are not.
    """

    objective: dict[str, AnyTerm] = Field(
        default_factory=lambda: {"sft": 1.0},
        description="Objective terms: a weight, or a weight with the term's parameters",
    )
    steps: int = Field(default=300, ge=1, description="Optimizer steps")
    batch_tokens: int = Field(default=4096, ge=64, description="Tokens in a batch, padding included")
    learning_rate: float = Field(default=1e-3, gt=0, description="Highest learning rate of AdamW")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="How the rate falls after warm-up"
    )
    warmup_steps: int = Field(default=20, ge=0, description="Steps in which the rate rises from 0")
    weight_decay: float = Field(default=0.01, ge=0, description="Decoupled weight decay of AdamW")
    beta2: float = Field(default=0.98, gt=0, lt=1, description="Second-moment decay of AdamW")
    grad_clip: float = Field(default=1.0, gt=0, description="Largest norm of a gradient")
    prompt_loss_weight: float = Field(default=0.0, ge=0, description="Weight of the loss on prompt tokens")
    gold_repeat: int = Field(
        default=1, ge=1, description="How often a gold example stands in the data beside teacher examples"
    )
    max_length: int = Field(default=512, ge=8, description="Longest example in tokens; a longer one is an error")
    seed: int = Field(default=0, description="Seed of weights and data order")
    threads: int = Field(default=1, ge=1, le=64, description="CPU threads of the training process")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="Precision of the forward pass")
    save_precision: Literal["fp32", "fp16", "bf16"] = Field(
        default="fp32", description="Precision of the sealed weights"
    )
    accumulate: int = later(1, ge=1, description="Batches of an optimizer step, one after the other")
    packing: bool = later(False, description="Records behind each other instead of padded; none sees another")
    processes: int = later(1, ge=1, description="Processes that share the batches of a step, by torchrun")
    early_stop: EarlyStop | None = later(None, description="Stop by the loss on validation records")
    linear_probe: LinearProbe | None = later(
        None, description="Fit a classifier's head to the frozen encoder first (LP-FT); then train all of it"
    )
    rationale: RationaleOptions = later(RationaleOptions(), description="What is learned of the teacher's explanations")
    device: Literal["auto", "cpu", "cuda"] = free("auto", description="Where it runs; auto: a GPU where there is one")
    adapter: AdapterOptions | None = later(
        None, description="Train an adapter beside a frozen model, by the extra `peft`; left out: the whole model"
    )
    trainer: Literal["builtin", "trl"] = later(
        "builtin", description="trl: `dpo` and `grpo` through TRL's stable trainers, by the extra `trl`"
    )
    checkpoint_every: int = free(100, ge=1, description="Steps between checkpoints to resume from")
    log_every: int = free(10, ge=1, description="Steps between lines of metrics.jsonl")

    @model_validator(mode="after")
    def _some_objective(self) -> Recipe:
        for name, (weight, _) in self.terms.items():
            if weight < 0:
                raise ValueError(f"objective term {name!r} has weight {weight:g}; give 0 or more")
        if not any(weight for weight, _ in self.terms.values()):
            raise ValueError("`objective` needs at least one term with a weight above 0")
        return self

    @model_validator(mode="after")
    def _shared_evenly(self) -> Recipe:
        if self.accumulate % self.processes:
            raise ValueError(
                f"{self.processes} processes cannot share the {self.accumulate} batches of a step evenly; make "
                f"`accumulate` a multiple of `processes`, and `batch_tokens` smaller, to keep the step's size"
            )
        return self

    @property
    def step_tokens(self) -> int:
        """Most tokens of an optimizer step, padding included."""
        return self.batch_tokens * self.accumulate

    @property
    def terms(self) -> dict[str, tuple[float, dict[str, Any]]]:
        """Weight and parameters of every objective term."""
        return {
            name: (term.weight, term.params) if isinstance(term, Term) else (term, {})
            for name, term in self.objective.items()
        }
