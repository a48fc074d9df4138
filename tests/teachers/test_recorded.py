"""A file of answers as a teacher: joined by record, never by order, and nothing made up where there is none."""

from __future__ import annotations

import csv
import json
import random
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from pydantic import ValidationError

from distill_dagster.config.models import RecordedOptions, TeacherConfig
from distill_dagster.errors import ConfigError, SourceError
from distill_dagster.knowledge.labeling import split_rationale
from distill_dagster.records.messages import message
from distill_dagster.teachers.base import Request
from distill_dagster.teachers.journal import Journal
from distill_dagster.teachers.recorded import Backend, addressed, key_of


def seed(text, **more):
    return {"messages": [message("user", text)], "meta": "{}", "context": None, "choices": None, **more}


def options(**more):
    return RecordedOptions(**{"path": "a.jsonl", "input": "q", "answer": "a", **more})


def write(folder, rows, name="a.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def ask(backend, seeds, rationale=False, samples=1):
    requests = [
        Request(({"role": "user", "content": f"template of {row['messages']}"},), sample=sample)
        for row in seeds
        for sample in range(samples)
    ]
    rows = [row for row in seeds for _ in range(samples)]
    found = dict(backend.ask(addressed(backend.options, requests, rows, rationale)))
    return [found[index] for index in range(len(requests))]


def said(responses):
    return [response.failure or response.text for response in responses]


def test_answers_are_joined_by_record_and_never_by_order(tmp_path):
    rows = [{"q": f"question {at}", "a": f"answer {at}"} for at in range(40)]
    random.Random(3).shuffle(rows)
    write(tmp_path, rows)
    backend = Backend(options(), tmp_path, identity="t")
    seeds = [seed(f"question {at}") for at in (7, 3, 99, 0)]
    assert said(ask(backend, seeds)) == ["answer 7", "answer 3", "not_recorded", "answer 0"]


def test_a_question_that_names_no_record_is_not_recorded(tmp_path):
    write(tmp_path, [{"q": "x", "a": "1"}])
    backend = Backend(options(), tmp_path, identity="t")
    request = Request(({"role": "user", "content": "x"},))
    assert addressed(backend.options, [request], [None]) == [request]
    assert [response.failure for _, response in backend.ask([request])] == ["not_recorded"]


@given(st.text(min_size=1).filter(str.strip), st.sampled_from([" ", "\n", "\t \n", "\u00a0"]))
def test_white_space_and_unicode_form_make_no_other_record(text, space):
    spread = space + space.join(unicodedata.normalize("NFD", text).split()) + space
    assert key_of(spread) == key_of(" ".join(text.split())) == key_of(key_source(text))


def key_source(text):
    return unicodedata.normalize("NFC", text)


def test_letters_make_another_record():
    assert len({key_of(text) for text in ("Is 5 > 3?", "is 5 > 3?", "Is 5 > 4?", "Is 5 > 3 ?")}) == 4


def test_the_formats_agree(tmp_path):
    rows = [{"q": "one\ntwo", "a": "1", "r": "since 1", "m": "big"}, {"q": "dé jà", "a": "2,5", "r": None, "m": "big"}]
    write(tmp_path, rows)
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    seeds, found = [seed("dé jà"), seed("one two")], []
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        backend = Backend(options(path=name, rationale="r", model="m"), tmp_path, identity="t")
        found.append(ask(backend, seeds, rationale=True))
    assert found[0] == found[1] == found[2]
    assert said(found[0]) == ["Answer: 2,5", "since 1\nAnswer: 1"] and found[0][0].served_model == "big"


def test_answers_by_id(tmp_path):
    write(tmp_path, [{"id": 2, "a": "two"}, {"id": "x", "a": "ex"}])
    backend = Backend(options(input=None, id="id"), tmp_path, identity="t")
    seeds = [seed("same text", meta='{"id": "x"}'), seed("other", meta='{"id": "2"}')]
    assert said(ask(backend, seeds)) == ["ex", "two"]
    with pytest.raises(ConfigError, match="has no id"):
        ask(backend, [seed("z", source_id="file:s", source_row=4)])
    with pytest.raises(ConfigError, match="Ids must be unique"):
        ask(backend, [seed("one", meta='{"id": "x"}'), seed("another", meta='{"id": "x"}')])


def test_one_input_of_two_records_is_refused(tmp_path):
    write(tmp_path, [{"q": "Which one?", "a": "this"}])
    backend = Backend(options(), tmp_path, identity="t")
    with pytest.raises(ConfigError, match="Join by `id`"):
        ask(backend, [seed("Which one?", choices=["a", "b"]), seed("Which  one?", choices=["c", "d"])])
    assert said(ask(backend, [seed("Which one?", context="c"), seed("Which one?", context="c")])) == ["this"] * 2


def test_one_input_of_two_tasks_has_no_answer_for_both(tmp_path):
    write(tmp_path, [{"q": "I love it", "a": "positive"}])
    backend = Backend(options(), tmp_path, identity="t")
    with pytest.raises(ConfigError, match="of two tasks each has its own"):
        ask(backend, [seed("I love it", task="sentiment"), seed("I love it", task="topic")])
    assert said(ask(backend, [seed("I love it", task="topic")] * 2)) == ["positive"] * 2


def test_an_id_of_a_seed_is_no_id_of_a_test_item(tmp_path):
    def row(text, part, number):
        return seed(text, part=part, task="qa", meta='{"id": "1"}', source_id=f"file:{part}.csv", source_row=number)

    request = [Request(({"role": "user", "content": "q"},))]
    item, given = row("a test question", "test", 1), row("a train question", "unlabeled", 7)
    by_id = options(input=None, id="id")
    with pytest.raises(ConfigError, match="id '1' stands for two records") as error:
        addressed(by_id, request, [item], others=[given])
    assert "unlabeled record file:unlabeled.csv, row 7, and test record file:test.csv, row 1" in str(error.value)
    # The same record, a record without an id, and another way to join are no clash.
    for options_, others in ((by_id, [row("a  test question", "gold", 3), seed("z")]), (options(), [given])):
        (marked,) = addressed(options_, request, [item], others=others)
        assert marked.record is not None


def test_answers_that_differ_are_an_error_or_samples(tmp_path):
    rows = [{"q": "x", "a": "1"}, {"q": "y", "a": "9"}, {"q": "x", "a": "1"}, {"q": " x", "a": "2"}]
    write(tmp_path, rows)
    with pytest.raises(SourceError, match=r"a.jsonl:4: another answer than the one at .*a.jsonl:1") as caught:
        ask(Backend(options(), tmp_path, identity="t"), [seed("x")])
    assert "differ: samples" in caught.value.next_step
    backend = Backend(options(differ="samples"), tmp_path, identity="t")
    assert said(ask(backend, [seed("x"), seed("y")], samples=4)) == ["1", "1", "2", *["not_recorded"] * 1] + [
        "9",
        *["not_recorded"] * 3,
    ]
    write(tmp_path, rows[:3])
    assert said(ask(Backend(options(), tmp_path, identity="t"), [seed("x")])) == ["1"]


def test_a_list_of_answers_in_a_row(tmp_path):
    answers = [{"m": "small", "a": "1"}, {"m": "big", "a": "2", "why": "since"}, {"m": "big"}]
    write(tmp_path, [{"q": "x", "t": answers, "n": "kept"}, {"q": "y", "t": []}])
    backend = Backend(options(each="t", where={"m": "big"}, model="m", rationale="why"), tmp_path, identity="t")
    assert said(ask(backend, [seed("x"), seed("y")], rationale=True)) == ["since\nAnswer: 2", "not_recorded"]
    assert said(ask(backend, [seed("x")])) == ["2"]
    with pytest.raises(SourceError, match="holds no list of objects"):
        ask(Backend(options(each="n"), tmp_path, identity="t"), [seed("x")])


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda t: t.strip(" *\u00a0").strip()),
    st.sampled_from(["because", "one\n\ntwo", ""]),
)
def test_a_rationale_comes_apart_again(tmp_path_factory, answer, rationale):
    """What labeling reads out of the text is what the file holds, or the answer is refused."""
    folder = tmp_path_factory.mktemp("recorded")
    write(folder, [{"q": "x", "a": answer, "r": rationale}, {"q": "z", "a": "z", "r": "z"}])
    response = ask(Backend(options(rationale="r"), folder, identity="t"), [seed("x")], rationale=True)[0]
    if response.failure == "ambiguous_answer":
        assert "answer" in answer.casefold()
        return
    why, what = split_rationale(response.text)
    assert (why or "") == rationale.strip() and what == answer.strip().strip("*").strip()


def test_an_answer_that_reads_like_an_answer_line_is_refused_beside_a_rationale(tmp_path):
    write(tmp_path, [{"q": "x", "a": "The answer is: 4\nAnswer: 5", "r": "why"}])
    backend = Backend(options(rationale="r"), tmp_path, identity="t")
    assert said(ask(backend, [seed("x")], rationale=True)) == ["ambiguous_answer"]
    assert said(ask(backend, [seed("x")])) == ["The answer is: 4\nAnswer: 5"]


def test_the_revision_is_the_content_and_the_mapping(tmp_path):
    write(tmp_path, [{"q": "x", "a": "1", "b": "2"}])
    write(tmp_path, [{"q": "x", "a": "1", "b": "2"}], "moved.jsonl")
    first = Backend(options(), tmp_path, identity="t")
    assert Backend(options(path="moved.jsonl"), tmp_path, identity="t").revision == first.revision
    assert Backend(options(answer="b"), tmp_path, identity="t").revision != first.revision
    write(tmp_path, [{"q": "x", "a": "1", "b": "3"}])
    assert Backend(options(), tmp_path, identity="t").revision != first.revision


def test_the_journal_keeps_recorded_answers_apart_by_record(tmp_path):
    write(tmp_path, [{"id": "1", "a": "one"}, {"id": "2", "a": "two"}])
    backend = Backend(options(input=None, id="id"), tmp_path, identity="t")
    request = Request(({"role": "user", "content": "the same prompt"},))
    seeds = [seed("a", meta='{"id": "1"}'), seed("b", meta='{"id": "2"}')]
    with Journal(tmp_path / "j.sqlite") as journal:
        for reused in (False, True):
            responses, infos = journal.ask(backend, addressed(backend.options, [request] * 2, seeds), "n")
            assert said(responses) == ["one", "two"] and [info.reused for info in infos] == [reused] * 2


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        ([{"q": "x"}], {}, "no row has the column 'a'"),
        ([{"q": "x", "a": None}], {}, "no row holds an answer"),
        ([{"q": "", "a": "1"}], {}, "lacks 'q', which says what it answers"),
        ([{"a": "1"}], {}, "lacks 'q'"),
        ([{"q": "x", "a": "1", "f": "eos"}], {"finish_reason": "f"}, "finish reason 'eos' is not known"),
        ([{"q": "x", "a": ["1"]}], {}, "holds a list, not text"),
        ([{"q": "x", "a": "1"}], {"where": {"b": "c"}}, "no row has the column 'b'"),
        ([{"q": "x", "a": "1"}], {"path": "gone.jsonl"}, "no such file"),
    ],
)
def test_faults_of_a_file_are_named(tmp_path, rows, more, message):
    write(tmp_path, rows)
    with pytest.raises(SourceError, match=message):
        ask(Backend(options(**more), tmp_path, identity="t"), [seed("x")])


def test_an_empty_answer_is_none_in_every_format(tmp_path):
    rows = [{"q": "x", "a": "yes"}, {"q": "y", "a": ""}]
    write(tmp_path, rows)
    (tmp_path / "A.TSV").write_text("q\ta\nx\tyes\ny\t\n")
    parquet.write_table(pa.Table.from_pylist([rows[0], {"q": "y", "a": " "}]), tmp_path / "a.Parquet")
    for name in ("a.jsonl", "A.TSV", "a.Parquet"):
        assert said(ask(Backend(options(path=name), tmp_path, identity="t"), [seed("x"), seed("y")])) == [
            "yes",
            "not_recorded",
        ]


def test_a_file_that_is_changed_after_its_digest_was_taken_is_refused(tmp_path):
    write(tmp_path, [{"q": "x", "a": "1"}])
    backend = Backend(options(), tmp_path, identity="t")
    write(tmp_path, [{"q": "x", "a": "2"}])
    with pytest.raises(SourceError, match="a.jsonl: the file was changed"):
        ask(backend, [seed("x")])


def test_a_folder_is_no_file_of_answers(tmp_path):
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(SourceError, match="is a folder.*`recorded.path: a.jsonl`"):
        Backend(options(), tmp_path, identity="t")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backend": "recorded"}, "needs `recorded`"),
        ({"recorded": {"path": "a.csv", "input": "q", "answer": "a"}}, "belongs to backend `recorded`"),
        ({"backend": "recorded", "recorded": {"path": "a.csv", "answer": "a"}}, "exactly one of `input` and `id`"),
        (
            {"backend": "recorded", "recorded": {"path": "a.csv", "answer": "a", "input": "q", "id": "i"}},
            "exactly one of `input` and `id`",
        ),
        ({"backend": "recorded", "recorded": {"path": [], "answer": "a", "id": "i"}}, "names no file"),
        (
            {"backend": "recorded", "fit": {}, "recorded": {"path": "a.csv", "answer": "a", "id": "i"}},
            "cannot be fitted",
        ),
    ],
)
def test_what_a_teacher_file_may_say(fields, message):
    with pytest.raises(ValidationError, match=message):
        TeacherConfig.model_validate({"kind": "teacher", "name": "t", **fields})
