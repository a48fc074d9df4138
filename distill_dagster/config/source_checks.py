"""What a source file says about its domain, tasks, data files and prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distill_dagster.config import paths
from distill_dagster.config.models import SourceConfig
from distill_dagster.config.problems import Key, Problem
from distill_dagster.config.registry import nearest
from distill_dagster.config.styles import STYLES
from distill_dagster.config.yaml_reader import Document
from distill_dagster.errors import ConfigError

#: What user templates may read and system templates may not: text of records and of models.
RECORD_VARIABLES = {name for style in STYLES.values() for name in style.user if name not in style.system}


def task_names(source: SourceConfig, domain: Any) -> list[str]:
    """Names of a source's tasks in report order: those asked for, else all that have data. Reads no data."""
    defined = [spec.name for spec in source.define]
    known = [*(task.name for task in domain.tasks if task.name not in defined), *defined]
    if source.tasks is not None:
        return [name for name in known if name in source.tasks]
    if source.seeds:
        return [name for name in known if any(data.task == name for data in source.seeds)]
    return [name for name in known if name not in defined]


def problems(source: SourceConfig, document: Document, domains: Any) -> Iterator[Problem]:
    """Problems of one source file; `domains` is what `domains.registry.discover` found."""
    yield from _paths(source, document)
    if source.domain not in domains.found:
        yield document.problem(("domain",), *domains.why_not(source.domain))
        return
    domain = domains.found[source.domain]
    defined = [spec.name for spec in source.define]
    known = [*(task.name for task in domain.tasks), *defined]
    for index, spec in enumerate(source.define):
        if known.count(spec.name) > 1:
            reason = f"task {spec.name!r} exists already, in the domain or in this file."
            yield document.problem(("define", index, "name"), reason, "Give it another name.")
    for index, name in enumerate(source.tasks or ()):
        if name not in known:
            reason = f"domain {source.domain!r} has no task {name!r}."
            yield document.problem(("tasks", index), reason, nearest(name, known))
    for field in ("seeds", "evaluation"):
        for index, data in enumerate(getattr(source, field)):
            if data.task not in known:
                reason = f"no task is named {data.task!r}."
                yield document.problem((field, index, "task"), reason, nearest(data.task, known))
    yield from _coverage(source, domain, document, defined)
    yield from _templates(source, domain, document, known)


def _coverage(source: SourceConfig, domain: Any, document: Document, defined: list[str]) -> Iterator[Problem]:
    """Does every task have the data it needs?"""
    if not source.seeds:
        if domain.items is None:
            reason = f"domain {domain.name!r} has no grammar, so the source needs data."
            yield document.problem(("domain",), reason, "Give `seeds` and `evaluation`.")
        elif defined:
            reason = "tasks defined here need `seeds` and `evaluation`; the domain's grammar does not know them."
            yield document.problem(("define",), reason)
        return
    seeded = {data.task for data in source.seeds}
    examined = {data.task for data in source.evaluation if data.part == "test"}
    for name in task_names(source, domain):
        if name not in seeded:
            yield document.problem(("tasks",), f"task {name!r} has no file in `seeds`.")
        if name not in examined:
            yield document.problem(("evaluation",), f"task {name!r} has no test file in `evaluation`.")
    for index, data in enumerate(source.evaluation):
        if data.task not in seeded:
            reason = f"task {data.task!r} has no file in `seeds`."
            yield document.problem(("evaluation", index, "task"), reason)


def _templates(source: SourceConfig, domain: Any, document: Document, known: list[str]) -> Iterator[Problem]:
    own: set[tuple[str, str]] = set()
    for index, prompt in enumerate(source.prompts):
        key: Key = ("prompts", index)
        if prompt.task not in known:
            yield document.problem((*key, "task"), f"no task is named {prompt.task!r}.", nearest(prompt.task, known))
        if (prompt.task, prompt.style) in own:
            yield document.problem(key, f"a second {prompt.style} template for task {prompt.task!r}.", "Keep one.")
        own.add((prompt.task, prompt.style))
        yield from _template(prompt.system, (*key, "system"), STYLES[prompt.style].system, document)
        yield from _template(prompt.user, (*key, "user"), STYLES[prompt.style].user, document)
    shipped = {(template.task, template.style) for template in domain.templates}
    for task in domain.tasks:
        for style in ("full", "short"):
            if task.name in task_names(source, domain) and (task.name, style) not in shipped | own:
                reason = f"domain {domain.name!r} ships no {style} template for task {task.name!r}."
                yield document.problem(("domain",), reason, "Write one under `prompts`.")


def _template(text: str, key: Key, allowed: tuple[str, ...], document: Document) -> Iterator[Problem]:
    """Is it Jinja2, and does it use nothing but what it is given?"""
    from jinja2 import TemplateSyntaxError, meta
    from jinja2.sandbox import SandboxedEnvironment

    try:
        used = meta.find_undeclared_variables(SandboxedEnvironment().parse(text))
    except TemplateSyntaxError as error:
        yield document.problem(key, f"not a Jinja2 template: {error.message}.")
        return
    for name in sorted(used - set(allowed)):
        hint = nearest(name, allowed)
        if name in RECORD_VARIABLES:
            hint = "Record text stands in the user role only, so that it cannot give orders."
        yield document.problem(key, f"the template uses {name!r}, which it is not given.", hint)


def _paths(source: SourceConfig, document: Document) -> Iterator[Problem]:
    """Can the variables in paths be replaced here?"""
    for field in ("seeds", "evaluation"):
        for index, data in enumerate(getattr(source, field)):
            written: list[tuple[str, Key]] = [(data.path, (field, index, "path"))] if data.path is not None else []
            if data.opening is not None:
                written.append((data.opening.tokenizer, (field, index, "opening", "tokenizer")))
            for text, key in written:
                try:
                    paths.expand(text, str(document.path))
                except ConfigError as error:
                    yield document.problem(key, error.reason, error.next_step)
