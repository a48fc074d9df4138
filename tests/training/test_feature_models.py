"""Terms about layers in real models: padded, packed, alone and beside other terms, in one forward pass."""

from typing import Any

import dense_layers as dense
import pytest
from test_layers import CAUSAL, MODELS, bert, made
from test_loss_paths import EXAMPLES, llama

from distill_dagster.training.data import Example
from distill_dagster.training.objectives.base import build

pytestmark = pytest.mark.needs_torch


class Live:
    """A teacher model in memory, as `LiveTeacher` is one of a folder."""

    name = "live"

    def __init__(self, model: Any) -> None:
        from distill_dagster.training.forward import Forward

        self.forward = Forward(model)

    def __call__(self, examples: list[Example], positions: Any) -> Any:
        import torch

        from distill_dagster.training.signals.live import LiveBatch

        with torch.no_grad():
            return LiveBatch(self.forward(examples, 0), 64)


def run(student: Any, teacher: Any, terms: dict[str, dict[str, Any]], examples: list[Example]) -> tuple[Any, Any]:
    """Value of each term and everything learned beside the student."""
    from distill_dagster.training import features
    from distill_dagster.training.forward import Forward

    forward, live = Forward(student), Live(teacher)
    built = {name: (1.0, build(name, params)) for name, params in terms.items()}
    learned = features.bind(built, forward, [live], 0)
    positions = forward(examples, 0)
    positions.signals = {"live": live(examples, positions)}
    return {name: term(positions) for name, (_, term) in built.items()}, learned


def teacher_of(name: str) -> Any:
    import torch

    torch.manual_seed(7)
    if name == "llama":
        model = llama(num_hidden_layers=4, hidden_size=48, num_attention_heads=4, num_key_value_heads=4)
    else:
        model = MODELS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2 if parameter.dim() > 1 else 1)
    return model.eval()


TERMS: dict[str, dict[str, Any]] = {
    "hidden": {"layers": {0: 0, 1: 2, 2: 4}},
    "attention": {"kind": "kl"},
    "relation": {"parts": ["query", "key", "value"]},
}


def gradient(model: Any, value: Any) -> Any:
    import torch

    found = torch.autograd.grad(value, list(model.parameters()), allow_unused=True, retain_graph=True)
    pairs = zip(model.parameters(), found, strict=True)
    return torch.cat([(torch.zeros_like(own) if one is None else one).flatten() for own, one in pairs])


@pytest.mark.parametrize("which", ["all", "answer"])
def test_a_padded_batch_equals_records_alone_in_float64(which: str) -> None:
    """The whole way, model included: nothing of padding or of another record gets in."""
    import copy

    import torch
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    student, teacher = made("llama"), teacher_of("llama")
    terms = {name: {**params, "positions": which} for name, params in TERMS.items()}
    ours, learned = run(student, teacher, terms, EXAMPLES)
    doubles = [copy.deepcopy(model).double() for model in (student, teacher)]
    for model in doubles:
        model.set_attn_implementation("eager")
    values: dict[str, list[Any]] = {"hidden": [], "attention": [], "relation": []}
    weights: list[Any] = []
    for example in EXAMPLES:
        said = []
        for model in doubles:
            out = model(input_ids=torch.tensor([example.ids]), output_hidden_states=True, output_attentions=True)
            last, config = model.model.layers[-1], model.config
            # The last block's parts, from the states before it, as the library computes them.
            normed = last.input_layernorm(out.hidden_states[-2])
            parts = [
                layer(normed).unflatten(-1, (-1, last.self_attn.head_dim)).transpose(1, 2)
                for layer in (last.self_attn.q_proj, last.self_attn.k_proj, last.self_attn.v_proj)
            ]
            angles = model.model.rotary_emb(normed, torch.arange(len(example.ids))[None])
            query, key = apply_rotary_pos_emb(parts[0], parts[1], *angles)
            assert config.num_attention_heads == query.shape[1]
            said.append((out, [query[0], key[0], parts[2][0]]))
        (mine, mine_parts), (theirs, theirs_parts) = said
        each = [
            dense.hidden(
                mine.hidden_states[a][0],
                theirs.hidden_states[b][0].detach(),
                "mse",
                learned[f"objective.hidden.projection.{a}"].double(),
            )
            for a, b in TERMS["hidden"]["layers"].items()
        ]
        values["hidden"].append(sum(each) / 3)
        # What is not seen is 0 in both, and counts for nothing.
        both = [(theirs.attentions[b - 1][0].detach(), mine.attentions[a - 1][0]) for a, b in ((1, 2), (2, 4))]
        maps = [dense.rows_kl(p.log(), torch.where(q > 0, q, 1.0).log()) for p, q in both]
        values["attention"].append(sum(one.mean(0) for one in maps) / 2)
        each = [dense.relation(s, t.detach(), 4, True) for s, t in zip(mine_parts, theirs_parts, strict=True)]
        values["relation"].append(sum(each) / 3)
        predicts = torch.tensor([*example.weights[1:], 0.0], dtype=torch.float64)
        weights.append(torch.ones(len(example.ids), dtype=torch.float64) if which == "all" else predicts)
    for name, value in ours.items():
        expected = dense.mean(values[name], weights)
        assert value.item() == pytest.approx(expected.item(), rel=1e-5), name
        one, other = gradient(student, value), gradient(doubles[0], expected)
        assert (one - other).norm() <= 1e-5 * other.norm(), name


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("which", ["all", "answer"])
def test_a_student_like_its_teacher_has_nothing_to_learn(name: str, which: str) -> None:
    model = made(name)
    terms = {"hidden": {"layers": "uniform"}, "attention": {}, "relation": {"layers": "uniform"}}
    terms = {term: {**params, "positions": which} for term, params in terms.items()}
    found, learned = run(model, model, terms, EXAMPLES)
    assert not learned
    for term, value in found.items():
        assert abs(value.item()) <= 1e-6, term
        assert gradient(model, value).norm() <= 1e-4
    cosine, _ = run(model, model, {"hidden": {"kind": "cosine"}}, EXAMPLES)
    assert abs(cosine["hidden"].item()) <= 1e-6


@pytest.mark.parametrize("which", ["all", "answer"])
def test_padding_changes_nothing(which: str) -> None:
    """A batch is the mean of its records, each alone, by what each term counts."""
    student, teacher = made("llama"), teacher_of("llama")
    terms = {name: {**params, "positions": which} for name, params in TERMS.items()}
    together, _ = run(student, teacher, terms, EXAMPLES)
    apart = [run(student, teacher, terms, [example])[0] for example in EXAMPLES]
    for name, value in together.items():
        counts = [build(name, terms[name]).units([example]) for example in EXAMPLES]
        assert counts == ([7, 4, 9] if which == "all" else [3, 2, 1])
        mean = sum(one[name].item() * count for one, count in zip(apart, counts, strict=True)) / sum(counts)
        assert value.item() == pytest.approx(mean, rel=1e-5)


def test_terms_hold_for_encoders_too() -> None:
    """A classifier sees both ways and no padding; its records alone give the batch's mean."""
    from types import SimpleNamespace

    import torch

    from distill_dagster.training import layers
    from distill_dagster.training.objectives.base import Positions

    student, teacher = made("bert"), bert().eval()
    terms = {"hidden": {}, "attention": {}, "relation": {}}
    shapes = layers.shape(student), layers.shape(teacher)

    def values(examples: list[Example]) -> dict[str, float]:
        length = max(len(example.ids) for example in examples)
        ids = torch.zeros(len(examples), length, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, example in enumerate(examples):
            ids[row, : len(example.ids)], mask[row, : len(example.ids)] = torch.tensor(example.ids), 1
        found = {}
        for name, params in terms.items():
            term = build(name, params)
            sides = []
            for model, watch in zip((student, teacher), term.bind(*shapes, None), strict=True):
                with layers.recording(model, watch) as kept:
                    model(input_ids=ids, attention_mask=mask)
                sides.append(kept.weigh(examples, length))
            one = torch.ones(len(examples))
            signals = {"live": SimpleNamespace(said=SimpleNamespace(layers=sides[1]))}
            positions = Positions(
                one[:, None], one.long(), one, one.long(), examples, abs, None, signals, layers=sides[0]
            )
            found[name] = term(positions).item()
        return found

    together, apart = values(EXAMPLES), [values([example]) for example in EXAMPLES]
    for name in terms:
        mean = sum(one[name] * len(example.ids) for one, example in zip(apart, EXAMPLES, strict=True)) / 20
        assert together[name] == pytest.approx(mean, rel=1e-5) and together[name] > 0


def test_records_packed_into_one_row_give_the_same() -> None:
    import torch

    from distill_dagster.training import features, layers
    from distill_dagster.training.forward import Forward

    student, teacher = made("llama"), teacher_of("llama")
    padded, _ = run(student, teacher, TERMS, EXAMPLES)
    forward, live = Forward(student), Live(teacher)
    built = {name: (1.0, build(name, params)) for name, params in TERMS.items()}
    features.bind(built, forward, [live], 0)
    ids = torch.tensor([[token for example in EXAMPLES for token in example.ids]])
    places = torch.tensor([[place for example in EXAMPLES for place in range(len(example.ids))]])
    sides = []
    for model, watch in ((student, forward.watch), (teacher, live.forward.watch)):
        with layers.recording(model, watch) as kept:
            model(input_ids=ids, position_ids=places, use_cache=False)
        kept.weights = torch.ones(ids.shape)
        sides.append(kept)
    positions = forward(EXAMPLES, 0)
    positions.layers = sides[0]
    from types import SimpleNamespace

    positions.signals = {"live": SimpleNamespace(said=SimpleNamespace(layers=sides[1]))}
    for name, (_, term) in built.items():
        assert term(positions).item() == pytest.approx(padded[name].item(), rel=1e-5), name


@pytest.mark.parametrize("name", CAUSAL)
def test_other_terms_keep_their_values(name: str) -> None:
    import torch

    from distill_dagster.training.forward import Forward

    student = made(name)
    terms: dict[str, Any] = {"sft": {}, "divergence": {"signals": "live", "k": 0}}
    beside = terms | {"hidden": {}, "attention": {}, "relation": {"heads": 2}}
    teacher = teacher_of("llama" if name == "llama" else name)
    alone, _ = run(student, teacher, terms, EXAMPLES)
    both, _ = run(student, teacher, beside, EXAMPLES)
    for term in terms:
        assert both[term].item() == pytest.approx(alone[term].item(), rel=1e-5)
        one, other = gradient(student, both[term]), gradient(student, alone[term])
        assert (one - other).norm() <= 1e-5 * other.norm()
    assert Forward(student)(EXAMPLES, 0).layers is None
    assert torch.isfinite(both["hidden"])


def test_there_is_one_forward_pass() -> None:
    student, teacher = made("llama"), teacher_of("llama")
    counts = {"student": 0, "teacher": 0}

    def counted(who: str) -> Any:
        def count(*_: Any) -> None:
            counts[who] += 1

        return count

    from distill_dagster.training import features
    from distill_dagster.training.forward import Forward

    forward, live = Forward(student), Live(teacher)
    terms = {"sft": {}, "divergence": {"signals": "live", "k": 0}, **TERMS}
    built = {name: (1.0, build(name, params)) for name, params in terms.items()}
    features.bind(built, forward, [live], 0)
    live(EXAMPLES, forward(EXAMPLES, 0))  # Both choose their way on their first batch.
    for who, model in (("student", student), ("teacher", teacher)):
        model.model.layers[0].register_forward_hook(counted(who))
    positions = forward(EXAMPLES, 0)
    positions.signals = {"live": live(EXAMPLES, positions)}
    for _, term in built.values():
        term(positions)
    assert counts == {"student": 1, "teacher": 1}


def test_a_record_of_more_weight_counts_for_more() -> None:
    student, teacher = made("llama"), teacher_of("llama")
    heavy = Example("a", EXAMPLES[0].ids, [2.0 * weight for weight in EXAMPLES[0].weights])
    once, _ = run(student, teacher, TERMS, [heavy, EXAMPLES[1]])
    twice, _ = run(student, teacher, TERMS, [EXAMPLES[0], EXAMPLES[0], EXAMPLES[1]])
    for name in TERMS:
        assert once[name].item() == pytest.approx(twice[name].item(), rel=1e-5)
