"""`trace` and `why-dropped` against the tables, read here by hand."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pipeline import tiny
from pipeline.tiny import Tiny
from terminal import Said, command, process

from distill_dagster.lineage.engine import Services

pytestmark = pytest.mark.needs_torch

WITHOUT_DAGSTER = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("dagster", "dagster_pipes", "dagster_graphql", "mlflow", "torch"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocked())
"""


def table(project: Tiny, artifact: str, name: str) -> list[dict]:
    """Rows of a table of an artifact's head, content or side, whoever owns it."""
    (head,) = Path(project.settings.store).rglob(f"{artifact}/head.json")
    said = json.loads(head.read_text())
    version = head.parent / said["version"]
    for place in (version, version / "runs" / said["run"]):
        if (place / f"{name}.parquet").exists():
            return pq.read_table(place / f"{name}.parquet").to_pylist()
    return []


def traced(project: Tiny, *words: str) -> dict:
    """The one trace that the command prints as JSON."""
    said = command(project, "trace", *words, "--json")
    assert said.code == 0, said
    (found,) = json.loads(said.out)
    return found


def flat(said: Said) -> str:
    """What was printed, without the tree's lines and line breaks, which depend on the terminal's width."""
    return " ".join(re.sub("[│├└─]", " ", said.out).split())


def ids(rows: list[dict]) -> set[str]:
    return {row["record_id"] for row in rows}


def test_every_link_holds_from_both_ends(finished_finance: Tiny) -> None:
    seeds, calls = table(finished_finance, "seed_set", "seed"), table(finished_finance, "teacher_outputs", "call")
    candidates = table(finished_finance, "teacher_outputs", "candidate")
    examples = table(finished_finance, "filtered_dataset", "example")
    for example in examples[:: len(examples) // 6]:
        made = traced(finished_finance, example["record_id"])
        assert made["kind"] == "example" and ids(made["examples"]) == {example["record_id"]}
        (seed,) = made["seeds"]
        row = seeds[example["seed_no"]]
        assert seed["record_id"] == row["record_id"] == example["seed_record_id"]
        names = ("source_id", "source_row", "licence", "part", "task")
        assert [seed[name] for name in names] == [row[name] for name in names]
        asked = [calls[example["call_no"]]] if example["call_no"] is not None else []
        assert [call["request_key"] for call in made["calls"]] == [call["request_key"] for call in asked]
        for call, wanted in zip(made["calls"], asked, strict=True):
            assert all(call[name] == wanted[name] for name in ("teacher", "revision", "cost_micros", "output_tokens"))
        back = traced(finished_finance, "finance", seed["record_id"])
        assert back["kind"] == "seed" and example["record_id"] in ids(back["examples"])
        mine = [row for row in candidates if row["seed_record_id"] == seed["record_id"]]
        assert ids(back["candidates"]) == ids(mine)
        assert {call["request_key"] for call in back["calls"]} == {calls[row["call_no"]]["request_key"] for row in mine}


def test_students_that_learned_from_a_record(finished_finance: Tiny) -> None:
    parts = {row["part"]: row["record_id"] for row in table(finished_finance, "seed_set", "seed")}
    learned = {}
    for part in ("gold", "unlabeled", "teacher"):
        found = traced(finished_finance, parts[part])["students"]
        learned[part] = {row["artifact"].split("/")[1] for row in found}
        students = [row for row in found if row["artifact"] == "finance/student_checkpoint"]
        assert all(
            alias["alias"] == "finance@champion" and alias["now"] for row in students for alias in row["aliases"]
        )
        assert all(row["aliases"] for row in students)
    assert learned == {
        "gold": {"student_checkpoint", "control_checkpoint", "deployed_student"},
        "unlabeled": {"student_checkpoint", "deployed_student"},
        "teacher": {"teacher_model"},
    }


MARKUP = "[red]not[/red] a [/] colour \x1b[2J red"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Files with a record thrice, one that leaks, and one that would write on the terminal; filtered, not trained."""
    project = tiny.parcels(tmp_path_factory.mktemp("mixed"))
    lines = project.lines("seeds.jsonl")
    test = project.lines("test.jsonl")
    for line in lines:
        line["text"] = f"{line['text']} and {line['depot']}"
    twice = [{**line, "text": line["text"].upper()} for line in lines] + lines
    leak = {**test[0], "depot": "leaking"}
    project.write_lines("seeds.jsonl", [*lines, *twice, leak, {"text": MARKUP, "colour": "red", "depot": "markup"}])
    project.append("source.yaml", "leaks: drop\nshow_records: true\n")
    project.run(["seed_set", "eval_set", "prompt_set", "teacher_model", "teacher_outputs", "filtered_dataset"])
    return project


def dropped(project: Tiny) -> Iterator[tuple[dict, dict]]:
    candidates = {row["candidate_no"]: row for row in table(project, "teacher_outputs", "candidate")}
    for row in table(project, "filtered_dataset", "decision"):
        if row["verdict"] == "drop":
            yield row, candidates[row["candidate_no"]]


def test_why_a_duplicate_was_dropped(mixed: Tiny) -> None:
    twins = {row["dropped_no"]: row["kept_no"] for row in table(mixed, "filtered_dataset", "duplicate")}
    candidates = table(mixed, "teacher_outputs", "candidate")
    found = [(row, one) for row, one in dropped(mixed) if row["reason"] == "exact_duplicate"]
    assert found
    for row, candidate in found[:3]:
        said = command(mixed, "why-dropped", "parcels", candidate["record_id"])
        stand_in = candidates[twins[row["candidate_no"]]]["record_id"]
        assert said.code == 0
        assert f"dropped: exact_duplicate of {stand_in}, similarity 1.000" in flat(said)
        made = traced(mixed, candidate["record_id"])
        entry = next(one for one in made["candidates"] if one["reason"] == "exact_duplicate")
        assert [look["rule"] for look in entry["looks"]] == ["refusal", "exact_duplicate"]
        assert traced(mixed, row["record_id"])["record_id"] == candidate["record_id"]  # by the decision's own id


def test_a_seed_that_never_entered_says_why(mixed: Tiny) -> None:
    (left_out,) = [row for row in table(mixed, "seed_set", "decision") if row["reason"] == "leak_record"]
    said = command(mixed, "why-dropped", left_out["record_id"])
    assert said.code == 0 and "never entered the seed set: leak_record" in flat(said)
    assert traced(mixed, left_out["record_id"])["seeds"][0]["dropped"] == "leak_record"


def test_text_is_printed_as_it_is_and_moves_no_cursor(mixed: Tiny) -> None:
    (seed,) = [row for row in table(mixed, "seed_set", "seed") if row["subject_key"] == "markup"]
    said = command(mixed, "trace", seed["record_id"])
    assert said.code == 0
    assert "[red]not[/red] a [/] colour \ufffd[2J red" in flat(said) and "\x1b" not in said.out
    assert traced(mixed, seed["record_id"])["seeds"][0]["text"] == MARKUP


def test_text_stays_hidden_where_the_source_does_not_show_it(finished_parcels: Tiny) -> None:
    lines = finished_parcels.lines("seeds.jsonl")
    for row in table(finished_parcels, "seed_set", "seed")[::15]:
        for words in (("trace",), ("trace", "--json"), ("why-dropped",), ("why-dropped", "--json")):
            said = command(finished_parcels, words[0], row["record_id"], *words[1:])
            assert said.code == 0
            assert not any(line["text"] in said.out or f'"{line["depot"]}"' in said.out for line in lines)
    assert "show_records" in command(finished_parcels, "trace", row["record_id"]).out


def test_a_broken_configuration_hides_text_and_answers_still(mixed: Tiny, tmp_path: Path) -> None:
    copy = mixed.copy(tmp_path / "copy")
    (copy.folder / "assets_config/source.yaml").write_text("kind: nonsense\n", "utf-8")
    (seed,) = [row for row in table(copy, "seed_set", "seed") if row["subject_key"] == "markup"]
    said = command(copy, "trace", seed["record_id"])
    assert said.code == 0 and "no record text" in said.err
    assert "[red]not" not in said.out and seed["record_id"] in said.out


def test_neither_dagster_nor_mlflow_nor_torch_is_needed(finished_finance: Tiny) -> None:
    row = table(finished_finance, "filtered_dataset", "example")[-1]
    said = process(finished_finance, "trace", "finance", row["record_id"][:12], before=WITHOUT_DAGSTER)
    assert said.code == 0 and row["record_id"] in said.out and "finance/student_checkpoint" in said.out


def test_names_that_mean_nothing_or_too_much_are_refused(finished_finance: Tiny) -> None:
    command(finished_finance, "trace", "f" * 32).refused("no seed, candidate or example")
    command(finished_finance, "trace", "f0").refused("f0", "hex digits")
    command(finished_finance, "trace", "question 17").refused("question 17")
    command(finished_finance, "trace", "nowhere", "f" * 32).refused("nowhere", "It has finance")
    command(finished_finance, "why-dropped", "a", "b", "c").refused("[PIPELINE] RECORD")


def test_a_beginning_that_several_records_share(finished_finance: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    from distill_dagster.errors import StoreError
    from distill_dagster.lineage import trace

    monkeypatch.setattr(trace, "SHORTEST", 1)
    with pytest.raises(StoreError, match=r"records begin so: .*, …"):
        trace.trace(finished_finance.project().store, "a")


def test_an_older_version_answers_for_what_the_newest_lost(mixed: Tiny, tmp_path: Path) -> None:
    copy = mixed.copy(tmp_path / "copy")
    gone = next(row for row in table(copy, "seed_set", "seed") if row["part"] == "unlabeled")
    old = traced(copy, gone["record_id"])
    lines = copy.lines("seeds.jsonl")
    copy.write_lines("seeds.jsonl", [line for line in lines if line["depot"] != gone["subject_key"]])
    copy.run(["seed_set", "teacher_model", "teacher_outputs", "filtered_dataset"])
    assert gone["record_id"] not in ids(table(copy, "seed_set", "seed"))
    assert traced(copy, gone["record_id"]) == old
    # Questions asked before are listed at 0, with the run that paid.
    stays = next(row for row in table(copy, "teacher_outputs", "candidate") if row["seed_record_id"])
    calls = traced(copy, stays["record_id"])["calls"]
    reused = [call for call in calls if call["reused"]]
    assert all("parcels/teacher_outputs@" in call["paid_in"] for call in reused)


def test_a_second_student_of_the_same_data(mixed: Tiny, tmp_path: Path) -> None:
    copy = mixed.copy(tmp_path / "copy")
    text = (
        "kind: pipeline\nname: second\nsource: parcels\ndata_from: parcels\n"
        f'student: {{base: "preset:nano", vocabulary: 300}}\ntraining: {tiny.RECIPE}\n'
    )
    (copy.folder / "assets_config/second.yaml").write_text(text, "utf-8")
    Tiny(copy.folder, "second").run(["initial_student", "student_checkpoint"])
    row = table(copy, "filtered_dataset", "example")[-1]
    made = traced(copy, "second", row["record_id"])
    assert [student["artifact"] for student in made["students"]] == ["second/student_checkpoint"]


def test_the_ui_shows_samples_of_what_was_dropped(mixed: Tiny) -> None:
    from distill_dagster.assets.filtered_dataset import EACH, describe

    project = mixed.project()
    (made,) = project.run(project.select("parcels", ["filtered_dataset"]), Services(project.state))
    shown = describe(project.pipelines["parcels"], made)
    wanted = list(dropped(mixed))[:EACH]
    rows = [record.data for record in shown["dropped"].records]
    assert [(row["reason"], row["answer"]) for row in rows] == [(row["reason"], one["answer"]) for row, one in wanted]
    assert all(row["evidence"].startswith("twin ") and " and s" in row["input"].lower() for row in rows)
    assert "dropped: exact_duplicate" in shown["funnel"].value
    assert {"funnel_picture", "lengths", "labels"} <= set(shown)
