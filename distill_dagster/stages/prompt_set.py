"""`prompt_set`: the target skill as versioned templates, one a task and style.

Every task has the styles `full` and `short`. Others stand here only where a pipeline of the source lists a kind of
knowledge that needs them, so a source that labels alone keeps its version.
"""

from __future__ import annotations

from distill_dagster.config.styles import ALWAYS
from distill_dagster.domains.base import PromptTemplate
from distill_dagster.domains.generic import domain as generic
from distill_dagster.knowledge import _templates
from distill_dagster.lineage.engine import Job
from distill_dagster.lineage.graph import Node
from distill_dagster.records import tables
from distill_dagster.stages.context import SourceContext

VERSION = "1"


def node(source: SourceContext) -> Node:
    """The node `<source>/prompt_set`."""
    names = source.known_tasks()
    config = {
        "tasks": names,
        "define": [task.model_dump() for task in source.config.define],
        "prompts": [prompt.model_dump() for prompt in source.config.prompts],
        "templates": [_as_dict(template) for template in source.domain.templates if template.task in names],
    }
    if source.styles:
        config["styles"] = list(source.styles)
    return Node(
        key=(source.key, "prompt_set"),
        version=VERSION,
        parents=(),
        config=config,
        outside=lambda: {"labels": {name: list(task.labels) for name, task in source.tasks.items()}},
        make=lambda job: make(job, source),
        title="Prompt templates by task and style",
    )


def _as_dict(template: PromptTemplate) -> dict[str, str]:
    return {
        "task": template.task,
        "style": template.style,
        "system": template.system,
        "user": template.user,
        "version": template.version,
    }


def templates(source: SourceContext) -> list[PromptTemplate]:
    """The source's templates: its own, then the domain's, then the generic ones, for every task in every style."""
    own = {(p.task, p.style): p for p in source.config.prompts}
    shipped = {(t.task, t.style): t for t in source.domain.templates}
    found: list[PromptTemplate] = []
    for name, task in source.tasks.items():
        for style in (*ALWAYS, *source.styles):
            if (name, style) in own:
                prompt = own[name, style]
                found.append(PromptTemplate(task=name, style=style, user=prompt.user, system=prompt.system))
            elif (name, style) in shipped:
                found.append(shipped[name, style])
            else:
                known = (*generic.templates(task), _templates.generic(task, style))
                found += [template for template in known if template is not None and template.style == style]
    return found


def make(job: Job, source: SourceContext) -> None:
    """Write the templates as records."""
    rows = [
        {**_as_dict(template), "labels": list(source.tasks[template.task].labels)} for template in templates(source)
    ]
    job.draft.write_table("prompt", tables.build("prompt", rows), by="style")
    job.notes["counts"] = {"templates": len(rows), "tasks": len(source.tasks)}
