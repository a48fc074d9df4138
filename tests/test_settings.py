"""Where things lie: an empty variable is as if unset."""

from pathlib import Path

import pytest

from distill_dagster.settings import Settings

NAMES = ("DISTILL_ASSETS_CONFIG", "DISTILL_STORE", "DISTILL_STATE", "DISTILL_NAMESPACE", "DISTILL_PREFIX")


def test_empty_variables_are_as_if_unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    unset = Settings.from_environment()
    for name in NAMES:
        monkeypatch.setenv(name, "")
    assert Settings.from_environment() == unset
    here = Path.cwd()
    assert unset == Settings(here / "assets_config", str(here / ".distill/store"), here / ".distill/state")
