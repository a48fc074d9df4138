"""No stage, rule, kind or domain changes its behaviour under an old version (see tests/stage_snapshot.py)."""

import json

import pytest
import stage_snapshot as snapshot

BEFORE = '''"""What it is for."""
from __future__ import annotations

# Why.
LIMIT = 3

class Rule:
    """A rule."""

    version = "1"

    def judge(self, text: str) -> bool:
        """Whether it may stay."""
        return len(text) > LIMIT  # not more
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# Why.", "# Why not, and a longer comment."),
        ("  # not more", ""),
        ('"""What it is for."""', '"""Other words."""'),
        ('"""What it is for."""\n', ""),
        ('    """A rule."""\n\n', ""),
        ('        """Whether it may stay."""\n', '        """Other."""\n\n'),
        ("len(text) > LIMIT", "(len(text)\n                > LIMIT)"),
        ('"1"', "'1'"),
    ],
)
def test_comments_docstrings_and_layout_are_no_change(old: str, new: str) -> None:
    assert old in BEFORE
    assert snapshot.code_digest(BEFORE.replace(old, new, 1)) == snapshot.code_digest(BEFORE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("LIMIT = 3", "LIMIT = '3'"),
        ("LIMIT = 3", "LIMIT: int = 3"),
        ("> LIMIT", ">= LIMIT"),
        ("> LIMIT", "> LIMIT and True"),
        ("text: str", "text: str = ''"),
        ("class Rule", "class Rule(object)"),
        ("def judge", "async def judge"),
        ('"1"', '"2"'),
        ("LIMIT = 3", "LIMIT = 3\nOTHER = 1"),
    ],
)
def test_code_is_a_change(old: str, new: str) -> None:
    assert snapshot.code_digest(BEFORE.replace(old, new, 1)) != snapshot.code_digest(BEFORE)


def test_a_bump_itself_is_no_change_of_what_shares_the_file() -> None:
    assert snapshot.code_digest('VERSION = "1"\nX = 1') == snapshot.code_digest('VERSION = "2"\nX = 1')


def test_the_digest_is_the_same_on_every_python() -> None:
    """Written on 3.11; newer ones have more fields in some nodes, and other ways to print them."""
    source = """import a.b as c

def f(x, /, *y: int, z=f"{1:>{2}}", **k) -> None:
    match x:
        case {"a": [1, *_]} if y: pass
    return lambda: (yield)
"""
    assert snapshot.code_digest(source) == "833af79ef3331d91efb31dc6e3fca2db0807d2340be963339595dd16ac40d957"


def test_every_stage_has_its_bundle_and_every_file_its_place() -> None:
    names = {unit.name.split("/")[1] for unit in snapshot.units() if unit.name.startswith("stages/")}
    assert names == set(snapshot.BUNDLES)
    assert not snapshot.uncovered(), "give each a unit in BUNDLES, or name it in PLUMBING"
    for pattern in {pattern for bundle in snapshot.BUNDLES.values() for pattern in bundle} | set(snapshot.PLUMBING):
        assert list(snapshot.PACKAGE.glob(pattern)), f"{pattern} matches nothing any more"
    assert all(unit.files and unit.version for unit in snapshot.units())


def test_no_behaviour_changed_under_an_old_version() -> None:
    wrong = snapshot.problems(snapshot.recorded())
    assert not wrong, "\n".join([*wrong, "then: python -m tests.stage_snapshot --update"])


def test_recorded_changes_have_reasons_and_lead_to_the_digest() -> None:
    for name, entry in snapshot.recorded().items():
        changes = entry.get("no_behaviour_change", [])
        assert all(change["reason"].strip() for change in changes), name
        assert not changes or changes[-1]["digest"] == entry["digest"], name


UNIT = snapshot.Unit("stages/seed_set", "1", ("stages/seed_set.py",))


@pytest.fixture
def one_unit(monkeypatch, tmp_path):
    """A snapshot file of one unit whose digest was another."""

    def version(text: str) -> None:
        unit = snapshot.Unit(UNIT.name, text, UNIT.files)
        monkeypatch.setattr(snapshot, "units", lambda: iter([unit]))

    monkeypatch.setattr(snapshot, "SNAPSHOT", tmp_path / "stages.json")
    snapshot.SNAPSHOT.write_text(json.dumps({UNIT.name: {"version": "1", "digest": "old"}}))
    version("1")
    return version


def test_a_change_needs_a_bump_or_a_reason(one_unit, capsys) -> None:
    assert "bump the version" in snapshot.problems(snapshot.recorded())[0]
    assert snapshot.main([]) == 1 and snapshot.main(["--update"]) == 1
    assert snapshot.main(["--update", "--no-behaviour-change", UNIT.name, " "]) == 1
    assert snapshot.main(["--update", "--no-behaviour-change", "stages/other", "x"]) == 1
    assert snapshot.recorded()[UNIT.name]["digest"] == "old"
    one_unit("2")
    assert "not in the snapshot" in snapshot.problems(snapshot.recorded())[0]
    assert snapshot.main(["--update"]) == 0 == snapshot.main([])
    assert snapshot.recorded() == {UNIT.name: {"version": "2", "digest": UNIT.digest}}


@pytest.mark.parametrize("named", [UNIT.name, "all"])
def test_a_reason_is_kept_until_the_next_version(one_unit, named: str) -> None:
    assert snapshot.main(["--update", "--no-behaviour-change", named, "names only"]) == 0 == snapshot.main([])
    entry = snapshot.recorded()[UNIT.name]
    assert entry["no_behaviour_change"] == [{"digest": UNIT.digest, "reason": "names only"}]
    assert snapshot.main(["--update"]) == 0 and snapshot.recorded()[UNIT.name] == entry
    one_unit("2")
    assert snapshot.main(["--update"]) == 0
    assert "no_behaviour_change" not in snapshot.recorded()[UNIT.name]


def test_fresh_forgets(one_unit) -> None:
    assert snapshot.main(["--fresh"]) == 0 == snapshot.main([])
