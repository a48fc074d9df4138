"""What the YAML files may say. Every file names its `kind`; unknown keys are refused.

A field marked *not identity* (`free(...)`) changes how work is done, never what comes out, so a change of it
remakes nothing. All others enter the action keys of the stages that read them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from distill_dagster.config.source import (
    Columns,
    DataFile,
    GrammarOptions,
    Opening,
    Prompt,
    SourceConfig,
    Split,
    TaskSpec,
)
from distill_dagster.config.strict import Name, Strict, free, identity

__all__ = [
    "KINDS",
    "AnyConfig",
    "Block",
    "Columns",
    "ControlOptions",
    "DataFile",
    "DeployOptions",
    "EvaluationOptions",
    "FitOptions",
    "GateOptions",
    "GrammarOptions",
    "Name",
    "Opening",
    "PipelineConfig",
    "PriceEntry",
    "PricesConfig",
    "Prompt",
    "Recipe",
    "Sampling",
    "ScheduleOptions",
    "SourceConfig",
    "Split",
    "Strict",
    "StudentOptions",
    "TaskSpec",
    "TeacherConfig",
    "TermsConfig",
    "free",
    "identity",
]

# --- training -------------------------------------------------------------------------------------------------------


class Recipe(Strict):
    """How a model is trained: data alone decides the rest.

    `threads` is identity because sums in another order round differently; checkpoint and log intervals are not.
    """

    objective: dict[str, float] = Field(default_factory=lambda: {"sft": 1.0}, description="Objective terms by weight")
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
    checkpoint_every: int = free(100, ge=1, description="Steps between checkpoints to resume from")
    log_every: int = free(10, ge=1, description="Steps between lines of metrics.jsonl")

    @model_validator(mode="after")
    def _some_objective(self) -> Recipe:
        for name, weight in self.objective.items():
            if weight < 0:
                raise ValueError(f"objective term {name!r} has weight {weight:g}; give 0 or more")
        if not any(self.objective.values()):
            raise ValueError("`objective` needs at least one term with a weight above 0")
        return self


class FitOptions(Strict):
    """Fit the teacher on D_T first (teacher correction)."""

    recipe: Recipe = Field(default_factory=Recipe)
    base: str | None = Field(default=None, description="What to start from; the teacher's own `model` by default")


# --- teacher --------------------------------------------------------------------------------------------------------


class Sampling(Strict):
    """How a teacher or student answers."""

    temperature: float = Field(default=0.0, ge=0, description="0: the likeliest token each time")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Draw from the likeliest tokens that hold this much mass")
    max_new_tokens: int | None = Field(default=None, ge=1, description="Left out: what the task says")
    stop: list[str] = Field(default_factory=list, description="Strings that end an answer")
    seed: int = Field(default=0, description="Seed of the draws where temperature is above 0")


class TeacherConfig(Strict):
    """`kind: teacher`: who answers.

    `model` is `domain:teacher` (the domain's committed one), `preset:NAME` (with `fit`), a folder, or a hub id.
    """

    kind: Literal["teacher"]
    name: Name
    backend: str = Field(default="transformers", description="How the model is reached")
    model: str = Field(
        default="domain:teacher", description="domain:teacher, preset:NAME (with `fit`), a folder, or a hub id"
    )
    revision: str | None = Field(default=None, description="Commit of the hub model")
    template: Literal["chat", "plain"] = Field(default="chat", description="plain: the text itself, no chat template")
    prompt_style: Literal["full", "short"] = Field(
        default="full", description="Which of the task's templates it is given"
    )
    sampling: Sampling = Field(default_factory=Sampling)
    fit: FitOptions | None = Field(default=None, description="Fit it on D_T first")
    batch_size: int = free(64, ge=1, description="Questions answered together")
    threads: int = free(1, ge=1, description="CPU threads of a local model")
    dtype: Literal["fp32", "bf16"] = Field(default="fp32", description="Precision a local model runs in")

    @model_validator(mode="after")
    def _preset_needs_fit(self) -> TeacherConfig:
        if self.model.startswith("preset:") and self.fit is None:
            raise ValueError(f"model {self.model!r} has no weights yet: give `fit` with a recipe, to train it on D_T")
        return self


class PricesConfig(Strict):
    """`kind: prices`: dated prices of teachers, in micro-units of the currency per million tokens."""

    kind: Literal["prices"]
    name: Name
    currency: str = "USD"
    entries: list[PriceEntry] = Field(default_factory=list)


class PriceEntry(Strict):
    """The price of one model from one day on."""

    model: str
    valid_from: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="First day of this price, YYYY-MM-DD")
    input_per_million: float = Field(ge=0)
    output_per_million: float = Field(ge=0)
    source: str = ""


class TermsConfig(Strict):
    """`kind: terms`: what a teacher family's terms say about training on its outputs, with the date they were read."""

    kind: Literal["terms"]
    name: Name
    family: str
    path: str
    version: str = ""
    effective: str = ""
    verdict: Literal["free", "obligations", "review", "blocked", "unknown"] = "unknown"
    obligations: list[str] = Field(default_factory=list)
    source: str = ""


# --- pipeline -------------------------------------------------------------------------------------------------------


class Block(Strict):
    """A block by its registry name, with its parameters: a knowledge kind or a filter rule. A bare name will do."""

    model_config = ConfigDict(extra="allow")
    name: str = Field(description="Registry name; every other key is a parameter of the block")

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def params(self) -> dict[str, Any]:
        """The parameters beside the name."""
        return dict(self.model_extra or {})


def default_knowledge() -> list[Block]:
    """Labeling: the teacher answers D_U."""
    return [Block(name="labeling")]


def default_filtering() -> list[Block]:
    """The rules every pipeline starts from, in order."""
    return [
        Block(name=name)
        for name in (
            "schema",
            "length",
            "truncation",
            "refusal",
            "verifier",
            "decontamination",
            "exact_duplicate",
            "near_duplicate",
        )
    ]


class StudentOptions(Strict):
    """Where the student starts."""

    base: str = Field(
        default="domain:student_base",
        description="domain:student_base, preset:NAME, a folder, a hub id, or pipeline:NAME@champion",
    )
    revision: str | None = None
    vocabulary: int = Field(default=2048, ge=300, description="Size of the tokenizer fitted for a preset")


class ControlOptions(Strict):
    """The equal-budget control: the same student on gold alone."""

    mode: Literal["auto", "off"] = Field(default="auto", description='off: reports print "not measured"')
    multiples: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=lambda: [1, 2, 4], description="Budgets, as multiples of the student's"
    )


class EvaluationOptions(Strict):
    """How student, control and teacher are examined."""

    max_items: int | None = Field(default=None, ge=1, description="At most this many test items a task, from the top")
    resamples: int = Field(default=2000, ge=100, description="Bootstrap resamples of an interval")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="Confidence level of the intervals")
    baselines: bool = Field(default=True, description="Score the linear and nearest-seed baselines as well")
    seeds: int = Field(default=1, ge=1, description="Paired seeds; 1 is labelled items-only")
    batch_size: int = free(64, ge=1, description="Items answered together")
    threads: int = free(1, ge=1, description="CPU threads")


class GateOptions(Strict):
    """What a student must show before it is deployed."""

    floor: dict[str, float] = Field(default_factory=dict, description="Lowest allowed score a task")
    floor_over_chance: float = Field(default=0.0, description="Mean score must beat mean chance by this much")
    delta: float = Field(
        default=0.02, ge=0, description="No regression: the lower bound of candidate − reference lies above −delta"
    )


class DeployOptions(Strict):
    """Where the student goes."""

    model_name: str | None = Field(default=None, description="MLflow registered model; distill_<pipeline> by default")
    alias: str = Field(default="champion", pattern=r"^[a-z][a-z0-9_-]*$", description="Registry alias that is moved")
    enabled: bool = Field(default=True, description="false: report only, move no alias")


class ScheduleOptions(Strict):
    """When the pipeline retrains by itself. Off until switched on here or in the UI."""

    cron: str = Field(default="0 3 * * 1", description="Minute, hour, day of month, month, day of week")
    timezone: str = Field(default="UTC", description="IANA name such as Europe/Berlin")
    enabled: bool = Field(default=False, description="Switched on when the definitions load; the UI can switch it too")


class PipelineConfig(Strict):
    """`kind: pipeline`: names a source, makes a student."""

    kind: Literal["pipeline"]
    source: Name = Field(description="Name of a `kind: source`")
    name: Name | None = Field(default=None, description="Owns this pipeline's asset keys; the source's name by default")
    data_from: Name | None = Field(default=None, description="Another pipeline whose data half this one reads")
    teacher: Name | None = Field(
        default=None, description="Name of a `kind: teacher`; required unless `data_from` is given"
    )
    tasks: list[Name] | None = Field(None, min_length=1, description="Tasks of the source to teach; all by default")
    knowledge: list[Block] = Field(default_factory=default_knowledge)
    filtering: list[Block] = Field(default_factory=default_filtering)
    filtering_mode: Literal["first", "all"] = Field(
        default="first", description="Stop at the first failing rule, or score all"
    )
    student: StudentOptions = Field(default_factory=StudentOptions)
    training: Recipe = Field(default_factory=Recipe)
    control: ControlOptions = Field(default_factory=ControlOptions)
    evaluation: EvaluationOptions = Field(default_factory=EvaluationOptions)
    gate: GateOptions = Field(default_factory=GateOptions)
    deploy: DeployOptions = free(default_factory=DeployOptions)
    schedule: ScheduleOptions = free(default_factory=ScheduleOptions)
    owners: list[str] = free(default_factory=list, description="E-mail addresses or `team:...`")
    description: str = free("", description="Shown in the UI")

    @model_validator(mode="after")
    def _teacher_or_data(self) -> PipelineConfig:
        if self.data_from is None and self.teacher is None:
            raise ValueError("give `teacher`, or `data_from` to use another pipeline's data")
        if self.data_from is not None:
            for field in ("teacher", "knowledge", "filtering", "filtering_mode"):
                if field in self.model_fields_set:
                    raise ValueError(f"`{field}` belongs to pipeline {self.data_from!r}, whose data `data_from` reads")
        return self

    @property
    def key(self) -> str:
        """Name that owns this pipeline's asset keys."""
        return self.name or self.source


PricesConfig.model_rebuild()

AnyConfig = Annotated[
    SourceConfig | PipelineConfig | TeacherConfig | PricesConfig | TermsConfig, Field(discriminator="kind")
]
KINDS: dict[str, type[Strict]] = {
    "source": SourceConfig,
    "pipeline": PipelineConfig,
    "teacher": TeacherConfig,
    "prices": PricesConfig,
    "terms": TermsConfig,
}
