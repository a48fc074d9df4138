"""The generic domain: no grammar, no tasks of its own. A source that names it brings data and `define`s its tasks."""

from __future__ import annotations

from distill_dagster.domains.base import Domain, PromptTemplate, Task

_ASK = {
    "label": "Answer with exactly one of these labels and nothing else:\n"
    "{% for label in labels %}- {{ label }}\n{% endfor %}",
    "text": "Answer with the text that is asked for and nothing else.",
    "verified": "Answer with the result alone, without the steps that lead to it.",
}


def templates(task: Task) -> tuple[PromptTemplate, PromptTemplate]:
    """Templates for a task that ships none: `full` names the task and lists every label, `short` is the input.

    Both show the record's `context`, where it has one, above the input and its `choices` below. Record text stands in
    the user role only.
    """
    shown = (
        "{% if context %}{{ context }}\n\n{% endif %}{{ input }}"
        "{% if choices %}{% for choice in choices %}\n- {{ choice }}{% endfor %}{% endif %}"
    )
    about = " ".join(part for part in (f"Task: {task.title or task.name}.", task.description) if part)
    return (
        PromptTemplate(task.name, "full", system=f"{{% raw %}}{about}{{% endraw %}}\n{_ASK[task.kind]}", user=shown),
        PromptTemplate(task.name, "short", user=shown),
    )


def domain() -> Domain:
    """Entry point of the plugin."""
    return Domain(
        name="generic",
        title="Generic",
        description="Any data set with a column mapping; tasks are defined in the source's YAML file.",
        owners=(),
        tasks=(),
        templates=(),
        licence="",
    )
