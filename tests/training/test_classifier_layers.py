"""Terms on a teacher's layers, for classifiers: through the trainer, and with a teacher that reads other tokens."""

import pytest

from distill_dagster.errors import TrainingError

pytestmark = pytest.mark.needs_torch

LABELS = ("odd", "even")
TERMS = {"hidden": {"layers": "last", "weight": 0.5}, "attention": 0.5, "relation": 0.5, "sft": 1.0}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    from distill_dagster.training import tokenizer

    return tokenizer.fit([], "bytes", tmp_path_factory.mktemp("words"), encoder=True)


def made(words, preset: str, seed: int):
    from distill_dagster.training import presets

    return presets.build(preset, words, seed, LABELS)


@pytest.fixture(scope="module")
def examples(words):
    from distill_dagster.training.classify import encode
    from distill_dagster.training.data import Chat

    given = [
        Chat(f"r{n}", ({"role": "user", "content": "x" * n}, {"role": "assistant", "content": LABELS[n % 2 == 0]}))
        for n in range(1, 41)
    ]
    return encode(words, given, LABELS, 64).examples


def test_a_student_learns_its_teachers_layers(words, examples, tmp_path) -> None:
    from distill_dagster.config.models import Recipe
    from distill_dagster.models import folder
    from distill_dagster.training import metrics
    from distill_dagster.training.signals.live_classes import LiveClassifier
    from distill_dagster.training.trainer import train

    place = folder.save(made(words, "encoder_small", 1), words, tmp_path / "teacher")
    recipe = Recipe(objective=TERMS, steps=30, batch_tokens=512, learning_rate=3e-3, log_every=1)
    student = made(words, "encoder_tiny", 2)
    train(student, words, examples, recipe, tmp_path / "work", signals=[LiveClassifier(place, LABELS)])
    rows = metrics.read(tmp_path / "work" / metrics.FILE)
    for name in ("hidden", "relation"):
        assert sum(row[name] for row in rows[-5:]) < 0.8 * sum(row[name] for row in rows[:5])
    # The learned projection is no part of the student.
    saved, fresh = (
        folder.save(model, words, tmp_path / name)
        for name, model in (("student", student), ("fresh", made(words, "encoder_tiny", 3)))
    )
    assert folder.parameters(saved) == folder.parameters(fresh)


def test_equal_models_differ_in_nothing(words, examples, tmp_path) -> None:
    from distill_dagster.models import folder
    from distill_dagster.training import features
    from distill_dagster.training.forward import Forward
    from distill_dagster.training.objectives.base import build
    from distill_dagster.training.signals.live_classes import LiveClassifier

    model = made(words, "encoder_tiny", 1).eval()
    live = LiveClassifier(folder.save(model, words, tmp_path / "teacher"), LABELS)
    forward, terms = Forward(model), {name: (1.0, build(name, {})) for name in ("hidden", "attention", "relation")}
    features.bind(terms, forward, [live], 0)
    positions = forward(examples[:7], words.pad_token_id)
    positions.signals = {"live": live(examples[:7], positions)}
    assert all(term(positions).item() == pytest.approx(0, abs=1e-6) for _, term in terms.values())


def test_a_teacher_that_reads_other_tokens_is_refused(words, examples, tmp_path) -> None:
    from distill_dagster.models import folder
    from distill_dagster.training import features, tokenizer
    from distill_dagster.training.forward import Forward
    from distill_dagster.training.objectives.base import build
    from distill_dagster.training.signals.live_classes import LiveClassifier

    theirs = tokenizer.fit([example.text for example in examples], 300, tmp_path / "words", encoder=True)
    live = LiveClassifier(folder.save(made(theirs, "encoder_tiny", 1), theirs, tmp_path / "teacher"), LABELS)
    forward = Forward(made(words, "encoder_tiny", 2))
    features.bind({"relation": (1.0, build("relation", {}))}, forward, [live], 0)
    positions = forward(examples[:7], words.pad_token_id)
    with pytest.raises(TrainingError, match="other tokens"):
        live(examples[:7], positions)
