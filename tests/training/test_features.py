"""Terms about a teacher's layers equal their definitions in float64, value and gradient."""

from types import SimpleNamespace
from typing import Any

import dense_layers as dense
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_dagster.errors import ConfigError, TrainingError
from distill_dagster.training.objectives.base import Positions, build

pytestmark = pytest.mark.needs_torch

PART = ("query", "key", "value")


class Pair:
    """Random layers of a student and a teacher for the same records, padded; gradients flow to the student's."""

    def __init__(self, case: dict[str, Any]) -> None:
        import torch

        from distill_dagster.training.layers import Heads, Layers

        torch.manual_seed(case["seed"])
        self.lengths: list[int] = case["lengths"]
        self.causal: bool = case["causal"]
        rows, length = len(self.lengths), max(self.lengths)
        real = torch.arange(length) < torch.tensor(self.lengths)[:, None]
        record = torch.rand(rows) + 0.5
        weights = torch.where(real, record[:, None], 0.0)
        answer = torch.where(real & (torch.rand(rows, length) < 0.6), record[:, None], 0.0)
        answer[0, 0] = record[0]
        seen = real[:, None, None, :].expand(rows, 1, length, length)
        if self.causal:
            seen = seen & torch.ones(length, length, dtype=torch.bool).tril()
        self.leaves: list[Any] = []

        def tensor(*size: int, leaf: bool) -> Any:
            made = torch.randn(*size)
            if leaf:
                self.leaves.append(made.requires_grad_())
            return made

        def model(depth: int, width: int, heads: int, groups: int, size: int, leaf: bool) -> Any:
            hidden = {n: tensor(rows, length, width, leaf=leaf) for n in range(depth + 1)}
            attention = {}
            for n in range(1, depth + 1):
                query, key, value = (
                    tensor(rows, count, length, size, leaf=leaf) for count in (heads, heads // groups, heads // groups)
                )
                attention[n] = Heads(query, key, value, size**-0.5, seen)
            return Layers(hidden, attention, weights, answer)

        self.student = model(case["depths"][0], case["widths"][0], *case["heads"][0], leaf=True)
        self.teacher = model(case["depths"][1], case["widths"][1], *case["heads"][1], leaf=False)
        where = answer.flatten().nonzero()[:, 0]
        self.positions = Positions(
            hidden=torch.zeros(len(where), 1),
            labels=torch.zeros(len(where), dtype=torch.long),
            weights=answer.flatten()[where],
            rows=where // length,
            examples=[],
            project=lambda states: states,
            signals={"live": SimpleNamespace(said=SimpleNamespace(layers=self.teacher))},
            layers=self.student,
        )

    def shape(self, layers: Any) -> Any:
        from distill_dagster.training.layers import Shape

        depth = max(layers.hidden)
        return Shape(
            "Model",
            depth,
            {n: states.shape[-1] for n, states in layers.hidden.items()},
            {
                n: (one.query.shape[1], one.key.shape[1], one.query.shape[3], one.value.shape[3])
                for n, one in layers.heads.items()
            },
            frozenset(layers.heads),
            "sdpa",
        )

    def bound(self, name: str, params: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The objective, and what it learns beside the student."""
        from distill_dagster.training import features

        term, learned = build(name, params), {}

        def made(key: str, size: tuple[int, int]) -> Any:
            return learned.setdefault(key, features.draw(key, size, 3).requires_grad_())

        term.bind(self.shape(self.student), self.shape(self.teacher), made)
        return term, learned

    def records(self, tensor: Any, dim: int) -> list[Any]:
        """Each record's own part of a tensor, in float64."""
        return [tensor[row].double().narrow(dim - 1, 0, n) for row, n in enumerate(self.lengths)]

    def weights(self, which: str) -> list[Any]:
        return self.records(self.student.answer if which == "answer" else self.student.weights, 1)


@st.composite
def cases(draw: Any) -> dict[str, Any]:
    depths = draw(st.tuples(st.integers(1, 3), st.integers(1, 4)))
    widths = draw(st.sampled_from([(6, 6), (6, 10), (8, 4)]))
    count = draw(st.sampled_from([1, 2, 4]))
    return {
        "seed": draw(st.integers(0, 1000)),
        "lengths": draw(st.lists(st.integers(1, 7), min_size=1, max_size=4)),
        "causal": draw(st.booleans()),
        "depths": depths,
        "widths": widths,
        # Heads, how many share a key, size of a head: as many heads, so that they can be matched.
        "heads": ((count, draw(st.sampled_from([1, count])), 4), (count, draw(st.sampled_from([1, count])), 8)),
        "positions": draw(st.sampled_from(["all", "answer"])),
        "map": draw(
            st.one_of(
                st.sampled_from(["uniform", "last"]),
                st.dictionaries(st.integers(1, depths[0]), st.integers(1, depths[1]), min_size=1),
            )
        ),
    }


def resolved(case: dict[str, Any]) -> dict[int, int]:
    mine, theirs = case["depths"]
    if case["map"] == "last":
        return {mine: theirs}
    if case["map"] == "uniform":
        return {n: max(1, int(n * theirs / mine + 0.5)) for n in range(1, mine + 1)}
    return case["map"]


def same(value: Any, expected: Any, leaves: list[Any]) -> None:
    """Equal to 1e-5, value and gradient."""
    import torch

    assert value.dtype is torch.float32 and expected.dtype is torch.float64
    assert value.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-7)
    ours, theirs = (torch.autograd.grad(x, leaves, allow_unused=True) for x in (value, expected))
    for one, other in zip(ours, theirs, strict=True):
        # What no term reads has a gradient of 0, written or not.
        one, other = (torch.zeros(1) if x is None else x for x in (one, other))
        assert (one - other).norm() <= 1e-5 * other.norm() + 1e-7


@given(case=cases(), kind=st.sampled_from(["mse", "cosine"]), embeddings=st.booleans())
@settings(max_examples=60, deadline=None)
def test_hidden_is_its_definition(case: dict[str, Any], kind: str, embeddings: bool) -> None:
    import torch

    pair = Pair(case)
    said = {0: 0, **case["map"]} if embeddings and isinstance(case["map"], dict) else case["map"]
    expected_map = resolved({**case, "map": said})
    term, learned = pair.bound("hidden", {"layers": said, "kind": kind, "positions": case["positions"]})
    different = case["widths"][0] != case["widths"][1]
    assert set(learned) == {f"projection.{n}" for n in expected_map if different}
    each = []
    for mine, theirs in expected_map.items():
        matrix = learned[f"projection.{mine}"].double() if different else None
        student, teacher = pair.records(pair.student.hidden[mine], 1), pair.records(pair.teacher.hidden[theirs], 1)
        values = [dense.hidden(s, t, kind, matrix) for s, t in zip(student, teacher, strict=True)]
        each.append(dense.mean(values, pair.weights(case["positions"])))
    same(term(pair.positions), torch.stack(each).mean(), [*pair.leaves, *learned.values()])


@given(case=cases(), kind=st.sampled_from(["kl", "mse"]), heads=st.sampled_from(["match", "mean"]))
@settings(max_examples=60, deadline=None)
def test_attention_is_its_definition(case: dict[str, Any], kind: str, heads: str) -> None:
    import torch

    pair = Pair(case)
    params = {"layers": case["map"], "kind": kind, "heads": heads, "positions": case["positions"]}
    term, learned = pair.bound("attention", params)
    assert not learned
    each = []
    for mine, theirs in resolved(case).items():
        sides = []
        for one in (pair.student.heads[mine], pair.teacher.heads[theirs]):
            parts = zip(pair.records(one.query, 2), pair.records(one.key, 2), strict=True)
            sides.append([dense.scores(query, key, one.scale) for query, key in parts])
        values = [dense.attention(s, t, kind, heads, pair.causal) for s, t in zip(*sides, strict=True)]
        each.append(dense.mean(values, pair.weights(case["positions"])))
    same(term(pair.positions), torch.stack(each).mean(), pair.leaves)


@given(
    case=cases(),
    parts=st.lists(st.sampled_from(PART), min_size=1, max_size=3, unique=True),
    count=st.sampled_from([0, 1, 2, 4]),
    apart=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_relation_is_its_definition(case: dict[str, Any], parts: list[str], count: int, apart: bool) -> None:
    import torch

    if apart:  # Other heads than the student's, of another size.
        case = {**case, "heads": (case["heads"][0], (3, 1, 8))}
    pair = Pair(case)
    term, learned = pair.bound(
        "relation", {"layers": case["map"], "parts": parts, "heads": count, "positions": case["positions"]}
    )
    assert not learned
    each = []
    for mine, theirs in resolved(case).items():
        for part in parts:
            student, teacher = (
                pair.records(getattr(one, part), 2) for one in (pair.student.heads[mine], pair.teacher.heads[theirs])
            )
            heads = count or case["heads"][0][0]
            values = [dense.relation(s, t, heads, pair.causal) for s, t in zip(student, teacher, strict=True)]
            each.append(dense.mean(values, pair.weights(case["positions"])))
    same(term(pair.positions), torch.stack(each).mean(), pair.leaves)


CASE: dict[str, Any] = {
    "seed": 1,
    "lengths": [3, 5],
    "causal": True,
    "depths": (2, 4),
    "widths": (6, 10),
    "heads": ((2, 1, 4), (4, 2, 8)),
}


@pytest.mark.parametrize(
    ("name", "params", "says"),
    [
        ("hidden", {"layers": {3: 1}}, r"student \(Model\) has no layer 3: it has 2 layers, 0 being"),
        ("hidden", {"layers": {"1": 5}}, r"teacher \(Model\) has no layer 5: it has 4 layers"),
        ("attention", {"layers": {0: 1}}, r"no layer 0: it has 2 layers, and the embedding output has no attention"),
        ("attention", {}, r"2 heads and layer 2 of the teacher 4.*heads: mean"),
        ("relation", {"heads": 3}, r"3 relation heads do not divide the student's query width of 8"),
        ("relation", {"heads": 8, "parts": ["query"], "layers": {3: 1}}, "no layer 3"),
    ],
)
def test_layers_and_heads_that_are_not_there_are_named(name: str, params: dict[str, Any], says: str) -> None:
    pair = Pair(CASE)
    with pytest.raises(TrainingError, match=says) as caught:
        pair.bound(name, params)
    assert caught.value.place.startswith(f"training.objective.{name}.")


@pytest.mark.parametrize("name", ["attention", "relation"])
def test_attention_that_cannot_be_read_says_by_which_implementation(name: str) -> None:
    from dataclasses import replace

    pair = Pair(CASE)
    good, blind = pair.shape(pair.student), replace(pair.shape(pair.teacher), heads={}, attention="flash_attention_2")
    with pytest.raises(TrainingError, match="'flash_attention_2', and they can be read with sdpa or eager"):
        build(name, {}).bind(good, blind, None)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ("middle", "'middle' says no layers: give `uniform`, `last`"),
        ({}, "says no layers"),
        ({"a": 1}, "a: 1 are not two numbers"),
        ({1: True}, "1: True are not"),
        ({1: -1}, "1: -1 are not"),
    ],
)
def test_a_map_that_is_none_is_refused(layers: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        build("hidden", {"layers": layers})
    assert "hidden.layers" in caught.value.place


def test_uniform_maps_are_the_papers() -> None:
    """TinyBERT: every third of twelve; DistilBERT: every other one."""
    from distill_dagster.training.layer_map import resolve

    def uniform(mine: int, theirs: int) -> dict[int, int]:
        shapes: list[Any] = [SimpleNamespace(depth=depth, name="m") for depth in (mine, theirs)]
        return resolve("uniform", shapes[0], shapes[1], "hidden")

    assert uniform(4, 12) == {1: 3, 2: 6, 3: 9, 4: 12}
    assert uniform(6, 12) == {1: 2, 2: 4, 3: 6, 4: 8, 5: 10, 6: 12}
    assert uniform(2, 3) == {1: 2, 2: 3}
    assert uniform(3, 1) == {1: 1, 2: 1, 3: 1}
    assert uniform(4, 4) == {1: 1, 2: 2, 3: 3, 4: 4}
