"""Commands of human review: a sample for people to read, and their verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from distill_dagster import console
from distill_dagster.errors import ConfigError

app = typer.Typer()
review_app = typer.Typer(help="Have people read a sample of the data, and use what they say.", no_args_is_help=True)
app.add_typer(review_app, name="review")

Pipeline = Annotated[str, typer.Argument(help="Name of a pipeline.")]
Config = Annotated[Path | None, typer.Option("--config", help="Folder of the YAML files.")]


@review_app.command("export")
def review_export(
    pipeline: Pipeline,
    out: Annotated[Path, typer.Option(help="Where to write; one file a reviewer, where there are several.")],
    form: Annotated[Literal["csv", "label_studio"], typer.Option("--format", help="csv or label_studio.")] = "csv",
    sample: Annotated[int, typer.Option(help="Kept records to read.", min=0)] = 200,
    dropped: Annotated[int, typer.Option(help="Dropped records to read beside them.", min=0)] = 0,
    reviewers: Annotated[str, typer.Option(help="Pseudonyms, as in anna,ben; each gets a file.")] = "",
    seed: Annotated[int, typer.Option(help="Another seed draws others.")] = 0,
    config: Config = None,
) -> None:
    """Write a sample of the newest data set for people to read, stratified by task and source."""
    import re

    from distill_dagster.config.review import PSEUDONYM
    from distill_dagster.filtering._review import VERDICTS
    from distill_dagster.settings import Settings
    from distill_dagster.stages import review, review_files
    from distill_dagster.stages.project import Project
    from distill_dagster.storage.atomic import write_bytes

    project = Project(Settings.from_environment(config))
    context = project.pipeline(project.pipeline(pipeline).data)
    options = review.options_for(context)
    names = [name.strip() for name in reviewers.split(",") if name.strip()]
    for name in names:
        if not re.fullmatch(PSEUDONYM, name):
            raise ConfigError("--reviewers", f"{name!r} is no pseudonym.", "Use letters, digits, . _ and -.")
    items = review.population(project.store, context.key)
    kept, others = [one for one in items if one.reason is None], [one for one in items if one.reason is not None]
    # Who reads does not see what the machine made of a record, so dropped ones stand among the kept ones.
    chosen = {item.record_id for item in (*review.drawn(kept, sample, seed), *review.drawn(others, dropped, seed))}
    shown = review.drawn([item for item in items if item.record_id in chosen], len(chosen), seed)
    written = []
    for name in names or ([""] if form == "label_studio" else ["reviewer_1"]):
        place = out.with_name(f"{out.stem}.{name}{out.suffix}") if len(names) > 1 else out
        rows = [{**item.cells(), "reviewer": name} for item in shown]
        label_studio = review_files.to_label_studio(rows, options.critical_errors)
        write_bytes(place, review_files.to_csv(rows) if form == "csv" else label_studio)
        written.append(place)
    if form == "label_studio":
        rationale = any(item.rationale for item in shown)
        xml = review_files.labelling_config(VERDICTS, rationale, any(options.critical_errors.values()))
        place = out.with_suffix(".xml")
        write_bytes(place, xml.encode())
        written.append(place)
    count = sum(item.reason is None for item in shown)
    console.out.print(f"{count} of {len(kept)} kept and {len(shown) - count} of {len(others)} dropped records:")
    for place in written:
        console.out.print(f"  {place}", soft_wrap=True, markup=False)


@review_app.command("import")
def review_import(
    pipeline: Pipeline,
    files: Annotated[list[Path], typer.Argument(help="CSV files, or Label Studio's JSON exports.")],
    config: Config = None,
) -> None:
    """Take verdicts in. The next run of `filtered_dataset` drops what was rejected; `status` shows that it is stale."""
    from distill_dagster.settings import Settings
    from distill_dagster.stages.project import Project
    from distill_dagster.stages.review_import import take

    taken = take(Project(Settings.from_environment(config)), pipeline, files)
    console.out.print(f"{taken.verdicts} verdicts, {taken.blank} rows without one", highlight=False)
    if taken.made is None:
        console.out.print("nothing new: the same was said before")
    else:
        console.out.print(f"{taken.made.version}; next: distill-dagster run {pipeline}", soft_wrap=True)
