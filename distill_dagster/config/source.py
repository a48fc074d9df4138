"""`kind: source`: a domain plugin with its data and column mapping."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from distill_dagster.config.egress import EgressOptions
from distill_dagster.config.strict import Name, Owner, Strict, free, is_commit
from distill_dagster.config.styles import StyleName


class GrammarOptions(Strict):
    """How many authored records of each part a task gets, and from which seed."""

    seed: int = Field(default=17, description="Seed of the authored records")
    teacher: int = Field(default=5000, ge=0, description="D_T: records a teacher may be fitted on, a task")
    gold: int = Field(default=200, ge=0, description="D_G: gold records student and control see, a task")
    unlabeled: int = Field(default=2500, ge=0, description="D_U: inputs the teacher labels, a task")
    validation: int = Field(default=300, ge=0, description="D_val: every choice is made here, a task")
    test: int = Field(default=1500, ge=0, description="D_test, a task")

    def count(self, part: str) -> int:
        """Records a task of that part."""
        return int(getattr(self, part))


class Columns(Strict):
    """Which columns of a real data set hold what.

    A dotted name walks into objects, an integer step into lists: `teacher.0.output`. `input` and mapped `answer` and
    `id` must stand in every row; the others may be missing from some rows, but not from all.
    """

    input: str | list[str] = Field(
        description="One column, or several joined by a blank line; one may hold a conversation, "
        "a list of {role, content}"
    )
    answer: str | None = Field(default=None, description="Gold answer; leave it out where the data has none")
    id: str | None = Field(default=None, description="The data set's own id; must be unique in the file")
    context: str | None = Field(default=None, description="Text the input is about")
    choices: str | None = Field(default=None, description="List of answers to choose from")
    rationale: str | None = Field(default=None, description="A person's explanation of the answer")
    subject_key: str | None = Field(default=None, description="Patient, contract or customer; parts never share one")
    annotator: str | None = Field(default=None, description="Who gave the answer")
    language: str | None = Field(default=None, description="Language of the row, in place of the file's `language`")


class Opening(Strict):
    """The input is only the first tokens of its column, which holds text or a list of token ids."""

    tokenizer: str = Field(description="Folder with a `tokenizer.json`, relative to the YAML file")
    tokens: int = Field(ge=1, description="How many tokens to keep; a start-of-text id counts as one")


class DataFile(Strict):
    """A file (JSONL, CSV, parquet) or a hub data set.

    Exactly one of `path` and `hub` is given. A path is relative to the YAML file; `${NAME}` and `${NAME:-default}`
    are taken from the environment.
    """

    path: str | None = Field(default=None, description="File, relative to this YAML file; ${NAME:-default} is replaced")
    hub: str | None = Field(default=None, description="Hub data set id, owner/name")
    revision: str | None = Field(
        default=None, description="Commit of the hub data set; a local file may name its release"
    )
    subset: str | None = Field(default=None, description="Configuration of the hub data set")
    split: str | None = Field(default=None, description="Split of the hub data set; required with `hub`")
    format: Literal["jsonl", "csv", "parquet"] | None = Field(default=None, description="Guessed from the file name")
    columns: Columns
    task: Name = Field(description="Task these rows belong to")
    part: Literal["validation", "test"] = Field(
        default="test", description="Part an evaluation file is; no use on seeds"
    )
    licence: str = Field(min_length=1, description="SPDX id; a hub data set's card must say the same")
    language: str = Field(default="en", description="BCP 47 language tag")
    rows: int | None = Field(default=None, ge=1, description="Declared row count; another count is an error")
    limit: int | None = Field(default=None, ge=1, description="Read at most this many rows, from the top")
    where: dict[str, str | int | bool] = Field(default_factory=dict, description="Keep rows whose columns equal these")
    opening: Opening | None = Field(default=None, description="Keep only the first tokens of the input")

    @model_validator(mode="after")
    def _one_origin(self) -> DataFile:
        if (self.path is None) == (self.hub is None):
            raise ValueError("give exactly one of `path` and `hub`")
        if self.hub is None:
            if self.subset is not None or self.split is not None:
                raise ValueError("`subset` and `split` belong to a `hub` data set, not to a `path`")
            return self
        if not is_commit(self.revision):
            raise ValueError("a hub data set needs its `revision`: the 40 hex digits of a commit (a branch can move)")
        if self.split is None:
            raise ValueError("a hub data set needs its `split`")
        if self.format is not None:
            raise ValueError("`format` belongs to a `path`; a hub data set has its own")
        return self

    @model_validator(mode="after")
    def _opening_of_one(self) -> DataFile:
        if self.opening is not None and not isinstance(self.columns.input, str):
            raise ValueError("`opening` takes the first tokens of one input column, not of several")
        return self


class Split(Strict):
    """How seed rows are divided over D_T, D_G, D_U and D_val, by subject (or input text): counts, then shares.

    A value above 1 takes that many records of the source; a value of at most 1 takes that share of what the counts
    left. Shares may add up to less than 1: the rest is not used. With shares alone, adding a record moves no other.
    """

    seed: int = Field(default=17, description="Another seed divides the same rows otherwise")
    teacher: float = Field(default=0.5, ge=0, description="D_T: fits a teacher")
    gold: float = Field(default=0.1, ge=0, description="D_G: gold records student and control see")
    unlabeled: float = Field(default=0.4, ge=0, description="D_U: inputs the teacher labels")
    validation: float = Field(
        default=0.0, ge=0, description="D_val, taken from the seed rows where no evaluation file has it"
    )

    @model_validator(mode="after")
    def _whole_or_share(self) -> Split:
        values = {part: float(getattr(self, part)) for part in ("teacher", "gold", "unlabeled", "validation")}
        for part, value in values.items():
            if value > 1 and value != int(value):
                raise ValueError(f"`{part}` is {value}: give a whole number of records, or a share of at most 1")
        total = sum(value for value in values.values() if value <= 1)
        if total > 1 + 1e-9:
            raise ValueError(f"the shares add up to {total:g}; at most 1 can be given out")
        return self


class TaskSpec(Strict):
    """A task of a source that brings its own data (domain `generic`, or a new task on a domain)."""

    name: Name
    kind: Literal["label", "text", "verified"] = Field(
        description="label: one of `labels`; text: short free text; verified: an answer the domain's verifier computes"
    )
    title: str = Field(default="", description="A few words for reports")
    description: str = Field(
        default="", description="What is asked; the default `full` template says it to the teacher"
    )
    labels: list[str] | None = Field(default=None, description="Left out: the answers seen in the seed rows, sorted")
    max_new_tokens: int = Field(default=32, ge=1, description="Room for an answer")

    @model_validator(mode="after")
    def _labels_of_a_label_task(self) -> TaskSpec:
        if self.labels is not None:
            if self.kind != "label":
                raise ValueError(f"a task of kind {self.kind!r} has no `labels`")
            if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
                raise ValueError("`labels` needs at least two classes, each listed once")
        return self


class Prompt(Strict):
    """A prompt template in place of the domain's: Jinja2 with `input`, `context`, `choices`, `labels`.

    The styles beside `full` and `short` belong to kinds of knowledge; docs/knowledge.md says what each may read.
    """

    task: Name
    style: StyleName = Field(
        default="short",
        description="full: for a general model; short: for a fitted one; others: for one kind of knowledge",
    )
    system: str = Field(default="", description="Instruction; record text may not stand here")
    user: str = Field(default="{{ input }}", description="What the model is shown, with the record's input")


class SourceConfig(Strict):
    """`kind: source`: a domain plugin with its data and column mapping."""

    kind: Literal["source"]
    domain: str = Field(description="Name of a domain plugin; `distill-dagster domains` lists them")
    name: Name | None = Field(default=None, description="Owns this source's asset keys; the domain's name by default")
    tasks: list[Name] | None = Field(default=None, description="Tasks to use; all that have data by default")
    define: list[TaskSpec] = Field(default_factory=list, description="Tasks that the domain does not know")
    grammar: GrammarOptions | None = Field(default=None, description="Sizes of the authored records")
    seeds: list[DataFile] = Field(default_factory=list, description="Files to draw the seed set from")
    evaluation: list[DataFile] = Field(default_factory=list, description="Files nobody trains on")
    split: Split = Field(default_factory=Split)
    leaks: Literal["refuse", "drop"] = Field(
        default="refuse",
        description="Seed rows whose input or subject also stands in an evaluation file, near matches included. "
        "refuse: the leakage check stops the run; drop: they are left out, each with its reason, and so are "
        "validation rows drawn from `seeds` whose input or subject stands in a test file",
    )
    prompts: list[Prompt] = Field(default_factory=list, description="Templates in place of the domain's")
    context_limit: int | None = Field(default=None, ge=1, description="Cut `context` to this many characters")
    egress: EgressOptions = free(
        default_factory=EgressOptions,
        description="Where records may be sent, and what happens to personal data and secrets; it remakes what asks, "
        "not the seeds",
    )
    show_records: bool = free(False, description="Let Dagster show sample records of this source")
    owners: list[Owner] = free(
        default_factory=list, description="E-mail addresses or `team:...`; the domain's by default"
    )
    description: str = free("", description="Shown in the UI")

    @model_validator(mode="after")
    def _some_data(self) -> SourceConfig:
        if self.grammar is not None and (self.seeds or self.evaluation):
            raise ValueError("give either `grammar` or `seeds` and `evaluation`, not both")
        if self.seeds and not self.evaluation:
            raise ValueError("a source with `seeds` needs `evaluation` files as well")
        if self.evaluation and not self.seeds:
            raise ValueError("a source with `evaluation` needs `seeds` as well")
        if self.split.validation and any(data.part == "validation" for data in self.evaluation):
            raise ValueError("give either `split.validation` or an evaluation file with `part: validation`, not both")
        return self

    @property
    def key(self) -> str:
        """Name that owns this source's asset keys."""
        return self.name or self.domain
