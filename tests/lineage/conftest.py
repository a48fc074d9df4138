"""Tests of lineage do not wait for the disk: what is durable is the store's matter, and tested there."""

import os

import pytest


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch) -> None:
    """`os.fsync` returns at once."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
