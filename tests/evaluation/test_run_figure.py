"""The picture of a training run."""

import math
import struct

import pytest

from distill_dagster.evaluation.canvas import WIDEST
from distill_dagster.evaluation.run_figure import run_figure


def row(step: int, **more) -> dict:
    usual = {"step": step, "loss": 3 / step, "sft": 2 / step, "divergence": 1 / step, "grad_norm": 1.0, "lr": 1e-3}
    return {**usual, "tokens": 100 * step, "tokens_per_second": 900.0, "elapsed": 0.1 * step, **more}


def width(picture: bytes) -> int:
    assert picture.startswith(b"\x89PNG")
    return struct.unpack(">I", picture[16:20])[0]


def test_it_shows_every_term_and_fits_the_dialog() -> None:
    rows = [row(step, validation_loss=4 / step) if step % 5 == 0 else row(step) for step in range(1, 60)]
    first = run_figure({"student": rows})
    assert first == run_figure({"student": rows}) and width(first) <= WIDEST and len(first) < 150_000
    # Each of them changes the picture.
    for name in ("divergence", "lr", "grad_norm", "tokens_per_second", "validation_loss"):
        assert run_figure({"student": [{k: v for k, v in one.items() if k != name} for one in rows]}) != first
    controls = {f"control_{times}x": rows for times in (1, 2, 4)}
    assert width(run_figure(controls)) <= WIDEST


@pytest.mark.slow
def test_much_nothing_and_what_is_not_finite() -> None:
    for runs in (
        {},
        {"student": []},
        {"student": [row(1)]},
        {"student": [row(1), row(2, grad_norm=math.nan, loss=math.inf)]},
        {"student": [row(1, grad_norm=0.0), row(2, grad_norm=0.0)]},
        {"student": [row(step) for step in range(1, 5000)]},
    ):
        picture = run_figure(runs)
        assert 0 < width(picture) <= WIDEST and len(picture) < 150_000


def test_what_is_no_term_stays_out() -> None:
    rows = [row(step) for step in range(1, 60)]
    first = run_figure({"student": rows})
    assert run_figure({"student": [{**one, "dpo_margin": 9.0, "reward": 5.0, "positions": 7} for one in rows]}) == first
    assert run_figure({"student": [{**one, "rationale": 1.5} for one in rows]}) != first
