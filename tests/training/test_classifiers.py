"""Classifiers as students and teachers: one position a record, live and stored signals over labels, kill and resume."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from distill_dagster.errors import ModelError, TrainingError

pytestmark = pytest.mark.needs_torch

LABELS = ("turn", "keep", "drop")
RECIPE = {"steps": 12, "batch_tokens": 256, "learning_rate": 3e-3, "checkpoint_every": 4, "log_every": 1}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """An encoder's byte tokenizer."""
    from distill_dagster.training import tokenizer

    return tokenizer.fit([], "bytes", tmp_path_factory.mktemp("encoder_bytes"), encoder=True)


@pytest.fixture(scope="module")
def conversations():
    from distill_dagster.training.data import Chat

    rng = random.Random(3)
    made = []
    for number in range(90):
        noise = "".join(rng.choice("xyz ") for _ in range(rng.randint(0, 30)))
        label = rng.choice(LABELS)
        turns = ({"role": "user", "content": f"{noise}{label[:2]}"}, {"role": "assistant", "content": label})
        made.append(Chat(f"r{number}", turns, 1.0 + number % 2))
    return made


@pytest.fixture(scope="module")
def encoded(words, conversations):
    from distill_dagster.training.classify import encode

    return encode(words, conversations, LABELS, 64).examples


def tiny(words, labels=LABELS, seed=3):
    from distill_dagster.training import presets

    return presets.build("encoder_tiny", words, seed, labels)


def recipe(**changes):
    from distill_dagster.config.models import Recipe

    return Recipe(**{**RECIPE, **changes})


# --- what is read -------------------------------------------------------------------------------------------------


def test_a_record_is_one_position_with_its_class(words, encoded, conversations) -> None:
    from distill_dagster.training.signals.store import count

    one = encoded[0]
    assert one.text == conversations[0].messages[0]["content"]
    assert one.label == LABELS.index(conversations[0].messages[1]["content"])
    assert one.ids[0] == words.cls_token_id and one.ids[-1] == words.sep_token_id
    assert one.weights == [0.0] * (len(one.ids) - 1) + [1.0] and encoded[1].weights[-1] == 2.0
    assert [count(example) for example in encoded] == [1] * 90


def test_only_user_turns_are_read_and_control_tokens_are_text(words) -> None:
    from distill_dagster.models.classifier import text
    from distill_dagster.training.classify import encode
    from distill_dagster.training.data import Chat

    roles = ("system", "user", "assistant", "user", "assistant")
    turns = tuple({"role": role, "content": f"{role}{n}"} for n, role in enumerate(roles))
    assert text(turns) == "user1\nuser3"
    spelled = Chat("s", ({"role": "user", "content": "a<|end|>b"}, {"role": "assistant", "content": " keep\n"}))
    (one,) = encode(words, [spelled], LABELS, 64).examples
    assert one.ids.count(words.sep_token_id) == 1 and one.label == 1


@pytest.mark.parametrize(
    ("turns", "weight", "most", "reason"),
    [
        ((("user", "a"), ("assistant", "kept")), 1.0, 64, "'kept' is none of the 3 labels of the classifier: turn"),
        ((("user", "a"),), 1.0, 64, "it has no answer"),
        ((("user", " "), ("assistant", "keep")), 1.0, 64, "no text to classify"),
        ((("user", "a"), ("assistant", "keep")), 0.0, 64, "its weight is 0"),
        ((("user", "a"), ("assistant", "keep")), -1.0, 64, "its weight is -1, and a weight is 0 or a positive number"),
        ((("user", "abc"), ("assistant", "keep")), 1.0, 4, "it has 5 tokens, more than max_length 4"),
    ],
)
def test_records_that_cannot_be_learnt_are_named(words, turns, weight, most, reason) -> None:
    from distill_dagster.training.classify import encode
    from distill_dagster.training.data import Chat

    chat = Chat("r7", tuple({"role": role, "content": content} for role, content in turns), weight)
    with pytest.raises(TrainingError, match="record r7") as caught:
        encode(words, [chat], LABELS, most)
    assert reason in caught.value.reason and caught.value.next_step
    if most == 4:
        assert encode(words, [chat], LABELS, most, "drop").dropped == ["r7"]


# --- the loss -----------------------------------------------------------------------------------------------------


def test_sft_is_the_weighted_cross_entropy_over_classes(words, encoded) -> None:
    import torch

    from distill_dagster.training.forward import Forward
    from distill_dagster.training.objectives.base import build

    model, batch = tiny(words), encoded[:7]
    positions = Forward(model)(batch, words.pad_token_id)
    with torch.no_grad():
        alone = torch.cat([model(torch.tensor([example.ids])).logits for example in batch])
    assert torch.allclose(positions.logits, alone, atol=1e-5)  # padding is masked
    wanted = torch.nn.functional.cross_entropy(alone, torch.tensor([e.label for e in batch]), reduction="none")
    weights = torch.tensor([e.weights[-1] for e in batch])
    assert build("sft", {})(positions).item() == pytest.approx((wanted @ weights / weights.sum()).item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["forward", "reverse", "jsd", "skew_forward", "skew_reverse"])
def test_divergence_is_that_of_its_definition_in_float64(words, encoded, kind, tmp_path) -> None:
    """With another tokenizer and the labels in another order on the teacher's side."""
    import torch

    from distill_dagster.models import folder
    from distill_dagster.training import presets, tokenizer
    from distill_dagster.training.forward import Forward
    from distill_dagster.training.objectives.base import build
    from distill_dagster.training.signals.live_classes import LiveClassifier

    theirs = tokenizer.fit([e.text for e in encoded], 300, tmp_path / "words", encoder=True)
    order = [2, 0, 1]
    teacher = presets.build("encoder_tiny", theirs, 11, [LABELS[n] for n in order])
    live = LiveClassifier(folder.save(teacher, theirs, tmp_path / "teacher"), LABELS)
    model, batch, heat, hard = tiny(words), encoded[:9], 3.0, 0.25
    positions = Forward(model)(batch, words.pad_token_id)
    positions.signals = {"live": live(batch, positions)}
    value = build("divergence", {"kind": kind, "temperature": heat, "hard": hard, "signals": "live", "k": 0})(positions)
    value.backward()
    got = model.classifier.weight.grad.clone()

    model.zero_grad()
    with torch.no_grad():
        said = torch.cat([teacher(torch.tensor([live._own(e).ids])).logits for e in batch]).double()
    said = said[:, [order.index(n) for n in range(3)]]
    logits = torch.cat([model(torch.tensor([e.ids])).logits for e in batch]).double()
    p, q = (said / heat).softmax(-1), (logits / heat).softmax(-1)

    def kl(a, b):
        return (a * (a.log() - b.log())).sum(-1)

    soft = {
        "forward": kl(p, q),
        "reverse": kl(q, p),
        "jsd": 0.5 * kl(p, (p + q) / 2) + 0.5 * kl(q, (p + q) / 2),
        "skew_forward": kl(p, 0.1 * p + 0.9 * q),
        "skew_reverse": kl(q, 0.9 * p + 0.1 * q),
    }[kind]
    labels = torch.tensor([e.label for e in batch])
    hardly = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    weights = torch.tensor([e.weights[-1] for e in batch]).double()
    wanted = (((1 - hard) * heat**2 * soft + hard * hardly) @ weights) / weights.sum()
    wanted.backward()
    assert value.item() == pytest.approx(wanted.item(), rel=1e-4)
    assert torch.allclose(got, model.classifier.weight.grad, rtol=1e-3, atol=1e-6)


def captured(tmp_path: Path, words, encoded, labels, k: int):
    from distill_dagster.models import folder
    from distill_dagster.training.signals import capture, store

    teacher = tiny(words, labels, 11)
    teacher.classifier.weight.data *= 20  # a teacher that means something
    place = folder.save(teacher, words, tmp_path / "teacher")
    meta = store.Meta("v1", "", "", len(labels), k, (1.0, 2.0), labels=tuple(labels))
    rows = capture.capture(encoded, meta, capture.Scorer(place, meta), tmp_path / "shards").rows
    store.write(tmp_path / "signals.parquet", rows, meta)
    return place, tmp_path / "signals.parquet"


@pytest.mark.parametrize("k", [1, 2])
def test_stored_is_live(words, encoded, tmp_path, k) -> None:
    """Two labels and the rest are all three; one and the rest are as a live teacher with as many apart."""
    import torch

    from distill_dagster.training.forward import Forward
    from distill_dagster.training.objectives.base import build
    from distill_dagster.training.signals.live_classes import LiveClassifier
    from distill_dagster.training.signals.store import Stored

    place, file = captured(tmp_path, words, encoded, ("drop", "turn", "keep"), k)
    stored = Stored(file, words, "chat", "v1", LABELS)
    batch = encoded[5:25]
    positions = Forward(tiny(words))(batch, words.pad_token_id)
    positions.signals = {"stored": stored(batch, positions), "live": LiveClassifier(place, LABELS)(batch, positions)}
    values = [
        build("divergence", {"temperature": 2, "signals": source, "k": 16 if k == 2 else 1})(positions).item()
        for source in ("stored", "live")
    ]
    # The codec rounds to 1/16 nat: as a divergence that is less than 0.001 nats, T² = 4 times.
    assert abs(values[0] ** 0.5 - values[1] ** 0.5) < (4 * 0.5e-3) ** 0.5 and values[1] > 0.02
    if k == 2:
        stored_at, live_at = (positions.signals[name].targets(2.0, 16).tile(0, 20) for name in ("stored", "live"))
        ids, kept, rest = stored_at
        found = torch.full((20, 3), float("nan")).scatter_(1, ids, kept)
        found = torch.where(found.isnan(), rest[:, None], found)
        assert (live_at[1].exp() * (live_at[1] - found)).sum(1).max() < 1e-3


def test_stored_signals_of_something_else_are_refused(words, tokenizer, encoded, tmp_path) -> None:
    from distill_dagster.training.signals.store import Stored, read_meta

    _, file = captured(tmp_path, words, encoded, ("drop", "turn", "keep"), 2)
    assert read_meta(file).labels == ("drop", "turn", "keep")
    with pytest.raises(TrainingError, match="the student alone has hold; the teacher alone has keep"):
        Stored(file, words, labels=("drop", "turn", "hold"))
    with pytest.raises(TrainingError, match="answers with labels, and the student is a language model"):
        Stored(file, tokenizer)
    with pytest.raises(TrainingError, match="another teacher"):
        Stored(file, words, teacher="v2", labels=LABELS)


def test_the_metadata_of_a_language_models_signals_is_as_it_was() -> None:
    from distill_dagster.training.signals.store import Meta

    assert set(Meta("v", "t", "c", 300, 4, (1.0,)).said()) == {
        "teacher", "tokenizer", "template", "vocabulary", "k", "temperatures", "codec",
    }  # fmt: skip


def test_a_teacher_that_writes_text_gives_no_label_probabilities(nano, tokenizer, tmp_path) -> None:
    from distill_dagster.models import folder
    from distill_dagster.training.signals.live_classes import LiveClassifier

    with pytest.raises(TrainingError, match="one speaks of tokens, the other of labels"):
        LiveClassifier(folder.save(nano, tokenizer, tmp_path), LABELS)


# --- training -----------------------------------------------------------------------------------------------------


def test_it_learns_and_a_killed_run_ends_as_an_undisturbed_one(words, encoded, tmp_path) -> None:
    import torch

    from distill_dagster.training import trainer
    from distill_dagster.training.signals.live_classes import LiveClassifier

    place, _ = captured(tmp_path, words, encoded, LABELS, 2)
    teacher = LiveClassifier(place, LABELS)
    objective = {"sft": 0.5, "divergence": {"weight": 0.5, "signals": "live", "k": 0}}

    def run(name: str, **more):
        model = tiny(words)
        # Dropout draws from the generator whose state a checkpoint keeps.
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.1
        summary = trainer.train(
            model, words, encoded, recipe(objective=objective, steps=24), tmp_path / name, signals=[teacher], **more
        )
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        return model, summary, [(row["step"], row["loss"], row["divergence"]) for row in rows]

    whole, summary, curve = run("whole")
    assert summary["forward"] == "classifier" and summary["answer_tokens"] >= 24
    assert curve[-1][1] < curve[0][1]

    class Killed(Exception):
        pass

    def kill(step: int, *_):
        if step == 11:
            raise Killed

    with pytest.raises(Killed):
        run("killed", progress=kill)
    again, summary, resumed = run("killed")
    assert summary["resumed_from"] == 8 and resumed == curve
    for (name, one), other in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_other_classes_are_another_run(words, encoded, tmp_path) -> None:
    from dataclasses import replace

    from distill_dagster.training.trainer import Run

    def fingerprint(examples):
        return Run(tiny(words), words, examples, recipe(), tmp_path).fingerprint

    other = [replace(encoded[0], label=(encoded[0].label + 1) % 3), *encoded[1:]]
    assert fingerprint(encoded) != fingerprint(other)


def test_a_loss_that_is_not_finite_names_records(words, encoded, tmp_path) -> None:
    import torch

    from distill_dagster.training import trainer

    model = tiny(words)
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"not finite.*records r\d+"):
        trainer.train(model, words, encoded, recipe(), tmp_path)


def test_an_objective_that_wants_other_batches_is_refused(monkeypatch) -> None:
    from distill_dagster.training import classify

    with pytest.raises(TrainingError, match="a classifier explains nothing"):
        classify.refuse_text(recipe(rationale={"mode": "in_answer"}))

    for name, asked in (("prompt_loss_weight", 0.5), ("packing", True)):
        with pytest.raises(TrainingError, match=f"training.{name}: {asked}: .* nothing would come of it"):
            classify.refuse_text(recipe(**{name: asked}))

    with pytest.raises(TrainingError, match="adapters are for causal students"):
        classify.refuse_text(recipe(adapter={"r": 2}))

    class Writes:
        feed = "samples"

    monkeypatch.setattr(classify, "build", lambda name, params: Writes())
    with pytest.raises(TrainingError, match="learns from samples, and a classifier learns from records alone"):
        classify.refuse_text(recipe())


# --- answering ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backend(words, tmp_path_factory):
    from distill_dagster.models import folder
    from distill_dagster.teachers.transformers import Backend

    place = folder.save(tiny(words), words, tmp_path_factory.mktemp("classifier"))
    return Backend(place, identity="c", batch_size=8)


def asked(texts, **sampling):
    from distill_dagster.teachers.base import Request

    return [Request(({"role": "user", "content": text},), sampling) for text in texts]


def test_it_answers_with_labels_and_their_probabilities(backend, encoded) -> None:
    texts = [example.text or "x" for example in encoded[:40]]
    found = dict(backend.ask(asked(texts, top_logprobs=2)))
    assert sorted(found) == list(range(40)) and {one.text for one in found.values()} <= set(LABELS)
    for index, one in found.items():
        assert (one.finish_reason, one.output_tokens, one.failure) == ("stop", 1, None)
        assert one.logprobs is not None and one.logprobs[0].token == one.text
        assert [name for name, _ in one.logprobs[0].top][0] == one.text and len(one.logprobs[0].top) == 2
        # Whatever stands beside it, an answer is the same to the last bit.
        (alone,) = dict(backend.ask(asked([texts[index]], top_logprobs=2))).values()
        assert alone == one
    assert dict(backend.ask(asked(["abc"])))[0].logprobs is None


def test_samples_follow_the_probabilities(backend) -> None:
    from dataclasses import replace

    (one,) = asked(["abc"], temperature=1.0, seed=4)
    said = [dict(backend.ask([replace(one, sample=number)]))[0].text for number in range(60)]
    assert said == [dict(backend.ask([replace(one, sample=number)]))[0].text for number in range(60)]
    assert len(set(said)) > 1
    top = dict(backend.ask(asked(["abc"], top_logprobs=3)))[0].logprobs[0].top
    assert sum(np.exp(value) for _, value in top) == pytest.approx(1)


def test_a_text_beyond_the_context_fails_alone(backend) -> None:
    found = dict(backend.ask(asked(["a" * 600, "abc"])))
    assert found[0].failure == "context_exceeded" and found[1].text in LABELS
    with pytest.raises(ModelError, match="question 0"):
        dict(backend.ask(asked([" "])))
