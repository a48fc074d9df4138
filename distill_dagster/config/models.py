"""What the YAML files may say. Every file names its `kind`; unknown keys are refused.

A field marked *not identity* (`free(...)`) changes how work is done, never what comes out, so a change of it
remakes nothing. All others enter the action keys of the stages that read them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from distill_dagster.config.deployment import DeployOptions, GateOptions, OverrideOptions
from distill_dagster.config.egress import EgressOptions, EndpointClass
from distill_dagster.config.endpoint import EndpointOptions
from distill_dagster.config.prices import BudgetOptions, PriceEntry, PricesConfig
from distill_dagster.config.recipe import Recipe, Term
from distill_dagster.config.recorded import RecordedOptions
from distill_dagster.config.review import ReviewOptions
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
from distill_dagster.config.strict import Name, Owner, Strict, free, identity, later
from distill_dagster.config.teachers import TeachersOptions, WeightedTeacher

__all__ = [
    "KINDS",
    "AnyConfig",
    "Block",
    "BudgetOptions",
    "Columns",
    "ControlOptions",
    "DataFile",
    "DeployOptions",
    "EndpointOptions",
    "EgressOptions",
    "EvaluationOptions",
    "FitOptions",
    "GateOptions",
    "GrammarOptions",
    "Name",
    "Opening",
    "OverrideOptions",
    "PipelineConfig",
    "PriceEntry",
    "PricesConfig",
    "Prompt",
    "Recipe",
    "RecordedOptions",
    "ReviewOptions",
    "Sampling",
    "ScheduleOptions",
    "SourceConfig",
    "Split",
    "Strict",
    "StudentOptions",
    "TaskSpec",
    "TeacherConfig",
    "TeachersOptions",
    "Term",
    "TermsConfig",
    "WeightedTeacher",
    "free",
    "identity",
]

# --- training -------------------------------------------------------------------------------------------------------


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

    `model` is `domain:teacher` (the domain's committed one), `preset:NAME` (with `fit`), a folder, or a hub id; behind
    an `endpoint`, the name that its server knows.
    """

    kind: Literal["teacher"]
    name: Name
    backend: str = Field(default="transformers", description="How the model is reached")
    model: str = Field(
        default="domain:teacher",
        description="domain:teacher, preset:NAME (with `fit`), a folder, or a hub id; for an API, the server's name",
    )
    revision: str | None = Field(
        default=None,
        description="Commit of the hub model, 40 hex digits; for an API, whatever you declare: a new one asks anew",
    )
    endpoint: EndpointOptions | None = Field(default=None, description="Where an API teacher is reached")
    template: Literal["chat", "plain"] = Field(default="chat", description="plain: the text itself, no chat template")
    prompt_style: Literal["full", "short"] = Field(
        default="full", description="Which of the task's templates it is given"
    )
    sampling: Sampling = Field(default_factory=Sampling)
    fit: FitOptions | None = Field(default=None, description="Fit it on D_T first")
    recorded: RecordedOptions | None = Field(
        default=None, description="The answers of backend `recorded`: a file and what its columns hold"
    )
    prices: Name | None = free(None, description="Name of a `kind: prices` with a price of `model`")
    budget: BudgetOptions | None = free(None, description="Stop, resumably, before more is spent")
    egress_class: EndpointClass | None = free(
        None,
        description="Where questions go: local, own_network or third_party. By default local for weights on this "
        "machine and for addresses of this machine, third_party for every other address",
    )
    batch_size: int = free(64, ge=1, description="Questions answered together")
    threads: int = free(1, ge=1, description="CPU threads of a local model")
    dtype: Literal["fp32", "bf16"] = Field(default="fp32", description="Precision a local model runs in")

    @model_validator(mode="after")
    def _api_needs_endpoint(self) -> TeacherConfig:
        if self.backend != "openai":
            if self.endpoint is not None:
                raise ValueError(f"`endpoint` belongs to backend 'openai', not {self.backend!r}")
            return self
        if self.endpoint is None:
            raise ValueError("backend 'openai' needs an `endpoint` with the server's `url`")
        if "model" not in self.model_fields_set or self.model.startswith(("domain:", "preset:")):
            raise ValueError("backend 'openai' needs `model`: the name that the server knows it by")
        if self.fit is not None:
            raise ValueError("a teacher behind an API cannot be fitted here: leave `fit` out")
        return self

    @model_validator(mode="after")
    def _preset_needs_fit(self) -> TeacherConfig:
        if self.model.startswith("preset:") and self.fit is None:
            raise ValueError(f"model {self.model!r} has no weights yet: give `fit` with a recipe, to train it on D_T")
        return self

    @model_validator(mode="after")
    def _recorded_answers(self) -> TeacherConfig:
        if self.backend == "recorded":
            if self.recorded is None:
                raise ValueError("backend `recorded` needs `recorded`: the file of answers and its columns")
            if self.fit is not None:
                raise ValueError("a file of answers cannot be fitted: leave out `fit`")
        elif self.recorded is not None:
            raise ValueError(f"`recorded` belongs to backend `recorded`, not to {self.backend!r}")
        return self

    @model_validator(mode="after")
    def _money_needs_prices(self) -> TeacherConfig:
        if self.budget is not None and self.budget.money is not None and self.prices is None:
            raise ValueError("a budget in `money` needs `prices`: the name of a `kind: prices`")
        return self


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
            "injection",
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
        description="domain:student_base, preset:NAME, a folder, a hub id, `teacher` (its weights, or some of its "
        "`layers`), or pipeline:NAME@champion (its own: a warm start)",
    )
    revision: str | None = Field(default=None, description="Commit of the hub model, 40 hex digits")
    vocabulary: int = Field(default=2048, ge=300, description="Size of the tokenizer fitted for a preset")
    architecture: str | None = free(
        None,
        description="A file with the model's config.json, for `distill-dagster plan` to read in place of the hub's",
    )
    layers: Annotated[int, Field(ge=1)] | list[Annotated[int, Field(ge=0)]] | None = later(
        None,
        description="Only these layers of `base`, from 0, or so many, evenly spaced; of `teacher`, a folder or a hub "
        "model. All by default",
    )

    @model_validator(mode="after")
    def _layers_of_a_model(self) -> StudentOptions:
        if self.layers is None:
            return self
        if self.base.startswith(("preset:", "pipeline:")):
            raise ValueError(f"`layers` takes layers of a teacher, a folder or a hub model, not of {self.base!r}")
        if isinstance(self.layers, list) and (not self.layers or self.layers != sorted(set(self.layers))):
            raise ValueError(f"`layers` is {self.layers}: list at least one, each once, in rising order")
        return self


class ControlOptions(Strict):
    """The equal-budget control: the same student on gold alone."""

    mode: Literal["auto", "off"] = Field(default="auto", description='off: reports print "not measured"')
    multiples: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=lambda: [1, 2, 4], description="Budgets, as multiples of the student's"
    )
    arms: list[str] = later(
        [],
        description="Further arms at the student's own budget: all_gold (D_U with its gold answers: a ceiling), "
        "self_training (D_U as the control answers it)",
    )

    @model_validator(mode="after")
    def _arms_stand_beside_the_control(self) -> ControlOptions:
        if self.arms and (self.mode == "off" or 1 not in self.multiples):
            raise ValueError("`arms` stand beside the control at the student's own budget: add 1 to `multiples`")
        if len(set(self.arms)) < len(self.arms):
            raise ValueError("`arms` lists one twice")
        return self


class EvaluationOptions(Strict):
    """How student, control and teacher are examined."""

    max_items: int | None = Field(default=None, ge=1, description="At most this many test items a task, from the top")
    resamples: int = Field(default=2000, ge=100, description="Bootstrap resamples of an interval")
    level: float = Field(default=0.95, gt=0.5, lt=1, description="Confidence level of the intervals")
    baselines: bool = Field(default=True, description="Score the linear and nearest-seed baselines as well")
    seeds: int = Field(
        default=1,
        ge=1,
        description="Paired training seeds: every student and control is trained this often, intervals run over items "
        "and seeds, and the median on D_val is served; 1 is labelled items-only",
    )
    batch_size: int = free(64, ge=1, description="Items answered together")
    threads: int = free(1, ge=1, description="CPU threads")


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
        default=None, description="Name of a `kind: teacher`; required unless `teachers` or `data_from` is given"
    )
    teachers: TeachersOptions | None = later(
        None, description="Several teachers in place of one: a list with weights, `by_task`, or `vote`"
    )
    tasks: list[Name] | None = Field(None, min_length=1, description="Tasks of the source to teach; all by default")
    knowledge: list[Block] = Field(default_factory=default_knowledge)
    filtering: list[Block] = Field(default_factory=default_filtering)
    filtering_mode: Literal["first", "all"] = Field(
        default="first", description="Stop at the first failing rule, or score all"
    )
    review: ReviewOptions | None = later(
        None, description="People read a sample of the data set; `distill-dagster review` writes it and takes verdicts"
    )
    student: StudentOptions = Field(default_factory=StudentOptions)
    training: Recipe = Field(default_factory=Recipe)
    control: ControlOptions = Field(default_factory=ControlOptions)
    evaluation: EvaluationOptions = Field(default_factory=EvaluationOptions)
    gate: GateOptions = Field(default_factory=GateOptions)
    deploy: DeployOptions = free(default_factory=DeployOptions)
    schedule: ScheduleOptions = free(default_factory=ScheduleOptions)
    owners: list[Owner] = free(default_factory=list, description="E-mail addresses or `team:...`")
    description: str = free("", description="Shown in the UI")

    @model_validator(mode="after")
    def _teacher_or_data(self) -> PipelineConfig:
        if self.data_from is None and self.teacher is None and self.teachers is None:
            raise ValueError("give `teacher`, or `data_from` to use another pipeline's data")
        if self.teacher is not None and self.teachers is not None:
            raise ValueError("give `teacher` or `teachers`, not both")
        if self.data_from is not None:
            for field in ("teacher", "teachers", "knowledge", "filtering", "filtering_mode", "review"):
                if field in self.model_fields_set:
                    raise ValueError(f"`{field}` belongs to pipeline {self.data_from!r}, whose data `data_from` reads")
        return self

    @property
    def key(self) -> str:
        """Name that owns this pipeline's asset keys."""
        return self.name or self.source


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
