"""A server that nobody here wrote, with a model that nobody here trained: `transformers serve` on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from distill_dagster.config.endpoint import EndpointOptions
from distill_dagster.errors import TeacherError
from distill_dagster.teachers.base import Request
from distill_dagster.teachers.journal import Journal
from distill_dagster.teachers.openai import Backend

pytestmark = [pytest.mark.slow, pytest.mark.real_data, pytest.mark.needs_torch]

OPENINGS = ["Once upon a time", "The little dog", "Tom and Lily", "One day, a girl", "There was a big tree"]


@pytest.fixture(scope="module")
def model(real_data) -> Path:
    """Folder of stories260K."""
    folder = Path(os.environ.get("DISTILL_REAL_WEIGHTS", real_data.parent / "weights")) / "stories260K-hf"
    if not folder.is_dir():
        pytest.skip(f"no model in {folder}")
    return folder.resolve()


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    """Base address of the server, once it is up."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    program = Path(sys.executable).with_name("transformers")
    command = [str(program), "serve", str(model), "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)
        try:
            until = time.monotonic() + 240
            while True:
                assert process.poll() is None and time.monotonic() < until, log.read_text("utf-8")
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                        break
                except (urllib.error.URLError, OSError):
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()
            process.wait()


def backend(url, name, **options):
    endpoint = EndpointOptions(url=url, kind="completion", max_in_flight=4, **options)
    return Backend(name, endpoint=endpoint, identity="stories", revision="1", pause=0.01)


def asked(texts):
    sampling = {"temperature": 0.0, "max_new_tokens": 16}
    return [Request(({"role": "user", "content": text},), sampling) for text in texts]


def test_it_says_what_the_same_model_says_in_this_process(served, model, tmp_path):
    from distill_dagster.teachers.transformers import Backend as Local

    with Journal(tmp_path / "journal.sqlite") as journal:
        responses, infos = journal.ask(backend(served, str(model)), asked(OPENINGS), "n")
        again, reused = journal.ask(backend(served, str(model)), asked(OPENINGS), "n")
        assert journal.served("stories") == {f"{model}@main": 5}
    local = dict(Local(model, identity="local", template="plain").ask(asked(OPENINGS)))
    for index, response in enumerate(responses):
        assert (response.failure, response.finish_reason, response.output_tokens) == (None, "length", 16)
        assert response.text.strip() == local[index].text.strip()
        assert response.input_tokens == local[index].input_tokens
    assert again == responses and all(info.reused for info in reused) and not any(info.reused for info in infos)


def test_a_model_that_it_does_not_serve_is_refused(served, model, tmp_path):
    with Journal(tmp_path / "journal.sqlite") as journal:
        responses, _ = journal.ask(backend(served, "another"), asked(OPENINGS), "n")
        assert {response.failure for response in responses} == {"bad_request"}
        assert all("pinned" in (response.detail or "") for response in responses)
        with pytest.raises(TeacherError, match="has no /v2/completions"):
            journal.ask(backend(served.replace("/v1", "/v2"), str(model)), asked(OPENINGS), "n")
