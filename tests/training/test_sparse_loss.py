"""The sparse loss against the dense one in float64: value and gradients, over shapes, temperatures and vocabularies."""

from dataclasses import dataclass
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_dagster.training.losses.kinds import Kind

pytestmark = pytest.mark.needs_torch

KINDS = get_args(Kind)


@dataclass(frozen=True)
class Case:
    """A loss on random numbers."""

    kind: str = "forward"
    rows: int = 7
    vocabulary: int = 29
    width: int = 6
    k: int = 4
    temperature: float = 1.0
    hard: float = 0.0
    beta: float = 0.5
    alpha: float = 0.1
    bias: bool = False
    frozen: bool = False
    scale: float = 2.0
    seed: int = 0


cases = st.builds(
    Case,
    kind=st.sampled_from(KINDS),
    rows=st.integers(1, 12),
    vocabulary=st.integers(2, 60),
    width=st.integers(1, 9),
    k=st.integers(1, 60),
    temperature=st.sampled_from([1.0, 0.5, 2.0, 3.7]),
    hard=st.sampled_from([0.0, 0.3, 1.0]),
    beta=st.floats(0.05, 0.95),
    alpha=st.floats(0, 0.9),
    bias=st.booleans(),
    frozen=st.booleans(),
    scale=st.sampled_from([0.5, 2.0, 5.0]),
    seed=st.integers(0, 10**6),
)


def tensors(case: Case, dtype: Any) -> dict[str, Any]:
    """Random student, teacher, labels and weights; the float64 ones hold the same numbers as the float32 ones."""
    import torch

    made = torch.Generator().manual_seed(case.seed)

    def normal(*shape: int) -> Any:
        return torch.randn(*shape, generator=made).to(dtype)

    head = normal(case.vocabulary, case.width) * (case.scale / case.width**0.5)
    return {
        "hidden": normal(case.rows, case.width).requires_grad_(),
        "head": head.requires_grad_(not case.frozen),
        "bias": normal(case.vocabulary).requires_grad_(not case.frozen) if case.bias else None,
        "teacher": normal(case.rows, case.vocabulary) * case.scale,
        "labels": torch.randint(case.vocabulary, (case.rows,), generator=made),
        "weights": torch.rand(case.rows, generator=made).to(dtype) + 0.1,
    }


def kept(case: Case, teacher: Any) -> Any:
    """The teacher's top-k as the loss takes them."""
    from distill_dagster.training.losses.targets import TopK, top_k

    return TopK(*top_k((teacher / case.temperature).log_softmax(-1), case.k))


def mix(case: Case) -> Any:
    from distill_dagster.training.losses.divergences import Divergence
    from distill_dagster.training.losses.sparse import Mix

    return Mix(Divergence(case.kind, case.beta, case.alpha), case.temperature, case.hard)  # pyright: ignore


def fast(case: Case, given: dict[str, Any], targets: Any = None, tile_bytes: int = 600) -> Any:
    from distill_dagster.training.losses.sparse import Rows, sparse_loss

    rows = Rows(given["labels"], given["weights"], given["weights"].sum())
    targets = targets or kept(case, given["teacher"])
    return sparse_loss(
        given["hidden"], given["head"], rows, targets, mix(case), bias=given["bias"], tile_bytes=tile_bytes
    )[0]


def slow(case: Case, given: dict[str, Any], ids: Any) -> Any:
    from training import dense

    logits = given["hidden"] @ given["head"].t() + (0 if given["bias"] is None else given["bias"])
    return dense.loss(
        logits,
        given["teacher"],
        given["labels"],
        given["weights"],
        given["weights"].sum(),
        kind=case.kind,
        temperature=case.temperature,
        hard=case.hard,
        beta=case.beta,
        alpha=case.alpha,
        ids=ids,
    )


def gradients(loss: Any, given: dict[str, Any]) -> list[Any]:
    import torch

    leaves = [given[name] for name in ("hidden", "head", "bias") if given[name] is not None]
    return list(torch.autograd.grad(loss, [leaf for leaf in leaves if leaf.requires_grad]))


def same(ours: Any, theirs: Any, tolerance: float, floor: float) -> None:
    """Relative in norm; `floor` is what counts as nothing (a gradient that cancels to zero)."""
    assert ours.isfinite().all()
    assert (ours.double() - theirs.double()).norm() <= tolerance * max(theirs.double().norm(), floor)


@settings(max_examples=120)
@given(case=cases)
def test_value_and_gradient_are_the_dense_ones(case: Case) -> None:
    import torch

    # Below the floor a value or gradient is what is left of terms that cancel: rounding. In fp32 logits and a teacher's
    # log-probabilities are rounded before the loss sees them, the more the larger they are, and both are multiplied
    # by what grows with the scale as well (log ratios, the output layer). float64 shows the definition.
    rounding = 0.2 * (1 + case.scale**2) / min(case.temperature, 1.0)
    for dtype, tolerance, floor in ((torch.float64, 1e-9, 1e-5), (torch.float32, 1e-5, rounding)):
        if dtype == torch.float32 and case.scale > 5 * case.temperature:
            continue  # Log ratios of 40 and more, which no model and teacher have.
        single = tensors(case, dtype)
        exact = {
            name: None if value is None else value.detach().to(torch.float64 if value.is_floating_point() else None)
            for name, value in single.items()
        }
        for name in ("hidden", "head", "bias"):
            if exact[name] is not None:
                exact[name].requires_grad_(single[name].requires_grad)
        sparse = case.k < case.vocabulary
        targets = kept(case, exact["teacher"]) if sparse else live(case, single)
        ids = targets.ids if sparse else None
        ours, theirs = fast(case, single, targets), slow(case, exact, ids)
        same(ours, theirs, tolerance, floor)
        for one, other in zip(gradients(ours, single), gradients(theirs, exact), strict=True):
            assert one.dtype == dtype
            same(one, other, tolerance, floor)


def live(case: Case, given: dict[str, Any]) -> Any:
    from distill_dagster.training.losses.targets import Live

    size = case.vocabulary
    return Live(given["teacher"], None, size, temperature=case.temperature)


@pytest.mark.parametrize("hard", [0.0, 0.4])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("kind", KINDS)
def test_every_token_kept_is_the_dense_loss(kind: str, temperature: float, hard: float) -> None:
    import torch

    from distill_dagster.training.losses.targets import TopK

    case = Case(kind=kind, temperature=temperature, hard=hard)
    given = tensors(case, torch.float64)
    log_p = (given["teacher"] / temperature).log_softmax(-1)
    order = log_p.argsort(-1, descending=True)
    whole = TopK(order, log_p.gather(1, order), torch.full((case.rows,), -torch.inf, dtype=torch.float64))
    sparse, dense = fast(case, given, whole), fast(case, given, live(case, given))
    same(sparse, dense, 1e-12, 1e-12)
    for one, other in zip(gradients(sparse, given), gradients(dense, given), strict=True):
        same(one, other, 1e-11, 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_and_a_live_top_k_change_nothing(kind: str) -> None:
    import torch

    from distill_dagster.training.losses.targets import Live

    case = Case(kind=kind, rows=11, hard=0.25, temperature=1.5, bias=True)
    given = tensors(case, torch.float64)
    whole = fast(case, given, tile_bytes=1 << 20)
    expected = gradients(whole, given)
    asked = Live(given["teacher"], None, case.vocabulary, temperature=1.5, k=case.k)
    for targets, size in ((None, 1), (None, 800), (asked, 700)):
        again = fast(case, given, targets, size)
        assert again.item() == pytest.approx(whole.item(), rel=1e-12)
        for one, other in zip(gradients(again, given), expected, strict=True):
            same(one, other, 1e-12, 1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 3])
def test_blocks_of_a_tile_change_nothing(kind: str, rows: int, monkeypatch) -> None:
    import torch

    from distill_dagster.training.losses import tiles
    from distill_dagster.training.losses.targets import Live

    case = Case(kind=kind, rows=11, hard=0.25, temperature=1.5, bias=True)
    given = tensors(case, torch.float64)
    said = given["teacher"].clone()
    ways = [None, *(Live(given["teacher"], None, case.vocabulary, temperature=1.5, k=k) for k in (case.k, 0))]
    whole = [fast(case, given, targets, 1 << 20) for targets in ways]
    expected = [gradients(loss, given) for loss in whole]
    monkeypatch.setattr(tiles, "BLOCK", rows * case.vocabulary * 8)
    for targets, loss, grads in zip(ways, whole, expected, strict=True):
        again = fast(case, given, targets, 1 << 20)
        assert again.item() == pytest.approx(loss.item(), rel=1e-13)
        for one, other in zip(gradients(again, given), grads, strict=True):
            same(one, other, 1e-13, 1e-13)
    assert torch.equal(given["teacher"], said)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_vocabulary_is_held_twice_and_no_more(kind: str) -> None:
    """A tile of the student's logits and one of the teacher's; all else is made for a block of rows."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from distill_dagster.training.losses import tiles
    from distill_dagster.training.losses.targets import Live

    case = Case(kind=kind, rows=256, vocabulary=32_000, hard=0.5, temperature=2.0)
    given = tensors(case, torch.float32)
    large = case.rows * case.vocabulary * 4
    held: dict[int, int] = {}

    class Made(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for part in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(part, torch.Tensor) and part.untyped_storage().nbytes() > tiles.BLOCK:
                    held[part.untyped_storage().data_ptr()] = part.untyped_storage().nbytes()
            return out

    made = torch.Generator().manual_seed(0)
    states, head = (torch.randn(size, case.width, generator=made) for size in (case.rows, case.vocabulary))
    with Made():
        fast(case, given, Live(states, head, case.vocabulary), large).backward()
    assert sorted(held.values()) == [large, large]


@pytest.mark.parametrize("kind", KINDS)
def test_eight_small_steps_are_one_large_one(kind: str) -> None:
    import torch

    from distill_dagster.training.losses.sparse import Rows, sparse_loss

    case = Case(kind=kind, rows=24, hard=0.5, temperature=2.0)
    given = tensors(case, torch.float32)
    targets, total = kept(case, given["teacher"]), given["weights"].sum()
    at_once = gradients(fast(case, given, targets), given)
    # Unequal pieces, so that a mean of means would show.
    cuts = [0, 1, 2, 4, 7, 11, 16, 20, 24]
    summed = [torch.zeros_like(part) for part in at_once]
    for start, stop in zip(cuts, cuts[1:], strict=False):
        part = slice(start, stop)
        rows = Rows(given["labels"][part], given["weights"][part], total)
        piece = type(targets)(targets.ids[part], targets.log_probs[part], targets.log_rest[part])
        loss, *_ = sparse_loss(given["hidden"][part], given["head"], rows, piece, mix(case))
        for whole, grad in zip(summed, gradients(loss, given), strict=True):
            whole += grad
    for one, other in zip(summed, at_once, strict=True):
        same(one, other, 1e-5, 1e-6)


def test_the_gradient_keeps_its_size_when_the_temperature_rises() -> None:
    import torch

    sizes = []
    for temperature in (50.0, 100.0):
        given = tensors(Case(temperature=temperature, k=5), torch.float64)
        targets = live(Case(temperature=temperature), given)
        sizes.append(gradients(fast(Case(temperature=temperature), given, targets), given)[0].norm().item())
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)  # without T² it would be a quarter


def test_a_teacher_that_is_the_student_teaches_nothing() -> None:
    import torch

    for kind in KINDS:
        case = Case(kind=kind, temperature=1.5)
        given = tensors(case, torch.float64)
        given["teacher"] = (given["hidden"] @ given["head"].t()).detach()
        loss = fast(case, given)
        assert abs(loss.item()) < 1e-12
        assert all(grad.norm() < 1e-12 for grad in gradients(loss, given))


@pytest.mark.parametrize("kind", KINDS)
def test_certain_and_impossible_tokens_stay_finite(kind: str) -> None:
    import torch

    case = Case(kind=kind, rows=4, vocabulary=9, k=2, hard=0.2)
    given = tensors(case, torch.float32)
    sure = torch.full((4, 9), -200.0)
    sure[:, 3] = 200.0
    for teacher in (sure, -sure):
        given["teacher"] = teacher
        with torch.no_grad():
            given["head"].mul_(300)
        loss = fast(case, given)
        assert loss.isfinite()
        assert all(grad.isfinite().all() for grad in gradients(loss, given))


def test_no_gradient_is_made_where_none_is_wanted() -> None:
    import torch

    case = Case(hard=0.5)
    given = tensors(case, torch.float32)
    wanted = fast(case, given)
    with torch.no_grad():
        value = fast(case, given)
    assert not value.requires_grad and value.item() == pytest.approx(wanted.item(), rel=1e-6)
    wanted.backward()
    with pytest.raises(RuntimeError):
        wanted.backward()


def test_a_bf16_head_is_near_the_fp32_one() -> None:
    import torch

    from distill_dagster.training.losses.sparse import Rows, sparse_loss

    case = Case(rows=64, vocabulary=200, width=32, k=16)
    given = tensors(case, torch.float32)
    exact = gradients(fast(case, given), given)
    rows = Rows(given["labels"], given["weights"], given["weights"].sum())
    half = given["head"].to(torch.bfloat16)
    loss, *_ = sparse_loss(given["hidden"], half, rows, kept(case, given["teacher"]), mix(case))
    for one, other in zip(gradients(loss, given), exact, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() <= 0.02 * other.norm()
