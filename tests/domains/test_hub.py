"""Hub data sets, with the hub's own packages replaced: pinned, and closed where card and YAML differ."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from distill_dagster.config.models import DataFile
from distill_dagster.domains import readers
from distill_dagster.errors import SourceError

COMMIT = "0123456789abcdef" * 2 + "01234567"


class ClassLabel:
    def int2str(self, value: int) -> str:
        return ("no", "yes")[value]


class Data(list):
    features = {"text": None, "label": ClassLabel()}

    @property
    def num_rows(self) -> int:
        return len(self)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A hub that serves two rows; `licence` and `error` change what it says, `asked` holds what it was asked."""
    state: dict[str, Any] = {"licence": "mit", "error": None, "asked": None}

    def load_dataset(path: str, **asked: Any) -> Data:
        if state["error"]:
            raise state["error"]
        state["asked"] = {"path": path, **asked}
        return Data([{"text": "a", "label": 1}, {"text": "b", "label": state.get("second", 0)}])

    def download(path: str, name: str, *, repo_type: str, revision: str) -> str:
        if state["error"]:
            raise state["error"]
        assert (name, repo_type, revision) == ("README.md", "dataset", COMMIT)
        return "card"

    def card(_: str) -> Any:
        return SimpleNamespace(data=SimpleNamespace(to_dict=lambda: {"license": state["licence"]}))

    fake = ModuleType("datasets")
    fake.load_dataset = load_dataset  # type: ignore[attr-defined]
    fake_hub = ModuleType("huggingface_hub")
    fake_hub.hf_hub_download = download  # type: ignore[attr-defined]
    fake_hub.DatasetCard = SimpleNamespace(load=card)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake_hub)
    return state


def data(**more: Any) -> DataFile:
    base = {"hub": "owner/name", "revision": COMMIT, "split": "train", "task": "t", "licence": "MIT"}
    return DataFile.model_validate({**base, "columns": {"input": "text", "answer": "label"}, **more})


def test_rows_with_class_names(hub: dict[str, Any], tmp_path) -> None:
    found = list(readers.read(data(subset="main", rows=2), tmp_path))
    assert [(row["input"], row["answer"], row["row"]) for row in found] == [("a", "yes", 1), ("b", "no", 2)]
    assert hub["asked"] == {"path": "owner/name", "name": "main", "revision": COMMIT, "split": "train"}
    assert readers.source_id(data(subset="main")) == "hub:owner/name/main:train"
    assert readers.digests([data()], tmp_path) == {"hub:owner/name:train": COMMIT}


def test_a_row_without_a_class_has_no_answer(hub: dict[str, Any], tmp_path) -> None:
    hub["second"] = -1
    assert [row["answer"] for row in readers.read(data(), tmp_path)] == ["yes", None]


@pytest.mark.parametrize(
    ("licence", "words"),
    [("cc-by-sa-4.0", "names cc-by-sa-4.0"), (["gpl", "other"], "names gpl, other"), (None, "names no licence")],
)
def test_another_licence_on_the_card_closes_it(hub: dict[str, Any], tmp_path, licence: Any, words: str) -> None:
    hub["licence"] = licence
    with pytest.raises(SourceError, match=words):
        list(readers.read(data(), tmp_path))
    assert hub["asked"] is None


def test_another_row_count_closes_it_before_the_first_row(hub: dict[str, Any], tmp_path) -> None:
    with pytest.raises(SourceError, match="2 rows, but the YAML file declares 3"):
        next(readers.read(data(rows=3), tmp_path))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionError("no route"), "ConnectionError: no route.*Offline"),
        (RuntimeError("Dataset scripts are no longer supported"), "never run.*parquet conversion"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(hub: dict[str, Any], tmp_path, error: Exception, words: str) -> None:
    hub["error"] = error
    with pytest.raises(SourceError, match=words) as caught:
        list(readers.read(data(), tmp_path))
    assert caught.value.place == "hub:owner/name:train"


@pytest.mark.slow
@pytest.mark.needs_torch
def test_the_real_packages_offline(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(SourceError, match="cannot be read at revision.*Offline"):
        list(readers.read(data(hub="owner/never-there"), tmp_path))
