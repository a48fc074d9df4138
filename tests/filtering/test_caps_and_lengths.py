"""Source caps and length bias against their definitions, computed here another way."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill_dagster.config.models import Block
from distill_dagster.errors import ConfigError, DistillError
from distill_dagster.filtering import engine

relaxed = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def run(make, rows, seeds, *blocks, mode="first"):
    table, context = make(rows, seeds)
    return engine.run(table, [Block.model_validate(block) for block in blocks], mode, context)


def of_sources(candidate, seed, sources):
    rows = [candidate(at, f"question {at}") for at in range(len(sources))]
    return rows, [seed(at, f"question {at}", source_id=name, licence="MIT") for at, name in enumerate(sources)]


sources = st.lists(st.sampled_from("aaabbcd"), min_size=1, max_size=40)


@relaxed
@given(sources=sources, most=st.integers(1, 12))
def test_a_cap_keeps_that_many_of_each(make, candidate, seed, sources, most):
    rows, seeds = of_sources(candidate, seed, sources)
    outcome = run(make, rows, seeds, {"name": "source_cap", "most": most})
    kept = Counter(sources[number] for number in outcome.kept)
    assert kept == {name: min(count, most) for name, count in Counter(sources).items()}
    # The choice is of the records, not of their order.
    table, context = make(rows, seeds)
    again = engine.run(
        table.take(list(reversed(range(len(rows))))),
        [Block.model_validate({"name": "source_cap", "most": most})],
        "all",
        context,
    )
    assert sorted(again.kept) == outcome.kept


@relaxed
@given(sources=sources, share=st.floats(0.05, 0.95))
def test_a_share_holds_and_no_larger_cap_would(make, candidate, seed, sources, share):
    rows, seeds = of_sources(candidate, seed, sources)
    sizes = Counter(sources)

    def fits(cap):
        return cap <= share * sum(min(size, cap) for size in sizes.values()) + 1e-9

    caps = [cap for cap in range(1, max(sizes.values()) + 1) if fits(cap)]
    if not caps:
        with pytest.raises(DistillError, match="cannot hold"):
            run(make, rows, seeds, {"name": "source_cap", "share": share})
        return
    outcome = run(make, rows, seeds, {"name": "source_cap", "share": share})
    kept = Counter(sources[number] for number in outcome.kept)
    assert kept == {name: min(size, max(caps)) for name, size in sizes.items()}
    assert max(kept.values()) <= share * sum(kept.values()) + 1e-9


def test_one_more_record_displaces_one_at_most(make, candidate, seed):
    rows, seeds = of_sources(candidate, seed, "a" * 30)
    block = {"name": "source_cap", "most": 10}
    before = set(run(make, rows[:29], seeds[:29], block).kept)
    after = set(run(make, rows, seeds, block).kept)
    assert len(before - after) <= 1 and len(after - before) <= 1
    other = set(run(make, rows, seeds, {**block, "salt": "another"}).kept)
    assert len(other) == 10 and other != after


def test_what_was_dropped_before_takes_no_place(make, candidate, seed):
    rows, seeds = of_sources(candidate, seed, "a" * 12)
    for row in rows[:6]:
        row["finish_reason"] = "length"
    blocks = ({"name": "truncation"}, {"name": "source_cap", "most": 6})
    for mode in ("first", "all"):
        assert run(make, rows, seeds, *blocks, mode=mode).kept == list(range(6, 12))


def test_other_columns_and_unknown_values_are_capped(make, candidate, seed):
    rows = [candidate(at, f"question {at}", "other" if at < 5 else "card_fee") for at in range(7)]
    seeds = [seed(at, f"question {at}", licence="MIT" if at % 2 else None) for at in range(7)]
    assert len(run(make, rows, seeds, {"name": "source_cap", "by": "answer", "most": 1}).kept) == 2
    assert len(run(make, rows, seeds, {"name": "source_cap", "by": "licence", "most": 1}).kept) == 2
    assert len(run(make, rows, seeds, {"name": "source_cap", "most": 3}).kept) == 3
    with pytest.raises(ConfigError, match="`most`, `share`"):
        run(make, rows, seeds, {"name": "source_cap"})


def gold(seed, sizes, task="sum"):
    return [
        {**seed(100 + at, f"gold {at}", task=task, part="gold"), "answer": "word " * size}
        for at, size in enumerate(sizes)
    ]


@relaxed
@given(
    sizes=st.lists(st.integers(0, 40), min_size=5, max_size=40),
    answers=st.lists(st.integers(0, 200), min_size=1, max_size=10),
    z=st.floats(0.5, 6),
)
def test_scores_are_the_modified_z_score(make, candidate, seed, sizes, answers, z):
    rows = [candidate(at, f"q {at}", "word " * size or "-", task="sum") for at, size in enumerate(answers)]
    outcome = run(make, rows, gold(seed, sizes), {"name": "length_bias", "least": 5, "z": z})
    logs = np.log1p(np.array(sizes, float))
    off = np.abs(logs - np.median(logs))
    spread = np.median(off) / 0.6745 if np.median(off) else 1.2533 * off.mean()
    for size, row in zip(answers, outcome.decisions.to_pylist(), strict=True):
        (look,) = row["looks"]
        if spread == 0:
            assert (look["verdict"], look["reason"]) == ("keep", "no_spread")
            continue
        score = (np.log1p(size) - np.median(logs)) / spread
        assert look["score"] == pytest.approx(score, abs=1e-9)
        if abs(abs(score) - z) > 1e-9:
            wanted = "keep" if abs(score) < z else "drop"
            assert look["verdict"] == wanted
            assert look["reason"] == (None if wanted == "keep" else "too_long" if score > 0 else "too_short")


def test_lengths_are_judged_only_where_people_wrote_prose(make, candidate, seed):
    long = "word " * 500
    rows = [candidate(0, "a", long, task="sum"), candidate(1, "b", "other", task="route")]
    few = gold(seed, range(8, 12))
    looks = [row["looks"][0]["reason"] for row in run(make, rows, few, {"name": "length_bias"}).decisions.to_pylist()]
    assert looks == ["few_gold", "label"]
    many = gold(seed, list(range(5, 30)))
    unlabeled = [{**row, "part": "unlabeled", "seed_no": row["seed_no"] + 50} for row in many[:3]]
    assert run(make, rows, many + unlabeled, {"name": "length_bias"}).funnel == {"length_bias.too_long": 1}
    flagged = run(make, rows, many, {"name": "length_bias", "action": "flag"})
    assert flagged.kept == [0, 1] and flagged.decisions.to_pylist()[0]["looks"][0]["reason"] == "too_long"
