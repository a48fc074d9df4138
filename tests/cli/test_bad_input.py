"""Bad input through the real command: one clear message that names the place, and earlier versions untouched."""

import json
import resource
import shutil
import struct
import sys
from pathlib import Path

import pytest
from pipeline import tiny
from pipeline.tiny import Tiny
from terminal import command, process

pytestmark = pytest.mark.needs_torch


@pytest.fixture
def fresh(tmp_path: Path) -> Tiny:
    """The project that reads files, with its source made; nothing is trained."""
    made = tiny.parcels(tmp_path / "parcels")
    made.run(tiny.SOURCE)
    return made


@pytest.mark.parametrize(
    ("file", "old", "new", "line", "words"),
    [
        ("pipeline.yaml", "gate:", "gates:", 9, ("gates", "Did you mean 'gate'")),
        ("pipeline.yaml", "steps: 6", "steps: many", 6, ("training.steps", "many")),
        ("pipeline.yaml", "steps: 6", "steps: -1", 6, ("training.steps",)),
        ("source.yaml", "domain: generic", "domain: genetic", 2, ("genetic", "Did you mean 'generic'")),
        ("pipeline.yaml", "nano_teacher", "nana_teacher", 3, ("nana_teacher", "Did you mean 'nano_teacher'")),
        ("pipeline.yaml", "refusal,", "refusals,", 4, ("refusals", "Did you mean 'refusal'")),
        ("teacher.yaml", "kind: teacher", "kind: teecher", 1, ("teecher", "Did you mean 'teacher'")),
        ("teacher.yaml", "preset:nano", "preset:nanno", 3, ("nanno", "nano")),
        ("source.yaml", "[{name: colour", "[name: colour", 4, ()),
    ],
    ids=["key", "type", "value", "domain", "teacher", "rule", "kind", "preset", "yaml"],
)
def test_a_faulty_file_is_named_with_line_and_key(
    fresh: Tiny, file: str, old: str, new: str, line: int, words: tuple[str, ...]
) -> None:
    before = fresh.sealed()
    path = fresh.folder / "assets_config" / file
    good = path.read_text("utf-8")
    fresh.edit(file, old, new)
    command(fresh, "check").refused(f"{file}:{line}", *words)
    command(fresh, "run", "parcels").refused(file, *words)
    command(fresh, "status").refused(file)
    path.write_text(good, "utf-8")
    assert fresh.sealed() == before and not fresh.drafts()


def test_all_problems_are_told_at_once(fresh: Tiny) -> None:
    fresh.edit("pipeline.yaml", "gate:", "gates:")
    fresh.edit("teacher.yaml", "batch_size: 64", "batch_size: none")
    said = command(fresh, "check").refused("pipeline.yaml:9", "teacher.yaml:5", "2 problem(s)")
    assert said.out.count(".yaml:") >= 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"text": "a b c", "colour": "red", "depot": "x"}\n{"text": "no end\n', ("seeds.jsonl", "2", "JSON")),
        (b'{"text": "a b c", "colour": "red", "depot": "x"}\n{"colour": "red", "depot": "y"}\n', ("2", "text")),
        (b'{"text": "caf\xe9", "colour": "red", "depot": "x"}\n', ("seeds.jsonl", "1", "UTF-8")),
        (b"", ("seeds.jsonl", "holds no records")),
        (b"[1, 2]\n", ("seeds.jsonl", "1", "object")),
    ],
    ids=["not json", "field missing", "not utf-8", "empty", "no object"],
)
def test_a_faulty_data_file_is_named_with_its_line(fresh: Tiny, content: bytes, words: tuple[str, ...]) -> None:
    before = fresh.sealed()
    (fresh.folder / "assets_config" / "seeds.jsonl").write_bytes(content)
    for arguments in (["--no-dagster"], []):
        command(fresh, "run", "parcels", "--select", "seed_set", *arguments).refused("seeds.jsonl", *words)
    assert fresh.sealed() == before and not fresh.drafts()


def test_a_data_file_that_is_not_there(fresh: Tiny) -> None:
    before = fresh.sealed()
    (fresh.folder / "assets_config" / "seeds.jsonl").unlink()
    command(fresh, "run", "parcels", "--select", "seed_set", "--no-dagster").refused("seeds.jsonl")
    assert fresh.sealed() == before
    said = command(fresh, "status", "--json")
    rows = {row["artifact"]: row for row in json.loads(said.out)}
    assert rows["parcels/seed_set"]["state"] == "stale" and "seeds.jsonl" in rows["parcels/seed_set"]["reason"]


@pytest.fixture
def local(fresh: Tiny) -> Tiny:
    """Its student starts from a folder."""
    fresh.edit("pipeline.yaml", '{base: "preset:nano", vocabulary: 300}', "{base: ./model}")
    (fresh.folder / "assets_config" / "model").mkdir()
    return fresh


def test_a_model_folder_without_weights_is_refused(local: Tiny) -> None:
    before = local.sealed()
    (local.folder / "assets_config/model/config.json").write_text('{"model_type": "llama"}', "utf-8")
    command(local, "run", "parcels", "--select", "initial_student", "--no-dagster").refused("model", "weights")
    assert local.sealed() == before and not local.drafts()


def test_pickled_weights_are_refused_unread(local: Tiny) -> None:
    before = local.sealed()
    model = local.folder / "assets_config/model"
    (model / "config.json").write_text('{"model_type": "llama"}', "utf-8")
    (model / "tokenizer.json").write_text("{}", "utf-8")
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n(S'touch /nowhere'\ntR.")
    said = command(local, "run", "parcels", "--select", "initial_student", "--no-dagster")
    said.refused("pytorch_model.bin", "safetensors")
    assert local.sealed() == before and not local.drafts()


def test_broken_safetensors_are_refused(local: Tiny) -> None:
    model = local.folder / "assets_config/model"
    (model / "config.json").write_text('{"model_type": "llama"}', "utf-8")
    (model / "tokenizer.json").write_text("{}", "utf-8")
    (model / "model.safetensors").write_bytes(struct.pack("<Q", 10**9) + b"{}")
    command(local, "run", "parcels", "--select", "initial_student", "--no-dagster").refused("model")
    assert not local.drafts()


def test_a_store_root_that_cannot_be_written(fresh: Tiny, tmp_path: Path) -> None:
    # The superuser may write anywhere, so the root stands below a file.
    (tmp_path / "file").write_text("x", "utf-8")
    root = str(tmp_path / "file" / "store")
    for arguments in (["--no-dagster"], []):
        said = command(fresh, "run", "parcels", "--select", "seed_set", *arguments, DISTILL_STORE=root)
        said.refused(root, "folder is needed")
    command(fresh, "status", DISTILL_STORE=root).refused(root, "folder is needed")


def test_a_state_folder_that_cannot_be_written(fresh: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", "utf-8")
    state = str(tmp_path / "file" / "state")
    process(fresh, "run", "parcels", "--select", "seed_set", "--no-dagster", DISTILL_STATE=state).refused(state)


def test_a_full_disk(parcels: Tiny) -> None:
    before = parcels.sealed()
    lines = parcels.lines("seeds.jsonl")
    parcels.write_lines("seeds.jsonl", [*lines, *tiny.rows("more", 2000)])
    limit = 8 * 1024
    said = process(
        parcels,
        "run",
        "parcels",
        "--select",
        "seed_set",
        "--no-dagster",
        before=f"import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {resource.RLIM_INFINITY}))",
    )
    said.refused("disk is full or a size limit", "gc plan")
    assert parcels.sealed() == before and not parcels.drafts()
    assert command(parcels, "run", "parcels", "--select", "seed_set", "--no-dagster").code == 0


def test_a_loss_that_is_not_finite(parcels: Tiny) -> None:
    before, champions = parcels.sealed(), parcels.champions()
    text = (parcels.folder / "assets_config/pipeline.yaml").read_text("utf-8")
    parcels.edit("pipeline.yaml", "learning_rate: 3e-3, warmup_steps: 2", "learning_rate: 1e+30, warmup_steps: 0")
    from distill_dagster.errors import TrainingError

    with pytest.raises(TrainingError, match="finite") as caught:
        parcels.run(["student_checkpoint"])
    assert caught.value.place and "learning_rate" in caught.value.next_step
    assert parcels.sealed() == before and parcels.champions() == champions and not parcels.drafts()
    (parcels.folder / "assets_config/pipeline.yaml").write_text(text, "utf-8")
    assert not parcels.unfresh()


def test_brackets_in_a_message_are_shown(fresh: Tiny) -> None:
    fresh.edit("source.yaml", "name: parcels", 'name: "[red]Parcels[/]"')
    command(fresh, "status").refused("[red]Parcels[/]", "[a-z]")


def test_an_unknown_pipeline_and_a_missing_config_folder(fresh: Tiny, tmp_path: Path) -> None:
    command(fresh, "run", "parcel").refused("'parcel'", "Did you mean 'parcels'")
    command(fresh, "run", "parcels", "--config", str(tmp_path / "nowhere")).refused("nowhere", "no such folder")
    command(fresh, "export", "parcels", str(tmp_path / "x.jsonl")).refused("parcels/filtered_dataset", "materialized")
    command(fresh, "audit", "parcels@champion").refused("parcels@champion", code=3)
    empty = tmp_path / "empty"
    empty.mkdir()
    command(fresh, "audit", str(empty)).refused("lineage/chain.json", code=3)


def test_an_input_that_was_never_made(fresh: Tiny) -> None:
    said = command(fresh, "run", "parcels", "--select", "filtered_dataset", "--no-dagster")
    said.refused("parcels/filtered_dataset", "teacher_outputs", "never materialized")
    shutil.rmtree(fresh.settings.store)
    said = command(fresh, "run", "parcels", "--select", "teacher_model", "--no-dagster")
    said.refused("seed_set", "never materialized")


def test_a_demo_without_its_pipelines(fresh: Tiny) -> None:
    command(fresh, "demo", "--domain", "all").refused(
        "none of the demo's pipelines", "finance, law, medicine", "--config"
    )


@pytest.mark.parametrize("home", ["relative/home", "/nowhere/at/all"])
def test_a_dagster_home_that_is_none(fresh: Tiny, home: str) -> None:
    said = process(fresh, "run", "parcels", "--select", "seed_set", DAGSTER_HOME=home)
    said.refused("DAGSTER_HOME", repr(home), "unset it")


def test_an_alias_that_nothing_was_promoted_under(fresh: Tiny) -> None:
    said = command(fresh, "audit", "parcels@champion", DISTILL_PREFIX="another")
    said.refused("parcels@champion", f"{fresh.settings.store}/another", "DISTILL_PREFIX", code=3)


@pytest.mark.parametrize(
    ("option", "package", "extra"),
    [("adapter: {kind: lora}", "peft", "peft"), ("trainer: trl, objective: {dpo: {}}", "trl", "trl")],
)
def test_a_package_that_training_needs_is_missed_before_the_teacher_is_asked(
    fresh: Tiny, monkeypatch: pytest.MonkeyPatch, option: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    fresh.edit("pipeline.yaml", "steps: 6", f"steps: 6, {option}")
    if package == "trl":
        fresh.append("pipeline.yaml", "knowledge: [labeling, {name: feedback, method: compare}]\n")
    command(fresh, "run", "parcels").refused("parcels/", f"package {package}", f"distill-dagster[{extra}]")
    assert fresh.sealed()["parcels/teacher_outputs"] == []
    said = command(fresh, "run", "parcels", "--select", "seed_set")
    assert said.code == 0, said


def test_an_output_without_our_signs_ends_no_run(fresh: Tiny) -> None:
    arguments = ("run", "parcels", "--select", "seed_set", "--no-dagster")
    said = process(fresh, *arguments, PYTHONIOENCODING="latin-1")
    assert said.code == 0 and "parcels/seed_set" in said.out and "?" in said.out, said
    fresh.edit("pipeline.yaml", "source: parcels", "source: parc\u2713ls")
    process(fresh, *arguments, PYTHONIOENCODING="latin-1").refused("pipeline.yaml:2")


def test_the_command_itself_prints_no_traceback(fresh: Tiny) -> None:
    fresh.edit("pipeline.yaml", "gate:", "gates:")
    said = process(fresh, "run", "parcels").refused("pipeline.yaml", "gates")
    assert said.out == ""
