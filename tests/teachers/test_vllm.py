"""What is handed to vLLM and what is made of its outputs; a module stands in for vLLM, which is not run here."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from distill_dagster.errors import TeacherError
from distill_dagster.teachers import vllm as backend
from distill_dagster.teachers.base import Request, TokenLogprob
from distill_dagster.teachers.journal import Journal


@dataclass
class Logprob:
    logprob: float
    decoded_token: str | None
    rank: int = 1


@dataclass
class Engine:
    """Answers like `vllm.LLM`, with what it was handed."""

    arguments: dict[str, Any]
    handed: list[tuple[str, list[Any], list[Any]]] = field(default_factory=list)
    finish: str = "stop"

    def _answer(self, how, prompts, settings, use_tqdm):
        assert use_tqdm is False and len(prompts) == len(settings)
        self.handed.append((how, prompts, settings))
        return [self._output(setting) for setting in settings]

    def chat(self, prompts, settings, use_tqdm=True):
        return self._answer("chat", prompts, settings, use_tqdm)

    def generate(self, prompts, settings, use_tqdm=True):
        return self._answer("generate", prompts, settings, use_tqdm)

    def _output(self, setting):
        listed = None
        if setting.get("logprobs"):
            listed = [
                {7: Logprob(-0.1, "red"), 8: Logprob(-2.5, "green")},
                {2: Logprob(-0.01, ""), 7: Logprob(-5.0, "red")},
            ]
        one = SimpleNamespace(text="red", token_ids=[7, 2], finish_reason=self.finish, logprobs=listed)
        return SimpleNamespace(prompt_token_ids=[1, 2, 3], outputs=[one])


@pytest.fixture
def engines(monkeypatch):
    """Engines that were started."""
    started: list[Engine] = []

    def start(**arguments):
        started.append(Engine(arguments))
        return started[-1]

    module = ModuleType("vllm")
    module.LLM = start  # type: ignore[attr-defined]
    module.SamplingParams = lambda **given: given  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    return started


def question(text, sample=0, **sampling):
    return Request(({"role": "system", "content": "Be brief."}, {"role": "user", "content": text}), sampling, sample)


def test_questions_and_answers(engines, tmp_path):
    teacher = backend.Backend("/models/big", identity="big", revision="r", dtype="bf16")
    asked = [
        question("one", temperature=0.7, top_p=0.9, max_new_tokens=12, stop=["\n"], seed=5),
        question("one", sample=2, temperature=0.7, seed=5, top_logprobs=2),
    ]
    with Journal(tmp_path / "journal.sqlite") as journal:
        responses, _ = journal.ask(teacher, asked, "tests")
        again, infos = journal.ask(teacher, asked, "tests")
    (engine,) = engines
    assert engine.arguments == {"model": "/models/big", "dtype": "bfloat16", "trust_remote_code": False}
    assert again == responses and all(info.reused for info in infos)
    ((how, prompts, settings),) = engine.handed
    assert how == "chat" and prompts[0] == [dict(message) for message in asked[0].messages]
    first = {"temperature": 0.7, "top_p": 0.9, "max_tokens": 12, "stop": ["\n"], "seed": 5}
    assert settings == [first, {**first, "top_p": 1.0, "max_tokens": 256, "stop": [], "seed": 7, "logprobs": 2}]
    plain, listed = responses
    assert (plain.text, plain.finish_reason, plain.served_model) == ("red", "stop", "big")
    assert (plain.input_tokens, plain.output_tokens, plain.logprobs, plain.failure) == (3, 2, None, None)
    assert listed.logprobs == (TokenLogprob("red", -0.1, (("red", -0.1), ("green", -2.5))),)


def test_plain_text_and_ends(engines):
    teacher = backend.Backend("/models/big", identity="big", template="plain")
    ((_, answer),) = teacher.ask([question("two")])
    assert engines[0].handed[0][:2] == ("generate", ["Be brief.two"]) and answer.text == "red"
    for finish, failure in (("length", None), ("abort", "malformed"), (None, "malformed")):
        engines[0].finish = finish
        ((_, answer),) = teacher.ask([question("two")])
        assert answer.failure == failure and answer.finish_reason == (finish if failure is None else "error")


def test_it_says_what_is_missing_or_broken(monkeypatch, engines):
    def broken(*_, **__):
        raise RuntimeError("no device")

    teacher = backend.Backend("/models/big", identity="big")
    monkeypatch.setattr(sys.modules["vllm"], "LLM", broken)
    with pytest.raises(TeacherError, match="vLLM stopped .RuntimeError: no device"):
        list(teacher.ask([question("two")]))
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(TeacherError, match=r"distill-dagster\[vllm\]"):
        list(teacher.ask([question("two")]))
