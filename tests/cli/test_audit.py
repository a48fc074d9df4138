"""How `audit` ends, and that text of users is shown as it is."""

from dataclasses import replace
from pathlib import Path

import pytest
from lineage import toy
from pipeline.tiny import Tiny
from terminal import command

from distill_dagster.storage.store import Store

HOSTILE = "[/x] [red]CC0\x1b[2J"


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A store whose student is promoted, made from seeds with a licence that looks like markup."""

    def make(job) -> None:
        toy.make_seeds(job, 4)
        job.notes["counts"]["licences"] = {HOSTILE: 4}

    found = Tiny(tmp_path_factory.mktemp("audited"), toy.OWNER)
    nodes = toy.graph(4)
    key = (toy.OWNER, "seed_set")
    nodes[key] = replace(nodes[key], make=make)
    toy.run(nodes, Store(found.settings.store), found.settings.state)
    return found


def test_text_of_users_is_shown_as_it_is(audited: Tiny) -> None:
    said = command(audited, "audit", "toy@champion")
    assert said.code == 0 and "licences of the records: [/x] [red]CC0\ufffd[2J: 4" in said.out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("toy@staging",), 3, "nothing was ever promoted"),
        ((".",), 3, "no lineage/chain.json"),
        (("path/to/model",), 64, "there is no such folder"),
        ((), 64, "Missing argument"),
        (("toy@champion", "--bogus"), 64, "No such option"),
    ],
)
def test_no_verdict_has_an_exit_code_of_its_own(
    audited: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    command(audited, "audit", *arguments).refused(words, code=code)


def test_other_commands_end_as_before(audited: Tiny) -> None:
    command(audited, "gc", "plan", "--bogus").refused("No such option", code=2)
    command(audited, "trace", "a", "b", "c").refused("3 words were given")
