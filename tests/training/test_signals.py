"""Signals of a teacher: captured in shards, joined by record and tokens, and as good as the teacher itself."""

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill_dagster.config.models import Recipe
from distill_dagster.errors import ConfigError, TrainingError
from distill_dagster.training.data import Example, encode

pytestmark = pytest.mark.needs_torch

RECIPE = Recipe(steps=6, batch_tokens=256, learning_rate=3e-3, warmup_steps=2, checkpoint_every=4, log_every=1)


@pytest.fixture(scope="module")
def teacher(tokenizer, chats, tmp_path_factory) -> Path:
    """A nano model that has learned a little, so that it is surer of some tokens than of others."""
    from distill_dagster.models import folder
    from distill_dagster.training import presets, trainer

    model = presets.build("nano", tokenizer, 8)
    data = encode(tokenizer, chats, 128).examples
    recipe = RECIPE.model_copy(update={"steps": 25, "log_every": 25})
    trainer.train(model, tokenizer, data, recipe, tmp_path_factory.mktemp("work"))
    return folder.save(model, tokenizer, tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def meta(tokenizer) -> Any:
    from distill_dagster.training.signals import store

    return store.Meta(
        teacher="t1",
        tokenizer=store.tokenizer_digest(tokenizer),
        template=store.template_digest(tokenizer, "chat"),
        vocabulary=len(tokenizer),
        k=16,
        temperatures=(1.0, 2.0),
    )


@pytest.fixture(scope="module")
def captured(teacher, meta, examples, tmp_path_factory) -> Any:
    from distill_dagster.training.signals import capture

    score = capture.Scorer(teacher, meta)
    return capture.capture(examples, meta, score, tmp_path_factory.mktemp("shards"), shard=32)


@pytest.fixture(scope="module")
def stored(captured, meta, tmp_path_factory) -> Path:
    from distill_dagster.training.signals import store

    path = tmp_path_factory.mktemp("signals") / store.FILE
    store.write(path, captured.rows, meta)
    return path


def divergence(**params: Any) -> Recipe:
    return RECIPE.model_copy(update={"objective": Recipe(objective={"divergence": params}).objective})


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def weights(model: Any) -> bytes:
    return b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())


def student(tokenizer: Any) -> Any:
    from distill_dagster.training import presets

    return presets.build("nano", tokenizer, 3)


@pytest.mark.parametrize(
    ("kind", "temperature"),
    [("forward", 1.0), ("reverse", 2.0), ("jsd", 1.0), ("skew_forward", 2.0), ("skew_reverse", 1.0)],
)
def test_stored_signals_teach_what_the_teacher_teaches(
    tokenizer, examples, teacher, stored, tmp_path: Path, kind: str, temperature: float
) -> None:
    from distill_dagster.training.signals.live import LiveTeacher
    from distill_dagster.training.signals.store import Stored
    from distill_dagster.training.trainer import train

    runs = {}
    for source in ("stored", "live"):
        given = Stored(stored, tokenizer, "chat", "t1") if source == "stored" else LiveTeacher(teacher, tokenizer)
        recipe = divergence(kind=kind, temperature=temperature, signals=source, hard=0.1)
        summary = train(student(tokenizer), tokenizer, examples, recipe, tmp_path / source, signals=[given])
        runs[source] = losses(tmp_path / source)
        assert summary["loss"] < summary["first_loss"]
    assert runs["stored"] == pytest.approx(runs["live"], rel=0.01, abs=4e-3 * temperature**2)


def test_the_dense_divergence_is_the_librarys(tokenizer, examples, teacher) -> None:
    import torch

    from distill_dagster.models import folder
    from distill_dagster.training.forward import Forward, pad
    from distill_dagster.training.objectives.divergence import Objective
    from distill_dagster.training.signals.live import LiveTeacher

    model, chosen = student(tokenizer).eval(), list(examples[:6])
    positions = Forward(model)(chosen, 0)
    positions.signals = {"live": LiveTeacher(teacher, tokenizer)(chosen, positions)}
    objective = Objective(Objective.Params(signals="live", k=0, temperature=2.0, hard=0.3))
    ids, mask = pad(chosen, 0)
    said, taught = (m(input_ids=ids).logits[:, :-1] for m in (model, folder.load_model(teacher)))
    keep = mask[:, 1:] > 0
    said, taught, labels = said[keep], taught[keep].detach(), ids[:, 1:][keep]
    soft = torch.nn.functional.kl_div(
        (said / 2).log_softmax(-1), (taught / 2).log_softmax(-1), log_target=True, reduction="batchmean"
    )
    expected = 0.7 * 4 * soft + 0.3 * torch.nn.functional.cross_entropy(said, labels)
    loss = objective(positions)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    ours = torch.autograd.grad(loss, list(model.parameters()))
    theirs = torch.autograd.grad(expected, list(model.parameters()))
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm() + 1e-8


def test_order_is_nothing(tokenizer, examples, captured, meta, stored, tmp_path: Path) -> None:
    from distill_dagster.training.signals import store
    from distill_dagster.training.trainer import train

    rows = list(captured.rows)
    random.Random(1).shuffle(rows)
    store.write(tmp_path / "other.parquet", rows, meta)
    found = []
    for path in (stored, tmp_path / "other.parquet"):
        model = student(tokenizer)
        source = store.Stored(path, tokenizer)
        train(model, tokenizer, examples, divergence(), tmp_path / path.stem, signals=[source])
        found.append((weights(model), source.digest))
    assert found[0] == found[1]


def test_a_changed_record_is_scored_alone(tokenizer, teacher, captured, meta, examples, tmp_path: Path) -> None:
    from distill_dagster.training.signals import capture

    asked = []
    scorer = capture.Scorer(teacher, meta)

    def score(example: Example) -> Any:
        asked.append(example.record_id)
        return scorer(example)

    changed = list(examples)
    ids = list(changed[5].ids)
    ids[-2] = ids[-2] + 1
    changed[5] = replace(changed[5], ids=ids)
    again = capture.capture([*changed, changed[0]], meta, score, tmp_path, known=captured.rows)
    assert asked == [changed[5].record_id]
    assert (again.scored, again.reused, again.resumed) == (1, len(examples) - 1, 0)
    same = [(one, other) for n, (one, other) in enumerate(zip(again.rows, captured.rows, strict=True)) if n != 5]
    assert all(one == other for one, other in same)
    # Scoring everything anew gives the same bytes as scoring the one record.
    assert capture.capture(changed, meta, scorer, tmp_path / "anew").rows == again.rows


KILLED = """
import sys
from pathlib import Path
from distill_dagster.training.data import Example, encode
from distill_dagster.training.signals import capture, store
import json
place, work = Path(sys.argv[1]), Path(sys.argv[2])
examples = [Example(*entry) for entry in json.loads((place / "examples.json").read_text())]
said = json.loads((place / "meta.json").read_text())
meta = store.Meta(**{**said, "temperatures": tuple(said["temperatures"])})
score = capture.Scorer(Path((place / "teacher").read_text()), meta)
asked = []
found = capture.capture(examples, meta, lambda e: (asked.append(1), score(e))[1], work, shard=20)
store.write(work / "all.parquet", found.rows, meta)
print(json.dumps([len(asked), found.resumed]))
"""


@pytest.mark.slow
@pytest.mark.kill
def test_a_killed_capture_loses_at_most_one_shard(teacher, meta, examples, captured, tmp_path: Path) -> None:
    from distill_dagster.training.signals import store

    (tmp_path / "examples.json").write_text(json.dumps([[e.record_id, e.ids, e.weights] for e in examples]))
    (tmp_path / "meta.json").write_text(json.dumps(meta.said()))
    (tmp_path / "teacher").write_text(str(teacher))

    def run(at: int | None) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **({"DISTILL_FAULT_AT": str(at)} if at else {})}
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(tmp_path / f"work{at or ''}")]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)

    store.write(tmp_path / "whole.parquet", captured.rows, meta)
    for point in (1, 5, 9):  # before the first shard, between write and rename of the second, after the third
        assert run(point).returncode == -9
        os.rename(tmp_path / f"work{point}", tmp_path / "work")
        done = run(None)
        assert done.returncode == 0, done.stderr
        asked, resumed = json.loads(done.stdout.splitlines()[-1])
        assert resumed == point // 3 * 20 and asked == len(examples) - resumed
        assert (tmp_path / "work" / "all.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
        os.rename(tmp_path / "work", tmp_path / f"done{point}")


def test_a_teacher_that_says_no_numbers_is_not_captured(nano, tokenizer, meta, examples, tmp_path: Path) -> None:
    import torch

    from distill_dagster.models import folder
    from distill_dagster.training.signals import capture

    with torch.no_grad():
        nano.get_input_embeddings().weight[examples[1].ids[-2]] = float("nan")
    score = capture.Scorer(folder.save(nano, tokenizer, tmp_path / "teacher"), meta)
    with pytest.raises(TrainingError, match=rf"record {examples[1].record_id}: what the teacher says .* \(NaN\)"):
        score(examples[1])


def test_signals_of_another_kind_are_refused(tokenizer, examples, captured, meta, stored, tmp_path: Path) -> None:
    from distill_dagster.training.signals import store
    from distill_dagster.training.trainer import train

    with pytest.raises(TrainingError, match="another teacher"):
        store.Stored(stored, tokenizer, "chat", "t2")
    for field, words in (("tokenizer", "another tokenizer"), ("template", "another chat template"), ("codec", "codec")):
        changed = replace(meta, **{field: 99 if field == "codec" else "0" * 64})
        store.write(tmp_path / "x.parquet", captured.rows, changed)
        with pytest.raises(TrainingError, match=words):
            store.Stored(tmp_path / "x.parquet", tokenizer)
    (tmp_path / "y.parquet").write_text("not parquet")
    with pytest.raises(TrainingError, match="no file of signals"):
        store.Stored(tmp_path / "y.parquet", tokenizer)
    known = store.Stored(stored, tokenizer)
    ids = [*examples[0].ids[:-2], examples[0].ids[-2] + 1, examples[0].ids[-1]]
    for example, words in (
        (replace(examples[0], ids=ids), "asked about other tokens"),
        (replace(examples[0], weights=[1.0] * len(ids)), "asked about other tokens"),
        (replace(examples[0], record_id="new"), "never asked"),
    ):
        with pytest.raises(TrainingError, match=words) as caught:
            train(student(tokenizer), tokenizer, [example], divergence(), tmp_path, signals=[known])
        assert example.record_id in caught.value.place
    with pytest.raises(TrainingError, match="captured with k 16"):
        train(student(tokenizer), tokenizer, examples, divergence(temperature=3.0), tmp_path, signals=[known])
    with pytest.raises(TrainingError, match="k 17"):
        train(student(tokenizer), tokenizer, examples, divergence(k=17), tmp_path, signals=[known])
    with pytest.raises(TrainingError, match="needs stored signals"):
        train(student(tokenizer), tokenizer, examples, divergence(), tmp_path)


def test_a_teacher_of_other_words_is_refused(tokenizer, teacher, tmp_path: Path) -> None:
    from distill_dagster.training import tokenizer as tokenizers
    from distill_dagster.training.signals.live import LiveTeacher

    other = tokenizers.fit(["one two three " * 9], 280, tmp_path)
    with pytest.raises(TrainingError, match="tokenizer"):
        LiveTeacher(teacher, other)


def test_a_checkpoint_belongs_to_its_signals(tokenizer, examples, captured, meta, stored, tmp_path: Path) -> None:
    from distill_dagster.training.signals import store
    from distill_dagster.training.trainer import train

    class Stop(Exception):
        pass

    def kill(step: int, steps: int, loss: float) -> None:
        if step == 5:
            raise Stop

    source = store.Stored(stored, tokenizer)
    with pytest.raises(Stop):
        train(student(tokenizer), tokenizer, examples, divergence(), tmp_path, progress=kill, signals=[source])
    first = captured.rows[0]
    store.write(tmp_path / "x.parquet", [replace(first, blob=captured.rows[0].blob[::-1]), *captured.rows[1:]], meta)
    other = store.Stored(tmp_path / "x.parquet", tokenizer)
    model = student(tokenizer)
    assert train(model, tokenizer, examples, divergence(), tmp_path / "a", signals=[source])["resumed_from"] == 0
    (tmp_path / "b").mkdir()
    for path in tmp_path.glob("step-*"):
        os.rename(path, tmp_path / "b" / path.name)
    resumed = student(tokenizer)
    # The same signals go on; the last bytes are those of a run that nothing stopped.
    assert train(resumed, tokenizer, examples, divergence(), tmp_path / "b", signals=[source])["resumed_from"] == 4
    assert weights(resumed) == weights(model)
    assert source.digest != other.digest


def test_a_term_of_weight_0_asks_no_teacher(tokenizer, examples, tmp_path: Path) -> None:
    from distill_dagster.training.trainer import train

    objective = Recipe(objective={"sft": 1, "divergence": {"weight": 0}}).objective
    recipe = RECIPE.model_copy(update={"objective": objective, "steps": 1})
    assert train(student(tokenizer), tokenizer, examples, recipe, tmp_path)["loss"] > 0


def test_parameters_of_objectives() -> None:
    from distill_dagster.training.objectives.base import Need, build, needs

    recipe = Recipe(objective={"sft": 0.5, "divergence": {"weight": 0.5, "kind": "jsd", "temperature": 2, "k": 8}})
    assert recipe.terms["sft"] == (0.5, {})
    assert needs(recipe) == [Need("stored", 8, 2.0)]
    assert needs(Recipe()) == [] == needs(Recipe(objective={"sft": 1, "divergence": {"weight": 0}}))
    assert Recipe(**recipe.model_dump()) == recipe
    with pytest.raises(ConfigError, match="'temperature'"):
        build("divergence", {"temperatur": 2})
    with pytest.raises(ConfigError, match="kind"):
        build("divergence", {"kind": "forwards"})
    with pytest.raises(ConfigError, match="no parameters"):
        build("sft", {"k": 2})
    with pytest.raises(ConfigError, match="give `k`"):
        build("divergence", {"k": 0})
