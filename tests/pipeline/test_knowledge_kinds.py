"""Several kinds of knowledge in one pipeline, from YAML to the filtered data set and the preference pairs."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from distill_dagster.assets.build import project_definitions
from distill_dagster.errors import DistillError
from distill_dagster.lineage.engine import Made, Services, materialize
from distill_dagster.records.messages import text_of
from distill_dagster.teachers.base import Request
from pipeline import rule_teacher, tiny
from pipeline.kinds import DATA, table, teacher, written
from pipeline.rule_teacher import RuleTeacher

__all__ = ["teacher"]  # a fixture

pytestmark = pytest.mark.needs_torch

EVERY_KIND = """\
knowledge:
  - labeling
  - {name: expansion, share: 0.5}
  - {name: expansion, method: evolve, share: 0.5, generations: 2}
  - curation
  - {name: self_knowledge, of: student, samples: 2}
  - {name: self_knowledge, of: teacher, samples: 2}
  - feedback
  - {name: feedback, method: rate, samples: 3}
  - {name: feedback, method: critique, of: student}
"""


def test_every_kind_in_one_pipeline(tmp_path: Path, teacher: RuleTeacher) -> None:
    project = written(tmp_path / "all", EVERY_KIND)
    made = project.run([*DATA, "initial_student", "preference_pairs"])
    outputs, filtered, pairs = (made[name] for name in ("teacher_outputs", "filtered_dataset", "preference_pairs"))
    seeds = {row["seed_no"]: row for row in table(made["seed_set"], "seed")}
    asked = [row for row in seeds.values() if row["part"] == "unlabeled"]
    calls = {row["call_no"]: row for row in table(outputs, "call")}
    inputs = table(outputs, "call_input")
    candidates = table(outputs, "candidate")

    kinds = Counter(row["kind"] for row in candidates if row["status"] == "ok")
    assert set(kinds) == {"labeling", "expansion", "curation", "self_knowledge", "feedback"}
    assert kinds["labeling"] == len(asked) > 20 and kinds["self_knowledge"] == 4 * len(asked) and kinds["curation"] == 8
    assert outputs.record["notes"]["counts"]["kinds"]["labeling"] == len(asked)

    # Every call is there once, and so is everything that it read.
    assert sorted(calls) == list(range(len(calls)))
    assert {row["teacher"] for row in calls.values()} == {"nano_teacher", "initial_student"}
    assert {row["revision"] for row in calls.values()} == {"1", made["initial_student"].version.version}
    for row in inputs:
        assert row["ref_no"] in (seeds if row["kind"] in ("seed", "exemplar") else calls)
        if row["kind"] in ("seed", "exemplar"):
            assert seeds[row["ref_no"]]["part"] == "unlabeled"
    assert Counter(row["kind"] for row in inputs).keys() == {"seed", "exemplar", "call", "judged"}
    texts = {text_of(row["messages"]): number for number, row in seeds.items()}
    read = {(row["call_no"], row["ref_no"]) for row in inputs if row["kind"] in ("seed", "exemplar")}
    for number, request in enumerate(teacher.asked):
        if rule_teacher.style(request) == "expand":
            shown = {texts[text] for text in rule_teacher.texts(request)}
            assert len(shown) == 3 and any({(call, seed) for seed in shown} <= read for call in calls), number

    # The filtered data set: accounts close, what was written keeps its seeds' licence and subjects.
    funnel = filtered.record["notes"]["funnel"]
    dropped = sum(count for name, count in funnel.items() if name.startswith("dropped"))
    assert funnel["candidates"] == len(candidates) == funnel["kept"] + dropped + funnel["failed"]
    examples = table(filtered, "example")
    by_kind = {candidate["call_no"]: candidate["kind"] for candidate in candidates}
    taught = {by_kind[row["call_no"]]: row for row in examples if row["origin"] == "teacher"}
    assert {"labeling", "expansion", "curation"} <= set(taught)
    assert taught["curation"]["licence"] == "LicenseRef-teacher-output" and taught["curation"]["seed_no"] is None
    assert taught["expansion"]["licence"] == "CC0-1.0"
    subjects = {row["record_id"]: row["subject_key"] for row in seeds.values()}
    for row in examples:
        if row["origins"]:
            assert row["subject_key"].split("\n") == sorted({subjects[one] for one in row["origins"]})
    held = {row["subject_key"] for row in table(made["eval_set"], "seed")}
    assert not held & {one for row in examples for one in (row["subject_key"] or "").split("\n")}

    # Preference pairs: the right answer is chosen, and every comparison has its decision.
    comparisons, decisions = table(outputs, "comparison"), table(pairs, "decision")
    assert [row["candidate_no"] for row in decisions] == [row["comparison_no"] for row in comparisons]
    found = table(pairs, "preference")
    assert len(found) == len(asked) == pairs.record["notes"]["funnel"]["kept"]
    assert pairs.record["notes"]["funnel"]["dropped: duplicate"] == len(asked), "both ways of judging say the same"
    for row in found:
        right = rule_teacher.colour(text_of(seeds[row["seed_no"]]["messages"]))
        assert (row["chosen"], row["rejected"]) == (right, {"red": "green", "green": "red"}[right])
        assert row["licence"] == "CC0-1.0" and calls[row["chosen_call_no"]]["status"] == "ok"

    # What is known is not asked again, kinds or no kinds.
    before = len(teacher.asked)
    shutil.rmtree(project.settings.store)
    again = project.run([*DATA, "initial_student", "preference_pairs"])
    assert len(teacher.asked) == before
    assert {name: one.version.version for name, one in again.items()} == {
        name: one.version.version for name, one in made.items()
    }


@pytest.mark.slow
def test_a_tiny_models_nonsense_ends_with_its_class(tmp_path: Path) -> None:
    """A model of other tasks can neither write nor judge: every such call fails with a class; none is an example."""
    short = EVERY_KIND.replace("- curation", "- {name: curation, max_new_tokens: 24}")
    short = short.replace("share: 0.5", "share: 0.5, max_new_tokens: 24").replace(
        "feedback}", "feedback, judge_tokens: 24}"
    )
    project = written(tmp_path / "nonsense", short)
    made = project.run([*DATA, "initial_student", "preference_pairs"])
    outputs, filtered = made["teacher_outputs"], made["filtered_dataset"]
    failures = Counter((row["kind"], row["failure"]) for row in table(outputs, "candidate") if row["status"] != "ok")
    assert {kind for kind, _ in failures} <= {"expansion", "curation", "feedback"} and failures
    assert {why for _, why in failures} <= {"not_json", "not_per_schema", "truncated", "context_exceeded", "empty"}
    assert {row["kind"] for row in table(outputs, "candidate") if row["status"] == "ok"} <= {
        "labeling",
        "self_knowledge",
    }
    assert {row["verdict"] for row in table(outputs, "comparison")} <= {"failed", "same_answer"}
    assert table(made["preference_pairs"], "preference") == []
    funnel = made["preference_pairs"].record["notes"]["funnel"]
    assert funnel["comparisons"] > 40 and funnel["kept"] == 0
    for row in table(filtered, "example"):
        assert row["origin"] == "gold" or text_of(row["messages"][-1:]) in ("red", "green")


def test_a_run_that_broke_off_goes_on_from_the_round_it_was_in(tmp_path: Path, teacher: RuleTeacher) -> None:
    """Answers of earlier rounds are in the journal; progress says kind and round."""
    project = written(tmp_path / "broken", "knowledge: [labeling, feedback]\n")
    project.run(DATA[:4])
    count = len(table(project.run(["seed_set"])["seed_set"], "seed"))

    def breaks(request: Request) -> str:
        if rule_teacher.style(request) == "compare":
            raise KeyboardInterrupt
        return rule_teacher.answer(request)

    def go_on() -> Made:
        one = project.project()
        (node,) = one.select(project.name, ["teacher_outputs"])
        return materialize(
            node, one.store, Services(one.state, progress=lambda done, total, note="": said.append(note))
        )

    said: list[str] = []
    teacher.rule = breaks
    with pytest.raises(KeyboardInterrupt):
        go_on()
    answered = [request for request in teacher.asked if rule_teacher.style(request) != "compare"]
    assert 60 < len(answered) < 3 * count and not project.drafts()
    teacher.rule = rule_teacher.answer
    teacher.asked.clear()
    made = go_on()
    assert {rule_teacher.style(request) for request in teacher.asked} == {"compare"}
    assert made.record["notes"]["calls"]["reused"] == len(answered)
    assert set(said) == {"teacher: labeling, round 1", "teacher: feedback, round 1", "teacher: feedback, round 2"}


def test_an_input_that_an_evaluation_set_holds_is_dropped(tmp_path: Path, teacher: RuleTeacher) -> None:
    project = written(tmp_path / "leak", "knowledge: [{name: expansion, exemplars: 1}]\n")
    held = project.lines("test.jsonl")[3]["text"]

    def rule(request: Request) -> str:
        if rule_teacher.style(request) == "expand":
            return json.dumps({"inputs": [held.upper(), f"{rule_teacher.words(request.messages)} red"]})
        return rule_teacher.answer(request)

    teacher.rule = rule
    made = project.run(DATA)
    funnel = made["filtered_dataset"].record["notes"]["funnel"]
    count = sum(rule_teacher.style(request) == "expand" for request in teacher.asked)
    assert funnel["dropped: decontamination.exact"] == funnel["kept"] == count > 20
    assert held.casefold() not in str(table(made["filtered_dataset"], "example")).casefold()


def test_gold_seeds_and_several_licences(tmp_path: Path, teacher: RuleTeacher) -> None:
    project = written(tmp_path / "licences", "knowledge: [{name: expansion, seeds: [gold, unlabeled], exemplars: 4}]\n")
    other = project.folder / "assets_config" / "more.jsonl"
    tiny.write_lines(other, tiny.rows("m", 60))
    seeds = f"{{path: seeds.jsonl, {tiny.COLUMNS}}}"
    more = seeds.replace("seeds.jsonl", "more.jsonl").replace("CC0-1.0", "CC-BY-4.0 OR MIT")
    project.edit("source.yaml", f"[{seeds}]", f"[{seeds}, {more}]")
    made = project.run(DATA)
    parts = {row["record_id"]: row["part"] for row in table(made["seed_set"], "seed")}
    examples = [row for row in table(made["filtered_dataset"], "example") if row["origin"] == "teacher"]
    assert {parts[one] for row in examples for one in row["origins"]} == {"gold", "unlabeled"}
    licences = Counter(row["licence"] for row in examples)
    assert licences["(CC-BY-4.0 OR MIT) AND CC0-1.0"] > len(examples) / 2
    assert {len(row["source_id"].split("\n")) for row in examples} <= {1, 2}


def test_pairs_are_masked_like_examples(tmp_path: Path, teacher: RuleTeacher) -> None:
    rules = "filtering: [{name: pii, action: mask}, verifier]"
    project = written(tmp_path / "masked", "knowledge: [{name: feedback, samples: 2}]\n", rules)
    lines = [{**row, "text": f"{row['text']} Ask anna.smith@mail-post.net."} for row in project.lines("seeds.jsonl")]
    tiny.write_lines(project.folder / "assets_config" / "seeds.jsonl", lines)
    pairs = table(project.run([*DATA, "preference_pairs"])["preference_pairs"], "preference")
    assert len(pairs) > 10
    for row in pairs:
        assert "mail-post" not in str(row) and "[EMAIL_1]" in str(row["messages"])
        assert row["chosen"] != row["rejected"] and row["chosen"] in ("red", "green")


def test_a_changed_seed_asks_few_questions_again(tmp_path: Path, teacher: RuleTeacher) -> None:
    project = written(tmp_path / "changed", "knowledge: [labeling, {name: feedback, samples: 2}]\n")
    first = project.run(DATA)["teacher_outputs"].record["notes"]["calls"]
    count = first["asked"] // 5
    assert first["asked"] == count * 5 > 100 and first["reused"] == 0, "labeling, two answers, two verdicts a seed"
    before = project.lines("seeds.jsonl")

    def unlabeled() -> set[str]:
        rows = table(project.run(["seed_set"])["seed_set"], "seed")
        return {row["subject_key"] for row in rows if row["part"] == "unlabeled"}

    held = unlabeled()
    at = next(number for number, line in enumerate(before) if line["depot"] in held)
    for word in ("today", "again", "there", "soon", "late"):  # a changed text may change its part
        lines = [
            dict(line, text=f"{line['text']} {word}") if number == at else line for number, line in enumerate(before)
        ]
        project.write_lines("seeds.jsonl", lines)
        if unlabeled() == held:
            break
    assert unlabeled() == held
    changed = project.run(DATA)["teacher_outputs"].record["notes"]["calls"]
    assert (changed["asked"], changed["reused"]) == (5, (count - 1) * 5)


def test_prompt_styles_stand_only_where_they_are_used(tmp_path: Path, teacher: RuleTeacher) -> None:
    plain = written(tmp_path / "plain", "")
    versions = plain.run(DATA)
    assert {row["style"] for row in table(versions["prompt_set"], "prompt")} == {"full", "short"}
    labeled = versions["teacher_outputs"].action
    pipeline = (plain.folder / "assets_config" / "pipeline.yaml").read_text("utf-8")
    second = pipeline.replace("source: parcels", "source: parcels\nname: judged") + "knowledge: [feedback]\n"
    (plain.folder / "assets_config" / "judged.yaml").write_text(second, "utf-8")
    again = plain.run(DATA)
    assert {row["style"] for row in table(again["prompt_set"], "prompt")} == {"full", "short", "compare"}
    assert again["teacher_outputs"].reused and again["teacher_outputs"].action == labeled
    assert {"preference_pairs"} == {node.key[1] for node in plain.project().needed("judged")} - {
        node.key[1] for node in plain.project().needed("parcels")
    }


def test_the_graph_has_the_artifact_where_it_is_used(tmp_path: Path) -> None:
    project = written(tmp_path / "graph", EVERY_KIND).project()
    graph = project_definitions(project).resolve_asset_graph()
    (key,) = [key for key in graph.materializable_asset_keys if key.path[-1] == "preference_pairs"]
    assert {parent.path[-1] for parent in graph.get(key).parent_keys} == {"teacher_outputs", "seed_set", "eval_set"}
    outputs = next(key for key in graph.materializable_asset_keys if key.path[-1] == "teacher_outputs")
    assert {parent.path[-1] for parent in graph.get(outputs).parent_keys} == {
        "teacher_model",
        "seed_set",
        "prompt_set",
        "initial_student",
    }


def test_templates_of_the_source_are_used_and_checked(tmp_path: Path, teacher: RuleTeacher) -> None:
    project = written(tmp_path / "own", "knowledge: [{name: expansion, exemplars: 2}]\n")
    own = "prompts: [{task: colour, style: expand, system: S, user: 'You write new inputs {{ exemplars | length }}'}]\n"
    project.append("source.yaml", own)
    made = project.run(DATA)
    (row,) = [row for row in table(made["prompt_set"], "prompt") if row["style"] == "expand"]
    assert row["system"] == "S"
    prompts = {row["prompt"] for row in table(made["teacher_outputs"], "call")}
    assert row["record_id"] in prompts
    assert "You write new inputs 2" in {request.messages[-1]["content"] for request in teacher.asked}
    project.edit("source.yaml", "system: S", "system: '{{ exemplars }}'")
    with pytest.raises(DistillError, match="Record text stands in the user role only"):
        project.project()
