"""The near-duplicate benchmark in small: its documents and figures are what they say, and it needs an idle machine."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def corpus(monkeypatch: pytest.MonkeyPatch):
    """The maker of documents, which imports nothing of the package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import dedup_corpus

    return dedup_corpus


def shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\d+|[a-z]+", text.lower())
    return set(zip(words, words[1:], words[2:], strict=False))


@pytest.mark.real_data
def test_documents_are_what_they_are_said_to_be(corpus, real_data: Path) -> None:
    made = list(corpus.documents(real_data, 3000))
    assert made == list(corpus.documents(real_data, 3000))
    kinds = [found.kind for found in made]
    assert 0.17 < kinds.count("copy") / 3000 < 0.23 and 0.03 < kinds.count("miss") / 3000 < 0.07
    for at, found in enumerate(made):
        if found.kind == "base":
            assert found.base == at
            continue
        assert found.base < at and made[found.base].kind == "base"
        mine, other = shingles(found.text), shingles(made[found.base].text)
        numbers = [re.findall(r"\d+", text) for text in (found.text, made[found.base].text)]
        if found.kind == "copy":
            assert len(mine & other) / len(mine | other) >= 0.85 and numbers[0] == numbers[1]
        else:
            assert sum(a != b for a, b in zip(*numbers, strict=True)) == 1


def test_the_judge_counts_what_was_dropped(corpus) -> None:
    kinds = ("base", "copy", "miss", "base", "copy", "base")
    known = [corpus.Document("", kind, base) for kind, base in zip(kinds, (0, 0, 0, 3, 3, 5), strict=True)]
    assert corpus.judged(known, {1, 4}) == {"recall": 1.0, "precision": 1.0, "near_misses_dropped": 0.0}
    assert corpus.judged(known, {0, 4})["recall"] == 1.0
    assert corpus.judged(known, {1, 2, 5}) == {"recall": 0.5, "precision": 1 / 3, "near_misses_dropped": 1.0}
    assert corpus.judged(known, set()) == {"recall": 0.0, "precision": 1.0, "near_misses_dropped": 0.0}


@pytest.mark.real_data
def test_planted_duplicates_are_found_and_near_misses_stay(real_data: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "dedup.py"), "--rows", "20000", "--pairs", "1", "--no-peer", "--force"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found = {line["name"]: line["ours"] for line in lines}
    assert all(set(line) == {"name", "ours", "peer", "peer_name", "peer_version", "ratio", "unit"} for line in lines)
    assert found["dedup recall"] >= 0.999 and found["dedup precision"] >= 0.999
    assert found["dedup near misses dropped"] <= 0.002
    assert found["dedup peak memory"] < 1e9


def test_a_loaded_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import dedup

    monkeypatch.setattr(dedup.os, "getloadavg", lambda: (3.0, 3.0, 3.0))
    with pytest.raises(SystemExit, match="loaded"):
        dedup.require_idle(False)
    assert dedup.require_idle(True) == 3.0
