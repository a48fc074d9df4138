"""The quality study at toy size: its cells, its order, and that what is told is of what was measured."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "quality"


@pytest.fixture(autouse=True)
def beside(monkeypatch):
    """The study's modules, which import each other by name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in ("study", "banking", "questions", "report", "writers", "cost"):
        sys.modules.pop(name, None)


@pytest.fixture
def study(tmp_path):
    from study import Study

    return Study(tmp_path, {"seeds": 2, "sizes": [300, 1000], "device": "cpu", "scale": 0.01})


@pytest.mark.needs_torch
def test_cells_that_are_measured_are_not_measured_again(tmp_path, study, monkeypatch):
    """Needs come first, a failure stops nothing but what needs it, and a second call measures what is left."""
    from study import Cell, measure_all

    (tmp_path / "toy.py").write_text(
        "import os\n"
        "def run(study, cell):\n"
        "    if cell.arm == 'bad' and not os.environ.get('MENDED'):\n"
        "        raise ValueError('broken')\n"
        "    if cell.arm == 'gone' and not os.environ.get('MENDED'):\n"
        "        os._exit(7)\n"
        "    return {'after': [study.read(name)['number'] for name in cell.needs], 'number': cell.size}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    first, bad, gone = Cell("toy", "good", 1), Cell("toy", "bad"), Cell("toy", "gone")
    cells = [
        Cell("toy", "later", 2, needs=(first.name,)),
        first,
        bad,
        Cell("toy", "never", needs=(bad.name,)),
        gone,
        Cell("toy", "good", 3),
    ]
    told: list[str] = []
    failed = measure_all(study, cells, 2, told.append)
    assert sorted(entry.split(":")[0] for entry in failed) == [bad.name, gone.name]
    assert "broken" in next(entry for entry in failed if entry.startswith(bad.name))
    assert study.read("toy-later-2-s0")["after"] == [1]
    assert not study.has("toy-never-0-s0")
    assert study.has("toy-good-3-s0")
    before = {path.name: path.stat().st_mtime_ns for path in study.cells.iterdir()}
    monkeypatch.setenv("MENDED", "1")
    told.clear()
    assert measure_all(study, cells, 2, told.append) == []
    assert len(told) == 3
    assert all(
        path.stat().st_mtime_ns == before.get(path.name, path.stat().st_mtime_ns) for path in study.cells.iterdir()
    )


def test_a_seed_is_whole_before_the_next_begins(study):
    """A study that is cut short holds whole paired seeds, and every arm has as many trials as any other."""
    import banking
    from study import TRIALS, TUNING

    cells = banking.cells(study.options)
    known: set[str] = set()
    for cell in cells:
        assert set(cell.needs) <= known, cell
        assert cell.name not in known
        known.add(cell.name)
    seeds = [cell.seed for cell in cells if cell.arm != "linear" and cell.seed != TUNING]
    assert seeds == sorted(seeds)
    arms = {cell.arm for cell in cells if cell.seed == 0} - {"linear", "student_T1", "student_T4", "student_T8"}
    tried = [cell.arm for cell in cells if cell.seed == TUNING]
    assert {arm: tried.count(arm) for arm in (*arms, "teacher")} == dict.fromkeys((*arms, "teacher"), TRIALS)
    assert [banking.times(arm) for arm in ("control_4", "control_1_2layers", "student")] == [4, 1, 1]


def test_the_learning_rate_is_the_one_that_did_best_on_the_validation_records(study):
    """The lowest of equals; a trial has its own."""
    from study import TUNING, Cell, name_of

    rates = (1e-4, 2e-4)
    for scores, best in (((0.5, 0.7), 2e-4), ((0.7, 0.7), 1e-4), ((0.7, 0.5), 1e-4)):
        for trial, score in enumerate(scores):
            study.keep(name_of("banking", "labels", 1000, TUNING, trial), {"validation": score})
        assert study.rate(Cell("banking", "labels", 1000, 1), rates) == best
        assert study.rate(Cell("banking", "labels", 300, 1), rates, 1000) == best
    assert study.rate(Cell("banking", "labels", 1000, TUNING, 1), rates) == 2e-4


def test_every_part_has_a_learning_rate_a_trial(study):
    """And what is measured unasked leaves no arm without the cells that it needs."""
    import banking
    import rationale
    import stories
    import verdicts
    import writers
    from study import TRIALS

    rates = [banking.RATES, stories.RATES, stories.LATER_RATES, rationale.RATES]
    rates += [*writers.RATES.values(), *verdicts.RATES.values()]
    assert {len(set(some)) for some in rates} == {TRIALS}
    for part in (banking, stories, verdicts):
        arms = {cell.arm for cell in part.cells(study.options)}
        assert set(part.DEFAULT) < arms


def test_distributions_of_the_control_arms():
    """Smoothed labels keep the likeliest label and the mean entropy; permuted ones keep it, and lose the record."""
    import banking

    values = np.random.RandomState(0).standard_normal((200, 7)) * 2
    log_probs = values - np.log(np.exp(values).sum(1, keepdims=True))

    def entropy(probabilities):
        return -(probabilities * np.log(probabilities)).sum(1)

    for hot in (1.0, 2.0):
        flat = banking.smoothed(log_probs, hot)
        np.testing.assert_allclose(np.exp(flat).sum(1), 1)
        assert (flat.argmax(1) == log_probs.argmax(1)).all()
        wanted, got = entropy(banking.softened(log_probs, hot)).mean(), entropy(banking.softened(flat, hot))
        np.testing.assert_allclose(got, wanted, atol=1e-6)
    other = banking.permuted(log_probs, 1.0)
    assert (other.argmax(1) == log_probs.argmax(1)).all()
    assert not (other == log_probs).all(1).any()
    assert sorted(map(tuple, other)) == sorted(map(tuple, log_probs))


@pytest.mark.needs_torch
def test_stored_distributions_come_back_at_the_temperature(tmp_path):
    """What the cells write as signals is what the loss reads."""
    import banking
    from questions import Record

    from distill_dagster.training.signals.store import token_hash

    tokenizer = _tokenizer(tmp_path)
    labels = [f"label {number}" for number in range(6)]
    values = np.random.RandomState(1).standard_normal((4, 6)) * 2
    log_probs = values - np.log(np.exp(values).sum(1, keepdims=True))
    records = [Record(f"r{number}", f"question number {number}", labels[number]) for number in range(4)]
    stored = banking._stored(tmp_path, records, log_probs, labels, tokenizer, 2.0)
    from distill_dagster.training.classify import encode

    examples = encode(tokenizer, banking.chats(records), labels, 64).examples
    positions = type("P", (), {"labels": [0] * 4})()
    targets = stored(examples, positions).targets(2.0, 5)
    said = np.full((4, 6), -np.inf)
    np.put_along_axis(said, targets.ids.numpy(), targets.log_probs.numpy(), 1)
    missing = np.isinf(said)
    assert (missing.sum(1) == 1).all()
    said[missing] = targets.log_rest.numpy()
    np.testing.assert_allclose(np.exp(said), banking.softened(log_probs, 2.0), atol=0.02)
    assert len({token_hash(example) for example in examples}) == 4


def _tokenizer(folder):
    from distill_dagster.training.tokenizer import fit

    return fit(["question number " * 4, "0 1 2 3 4 5 label"], 300, folder / "tokenizer", encoder=True)


def _toy(study, folder, monkeypatch):
    """Questions of three classes that a word gives away, and an encoder of random weights."""
    import questions
    from transformers import BertConfig, BertModel

    from distill_dagster.models import folder as folders

    words = {"card": "card_lost", "money": "cash_wrong", "rate": "exchange"}

    def rows(part, count):
        made = []
        for number in range(count):
            word = sorted(words)[number % 3]
            made.append([f"{part}{number}", f"about my {word} please, case {number * 7 % 50}", words[word]])
        return made

    sizes = {"teacher": 60, "gold": 40, "unlabeled": 60, "validation": 20, "test": 30}
    (study.out / questions.FILE).write_text(json.dumps({part: rows(part, count) for part, count in sizes.items()}))
    texts = [row[1] for part in sizes for row in rows(part, sizes[part])]
    from distill_dagster.training.tokenizer import fit

    tokenizer = fit(texts, 400, folder / "fitted", encoder=True)
    model = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=6,
            num_attention_heads=2,
            intermediate_size=32,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    folders.save(model, tokenizer, folder / "encoder")
    monkeypatch.setenv("DISTILL_ENCODER", str(folder / "encoder"))


@pytest.mark.slow
@pytest.mark.needs_torch
def test_every_arm_is_measured_and_told(tmp_path, study, monkeypatch):
    """Arms of every make on a toy, in this process; a cell measured twice gives the same scores."""
    import banking
    import report
    import writers
    from study import Study

    monkeypatch.setattr(banking, "GOLD", 40)
    monkeypatch.setattr(banking, "FURTHER", ("early_stop", "self_training", "permuted", "student_2layers"))
    monkeypatch.setattr(report, "GOLD", 40)
    monkeypatch.setattr(writers, "GOLD", 40)
    toy = Study(tmp_path / "toy", {"seeds": 2, "sizes": [40], "device": "cpu", "scale": 0.005})
    _toy(toy, tmp_path, monkeypatch)
    cells = banking.cells(toy.options) + writers.cells(toy.options)
    for cell in cells:
        if not toy.has(cell.name):
            monkeypatch.setitem(sys.modules, cell.part, {"banking": banking, "writers": writers}[cell.part])
            toy.measure(cell)
    some = next(cell for cell in cells if cell.arm == "permuted" and cell.seed == 1)
    before = toy.read(some.name)
    toy.measure(some)
    assert toy.read(some.name)["scores"] == before["scores"]
    assert {len(toy.read(cell.name).get("scores", range(30))) for cell in cells} == {30}
    table = report.banking_table(toy)
    for arm in (*banking.BOTH, *banking.FURTHER, "teacher", "linear_teacher", "linear_gold"):
        assert report.ARMS[arm] in table
    assert "2 paired seeds" in table and "Gap closed" in table and "on D_val" in table
    assert "Encoder less causal" in report.writers_table(toy)
    assert report.banking_lines(toy)[0]["unit"] == "share right"
    report.curve(toy, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"
    gold = {cell.name: toy.read(cell.name)["records"] for cell in cells if cell.arm in ("control_1", "student")}
    assert {name.split("-")[1]: count for name, count in gold.items()} == {"control_1": 40, "student": 100}
