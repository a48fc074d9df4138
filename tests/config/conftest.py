"""A configuration folder to write into, blocks that do not depend on what the package ships, and a small domain."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from distill_dagster.config import pipeline_checks
from distill_dagster.config.check import check
from distill_dagster.config.models import default_filtering
from distill_dagster.config.problems import Problem
from distill_dagster.domains.base import Domain, PromptTemplate, Task
from distill_dagster.domains.generic.domain import domain as generic
from distill_dagster.domains.registry import Domains, Failure

BLOCKS = {
    pipeline_checks.FILTERS: tuple(sorted(block.name for block in default_filtering())),
    pipeline_checks.KNOWLEDGE: ("curation", "labeling"),
    pipeline_checks.OBJECTIVES: ("divergence", "sft"),
    pipeline_checks.BACKENDS: ("openai", "recorded", "transformers"),
}

SOURCE = "kind: source\ndomain: toy\n"
TEACHER = "kind: teacher\nname: small\n"
PIPELINE = "kind: pipeline\nsource: toy\nteacher: small\nfiltering: [schema]\n"


def toy() -> Domain:
    tasks = (Task("colour", "label", "", "", ("red", "blue")), Task("size", "text", "", ""))
    templates = tuple(PromptTemplate(task.name, style, "{{ input }}") for task in tasks for style in ("full", "short"))
    return Domain("toy", "", "", (), tasks, templates, items=lambda *_: iter(()))


@pytest.fixture(autouse=True)
def known_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_checks, "blocks", lambda package, attribute: BLOCKS[package, attribute])


@pytest.fixture
def domains() -> Domains:
    return Domains(
        {"toy": toy(), "generic": generic()}, failures=(Failure("broken", "acme-broken 2.0", "ImportError: no acme"),)
    )


@pytest.fixture
def found(tmp_path: Path, domains: Domains) -> Callable[..., list[Problem]]:
    """Write files (name to text or bytes) beside a sound project, and check the folder."""

    def run(sound: bool = True, /, **files: str | bytes) -> list[Problem]:
        texts: dict[str, str | bytes] = {"source": SOURCE, "teacher": TEACHER, "pipeline": PIPELINE} if sound else {}
        for name, text in {**texts, **files}.items():
            raw = text if isinstance(text, bytes) else textwrap.dedent(text).encode()
            (tmp_path / f"{name}.yaml").write_bytes(raw)
        return check(tmp_path, domains)

    return run
