"""The models that the domains ship are those that `make teacher` would make now."""

import json
import shutil
from pathlib import Path

import pytest

from distill_dagster.config.models import GrammarOptions, SourceConfig
from distill_dagster.domains import sampler
from distill_dagster.domains.registry import discover
from distill_dagster.records import tables
from distill_dagster.stages import domain_models

DOMAINS = ("finance", "law", "medicine")
ROLES = {
    "teacher": (domain_models.TEACHER_PRESET, domain_models.TEACHER_RECIPE),
    "student_base": (domain_models.STUDENT_PRESET, domain_models.STUDENT_RECIPE),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DOMAINS)
def test_shipped_models_agree_with_recipe_preset_and_records(name: str, tmp_path: Path) -> None:
    domain = discover().get(name)
    assert domain is not None and domain.models is not None
    config = SourceConfig(kind="source", domain=name, grammar=GrammarOptions())
    rows = tables.build("seed", sampler.records(config, domain, "seed", tmp_path))
    root = tables.roots(rows, "part")["teacher"]
    for role, (preset, recipe) in ROLES.items():
        manifest = domain_models._manifest(domain, role, preset, recipe, root)
        place = Path(domain.models) / role
        assert domain_models._stands(place, manifest), role
        assert not domain_models._stands(place, {**manifest, "vocabulary": 1})
        assert not domain_models._stands(tmp_path / "none", manifest)
        copy = shutil.copytree(place, tmp_path / role)
        config_file = copy / "config.json"
        config_file.write_text(json.dumps({**json.loads(config_file.read_text("utf-8")), "num_attention_heads": 1}))
        assert not domain_models._stands(copy, manifest)
