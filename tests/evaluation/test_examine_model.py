"""Answers come back in order, with what they took."""

import pytest

from distill_dagster.errors import ModelError
from distill_dagster.evaluation.examine_model import answer, measure, peak_memory
from distill_dagster.teachers.base import Response


class Backwards:
    """Answers in reverse order, fails where it is told to, leaves out what it is told to."""

    identity, revision = "backwards", "1"

    def __init__(self, fail=(), skip=()):
        self.fail, self.skip, self.seen = fail, skip, []

    def ask(self, requests):
        self.seen = list(requests)
        for index in reversed(range(len(requests))):
            if index in self.skip:
                continue
            failure = "timeout" if index in self.fail else None
            text = requests[index].messages[-1]["content"].upper()
            yield index, Response(text, "error" if failure else "stop", "m", 3, 2, failure)


CHATS = [[{"role": "user", "content": text}] for text in ("a", "b", "c")]


def test_order_progress_and_resources():
    seen = []
    outputs, used = measure(Backwards(), CHATS, {"max_new_tokens": 4}, lambda done, total: seen.append((done, total)))
    assert outputs == ["A", "B", "C"] == answer(Backwards(), CHATS)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert (used["items"], used["failed"], used["input_tokens"], used["output_tokens"]) == (3, 0, 9, 6)
    assert used["seconds_per_item"] * 3 == pytest.approx(used["seconds"])
    assert 1e6 < used["peak_memory_bytes"] <= peak_memory() + 1


def test_sampling_may_differ_by_question():
    backend = Backwards()
    measure(backend, CHATS, [{"max_new_tokens": n} for n in (1, 2, 3)])
    assert [request.sampling["max_new_tokens"] for request in backend.seen] == [1, 2, 3]
    with pytest.raises(ValueError):
        measure(backend, CHATS, [{}])


def test_a_failed_call_is_an_empty_answer_and_is_counted():
    outputs, used = measure(Backwards(fail=(1,)), CHATS)
    assert outputs == ["A", "", "C"] and used["failed"] == 1


def test_a_question_without_response_is_an_error():
    with pytest.raises(ModelError, match="1 of 3 questions got no response"):
        measure(Backwards(skip=(2,)), CHATS)
    assert measure(Backwards(), [])[0] == []
