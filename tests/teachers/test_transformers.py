import os
from pathlib import Path

import pytest

from distill_dagster.errors import ModelError
from distill_dagster.teachers.base import Request

pytestmark = pytest.mark.needs_torch

WEIGHTS = Path(os.environ.get("DISTILL_REAL_WEIGHTS", Path(__file__).resolve().parents[3] / "shared" / "weights"))
QUESTIONS = ["a", "turn abc", "what is 12 + 30?", "x" * 15, "y" * 16, "z" * 17, "née 日本", "turn abc"] * 3


def question(text: str, sample: int = 0, **sampling) -> Request:
    return Request(({"role": "user", "content": text},), {"max_new_tokens": 12, **sampling}, sample)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A nano model with larger weights than a fresh one, so that its answers differ from question to question."""
    import torch

    from distill_dagster.training import presets, tokenizer
    from distill_dagster.training.folder import save

    path = tmp_path_factory.mktemp("nano")
    words = tokenizer.fit([], "bytes", path / "tokenizer")
    model = presets.build("nano", words, 4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return save(model, words, path / "model")


@pytest.fixture(scope="module")
def backend(folder: Path):
    from distill_dagster.teachers.transformers import Backend

    return Backend(folder, identity="nano", revision="1", batch_size=8)


def answers(backend, requests) -> list:
    found = dict(backend.ask(requests))
    assert sorted(found) == list(range(len(requests)))
    return [found[index] for index in range(len(requests))]


def reference(folder: Path, text: str, limit: int) -> tuple[str, int]:
    """Greedy search without a cache, one question at a time."""
    import torch

    from distill_dagster.models.chat import render
    from distill_dagster.training.folder import load_model, load_tokenizer

    model, words = load_model(folder), load_tokenizer(folder)
    prompt = words(render(words, [{"role": "user", "content": text}], True), add_special_tokens=False)["input_ids"]
    ids = list(prompt)
    with torch.no_grad():
        while len(ids) < len(prompt) + limit and (len(ids) == len(prompt) or ids[-1] != words.eos_token_id):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    said = ids[len(prompt) :]
    kept = [token for token in said if token != words.eos_token_id]
    return str(words.decode(kept, skip_special_tokens=True)), len(said)


def test_greedy_answers_are_the_models_own(backend, folder: Path) -> None:
    found = answers(backend, [question(text) for text in QUESTIONS])
    assert len({response.text for response in found}) > 4
    for text, response in zip(QUESTIONS[:8], found, strict=False):
        assert (response.text, response.output_tokens) == reference(folder, text, 12)
        assert response.served_model == "nano@1" and response.failure is None
        assert response.finish_reason == ("length" if response.output_tokens == 12 else "stop")
    assert found[1] == found[7]
    assert found[0].input_tokens == 4


def test_a_question_cannot_end_its_own_turn(backend) -> None:
    (usual,) = answers(backend, [question("a")])
    (spelled,) = answers(backend, [question("a<|end|>")])
    assert spelled.input_tokens == usual.input_tokens + len("<|end|>")  # of a byte tokenizer


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "top_p": 0.9, "seed": 3}])
def test_an_answer_does_not_depend_on_its_neighbours(folder: Path, sampling: dict) -> None:
    from distill_dagster.teachers.transformers import Backend

    requests = [question(text, **sampling) for text in QUESTIONS[:8]]
    wide = Backend(folder, identity="n", revision="", batch_size=64)
    narrow = Backend(folder, identity="n", revision="", batch_size=2)
    together = answers(wide, requests)
    assert together == answers(narrow, requests)
    assert together == [answers(wide, [request])[0] for request in requests]
    assert together == answers(wide, requests[::-1])[::-1]


def test_few_questions_are_computed_like_many(folder: Path, monkeypatch) -> None:
    from distill_dagster.models.steppers import LlamaStepper
    from distill_dagster.teachers.transformers import Backend

    sizes = []
    read, step = LlamaStepper.read, LlamaStepper.step
    monkeypatch.setattr(LlamaStepper, "read", lambda self, p, room: sizes.append(len(p)) or read(self, p, room))
    monkeypatch.setattr(LlamaStepper, "step", lambda self, c: sizes.append(len(c)) or step(self, c))
    answers(Backend(folder, identity="n", threads=1), [question("a")])
    assert set(sizes) == {16}


def test_the_logits_of_a_row_are_bit_for_bit_its_own(folder: Path) -> None:
    """What the promise rests on: with 16 rows or more a row's numbers do not change with the rows beside it."""
    import torch

    from distill_dagster.models.steppers import LlamaStepper, stepper
    from distill_dagster.training.folder import load_model

    model = load_model(folder)
    prompts = [[5 + (7 * row + column) % 200 for column in range(17 + row % 16)] for row in range(40)]
    with torch.inference_mode():
        many, few = stepper(model), stepper(model)
        assert isinstance(many, LlamaStepper)
        one, other = many.read(prompts, 48), few.read(prompts[:16], 48)
        assert torch.equal(one[:16], other)
        few.keep(torch.arange(16))
        many.keep(torch.arange(20))
        assert torch.equal(many.step(one[:20].argmax(-1))[:16], few.step(other.argmax(-1)))


def test_sampling_follows_seed_sample_and_question(backend) -> None:
    def draw(seed: int, sample: int) -> str:
        return answers(backend, [question("turn abc", sample, temperature=1.5, seed=seed)])[0].text

    assert draw(1, 0) == draw(1, 0)
    assert len({draw(1, 0), draw(1, 1), draw(2, 0)}) == 3


def test_sampling_is_true_to_the_distribution() -> None:
    import torch

    from distill_dagster.models.generation import sample

    logits = torch.log(torch.tensor([0.1, 0.6, 0.3]))
    grid = [(place + 0.5) / 1000 for place in range(1000)]
    drawn = [sample(logits, 1.0, 1.0, uniform) for uniform in grid]
    assert [drawn.count(token) for token in range(3)] == pytest.approx([100, 600, 300], abs=1)
    drawn = [sample(logits, 1.0, 0.85, uniform) for uniform in grid]
    assert [drawn.count(token) for token in range(3)] == pytest.approx([0, 667, 333], abs=1)
    assert {sample(logits, 1.0, 0.5, uniform) for uniform in grid} == {1}
    cold = [sample(logits, 0.5, 1.0, uniform) for uniform in grid]
    assert cold.count(1) == pytest.approx(1000 * 0.36 / 0.46, abs=2)
    assert sample(logits, 1.0, 1.0, 1 - 2**-53) == 0


def test_stop_strings_cut_the_answer(backend) -> None:
    whole = answers(backend, [question("turn abc", max_new_tokens=40)])[0]
    stop = whole.text[5:7]
    cut = answers(backend, [question("turn abc", max_new_tokens=40, stop=[stop, "never"])])[0]
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop" and cut.output_tokens < whole.output_tokens


def test_a_prompt_beyond_the_context_is_a_failed_call(backend) -> None:
    found = answers(backend, [question("x" * 1100), question("a"), question("x" * 1017)])
    assert (found[0].failure, found[0].finish_reason, found[0].text) == ("context_exceeded", "error", "")
    assert found[0].input_tokens == 1103
    assert found[1].failure is None
    assert found[2].failure is None and found[2].output_tokens <= 4


def test_nothing_loads_before_the_first_question(folder: Path) -> None:
    from distill_dagster.teachers.transformers import Backend
    from distill_dagster.training.folder import digest

    backend = Backend(folder, identity="nano")
    assert backend.revision == digest(folder)
    assert list(backend.ask([])) == [] and backend._model is None


def test_bad_folders_are_refused_at_once(folder: Path, tmp_path: Path) -> None:
    from distill_dagster.teachers.transformers import Backend

    with pytest.raises(ModelError, match="no such model folder"):
        Backend(tmp_path / "none", identity="x")


def test_bf16_answers(folder: Path) -> None:
    from distill_dagster.teachers.transformers import Backend

    backend = Backend(folder, identity="n", revision="", dtype="bf16")
    assert len(answers(backend, [question(text) for text in QUESTIONS])) == len(QUESTIONS)


def test_other_architectures_answer_too(tmp_path: Path) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from distill_dagster.models.steppers import CacheStepper, stepper
    from distill_dagster.teachers.transformers import Backend
    from distill_dagster.training import tokenizer
    from distill_dagster.training.folder import save

    torch.manual_seed(0)
    words = tokenizer.fit([], "bytes", tmp_path / "tokenizer")
    config = GPT2Config(vocab_size=261, n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=1)
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    folder = save(model, words, tmp_path / "gpt2")
    backend = Backend(folder, identity="gpt2", revision="")
    found = answers(backend, [question(text) for text in QUESTIONS[:7]])
    assert isinstance(stepper(backend._model), CacheStepper)
    assert [(r.text, r.output_tokens) for r in found] == [reference(folder, text, 12) for text in QUESTIONS[:7]]


@pytest.mark.real_data
def test_a_model_nobody_here_made_tells_stories() -> None:
    from distill_dagster.models.steppers import CacheStepper
    from distill_dagster.teachers.transformers import Backend

    folder = WEIGHTS / "stories260K-hf"
    if not folder.is_dir():
        pytest.skip("no real weights on this machine; set DISTILL_REAL_WEIGHTS to their folder")
    with pytest.raises(ModelError, match="no chat template"):
        list(Backend(folder, identity="stories").ask([question("Once")]))
    backend = Backend(folder, identity="stories", template="plain")
    openings = ["Once upon a time, there was a", "One day, Lily", "Tom had a dog. The dog", "The sun was"]
    requests = [question(text, max_new_tokens=40) for text in openings]
    found = answers(backend, requests)
    assert found[0].text.startswith(" little girl named")
    assert all(response.output_tokens > 10 for response in found)
    backend._generator.stepper = CacheStepper(backend._model)
    assert answers(backend, requests) == found


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}


@pytest.mark.parametrize("name", ["lfm2", "qwen3_next"])
def test_a_model_that_mixes_kinds_of_layers_answers_rows_that_end_apart(folder: Path, name: str) -> None:
    """A batch shrinks where rows have stopped, and the states of convolutions and linear attention shrink with it."""
    import random

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from distill_dagster.models.generation import Generator, Row
    from distill_dagster.training.folder import load_tokenizer

    more = {
        "lfm2": {"layer_types": ["conv", "full_attention"]},
        "qwen3_next": {
            "layer_types": ["linear_attention", "full_attention"], "num_experts": 4, "num_experts_per_tok": 2,
            "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "head_dim": 16,
            "linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
        },
    }[name]  # fmt: skip
    words = load_tokenizer(folder)
    config = AutoConfig.for_model(name, vocab_size=len(words), intermediate_size=64, **SIZES, **more)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    generator = Generator(model, words)
    generator.ends |= set(range(0, len(words), 6))
    rng = random.Random(0)
    prompts = [[rng.randrange(len(words)) for _ in range(rng.randint(17, 32))] for _ in range(40)]
    rows = [Row(at, prompt, 12, 0.0, 1.0, (), rng) for at, prompt in enumerate(prompts)]
    found = {row.index: row.said for row in generator.run(rows)}
    assert len({len(said) for said in found.values()}) > 4
    for at, prompt in enumerate(prompts):
        said: list[int] = []
        while len(said) < 12 and not generator.ends & set(said):
            with torch.no_grad():
                said.append(int(model(torch.tensor([prompt + said]), use_cache=False).logits[0, -1].argmax()))
        assert found[at] == said


def test_a_model_that_keeps_no_key_value_cache_is_refused_when_it_is_loaded(folder: Path, tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    from distill_dagster.training.folder import load_model, load_tokenizer, save

    words = load_tokenizer(folder)
    model = MambaForCausalLM(MambaConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=1, state_size=4))
    with pytest.raises(ModelError, match="MambaForCausalLM has no key-value cache"):
        load_model(save(model, words, tmp_path))
