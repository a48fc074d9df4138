"""The sparse loss by kernels beside the torch path and float64, for Triton's interpreter and for a GPU."""

from __future__ import annotations

from typing import Any

from training.test_sparse_loss import KINDS, Case, gradients, kept, mix, same, tensors

#: A vocabulary of two blocks, the second nearly empty; tiles of three rows, the last of one.
LARGE = {"rows": 7, "vocabulary": 4099, "width": 24, "k": 5}
CASES = [
    Case(kind, temperature=temperature, hard=hard, bias=bias, seed=seed, **LARGE)  # pyright: ignore[reportArgumentType]
    for seed, kind in enumerate(KINDS)
    for temperature in (1.0, 2.5)
    for hard, bias in ((0.0, True), (0.3, False), (0.3, True))
]
ODD = [
    Case(rows=1, vocabulary=2, k=1, hard=0.3),
    Case(rows=5, vocabulary=257, k=16, temperature=0.5),
    Case(rows=4, vocabulary=9, k=8, hard=1.0, temperature=2.5),
    Case("reverse", rows=3, vocabulary=9, k=9, hard=0.3),  # no rest at all
    Case("jsd", rows=6, vocabulary=300, k=7, frozen=True, bias=True),
]


def moved(given: dict[str, Any], device: str, head: Any = None, wide: bool = False) -> dict[str, Any]:
    """Leaves on a device; the output layer in dtype `head`, and with `wide` the same numbers in float64."""
    import torch

    made = {}
    for name, value in given.items():
        if value is not None:
            fresh = value.detach().to(device)
            if name == "head" and head is not None:
                fresh = fresh.to(head)
            if wide and fresh.is_floating_point():
                fresh = fresh.to(torch.float64)
            value = fresh.requires_grad_(value.requires_grad)
        made[name] = value
    return made


def step(case: Case, given: dict[str, Any], targets: Any, on: set[str]) -> tuple[list[Any], list[Any]]:
    """Loss, divergence and cross-entropy of a step, and its gradients; kernels where `on` says."""
    from distill_dagster.training.losses import sparse

    before, sparse.KERNELS_ON = sparse.KERNELS_ON, on
    try:
        rows = sparse.Rows(given["labels"], given["weights"], given["weights"].sum())
        parts = given["hidden"], given["head"], rows, targets, mix(case)
        said = sparse.sparse_loss(*parts, bias=given["bias"], tile_bytes=3 * case.vocabulary * 4)
        return [value.detach() for value in said], gradients(said[0], given)
    finally:
        sparse.KERNELS_ON = before


def targets_of(case: Case, given: dict[str, Any]) -> Any:
    """The teacher's top k in float64; with the first label among it."""
    import torch

    from distill_dagster.training.losses.targets import TopK

    if case.k < case.vocabulary:
        targets = kept(case, given["teacher"].double())
        given["labels"][0] = targets.ids[0, 0]
        return targets
    log_p = (given["teacher"].double() / case.temperature).log_softmax(-1)
    ids = torch.arange(case.vocabulary, device=log_p.device).expand(case.rows, -1)
    return TopK(ids, log_p, torch.full((case.rows,), -torch.inf, dtype=log_p.dtype, device=log_p.device))


def compare(case: Case, device: str, dtype: str) -> None:
    """Values and gradients are those of torch and of float64, and the same bits when taken again."""
    import torch

    narrow = dtype == "bfloat16"
    made = tensors(case, torch.float32)
    given = moved(made, device, getattr(torch, dtype))
    targets, on = targets_of(case, given), {device}
    ours, again, torchs = (step(case, given, targets, where) for where in (on, on, set[str]()))
    exact = step(case, moved(given, device, wide=True), targets, set())
    for mine, twice, other, right in zip(*(sum(part, []) for part in (ours, again, torchs, exact)), strict=True):
        assert mine.dtype == other.dtype and torch.equal(mine, twice)
        same(mine, other, 2e-2 if narrow else 1e-5, 3e-1)  # where terms cancel, a narrow one in its last bit
        same(mine, right, 3e-2 if narrow else 5e-5, 3e-1)


def logits_alone(device: str) -> None:
    """Without an output layer the gradient is that of the logits."""
    import torch

    case = Case("skew_reverse", rows=5, vocabulary=300, k=6, temperature=2.5, hard=0.3)
    given = moved(tensors(case, torch.float32), device)
    targets = targets_of(case, given)
    given["hidden"] = (given["hidden"] @ given["head"].t()).detach().requires_grad_()
    given["head"] = None
    one, other = (step(case, given, targets, on) for on in ({device}, set[str]()))
    for mine, right in zip(sum(one, []), sum(other, []), strict=True):
        same(mine, right, 1e-5, 3e-1)


def extremes(device: str) -> None:
    """Certain tokens, a rest of hardly any mass, and no rows at all: finite, and what float64 says."""
    import torch

    for kind in KINDS:
        case = Case(kind, rows=4, vocabulary=9, k=2, hard=0.2)
        given = moved(tensors(case, torch.float32), device)
        sure = torch.full((4, 9), -200.0, device=device)
        sure[:, 3] = 200.0
        with torch.no_grad():
            given["head"].mul_(300)
        for teacher in (sure, -sure):
            given["teacher"] = teacher
            targets = targets_of(case, given)
            ours = sum(step(case, given, targets, {device}), [])
            right = sum(step(case, moved(given, device, wide=True), targets, set()), [])
            for mine, other in zip(ours, right, strict=True):
                assert mine.isfinite().all()
                if kind in ("forward", "reverse"):  # A mixture's logarithm ends where its precision does.
                    same(mine, other, 1e-3, 1e-1)
        none = {name: part if name in ("head", "bias") else part[:0].detach() for name, part in given.items()
                if part is not None}  # fmt: skip
        none |= {"hidden": none["hidden"].requires_grad_(), "bias": None, "weights": none["weights"] + 1}
        _, made = step(case, none, type(targets)(*(part[:0] for part in vars(targets).values())), {device})
        assert not made[1].any()
