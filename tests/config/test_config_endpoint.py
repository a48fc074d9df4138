"""What a teacher file may say about an endpoint."""

import pytest
from pydantic import ValidationError

from distill_dagster.config.models import TeacherConfig, identity

URL = "https://api.example.com/v1"


def teacher(**options):
    endpoint = {"url": URL, **options.pop("endpoint", {})}
    return TeacherConfig(
        **{"kind": "teacher", "name": "t", "backend": "openai", "model": "m", "endpoint": endpoint, **options}
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"endpoint": {"url": "api.example.com"}}, "needs http"),
        ({"endpoint": {"url": "https://user:secret@api.example.com/v1"}}, "no user or password"),
        ({"endpoint": {"url": URL + "/chat/completions"}}, "base address"),
        ({"endpoint": {"extra": {"messages": []}}}, "may not set messages"),
        ({"endpoint": {"api_key_env": "sk-not a name"}}, "pattern"),
        ({"endpoint": {"max_in_flight": 0}}, "greater than or equal to 1"),
        ({"endpoint": None}, "needs an `endpoint`"),
        ({"model": "domain:teacher"}, "needs `model`"),
        ({"fit": {}}, "cannot be fitted"),
        ({"backend": "transformers"}, "belongs to backend 'openai'"),
    ],
)
def test_what_cannot_be(options, said):
    if options.get("endpoint", 0) is None:
        with pytest.raises(ValidationError, match=said):
            TeacherConfig(kind="teacher", name="t", backend="openai", model="m")
        return
    with pytest.raises(ValidationError, match=said) as caught:
        teacher(**options)
    assert "secret@" not in str(caught.value.errors(include_input=False))


def test_the_same_teacher_elsewhere_or_faster_is_the_same_teacher():
    here = teacher(endpoint={"max_in_flight": 2, "api_key_env": "A"})
    there = teacher(endpoint={"url": "http://127.0.0.1:9/v1", "requests_per_minute": 5, "api_key_env": "B"})
    assert here != there and identity(here) == identity(there)
    for other in ({"kind": "completion"}, {"response_schema": {}}, {"extra": {"a": 1}}, {"top_logprobs": 2}):
        assert identity(teacher(endpoint=other)) != identity(here)
