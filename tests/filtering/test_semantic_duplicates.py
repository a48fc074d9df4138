"""Semantic duplicates: the pooling, the greedy choice, and the rule with a real encoder folder."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import distill_dagster.domains.finance as finance
from distill_dagster.config.models import Block
from distill_dagster.errors import ModelError
from distill_dagster.filtering import engine, semantic_duplicate
from distill_dagster.filtering.semantic_duplicate import encode, nearest_kept

pytestmark = pytest.mark.needs_torch
ENCODER = Path(finance.__file__).parent / "models" / "student_base"


@settings(max_examples=60)
@given(
    seed=st.integers(0, 1000), count=st.integers(1, 60), threshold=st.floats(0.3, 0.99), anchors=st.integers(0, 60),
    block=st.sampled_from([1, 3, 7, 512]),
)  # fmt: skip
def test_the_choice_is_greedy_in_order(seed, count, threshold, anchors, block):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    keys = rng.integers(0, 2, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(semantic_duplicate, "BLOCK", block)
        twins, scores = nearest_kept(vectors, keys, threshold, anchors)
    kept: list[int] = []
    for row in range(count):
        near = [(float(vectors[row] @ vectors[other]), other) for other in kept if keys[other] == keys[row]]
        best = max(near, default=(-1.0, -1), key=lambda pair: pair[0])
        if best[0] >= threshold - 1e-6:
            assert scores[row] == pytest.approx(best[0], abs=1e-6) and twins[row] in kept
        else:
            assert twins[row] == -1
            if row < anchors:
                kept.append(row)


def test_a_vector_is_the_mean_of_the_text_s_own_tokens():
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = ["I lost my card.", "Where is the transfer that I sent on Monday to my landlord?", "a", "I lost my card."]
    vectors = encode(texts, ENCODER, batch_size=3)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5) and (vectors[0] == vectors[3]).all()
    tokenizer = AutoTokenizer.from_pretrained(str(ENCODER))
    model = AutoModel.from_pretrained(str(ENCODER), dtype=torch.float32).eval()
    for text, vector in zip(texts, vectors, strict=True):
        with torch.inference_mode():
            state = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).numpy()
        assert np.allclose(vector, state / np.linalg.norm(state), atol=1e-4)


def test_the_rule_keeps_the_first_and_never_joins_other_figures(make, candidate):
    texts = [
        "Please send 20 euros to my landlord.",
        "Please send 20 euros to my landlord!",
        "Please send 30 euros to my landlord.",
    ]
    table, context = make([candidate(at, text) for at, text in enumerate(texts)])
    block = {"name": "semantic_duplicate", "encoder": str(ENCODER), "threshold": 0.9}
    outcome = engine.run(table, [Block.model_validate(block)], "first", context)
    assert outcome.kept == [0, 2] and outcome.duplicates.to_pylist()[0]["kept_no"] == 0
    loose = engine.run(table, [Block.model_validate({**block, "numbers": "words"})], "all", context)
    assert loose.kept == [0]


def test_the_encoder_is_part_of_what_the_rule_depends_on(tmp_path):
    shutil.copytree(ENCODER, tmp_path / "encoder")
    blocks = [Block.model_validate({"name": "semantic_duplicate", "encoder": "encoder"}), Block(name="length")]
    before = engine.outside(blocks, tmp_path)
    assert list(before) == ["semantic_duplicate"] and engine.outside([Block(name="length")]) == {}
    config = tmp_path / "encoder" / "config.json"
    config.write_text(config.read_text().replace("{", "{ ", 1))
    assert engine.outside(blocks, tmp_path) != before
    (tmp_path / "encoder" / "weights.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="pickled"):
        engine.outside(blocks, tmp_path)
    with pytest.raises(ModelError, match="no such model folder"):
        engine.outside(blocks, tmp_path / "nowhere")
