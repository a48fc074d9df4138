import pytest

from distill_dagster.errors import ConfigError
from distill_dagster.training import presets

#: The first weights of nano at seed 7, drawn by Philox from a key that is a SHA-256: alike on every machine.
EMBEDDING = [-0.05020381510257721, -0.037537313997745514, 0.002487338613718748]


def test_a_micro_student_is_at_most_a_quarter_of_a_mini_teacher() -> None:
    micro, mini = presets.find("micro").parameters(2048), presets.find("preset:mini").parameters(2048)
    assert micro / mini <= 0.25
    assert 100_000 < presets.find("nano").parameters(512) < 200_000
    assert 8_000_000 < presets.find("small").parameters(2048) < 12_000_000


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'mini'"):
        presets.find("preset:mimi")


@pytest.mark.needs_torch
@pytest.mark.parametrize("name", sorted(presets.PRESETS))
def test_the_count_is_that_of_the_model(name: str, tokenizer) -> None:
    model = presets.build(name, tokenizer, 0, ["no", "yes"])
    assert sum(p.numel() for p in model.parameters()) == presets.find(name).parameters(len(tokenizer))


@pytest.mark.needs_torch
def test_an_encoder_depends_on_seed_and_name_only_and_needs_labels(tokenizer) -> None:
    import torch

    torch.manual_seed(1)
    one = presets.build("encoder_tiny", tokenizer, 7, ["a", "b", "c"])
    torch.manual_seed(2)
    two = presets.build("encoder_tiny", tokenizer, 7, ["a", "b", "c"])
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert one.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert presets.is_encoder("preset:encoder_tiny") and not presets.is_encoder("nano")
    with pytest.raises(ConfigError, match="a classifier needs at least two labels, and there are 0"):
        presets.build("encoder_tiny", tokenizer)


@pytest.mark.needs_torch
def test_initial_weights_depend_on_seed_and_name_only(tokenizer) -> None:
    import torch

    torch.manual_seed(1)
    one = presets.build("nano", tokenizer, 7)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    two = presets.build("nano", tokenizer, 7)
    assert torch.equal(before, torch.get_rng_state())
    other = presets.build("nano", tokenizer, 8)
    for (name, first), second, third in zip(one.named_parameters(), two.parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second), name
        assert first.dim() == 1 or not torch.equal(first, third), name
    assert one.model.embed_tokens.weight[0, :3].tolist() == pytest.approx(EMBEDDING, rel=1e-6)
    spread = {key: value.std().item() for key, value in one.named_parameters() if value.dim() == 2}
    assert spread["model.embed_tokens.weight"] == pytest.approx(0.02, rel=0.05)
    assert spread["model.layers.0.self_attn.q_proj.weight"] == pytest.approx(64**-0.5, rel=0.05)
    assert spread["model.layers.1.mlp.down_proj.weight"] == pytest.approx(128**-0.5 / 2, rel=0.05)
    assert one.lm_head.weight is one.model.embed_tokens.weight
