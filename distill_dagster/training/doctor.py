"""The loss examined on the machine that will train: every way to compute it must give the same numbers.

All is computed on the CPU, and where there is a GPU on that as well. Small random models and data, a few seconds, no
files but a temporary one. A machine whose matrix products are wrong, or a library whose next version changes a mask,
shows here and not in a student that learns less.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, get_args

from distill_dagster.training.losses.kinds import Kind


@dataclass(frozen=True)
class Finding:
    """What one check found on a device: `error` is relative, and must be at most `allowed`."""

    name: str
    says: str
    error: float
    allowed: float
    device: str = "cpu"

    @property
    def ok(self) -> bool:
        """Whether the check passed; an error that is not a number has not."""
        return self.error <= self.allowed


def hardware() -> dict[str, Any]:
    """What this machine and its libraries are: processor, threads, memory, GPUs, versions."""
    import torch
    import transformers

    gpus = [_gpu(index) for index in range(torch.cuda.device_count())]
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        memory = 0
    found = {
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpus": gpus,
        "mps": bool(getattr(torch.backends, "mps", None) and torch.backends.mps.is_available()),
    }
    if torch.cuda.is_available():
        found |= {
            "cuda": torch.version.cuda,
            "gpu_bf16": torch.cuda.is_bf16_supported(),
            "gpu_fp32_products": torch.get_float32_matmul_precision(),
        }
    return found


def _gpu(index: int) -> str:
    import torch

    said = torch.cuda.get_device_properties(index)
    memory = f"{said.total_memory / 2**30:.1f} GiB"
    return f"{said.name} ({memory}, {said.multi_processor_count} SMs, compute capability {said.major}.{said.minor})"


def examine() -> Iterator[Finding]:
    """Run every check, one by one: on the CPU, and where torch sees a GPU on the first one."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for check in CHECKS:
                yield check("cpu")
            if torch.cuda.is_available():
                for check in (*CHECKS, *GPU_CHECKS):
                    yield replace(check("cuda"), device="cuda")
    finally:
        torch.set_num_threads(threads)


def _allowed(device: str) -> float:
    """How far two ways may lie apart: further where a GPU's products of fp32 numbers are rounded (TF32)."""
    import torch

    rounded = device == "cuda" and torch.get_float32_matmul_precision() != "highest"
    return 1e-2 if rounded else 1e-5


class _Case:
    """A random loss: 24 rows, 300 tokens, top 16."""

    def __init__(self, temperature: float = 1.0, device: str = "cpu") -> None:
        import torch

        self.device = device

        self.hidden = torch.randn(24, 32)
        self.head = torch.randn(300, 32) * 0.5
        self.teacher = torch.randn(24, 300) * 3
        self.labels, self.weights = torch.randint(300, (24,)), torch.rand(24) + 0.1
        self.temperature = temperature

    def targets(self, k: int) -> Any:
        """The teacher with k tokens apart, or with all."""
        from distill_dagster.training.losses.targets import Live

        return Live(self.teacher.to(self.device), None, 300, temperature=self.temperature, k=k)

    def take(self, kind: Any, k: int, part: slice = slice(None), hard: float = 0.25) -> tuple[float, list[Any]]:
        """Value and gradients (hidden states, output layer) of the rows of `part`, at the whole case's total."""
        import torch

        from distill_dagster.training.losses.divergences import Divergence
        from distill_dagster.training.losses.sparse import Mix, Rows, sparse_loss

        hidden, head = (values.clone().to(self.device).requires_grad_() for values in (self.hidden, self.head))
        labels, weights = self.labels.to(self.device), self.weights.to(self.device)
        rows = Rows(labels[part], weights[part], weights.sum())
        targets = self.targets(k)
        targets = replace(targets, hidden=targets.hidden[part])
        mix = Mix(Divergence(kind), self.temperature, hard)
        loss, *_ = sparse_loss(hidden[part], head, rows, targets, mix, tile_bytes=1 << 13)
        return loss.item(), [grad.cpu() for grad in torch.autograd.grad(loss, [hidden, head])]

    def dense(self, kind: Any, k: int, hard: float = 0.25) -> tuple[float, list[Any]]:
        """The same in float64, from whole distributions, by autograd."""
        import torch

        hidden, head = (part.double().requires_grad_() for part in (self.hidden, self.head))
        logits = hidden @ head.t()
        log_p, log_q = ((x / self.temperature).log_softmax(-1) for x in (self.teacher.double(), logits))
        if k:
            ids = self.teacher.topk(k).indices
            outside = torch.ones_like(self.teacher, dtype=torch.bool).scatter_(1, ids, False)
            log_p, log_q = (
                torch.cat((x.gather(1, ids), x.masked_fill(~outside, -torch.inf).logsumexp(1, keepdim=True)), 1)
                for x in (log_p, log_q)
            )
        soft = _divergence(kind, log_p, log_q) * self.temperature**2
        cross = torch.nn.functional.cross_entropy(logits, self.labels, reduction="none")
        loss = (((1 - hard) * soft + hard * cross) * self.weights).sum() / self.weights.sum()
        return loss.item(), list(torch.autograd.grad(loss, [hidden, head]))


def _divergence(kind: str, log_p: Any, log_q: Any) -> Any:
    """A divergence of whole distributions as it is written, with the defaults of `Divergence`."""

    def kl(log_a: Any, log_b: Any) -> Any:
        return (log_a.exp() * (log_a - log_b)).sum(-1)

    def mixed(share: float, log_a: Any, log_b: Any) -> Any:
        return (share * log_a.exp() + (1 - share) * log_b.exp()).log()

    if kind == "jsd":
        middle = mixed(0.5, log_p, log_q)
        return (kl(log_p, middle) + kl(log_q, middle)) / 2
    forward, reverse = (log_p, log_q), (log_q, log_p)
    if kind.startswith("skew"):
        forward, reverse = (log_p, mixed(0.1, *forward)), (log_q, mixed(0.1, *reverse))
    return kl(*(reverse if kind.endswith("reverse") else forward))


def _apart(ours: tuple[float, list[Any]], theirs: tuple[float, list[Any]]) -> float:
    """Largest relative difference of value and gradients."""
    found = [abs(ours[0] - theirs[0]) / max(abs(theirs[0]), 1e-9)]
    pairs = zip(ours[1], theirs[1], strict=True)
    found += [((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-9)).item() for a, b in pairs]
    return max(found) if all(x == x for x in found) else float("nan")


def _dense(device: str = "cpu") -> Finding:
    errors = [
        _apart(case.take(kind, 0), case.dense(kind, 0))
        for temperature in (1.0, 2.0)
        for case in [_Case(temperature, device)]
        for kind in get_args(Kind)
    ]
    says = "every divergence equals its float64 definition, value and gradient"
    return Finding("dense", says, max(errors), _allowed(device))


def _sparse(device: str = "cpu") -> Finding:
    errors = [
        _apart(case.take(kind, 16), case.dense(kind, 16))
        for temperature in (1.0, 2.0)
        for case in [_Case(temperature, device)]
        for kind in get_args(Kind)
    ]
    return Finding("sparse", "top 16 and a rest equal the same buckets in float64", max(errors), _allowed(device))


def _all_kept(device: str = "cpu") -> Finding:
    case = _Case(device=device)
    errors = [_apart(case.take(kind, 299), case.take(kind, 0)) for kind in get_args(Kind)]
    return Finding("sparse = dense", "all tokens but one kept, and that one as the rest", max(errors), _allowed(device))


def _temperature(device: str = "cpu") -> Finding:
    import torch

    sizes = []
    for temperature in (50.0, 100.0):
        torch.manual_seed(5)
        sizes.append(_Case(temperature, device).take("forward", 0, hard=0.0)[1][0].norm().item())
    says = "the gradient keeps its size when the temperature doubles (without T² it would be a quarter)"
    return Finding("T²", says, abs(sizes[1] / sizes[0] - 1), 0.05)


def _accumulation(device: str = "cpu") -> Finding:
    import torch

    case = _Case(2.0, device)
    whole = case.take("forward", 16)
    cuts = [0, 1, 2, 5, 9, 13, 17, 20, 24]
    parts = [case.take("forward", 16, slice(a, b)) for a, b in zip(cuts, cuts[1:], strict=False)]
    summed = sum(value for value, _ in parts), [torch.stack(x).sum(0) for x in zip(*(g for _, g in parts), strict=True)]
    says = "eight unequal pieces add up to the whole batch"
    return Finding("1×8 = 8×1", says, _apart(summed, whole), _allowed(device))


def _model(device: str = "cpu") -> tuple[Any, list[Any]]:
    """A small Llama and three records of which only the answer carries a loss."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from distill_dagster.training.data import Example

    sizes: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, pad_token_id=0, eos_token_id=1)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.dim() > 1 else 1)
    lengths, examples = (9, 4, 7), []
    for number, length in enumerate(lengths):
        ids = torch.randint(2, 64, (length,)).tolist()
        examples.append(Example(f"r{number}", ids, [0.0] * (length // 2) + [1.0] * (length - length // 2)))
    return model.to(device), examples  # pyright: ignore[reportArgumentType]


def _loss(model: Any, loss: Any) -> tuple[float, list[Any]]:
    import torch

    return loss.item(), [grad.cpu() for grad in torch.autograd.grad(loss, list(model.parameters()))]


def _shift(device: str = "cpu") -> Finding:
    import torch

    from distill_dagster.training.forward import Forward, pad
    from distill_dagster.training.objectives.sft import Objective

    model, examples = _model(device)
    ours = _loss(model, Objective()(Forward(model)(examples, 0)))
    ids, weights = pad(examples, 0)
    labels = torch.where(weights > 0, ids, -100)
    mask = torch.arange(ids.shape[1]) < torch.tensor([[len(example.ids)] for example in examples])
    ids, mask, labels = (part.to(device) for part in (ids, mask.long(), labels))
    theirs = _loss(model, model(input_ids=ids, attention_mask=mask, labels=labels).loss)
    says = "the state before a token predicts it: the library's own loss"
    return Finding("mask shift", says, _apart(ours, theirs), _allowed(device))


def _packed(device: str = "cpu") -> Finding:
    import torch

    from distill_dagster.training.forward import Forward, positions
    from distill_dagster.training.objectives.sft import Objective

    model, examples = _model(device)
    padded = Forward(model)(examples, 0)
    ours = _loss(model, Objective()(padded))
    # One row with every record behind the other; positions that start again tell them apart.
    ids = torch.tensor([[token for example in examples for token in example.ids]])
    weights = torch.tensor([[w for example in examples for w in (0.0, *example.weights[1:])]])
    places = torch.tensor([[number for example in examples for number in range(len(example.ids))]])
    where, labels, weight, rows = (part.to(device) for part in positions(ids, weights))
    ids, places = ids.to(device), places.to(device)
    states = model.get_decoder()(input_ids=ids, position_ids=places, use_cache=False).last_hidden_state
    packed = type(padded)(states[0][where], labels, weight, rows, padded.examples, model.get_output_embeddings())
    says = "records packed into one row do not see each other"
    return Finding("packed = padded", says, _apart(_loss(model, Objective()(packed)), ours), _allowed(device))


def _layers(device: str = "cpu") -> Finding:
    from types import SimpleNamespace

    import torch

    from distill_dagster.training import features
    from distill_dagster.training.forward import Forward
    from distill_dagster.training.objectives.base import build

    (model, examples), (teacher, _) = _model(device), _model(device)
    terms = {name: (1.0, build(name, {"layers": "uniform"})) for name in ("hidden", "attention", "relation")}
    forward, live = Forward(model), SimpleNamespace(name="live", forward=Forward(teacher))
    features.bind(terms, forward, [live], 0)

    def take(batch: list[Any], share: float = 1.0) -> tuple[float, list[Any]]:
        positions = forward(batch, 0)
        with torch.no_grad():
            positions.signals = {"live": SimpleNamespace(said=live.forward(batch, 0))}
        value = torch.stack([term(positions) for _, term in terms.values()]).sum() * share
        found = torch.autograd.grad(value, list(model.parameters()), materialize_grads=True)
        return value.item(), [grad.cpu() for grad in found]

    total = sum(len(example.ids) for example in examples)
    parts = [take([example], len(example.ids) / total) for example in examples]
    summed = sum(value for value, _ in parts), [torch.stack(x).sum(0) for x in zip(*(g for _, g in parts), strict=True)]
    says = "hidden, attention and relation of a padded batch are those of its records alone"
    return Finding("layers", says, _apart(take(examples), summed), _allowed(device))


def _cache(device: str = "cpu") -> Finding:
    import numpy as np
    import torch

    from distill_dagster.training.losses.targets import top_k
    from distill_dagster.training.signals import codec

    log_p = (torch.randn(400, 3000) * 4).to(device).log_softmax(-1)
    ids, values, rest = (part.cpu() for part in top_k(log_p, 16))
    layout = codec.Layout(16, (1.0,), 151_936)
    signal = codec.Signal(ids.numpy(), values.numpy(), rest[:, None].numpy())
    read = codec.at(codec.decode(codec.encode(signal, layout), layout), (1.0,), 1.0, 16)
    same = bool((read.ids == signal.ids).all())
    true = np.concatenate([signal.log_probs, signal.log_rest], 1).astype(np.float64)
    got = np.concatenate([read.log_probs, read.log_rest], 1).astype(np.float64)
    lost = float((np.exp(true) * (true - got)).sum(1).max())
    says = f"stored signals ({layout.width} bytes a token) lose less than 0.001 nats"
    return Finding("cache round trip", says, lost if same else float("inf"), 1e-3)


def _as_on_the_cpu(device: str) -> Finding:
    import copy

    from distill_dagster.training.forward import Forward
    from distill_dagster.training.objectives.sft import Objective

    model, examples = _model()
    here = _loss(model, Objective()(Forward(model)(examples, 0)))
    there = copy.deepcopy(model).to(device)
    says = "a model's loss and gradient are those of the CPU"
    return Finding("gpu = cpu", says, _apart(_loss(there, Objective()(Forward(there)(examples, 0))), here), 1e-4)


def _same_bytes(device: str) -> Finding:
    import os

    import torch

    from distill_dagster.training.forward import Forward
    from distill_dagster.training.objectives.sft import Objective

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    model, examples = _model(device)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        once, again = (_loss(model, Objective()(Forward(model)(examples, 0))) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(before)
    same = once[0] == again[0] and all(torch.equal(a, b) for a, b in zip(once[1], again[1], strict=True))
    return Finding("same bytes", "a step taken twice gives the same bits", 0.0 if same else 1.0, 0.0)


CHECKS: tuple[Callable[..., Finding], ...] = (
    _dense,
    _sparse,
    _all_kept,
    _packed,
    _shift,
    _temperature,
    _accumulation,
    _layers,
    _cache,
)
#: What is asked of a GPU beside them.
GPU_CHECKS: tuple[Callable[[str], Finding], ...] = (_as_on_the_cpu, _same_bytes)
