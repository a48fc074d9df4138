"""Parts of the quality study on little data: what their numbers must be, whatever a long run finds."""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[2]
WEIGHTS = Path(os.environ.get("DISTILL_REAL_WEIGHTS", REPO.parent / "shared" / "weights"))
OPTIONS = {"seeds": 2, "device": "cpu", "scale": 0.01, "items": 24}
PARTS = ("stories", "verdicts", "rationale")

pytestmark = pytest.mark.needs_torch


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """A module of the study."""
    monkeypatch.syspath_prepend(str(REPO / "benchmarks" / "quality"))
    return importlib.import_module


@pytest.fixture
def study(load, tmp_path: Path) -> Any:
    """An empty study at a tiny scale."""
    return load("study").Study(tmp_path, OPTIONS)


def plain(found: dict[str, Any]) -> dict[str, Any]:
    """What a cell's file would hold, without what a run costs."""
    found = json.loads(json.dumps(found))
    for row in found.get("curve", ()):
        row.pop("generation_share", None)
    return found


@pytest.mark.parametrize("part", PARTS)
def test_cells_are_named_once_and_whole_seeds_come_first(load, part: str) -> None:
    cells = load(part).cells(OPTIONS)
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names)
    for place, cell in enumerate(cells):
        assert set(cell.needs) <= set(names[:place])
    seeds = [cell.seed for cell in cells if cell.seed != "tuning" and cell.arm != "teacher"]
    assert seeds == sorted(seeds) and set(seeds) == {0, 1}


@pytest.mark.parametrize("part", PARTS)
def test_what_is_not_measured_is_left_out(load, study, part: str) -> None:
    module: ModuleType = load(part)
    assert module.lines(study, OPTIONS) == []
    assert "[" not in module.table(study, OPTIONS)


def test_a_difference_is_only_claimed_where_its_interval_allows(load, study) -> None:
    verdicts, items = load("verdicts"), 200
    half = [0, 1] * (items // 2)
    study.keep("verdicts-teacher-0-s0", {"scores": half})
    for seed in (0, 1):
        study.keep(f"verdicts-self_rft-1000-s{seed}", {"scores": [1] * items})
        study.keep(f"verdicts-self_grpo-1000-s{seed}", {"scores": [*half[:-2], 1, 0]})
        study.keep(f"verdicts-imitate-30-s{seed}", {"scores": [0] * items})
    rows = {line.split(" | ")[1]: line for line in verdicts.table(study, OPTIONS).splitlines() if line.startswith("| ")}
    assert "| yes |" in rows["self_rft"] and "| no |" in rows["imitate"]
    assert "not told apart" in rows["self_grpo"]
    assert {line["name"].split()[3] for line in verdicts.lines(study, OPTIONS)} == {"self_rft", "self_grpo", "imitate"}


def test_divergences_above_one_keep_their_intervals(load, study) -> None:
    module, generator = load("stories"), random.Random(0)
    near = [1.5 + generator.random() for _ in range(85)]
    for seed in (0, 1):
        study.keep(f"stories-sft-0-s{seed}", {"scores": {"forward": near, "reverse": near}})
        far = [value + 0.5 + 0.01 * seed for value in near]
        study.keep(f"stories-jsd-0-s{seed}", {"scores": {"forward": far, "reverse": [value - 1 for value in near]}})
    rows = [line.split(" | ") for line in module.table(study, OPTIONS).splitlines() if line.startswith("| jsd")]
    forward, _, said, reverse, _, other = rows[0][2:]
    assert said == "worse" and other.strip(" |") == "better"
    value, low, high = (float(part.strip("[,]")) for part in forward.split())
    assert 2 < low < value < high and float(reverse.split()[0]) == pytest.approx(sum(near) / 85 - 1, abs=1e-3)
    measures = {line["name"]: line for line in module.lines(study, OPTIONS)}
    assert len(measures) == 2 and all(line["unit"] == "nats a token" for line in measures.values())


@pytest.fixture
def stories(load, real_data: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The part, with few stories to examine."""
    if not (WEIGHTS / "stories260K-hf").is_dir():
        pytest.skip("no real weights on this machine; set DISTILL_REAL_WEIGHTS to their folder")
    monkeypatch.setenv("DISTILL_REAL_DATA", str(real_data))
    module = load("stories")
    whole = module.texts
    monkeypatch.setattr(module, "texts", lambda part: whole(part)[:64] if part == "train" else whole(part)[:6])
    return module


@pytest.mark.real_data
@pytest.mark.slow
def test_divergences_are_zero_of_the_teacher_and_fall_with_training(stories, load, study) -> None:
    from distill_dagster.models import folder
    from distill_dagster.training.presets import build

    teacher = folder.load_model(stories.teacher_folder())
    tokenizer = folder.load_tokenizer(stories.teacher_folder())
    texts = stories.texts("test")
    same = stories.measure(teacher, teacher, tokenizer, texts)
    assert all(value == 0 for values in same.values() for value in values)
    untrained = stories.measure(teacher, build("nano", tokenizer, 0), tokenizer, texts)
    study.options = {**OPTIONS, "scale": 0.06}
    for trial in range(3):
        study.keep(f"stories-forward-0-t{trial}", {"validation": [-3, -1, -2][trial]})
        study.keep(f"stories-gkd-0-t{trial}", {"validation": -1.0})
    for arm in ("forward", "gkd"):
        cell = load("study").Cell("stories", arm, 0, 0)
        found = plain(stories.run(study, cell))
        for name, before in untrained.items():
            after = found["scores"][name]
            assert len(after) == len(texts) and min(after) >= 0
            assert sum(after) < sum(before), (arm, name)
        # The trial that did best decides the rate, and the lower one of equals.
        assert found["rate"] == stories.RATES[1 if arm == "forward" else 0]


@pytest.mark.real_data
@pytest.mark.slow
def test_a_story_cell_gives_the_same_numbers_again(stories, load, tmp_path: Path) -> None:
    study, cell = load("study"), load("study").Cell("stories", "gkd", 0, "tuning", 1)
    first, second = (plain(stories.run(study.Study(tmp_path / name, OPTIONS), cell)) for name in "ab")
    assert first == second and first["validation"] < 0


@pytest.mark.real_data
@pytest.mark.slow
def test_a_later_arm_goes_on_from_half_the_steps_of_sft(stories, load, study, monkeypatch) -> None:
    make = load("study").Cell
    study.options = {**OPTIONS, "scale": 0.06}
    for trial in range(2):
        study.keep(f"stories-sft-0-t{trial}", {"validation": [-2, -1][trial]})
    begun = plain(stories.run(study, make("stories", stories.START, 0, "tuning")))
    assert begun["rate"] == stories.RATES[1] and begun["validation"] < 0
    study.keep("stories-start-0-t0", begun)
    later = plain(stories.run(study, make("stories", "then_reverse", 0, "tuning", 1)))
    assert later["rate"] == stories.LATER_RATES[1]
    assert begun["steps"] == later["steps"] == 6
    monkeypatch.setattr(stories, "LATER_RATES", (1e-9, 1e-9))  # What learns nothing is what it began as.
    still = plain(stories.run(study, make("stories", "then_forward", 0, "tuning", 1)))
    assert still["scores"]["forward"] == pytest.approx(begun["scores"]["forward"], rel=1e-3)
    assert later["scores"]["forward"] != pytest.approx(begun["scores"]["forward"], rel=1e-3)
    # What a cell needs stands before it.
    names = [cell.name for cell in stories.cells({"seeds": 2})]
    for at, cell in enumerate(stories.cells({"seeds": 2})):
        assert set(cell.needs) <= set(names[:at])


@pytest.mark.slow
def test_verdicts_are_zero_or_one_and_a_stopped_cell_ends_the_same(
    load, study, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distill_dagster.training import resuming

    verdicts, make = load("verdicts"), load("study").Cell
    monkeypatch.setattr(verdicts, "PROMPTS", 2)
    monkeypatch.setattr(verdicts, "STEPS", {"imitate": 200, "rft": 200, "grpo": 1100})
    for arm in ("imitate", "grpo", "self_rft"):
        for trial in range(3):
            study.keep(f"verdicts-{arm}-{verdicts.TUNED_AT}-t{trial}", {"validation": 0.5})
    started = plain(verdicts.run(study, make("verdicts", "imitate", 30, 0)))
    assert set(started["scores"]) <= {0, 1} and len(started["scores"]) == OPTIONS["items"]

    cell, save = make("verdicts", "grpo", 30, 0), resuming.save
    whole = plain(verdicts.run(study, cell))
    assert whole["samples"] == whole["steps"] * 2 * verdicts.GROUP
    shutil.rmtree(study.work(cell.name))

    def save_and_stop(run: Any) -> None:
        save(run)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(resuming, "save", save_and_stop)
        verdicts.run(study, cell)
    assert plain(verdicts.run(study, cell)) == whole

    taught = plain(verdicts.run(study, make("verdicts", "self_rft", 30, 0)))
    assert 0 < taught["solved"] <= taught["kept"] <= taught["drawn"] == 30 * verdicts.GROUP


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["multi_task", "in_answer"])
def test_worked_solutions_are_right_and_are_learned_from(load, study, arm: str) -> None:
    from distill_dagster.config.models import Recipe
    from distill_dagster.training.rationale import in_answer

    rationale = load("rationale")
    task = rationale.Task(rationale.DOMAIN, rationale.TASK)
    items = task.items("gold", 40)
    for item in items:
        said = in_answer(item.rationale, item.answer) if arm == "in_answer" else item.answer
        assert task.right(item, rationale.answer_of(arm, said))
    longest = max(len(task.tokenizer(item.rationale)["input_ids"]) for item in items)
    assert longest < rationale.MORE_ROOM
    counts = {
        mode: len(rationale.examples(task, items, Recipe(rationale={"mode": mode})))
        for mode in (rationale.BASELINE, arm)
    }
    assert counts[arm] == counts[rationale.BASELINE] * (2 if arm == "multi_task" else 1)
    found = plain(rationale.run(study, load("study").Cell("rationale", arm, 300, "tuning", 1)))
    assert set(found["scores"]) <= {0, 1} and 0 <= found["validation"] <= 1
    assert found["steps"] == 6 and found["rate"] == rationale.RATES[1]
