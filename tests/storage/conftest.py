"""Stores on a local folder and on an object store (fsspec's in memory), and content for them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from distill_dagster.records import tables
from distill_dagster.records.messages import message
from distill_dagster.storage.store import Draft, Store, Version
from storage.samples import KEY, run_record


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path: Path) -> Iterator[Store]:
    """An empty store of either kind."""
    if request.param == "local":
        yield Store(tmp_path / "store")
    else:
        yield Store("memory://store", cache=tmp_path / "cache")
        MemoryFileSystem.store.clear()
        MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture
def rows() -> list[dict]:
    """Three seed records of two parts."""
    return [
        {"task": "routing", "part": part, "messages": [message("user", text)], "answer": "x"}
        for part, text in (("gold", "one"), ("gold", "two"), ("unlabeled", "three"))
    ]


@pytest.fixture
def seal(rows: list[dict]) -> Callable[..., Version]:
    """`seal(store, number)` seals the rows, with whatever `fill(draft)` adds."""

    def sealed(store: Store, number: int = 0, fill: Callable[[Draft], None] | None = None, content=None) -> Version:
        draft = store.draft(KEY)
        draft.write_table("seed", tables.build("seed", rows if content is None else content), by="part")
        if fill is not None:
            fill(draft)
        return store.seal(draft, run_record(number, "abcdef"[number % 6]))

    return sealed
