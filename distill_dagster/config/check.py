"""`distill-dagster check`: every problem in a configuration folder, files that are not there included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distill_dagster.config import detector_checks, paths
from distill_dagster.config.load import ProjectConfig, examine
from distill_dagster.config.problems import Key, Problem, dotted, relative
from distill_dagster.config.yaml_reader import Document, read
from distill_dagster.errors import ConfigError


def check(config_dir: Path, domains: Any = None, files: bool = True) -> list[Problem]:
    """Every problem in the folder, by file and line; none where it is sound.

    Args:
        config_dir: Folder with YAML files.
        domains: What `domains.registry.discover` found; found anew where left out.
        files: Look as well whether the data files, tokenizers and model folders that are named are there, and
            build the detectors that are named.
    """
    project, problems = examine(config_dir, domains)
    if files:
        problems += [*_absent(project), *_detectors(project)]
    return sorted(set(problems))


def render(problems: Sequence[Problem], config_dir: Path) -> str:
    """The problems as text, one a line: `file:line: key: reason hint`."""
    if not problems:
        return f"{relative(Path(config_dir))}: no problems."
    return "\n".join([*map(str, problems), f"{len(problems)} problem{'s' if len(problems) > 1 else ''}."])


def _detectors(project: ProjectConfig) -> Iterator[Problem]:
    configs = {"source": project.sources, "pipeline": project.pipelines}
    for (kind, name), path in project.files.items():
        for key, options in detector_checks.named(configs.get(kind, {}).get(name)):
            document = read(project.folder / path.relative_to(project.folder.absolute()))
            found = detector_checks.problem(key, options, document) if isinstance(document, Document) else None
            if found is not None:
                yield found


def _absent(project: ProjectConfig) -> Iterator[Problem]:
    for (kind, name), path in project.files.items():
        named: list[tuple[str, Key, str]] = []
        if kind == "source":
            source = project.sources[name]
            for field in ("seeds", "evaluation"):
                for index, data in enumerate(getattr(source, field)):
                    if data.path is not None:
                        named.append((data.path, (field, index, "path"), ""))
                    if data.opening is not None:
                        named.append((data.opening.tokenizer, (field, index, "opening", "tokenizer"), "tokenizer.json"))
        elif kind == "teacher" and (recorded := project.teachers[name].recorded) is not None:
            several = not isinstance(recorded.path, str)
            for index, text in enumerate(recorded.paths):
                named.append((text, ("recorded", "path", index) if several else ("recorded", "path"), ""))
        elif kind == "teacher" and paths.is_folder(project.teachers[name].model):
            named.append((project.teachers[name].model, ("model",), "config.json"))
        elif kind == "pipeline" and paths.is_folder(project.pipelines[name].student.base):
            named.append((project.pipelines[name].student.base, ("student", "base"), "config.json"))
        for text, key, inside in named:
            try:
                place = paths.resolve(text, path.parent, str(path))
            except ConfigError:
                continue
            if not (place / inside).exists() if inside else not place.is_file():
                document = read(project.folder / path.relative_to(project.folder.absolute()))
                reason = f"{text!r} leads to {relative(place)}, where there is no {inside or 'file'}."
                hint = "Paths are relative to the YAML file."
                if isinstance(document, Document):
                    yield document.problem(key, reason, hint)
                else:
                    yield Problem(path, 0, dotted(key), reason, hint)
