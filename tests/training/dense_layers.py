"""The terms about layers as their papers write them: one record at a time, without padding, float64, autograd."""

from __future__ import annotations

from typing import Any


def rows_kl(log_p: Any, log_q: Any) -> Any:
    """KL(P‖Q) of the last dimension, where P may be 0."""
    import torch

    return torch.where(log_p.exp() > 1e-250, log_p.exp() * (log_p - log_q), 0.0).sum(-1)


def log_map(scores: Any, causal: bool) -> Any:
    """Log-softmax of scores, heads × n × n, of one record."""
    import torch

    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, torch.finfo(scores.dtype).min)
    return scores.log_softmax(-1)


def hidden(student: Any, teacher: Any, kind: str, matrix: Any = None) -> Any:
    """Distance at each position of one record: n × H against n × H'."""
    if matrix is not None:
        student = student @ matrix.t()
    if kind == "mse":
        return ((student - teacher) ** 2).sum(-1) / teacher.shape[-1]
    return 1 - (student * teacher).sum(-1) / (student.norm(dim=-1) * teacher.norm(dim=-1))


def scores(query: Any, key: Any, scale: float) -> Any:
    """heads × n × n from heads × n × d and fewer key heads, each of which serves as many neighbouring queries."""
    import torch

    shared = query.shape[0] // key.shape[0]
    return torch.stack([query[head] @ key[head // shared].t() * scale for head in range(query.shape[0])])


def attention(student: Any, teacher: Any, kind: str, heads: str, causal: bool) -> Any:
    """Distance at each position of one record, from scores (heads × n × n)."""
    import torch

    if kind == "mse":
        if heads == "mean":
            student, teacher = student.mean(0, keepdim=True), teacher.mean(0, keepdim=True)
        square = (student - teacher) ** 2
        n = square.shape[-1]
        seen = torch.ones(n, n, dtype=square.dtype).tril() if causal else torch.ones(n, n, dtype=square.dtype)
        return ((square * seen).sum(-1) / seen.sum(-1)).mean(0)
    log_q, log_p = log_map(student, causal), log_map(teacher, causal)
    if heads == "mean":
        log_q, log_p = (maps.exp().mean(0, keepdim=True).clamp_min(1e-300).log() for maps in (log_q, log_p))
    return rows_kl(log_p, log_q).mean(0)


def relation(student: Any, teacher: Any, count: int, causal: bool) -> Any:
    """Distance at each position of one record, from one part of both models (heads × n × d)."""

    def log_relations(part: Any) -> Any:
        import torch

        states = torch.cat(list(part), -1)
        size = states.shape[-1] // count
        pieces = [states[:, head * size : (head + 1) * size] for head in range(count)]
        return log_map(torch.stack([piece @ piece.t() / size**0.5 for piece in pieces]), causal)

    return rows_kl(log_relations(teacher), log_relations(student)).mean(0)


def mean(values: list[Any], weights: list[Any]) -> Any:
    """Weighted mean over the positions of all records."""
    return sum((v * w).sum() for v, w in zip(values, weights, strict=True)) / sum(w.sum() for w in weights)
