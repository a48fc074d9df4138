"""README and docs name only what exists: targets, commands, files, blocks, tests; and their examples work."""

import ast
import re
import runpy
from collections.abc import Mapping
from pathlib import Path

import pytest
import typer
import yaml
from browser.files import FILES

from distill_dagster.cli import app
from distill_dagster.config.load import ProjectConfig, load_project
from distill_dagster.config.registry import blocks
from distill_dagster.domains.base import Domain
from distill_dagster.domains.registry import Domains, discover

REPO = Path(__file__).resolve().parents[2]
README = REPO / "README.md"
PAGES = sorted([*REPO.glob("*.md"), *(REPO / "docs").rglob("*.md"), *(REPO / "docker").glob("*.md")])

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def named(path: Path) -> str:
    return str(path.relative_to(REPO))


def code_blocks(page: Path, language: str) -> list[str]:
    return [body for found, body in BLOCK.findall(page.read_text("utf-8")) if found == language]


def code(page: Path) -> str:
    """Everything a page sets as code, by block or inline."""
    text = page.read_text("utf-8")
    inline = re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
    return "\n".join([*(body for _, body in BLOCK.findall(text)), *inline])


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_pages_name_no_place_of_one_machine(page: Path) -> None:
    found = re.findall(r"(?<![\w./$}~:-])/(?:work|root|home|Users|tmp|opt|mnt|data)/\S*", page.read_text("utf-8"))
    assert not found


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text("utf-8")) if not re.match(r"[a-z]+:|#", link)]
    # Pictures are taken from a real run (`make images`); the guard for them is below.
    wanted = [link for link in links if not link.startswith("docs/images/")]
    missing = [link for link in wanted if not (page.parent / link.split("#")[0]).exists()]
    assert not missing


def test_the_pictures_of_the_readme_are_those_that_are_taken() -> None:
    shown = {Path(link).name for link in LINK.findall(README.read_text("utf-8")) if link.startswith("docs/images/")}
    source = (REPO / "docs" / "take_pictures.py").read_text("utf-8")
    assert shown == {"graph.png", "asset.png", "report.png"}
    assert shown == set(re.findall(r'"(\w+\.png)"', source))


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (REPO / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page in PAGES:
        named_targets = set(re.findall(r"(?:^|[\s;&])make (?!-)([a-z][a-z-]*)", code(page), re.MULTILINE))
        assert not named_targets - targets, page
    assert {"demo", "test", "ui", "images"} <= set(re.findall(r"make ([a-z-]+)", code(README)))


def commands() -> dict[str, set[str]]:
    """Options of every command, by its words."""
    found: dict[str, set[str]] = {}

    def walk(command, words: tuple[str, ...]) -> None:
        if hasattr(command, "commands"):
            for name, sub in command.commands.items():
                walk(sub, (*words, name))
        else:
            found[" ".join(words)] = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}

    walk(typer.main.get_command(app), ())
    return found


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_and_option_exists(page: Path) -> None:
    known = commands()
    groups = {name.split()[0] for name in known if " " in name}
    for line in re.findall(r"^(?:\S*/)?distill-dagster +([a-z].*)$", code(page), re.MULTILINE):
        words = line.split("#")[0].split()
        name = " ".join(words[:2]) if words[0] in groups else words[0]
        assert name in known, f"{named(page)}: distill-dagster {line}"
        options = {word.split("=")[0] for word in words if word.startswith("--")}
        assert not options - known[name], f"{named(page)}: distill-dagster {line}"


def test_the_readme_lists_every_command() -> None:
    text = README.read_text("utf-8")
    missing = [name for name in commands() if f"distill-dagster {name}" not in text and f"`{name}`" not in text]
    assert not missing


def complete_files(page: Path) -> dict[str, str]:
    """YAML blocks that name the file they are in their first line."""
    blocks_ = (re.match(r"# (\S+\.yaml)\n", body) for body in code_blocks(page, "yaml"))
    return {found.group(1): found.string for found in blocks_ if found}


def project_of(files: Mapping[str, str], folder: Path) -> ProjectConfig:
    for name, text in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, "utf-8")
    return load_project(folder, discover())


def test_yaml_files_of_the_readme_make_a_valid_project(tmp_path: Path) -> None:
    project = project_of(complete_files(README), tmp_path)
    assert {kind for kind, _ in project.files} == {"source", "teacher", "pipeline"}
    assert list(project.pipelines) == ["tickets"]


@pytest.fixture
def parity(tmp_path: Path) -> Domain:
    """The domain of the README's example."""
    source = next(body for body in code_blocks(README, "python") if body.startswith("# my_parity.py"))
    entry = next(body for body in code_blocks(README, "toml") if "distill_dagster.domains" in body)
    found = re.search(r'parity = "(\w+):(\w+)"', entry)
    assert found is not None
    file = tmp_path / f"{found.group(1)}.py"
    assert source.startswith(f"# {file.name}\n")
    file.write_text(source, "utf-8")
    return runpy.run_path(str(file))[found.group(2)]()


def test_the_domain_of_the_readme_makes_records_that_it_can_judge(parity: Domain) -> None:
    (task,) = parity.tasks
    texts: dict[str, set[str]] = {}
    for part in ("teacher", "gold", "unlabeled", "validation", "test"):
        items = list(parity.items(task.name, part, 40, 17))
        assert len(items) == 40
        for item in items:
            assert item.answer in task.labels
            number = item.facts["number"]
            assert (number % 2 == 0) == (item.answer == "even")
            assert parity.verify(task.name, item.facts, item.answer).ok is True
            wrong = next(label for label in task.labels if label != item.answer)
            assert parity.verify(task.name, item.facts, wrong).ok is False
        texts[part] = {item.composition for item in items}
    assert not texts["teacher"] & texts["test"]
    for style in ("full", "short"):
        assert parity.template(task.name, style).user


def test_the_domain_of_the_readme_is_accepted_as_a_plugin(parity: Domain, tmp_path: Path) -> None:
    config = tmp_path / "assets_config"
    config.mkdir()
    (config / "source.yaml").write_text("kind: source\ndomain: parity\ngrammar: {teacher: 5, gold: 5, test: 5}\n")
    found = discover()
    domains = Domains({**found.found, "parity": parity})
    assert load_project(config, domains).sources["parity"].domain == "parity"


def test_the_component_of_the_readme_is_the_one_that_exists() -> None:
    (text,) = (body for body in code_blocks(README, "yaml") if body.startswith("type:"))
    said = yaml.safe_load(text)
    module, name = said["type"].rsplit(".", 1)
    tree = ast.parse((REPO / module.replace(".", "/")).with_suffix(".py").read_text("utf-8"))
    (cls,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    fields = {node.target.id for node in cls.body if isinstance(node, ast.AnnAssign)}
    assert set(said["attributes"]) <= fields


def test_the_environment_variables_are_those_that_are_read() -> None:
    said = set(re.findall(r"^\| `([A-Z_]+)` \|", README.read_text("utf-8"), re.MULTILINE))
    source = "\n".join(path.read_text("utf-8") for path in (REPO / "distill_dagster").rglob("*.py"))
    assert said
    assert {name for name in said if name not in source} == set()
    settings = (REPO / "distill_dagster" / "settings.py").read_text("utf-8")
    assert set(re.findall(r'environ\.get\("([A-Z_]+)"', settings)) <= said


SECTIONS = {
    "Teacher backends": ("distill_dagster.teachers", "Backend"),
    "Knowledge": ("distill_dagster.knowledge", "Kind"),
    "Filters": ("distill_dagster.filtering", "Rule"),
    "Objectives": ("distill_dagster.training.objectives", "Objective"),
}
SUPPORT = REPO / "docs" / "support.md"


def rows(section: str) -> dict[str, str]:
    """Last cell of each row of a section's table, by name."""
    text = SUPPORT.read_text("utf-8").split(f"## {section}\n")[1].split("\n## ")[0]
    found = re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", text, re.MULTILINE)
    return dict(found)


@pytest.mark.parametrize("section", SECTIONS)
def test_support_lists_every_block(section: str) -> None:
    assert set(rows(section)) == set(blocks(*SECTIONS[section]))


def test_support_lists_every_export() -> None:
    tree = ast.parse((REPO / "distill_dagster" / "stages" / "export.py").read_text("utf-8"))
    writers = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("to_")}
    assert set(rows("Exports")) == writers


@pytest.mark.parametrize("section", [*SECTIONS, "Exports"])
def test_support_names_tests_that_exist(section: str) -> None:
    for name, where in rows(section).items():
        if where == "not run here":
            continue
        file, _, test = where.partition("::")
        tree = ast.parse((REPO / file).read_text("utf-8"))
        assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{name}: {where}"


def test_the_browser_test_runs_what_support_says(tmp_path: Path) -> None:
    (pipeline,) = project_of(FILES, tmp_path).pipelines.values()
    said = {name for name, where in rows("Filters").items() if "tests/browser" in where}
    assert said == {block.name for block in pipeline.filtering}
    assert {block.name for block in pipeline.knowledge} == {"labeling"}
    assert set(pipeline.training.objective) == {"sft"}
