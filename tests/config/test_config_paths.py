"""Paths relative to the YAML file, with variables."""

from pathlib import Path

import pytest

from distill_dagster.config.paths import expand, is_folder, resolve
from distill_dagster.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/b.jsonl", "a/b.jsonl"),
        ("${X}/b", "data/b"),
        ("${X:-other}/b", "data/b"),
        ("${Y:-../other}/b", "../other/b"),
        ("${EMPTY:-other}", "other"),
        ("${Y:-}b", "b"),
        ("$X/b", "$X/b"),
        ("${X}${X}", "datadata"),
    ],
)
def test_variables(text: str, expected: str) -> None:
    assert expand(text, "here", {"X": "data", "EMPTY": ""}) == expected


@pytest.mark.parametrize("text", ["${Y}", "${1x}", "${}", "${X:=3}"])
def test_what_cannot_be_replaced_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="here"):
        expand(text, "here", {"X": "data"})


def test_a_path_is_relative_to_the_file(tmp_path: Path) -> None:
    assert resolve("../x", tmp_path / "a" / "b") == tmp_path / "a" / "x"
    assert resolve(str(tmp_path / "y"), Path("elsewhere")) == tmp_path / "y"


def test_what_means_a_folder() -> None:
    assert all(map(is_folder, ["./m", "../m", "~/m", str(Path.cwd()), "${W:-w}/m"]))
    assert not any(map(is_folder, ["owner/model", "preset:mini", "domain:teacher"]))
