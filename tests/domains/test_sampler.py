"""Rows of the seed table: their parts, their identities, and what one edited line changes."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_dagster.config.models import DataFile, SourceConfig, Split
from distill_dagster.domains import sampler, split
from distill_dagster.domains.base import Domain, Item, Task
from distill_dagster.domains.generic.domain import domain as generic
from distill_dagster.errors import SourceError
from distill_dagster.records import tables
from distill_dagster.records.messages import text_of


def items(task: str, part: str, count: int, seed: int) -> Iterator[Item]:
    if count > 50:
        raise ValueError("only 50 items")
    for number in range(count):
        yield Item(
            f"{task} {part} {seed} {number}", "red", f"s-{part}", f"c-{part}", f"p-{part}-{number}", {"n": number}
        )


TASKS = (Task("colour", "label", "", "", ("red", "blue"), version="3"), Task("size", "text", "", ""))
TOY = Domain("toy", "", "", (), TASKS, (), items=items)
COUNTS = {"seed": 5, "teacher": 4, "gold": 2, "unlabeled": 3, "validation": 1, "test": 2}


def source(**more: Any) -> SourceConfig:
    return SourceConfig.model_validate({"kind": "source", "domain": "toy", **more})


def test_grammar_rows_have_all_that_the_table_asks(tmp_path: Path) -> None:
    rows = sampler.records(source(grammar=COUNTS), TOY, "seed", tmp_path)
    table = tables.build("seed", rows)
    assert Counter(zip(table["task"].to_pylist(), table["part"].to_pylist(), strict=True)) == {
        (task, part): COUNTS[part] for task in ("colour", "size") for part in ("teacher", "gold", "unlabeled")
    }
    first = table.to_pylist()[0]
    assert (first["source_id"], first["source_revision"]) == ("grammar:toy/colour@3", "seed 5")
    assert (first["facts"], first["meta"], first["language"]) == ('{"n":0}', "{}", "en")
    assert text_of(first["messages"]) == "colour teacher 5 0" and first["messages"][0]["role"] == "user"
    assert len(set(table["record_id"].to_pylist())) == table.num_rows
    evaluation = sampler.records(source(grammar=COUNTS), TOY, "evaluation", tmp_path)
    assert Counter(row["part"] for row in evaluation) == {"validation": 2, "test": 4}


def test_a_pilot_takes_the_first_of_each_task_and_part(tmp_path: Path) -> None:
    full = sampler.records(source(grammar=COUNTS), TOY, "seed", tmp_path)
    pilot = sampler.records(source(grammar=COUNTS), TOY, "seed", tmp_path, limit=2)
    assert Counter((row["task"], row["part"]) for row in pilot) == Counter(
        {(task, part): 2 for task in ("colour", "size") for part in ("teacher", "gold", "unlabeled")}
    )
    assert all(row in full for row in pilot)


def test_only_the_tasks_asked_for(tmp_path: Path) -> None:
    rows = sampler.records(source(grammar=COUNTS, tasks=["size"]), TOY, "seed", tmp_path)
    assert {row["task"] for row in rows} == {"size"}
    assert [task.name for task in sampler.task_specs(source(tasks=["size"]), TOY, tmp_path)] == ["size"]


def test_a_grammar_that_runs_dry_names_the_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="source toy, task colour: only 50 items.*grammar.teacher"):
        sampler.records(source(grammar={**COUNTS, "teacher": 51}), TOY, "seed", tmp_path)


def data_source(seeds: list[dict], evaluation: list[dict], folder: Path, **more: Any) -> SourceConfig:
    """A generic source over two JSONL files in the folder."""
    columns = {"input": "text", "answer": "label", "id": "id", **more.pop("columns", {})}
    for name, rows in (("seeds", seeds), ("evaluation", evaluation)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {
        name: [{"path": f"{name}.jsonl", "task": "colour", "licence": "MIT", "columns": columns}]
        for name in ("seeds", "evaluation")
    }
    define = more.pop("define", [{"name": "colour", "kind": "label"}])
    return source(**{"domain": "generic", "name": "mine", "define": define, **files, **more})


def made(count: int, start: int = 0) -> list[dict]:
    return [{"id": str(n), "text": f"text {n}", "label": ("red", "blue")[n % 2]} for n in range(start, start + count)]


def table(config: SourceConfig, folder: Path, group: Any = "seed") -> list[dict]:
    return tables.build("seed", sampler.records(config, generic(), group, folder)).to_pylist()


def test_rows_of_files(tmp_path: Path) -> None:
    config = data_source(made(200), made(20, 1000), tmp_path)
    rows = table(config, tmp_path)
    assert len(rows) == 200 and {row["part"] for row in rows} == {"teacher", "gold", "unlabeled"}
    assert rows[3] == {**rows[3], "source_id": "file:seeds.jsonl", "source_revision": "", "source_row": 4,
                       "meta": '{"id":"3"}', "licence": "MIT", "language": "en", "answer": "blue"}  # fmt: skip
    assert {row["part"] for row in table(config, tmp_path, "evaluation")} == {"test"}
    assert sampler.task_specs(config, generic(), tmp_path)[0].labels == ("blue", "red")


def test_an_edited_line_changes_one_record_and_moves_none(tmp_path: Path) -> None:
    seeds = made(300)
    before = {row["record_id"]: row["part"] for row in table(data_source(seeds, made(2, 1000), tmp_path), tmp_path)}
    seeds[100] = {**seeds[100], "label": "blue" if seeds[100]["label"] == "red" else "red"}
    after = {row["record_id"]: row["part"] for row in table(data_source(seeds, made(2, 1000), tmp_path), tmp_path)}
    assert len(before) == len(after) == 300
    assert len(before.keys() - after.keys()) == len(after.keys() - before.keys()) == 1
    assert all(before[record] == after[record] for record in before.keys() & after.keys())


def test_an_added_line_at_the_top_adds_one_record_and_moves_none(tmp_path: Path) -> None:
    seeds = made(300)
    before = {row["record_id"]: row["part"] for row in table(data_source(seeds, made(2, 1000), tmp_path), tmp_path)}
    seeds.insert(0, {"id": "new", "text": "a new text", "label": "red"})
    after = {row["record_id"]: row["part"] for row in table(data_source(seeds, made(2, 1000), tmp_path), tmp_path)}
    assert len(after.keys() - before.keys()) == 1 and all(after[record] == part for record, part in before.items())


def test_the_folder_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = table(data_source(made(20), made(2, 100), tmp_path / "a"), tmp_path / "a")
    assert first == table(data_source(made(20), made(2, 100), tmp_path / "b"), tmp_path / "b")


def test_validation_comes_from_the_seeds_or_from_a_file(tmp_path: Path) -> None:
    shares = {"teacher": 0.4, "gold": 0.1, "unlabeled": 0.3, "validation": 0.2}
    config = data_source(made(400), made(5, 1000), tmp_path, split=shares)
    seeds, evaluation = table(config, tmp_path), table(config, tmp_path, "evaluation")
    counted = Counter(row["part"] for row in evaluation)
    assert counted["test"] == 5 and 50 < counted["validation"] < 110
    assert len(seeds) + counted["validation"] == 400
    assert not {row["record_id"] for row in seeds} & {row["record_id"] for row in evaluation}
    whole = config.model_dump()
    whole["split"] = {}
    whole["evaluation"].append({**whole["evaluation"][0], "part": "validation"})
    parts = Counter(row["part"] for row in table(SourceConfig.model_validate(whole), tmp_path, "evaluation"))
    assert parts == {"test": 5, "validation": 5}


def test_validation_rows_that_a_test_file_holds_are_left_out_where_leaks_are_dropped(tmp_path: Path) -> None:
    seeds = [*made(40), {"id": "leak", "text": "TEXT  1000", "label": "red"}]
    shares = {"teacher": 0, "gold": 0, "unlabeled": 0, "validation": 1}
    for leaks, count in (("refuse", 41), ("drop", 40)):
        config = data_source(seeds, made(5, 1000), tmp_path, split=shares, leaks=leaks)
        assert Counter(row["part"] for row in table(config, tmp_path, "evaluation"))["validation"] == count


def test_a_label_that_the_task_does_not_have_names_file_and_row(tmp_path: Path) -> None:
    define = [{"name": "colour", "kind": "label", "labels": ["red", "blue"]}]
    config = data_source([*made(3), {"id": "x", "text": "t", "label": "bleu"}], made(2, 100), tmp_path, define=define)
    with pytest.raises(SourceError, match=r"seeds\.jsonl:4: the answer 'bleu' is none of the 2 labels.*'blue'"):
        table(config, tmp_path)


def test_a_label_that_the_task_does_not_have_names_the_record_of_a_csv_file(tmp_path: Path) -> None:
    (tmp_path / "seeds.csv").write_text('text,label\n"two\nlines",red\nmore,bleu\n')
    define = [{"name": "colour", "kind": "label", "labels": ["red", "blue"]}]
    config = data_source(made(3), made(2, 100), tmp_path, define=define)
    seeds = [{"path": "seeds.csv", "task": "colour", "licence": "MIT", "columns": {"input": "text", "answer": "label"}}]
    config = config.model_copy(update={"seeds": [DataFile.model_validate(data) for data in seeds]})
    with pytest.raises(SourceError, match=r"seeds\.csv:record 2: the answer 'bleu'"):
        table(config, tmp_path)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (1, 1.0, "both '1' and '1.0'"),
        ("caf\u00e9", "cafe\u0301", r"both 'cafe\\u0301' and 'caf\\xe9'"),
        ("New York", "New\u00a0York", r"both 'New York' and 'New\\xa0York'"),
    ],
)
def test_one_label_in_two_spellings_is_no_pair_of_labels(tmp_path: Path, one: Any, other: Any, words: str) -> None:
    rows = [{**row, "label": label} for row, label in zip(made(3), (one, other, 0), strict=True)]
    with pytest.raises(SourceError, match=f"{words}.*list the `labels`"):
        sampler.task_specs(data_source(rows, made(2, 100), tmp_path), generic(), tmp_path)
    define = [{"name": "colour", "kind": "label", "labels": [str(one), str(other), "0"]}]
    config = data_source(rows, made(2, 100), tmp_path, define=define)
    assert len(sampler.task_specs(config, generic(), tmp_path)[0].labels) == 3


def test_a_label_task_needs_answers(tmp_path: Path) -> None:
    config = data_source([{"id": 1, "text": "a", "label": None}], made(2, 100), tmp_path)
    with pytest.raises(SourceError, match="task colour: the seed files hold 0 different answers"):
        sampler.task_specs(config, generic(), tmp_path)


def test_a_text_task_needs_none(tmp_path: Path) -> None:
    define = [{"name": "colour", "kind": "text"}]
    config = data_source(made(20), made(2, 100), tmp_path, define=define, columns={"answer": None})
    assert {row["answer"] for row in table(config, tmp_path)} == {None}


def test_context_is_cut(tmp_path: Path) -> None:
    seeds = [{**row, "c": "0123456789"} for row in made(4)]
    config = data_source(seeds, [{**row, "c": "x"} for row in made(2, 100)], tmp_path,
                         columns={"context": "c"}, context_limit=4)  # fmt: skip
    assert {row["context"] for row in table(config, tmp_path)} == {"0123"}


ROWS = st.lists(
    st.fixed_dictionaries(
        {"input": st.text(max_size=3), "subject_key": st.one_of(st.none(), st.sampled_from("pqrstuvw"))}
    ),
    max_size=30,
)
SHARES = Split(teacher=0.4, gold=0.1, unlabeled=0.3, validation=0.1)


@given(ROWS)
def test_no_subject_and_no_input_stands_in_two_parts(rows: list[dict]) -> None:
    parts: dict[str, set[str | None]] = {}
    for row, part in zip(rows, split.assign(rows, SHARES), strict=True):
        parts.setdefault("i" + split.folded(row["input"]), set()).add(part)
        if row["subject_key"] is not None:
            parts.setdefault("s" + row["subject_key"], set()).add(part)
    assert all(len(found) == 1 for found in parts.values())


def test_one_question_about_many_passages_is_many_inputs(tmp_path: Path) -> None:
    rows = [{"input": "who pays", "subject_key": None, "context": f"{n} euros", "choices": None} for n in range(200)]
    parts = Counter(split.assign(rows, SHARES))
    assert len(parts) == 5 and parts["gold"] < 50
    chosen = [{**row, "context": None, "choices": [row["context"], "nobody"]} for row in rows]
    assert len(Counter(split.assign(chosen, SHARES))) == 5
    turned = [{**row, "choices": row["choices"][::-1]} for row in chosen]
    assert split.assign(turned, SHARES) == split.assign(chosen, SHARES)
    # What is cut off tells no two records apart.
    seeds = [{**row, "text": "who pays", "c": f"euros {n}"} for n, row in enumerate(made(200))]
    for limit, count in ((5, 1), (None, 3)):
        columns = {"context": "c"}
        config = data_source(seeds, [{**made(1)[0], "c": "x"}], tmp_path, columns=columns, context_limit=limit)
        assert len({row["part"] for row in table(config, tmp_path)}) == count


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows: list[dict], random: Any) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)
    plain = split.assign(rows, SHARES)
    assert split.assign([rows[at] for at in order], SHARES) == [plain[at] for at in order]


@given(st.lists(st.text(max_size=4), unique_by=split.folded, min_size=1), st.text())
def test_shares_alone_move_no_record_when_one_is_added(texts: list[str], added: str) -> None:
    rows = [{"input": text, "subject_key": None} for text in texts]
    before = split.assign(rows, SHARES)
    assert split.assign([{"input": added, "subject_key": None}, *rows], SHARES)[1:] == before


def test_counts_take_that_many_and_shares_divide_the_rest() -> None:
    rows = [{"input": str(n), "subject_key": None} for n in range(1000)]
    parts = Counter(split.assign(rows, Split(teacher=0.5, gold=200, unlabeled=0.25, validation=50)))
    assert parts["gold"] == 200 and parts["validation"] == 50
    assert abs(parts["teacher"] - 375) < 60 and abs(parts["unlabeled"] - 187) < 50
    assert sum(parts.values()) == 1000 and parts[None] > 100
    assert split.assign(rows, Split(seed=1)) != split.assign(rows, Split(seed=2))
