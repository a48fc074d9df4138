"""The examination passes where the loss is right, and finds it where it is not."""

import json

import pytest
from typer.testing import CliRunner

pytestmark = pytest.mark.needs_torch


def test_every_check_passes_and_the_command_says_so() -> None:
    import torch

    from distill_dagster.cli import app

    gpu = {"gpu = cpu", "same bytes"} if torch.cuda.is_available() else set()
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert {check["name"] for check in said["checks"]} == {
        "dense", "sparse", "sparse = dense", "packed = padded", "mask shift", "T²", "1×8 = 8×1", "layers",
        "cache round trip"
    } | gpu  # fmt: skip
    assert {check["device"] for check in said["checks"]} == ({"cpu", "cuda"} if gpu else {"cpu"})
    assert all(check["ok"] and check["error"] <= check["allowed"] for check in said["checks"])
    assert said["hardware"]["torch_threads"] >= 1 and said["hardware"]["torch"]


def test_a_wrong_loss_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from distill_dagster.training import doctor, forward
    from distill_dagster.training.losses import sparse
    from distill_dagster.training.signals import codec

    usual = sparse._to_gradient

    def halved(logits, *others):
        found = usual(logits, *others)
        logits[0].mul_(0.5)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(sparse, "_to_gradient", halved)
        assert not doctor._dense().ok and not doctor._sparse().ok
    shifted = forward.positions

    def unshifted(ids: torch.Tensor, weights: torch.Tensor):
        where, labels, weight, rows = shifted(ids, weights)
        return where + 1, labels, weight, rows

    with monkeypatch.context() as patch:
        patch.setattr(forward, "positions", unshifted)
        assert not doctor._shift().ok
    with monkeypatch.context() as patch:
        patch.setattr(codec, "FINE", 3)
        assert not doctor._cache().ok
    assert doctor._cache().ok
    from distill_dagster.training import layers

    with monkeypatch.context() as patch:
        # Padding would count as if it were the record's.
        patch.setattr(layers.Layers, "weigh", leaking(layers.Layers.weigh))
        assert not doctor._layers().ok
    assert doctor._layers().ok


def leaking(usual):
    def weigh(self, examples, length, *others):
        found = usual(self, examples, length, *others)
        found.weights = found.weights.amax(1, keepdim=True).expand(-1, length)
        return found

    return weigh


def test_the_command_fails_where_a_check_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from distill_dagster.cli import app
    from distill_dagster.training import doctor

    bad = doctor.Finding("dense", "says", float("nan"), 1e-5)
    monkeypatch.setattr(doctor, "CHECKS", (lambda device: bad,))
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1 and "FAIL" in done.output
