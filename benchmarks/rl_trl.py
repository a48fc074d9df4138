"""The objective `grpo` beside the loss of TRL's stable `GRPOTrainer`, on the same batch: value and gradient must agree.

    PYTHONPATH=. PYTHON_WITH_TRL benchmarks/rl_trl.py

`PYTHON_WITH_TRL` is an interpreter that has this package's requirements and `trl`; TRL is no dependency. TRL's
`loss_type: bnpo` is our `mean: tokens`, its `grpo` our `mean: sequences`. Its `use_bias_correction_kl` weighs the
divergence by the ratio, which none of the papers does that ours follows, and is off. A random model, samples padded on
both sides by TRL and on the right by us, log-probabilities of another policy than the present one, with and without the
divergence from the reference. Prints a line a case, and exits with 1 where one differs by more than 1e-5, relative.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

GROUPS, GROUP, ALLOWED = 3, 4, 1e-5


def main() -> int:
    """Compare every case."""
    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer
    from trl import __version__ as version

    from distill_dagster.models import folder
    from distill_dagster.training import presets, tokenizer
    from distill_dagster.training.feeds._groups import advantages
    from distill_dagster.training.forward import Forward
    from distill_dagster.training.objectives.grpo import Objective
    from distill_dagster.training.own_samples import Rollout

    torch.set_num_threads(1)
    rng, worst = random.Random(3), 0.0
    with tempfile.TemporaryDirectory() as name:
        words = tokenizer.fit([], "bytes", Path(name) / "tokenizer")
        start = folder.save(presets.build("nano", words, 1), words, Path(name) / "start")
        prompts = [[rng.randrange(5, 260) for _ in range(rng.randint(3, 9))] for _ in range(GROUPS)]
        said = [[rng.randrange(5, 260) for _ in range(rng.randint(1, 7))] for _ in range(GROUPS * GROUP)]
        rewards = [float(rng.random() < 0.5) for _ in said]
        groups = [number // GROUP for number in range(len(said))]
        old, reference = ([[rng.gauss(-5.5, 0.4) for _ in one] for one in said] for _ in range(2))
        for mean, temperature, kl, std in itertools.product(
            ("tokens", "sequences"), (1.0, 0.7), (0.0, 0.04), (True, False)
        ):
            gains = advantages(groups, rewards, std)
            examples = [
                Rollout(
                    f"r{at}",
                    prompts[groups[at]] + one,
                    [0.0] * len(prompts[groups[at]]) + [1.0 if mean == "tokens" else 1 / len(one)] * len(one),
                    old=tuple(old[at]),
                    reference=tuple(reference[at]),
                    advantage=gains[at],
                )
                for at, one in enumerate(said)
            ]
            found: list[list[Any]] = []
            ours = presets.build("nano", words, 1)
            own = Objective.Params(mean=mean, kl=kl, std=std, sampling_temperature=temperature, clip_high=0.28)  # pyright: ignore
            loss = Objective(own)(Forward(ours)(list(examples), 0))
            loss.backward()
            found.append([loss.detach(), *(one.grad for one in ours.parameters())])
            theirs = folder.load_model(start)
            config = GRPOConfig(
                output_dir=str(Path(name) / "trl"),
                loss_type="bnpo" if mean == "tokens" else "grpo",
                beta=kl,
                temperature=temperature,
                epsilon=0.2,
                epsilon_high=0.28,
                use_bias_correction_kl=False,
                num_generations=GROUP,
                per_device_train_batch_size=GROUP,
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                report_to=[],
            )
            trainer = GRPOTrainer(
                model=theirs,
                reward_funcs=lambda completions, **_: [0.0] * len(completions),
                args=config,
                train_dataset=Dataset.from_list([{"prompt": "x"}] * 4),
                processing_class=words,
            )
            trainer.current_gradient_accumulation_steps = 1
            trainer.model.train()
            left = padded([prompts[group] for group in groups], left=True)
            right = padded(said)
            inputs = {
                "prompt_ids": left[0].long(),
                "prompt_mask": left[1].long(),
                "completion_ids": right[0].long(),
                "completion_mask": right[1].long(),
                "advantages": torch.tensor(gains),
                "old_per_token_logps": padded(old)[0],
                "ref_per_token_logps": padded(reference)[0],
                "num_items_in_batch": right[1].sum(),
            }
            loss = trainer._compute_loss(trainer.model, inputs)
            loss.backward()
            found.append([loss.detach(), *(one.grad for one in theirs.parameters())])
            apart = max(float((a - b).norm() / b.norm().clamp(min=1e-6)) for a, b in zip(*found, strict=True))
            worst = max(worst, apart)
            case = f"mean {mean}, temperature {temperature}, kl {kl}, std {std}"
            print(f"{case}: ours {float(found[0][0]):+.7f}, TRL {float(found[1][0]):+.7f}, apart {apart:.1e}")
    peer = {"peer": ALLOWED, "peer_name": "TRL GRPOTrainer", "peer_version": version}
    line = {"name": "grpo loss and gradient", "ours": worst, **peer, "ratio": round(ALLOWED / max(worst, 1e-12), 2)}
    print(json.dumps({**line, "unit": "largest relative difference; peer is what is allowed"}))
    return int(worst > ALLOWED)


def padded(rows: list[list[Any]], left: bool = False) -> tuple[Any, Any]:
    """Rows as one tensor, padded with 0, and where they stand."""
    import torch

    width = max(map(len, rows))
    values, mask = torch.zeros(len(rows), width), torch.zeros(len(rows), width)
    for at, row in enumerate(rows):
        part = slice(width - len(row), None) if left else slice(len(row))
        values[at, part], mask[at, part] = torch.tensor(row, dtype=torch.float32), 1.0
    return values, mask


if __name__ == "__main__":
    sys.exit(main())
