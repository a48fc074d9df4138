"""Preference losses beside TRL's: the same pairs, weights and reference; values, rewards and gradients have to agree.

    make bench-preference

Ours runs in `.venv`, TRL in `benchmarks/.venv-trl`, or with the Python that DISTILL_TRL_PYTHON names. TRL gets the
conversations, not token ids, so how text becomes tokens and which of them count is compared as well. The peers are the
stable `DPOTrainer` (sigmoid and ipo) and `trl.experimental.cpo`'s `CPOTrainer` (simpo), which is imported here alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CASES: dict[str, dict[str, Any]] = {
    "dpo sigmoid": {"dpo": {"beta": 0.3}},
    "dpo ipo": {"dpo": {"beta": 0.4, "loss": "ipo"}},
    "dpo sigmoid + sft": {"dpo": {"beta": 0.1}, "sft": 0.5},
    "simpo": {"simpo": {"beta": 2.0, "gamma": 0.6}},
}
#: Largest relative difference that counts as the same numbers: both compute in fp32.
TOLERANCE = 1e-4


# --- the peer -------------------------------------------------------------------------------------------------------


def peer(folder: Path) -> None:
    """One batch of every case through TRL's trainers; writes `trl.json` and a file of gradients a case."""
    import torch
    import trl
    from datasets import Dataset
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text("utf-8").splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(folder / "start")
    found: dict[str, Any] = {"version": trl.__version__, "cases": {}}
    common: dict[str, Any] = {
        "output_dir": str(folder / "trl"),
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "per_device_train_batch_size": len(pairs),
        "gradient_checkpointing": False,
        "max_length": 512,
        "disable_tqdm": True,
    }
    for name, terms in CASES.items():
        model = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32)
        data: Any = Dataset.from_list(pairs)
        if "simpo" in terms:
            from trl.experimental.cpo import CPOConfig, CPOTrainer

            said = terms["simpo"]
            options = CPOConfig(
                **common, loss_type="simpo", cpo_alpha=0.0, beta=said["beta"], simpo_gamma=said["gamma"]
            )
            trainer: Any = CPOTrainer(model=model, args=options, train_dataset=data, processing_class=tokenizer)
        else:
            said = terms["dpo"]
            kinds, weights = [said.get("loss", "sigmoid")], [1.0]
            if "sft" in terms:
                kinds, weights = [*kinds, "sft"], [*weights, terms["sft"]]
            options = trl.DPOConfig(**common, loss_type=kinds, loss_weights=weights, beta=said["beta"])
            start = AutoModelForCausalLM.from_pretrained(folder / "start", dtype=torch.float32)
            trainer = trl.DPOTrainer(
                model=model, ref_model=start, args=options, train_dataset=data, processing_class=tokenizer
            )
        trainer.model.eval()  # no dropout; the gradient is taken all the same
        (batch,) = list(trainer.get_train_dataloader())
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        told = {**getattr(trainer, "_metrics", {}).get("eval", {})}
        for kept in getattr(trainer, "_stored_metrics", {}).values():
            told |= kept
        measures = {
            key: sum(values) / len(values) for key, values in told.items() if key.startswith(("rewards", "logps"))
        }
        found["cases"][name] = {"loss": loss.item(), **measures}
        gradients = {key: part.grad for key, part in trainer.model.named_parameters() if part.grad is not None}
        save_file({key: part.contiguous() for key, part in gradients.items()}, folder / f"{name}.safetensors")
    (folder / "trl.json").write_text(json.dumps(found), encoding="utf-8")


# --- ours -----------------------------------------------------------------------------------------------------------


def prepare(folder: Path) -> None:
    """A start, a policy that is not the start, and pairs."""
    import torch

    from distill_dagster.models import folder as folders
    from distill_dagster.training import presets, tokenizer

    words = tokenizer.fit([], "bytes", folder / "tokenizer")
    start = presets.build("nano", words, 3)
    folders.save(start, words, folder / "start", "fp32")
    made = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for part in start.parameters():
            part += 0.02 * torch.randn(part.shape, generator=made)
    folders.save(start, words, folder / "policy", "fp32")
    rng = random.Random(4)

    def word() -> str:
        return "".join(rng.choices("abcdefgh ", k=rng.randint(1, 30))).strip() or "a"

    lines = []
    for number in range(12):
        prompt = [{"role": "user", "content": f"{number} {word()}"}]
        both = [[{"role": "assistant", "content": word()}] for _ in range(2)]
        lines.append(json.dumps({"prompt": prompt, "chosen": both[0], "rejected": both[1]}) + "\n")
    (folder / "pairs.jsonl").write_text("".join(lines), "utf-8")


def ours(folder: Path, terms: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """One batch of a case through our objectives: loss with measures, and gradients."""
    import torch

    from distill_dagster.config.models import Recipe
    from distill_dagster.models import folder as folders
    from distill_dagster.training import metrics, reference
    from distill_dagster.training.forward import Forward
    from distill_dagster.training.objectives.base import build
    from distill_dagster.training.pairs import Pair, encode_pairs

    torch.set_num_threads(1)
    start, tokenizer = folders.load_model(folder / "start"), folders.load_tokenizer(folder / "start")
    policy = folders.load_model(folder / "policy")
    given = [json.loads(line) for line in (folder / "pairs.jsonl").read_text("utf-8").splitlines()]
    pairs = [
        Pair(f"p{at}", line["prompt"], line["chosen"][0]["content"], line["rejected"][0]["content"])
        for at, line in enumerate(given)
    ]
    examples = encode_pairs(tokenizer, pairs, 512).examples
    recipe = Recipe(objective=terms)
    positions = Forward(policy)(examples, int(tokenizer.pad_token_id or 0))  # pyright: ignore
    sources = reference.wanted(start, tokenizer, examples, recipe, folder)
    positions.signals = {source.name: source(examples, positions) for source in sources}
    loss: Any = sum(weight * build(name, params)(positions) for name, (weight, params) in recipe.terms.items())
    loss.backward()
    gradients = {key: part.grad for key, part in policy.named_parameters() if part.grad is not None}
    return {"loss": loss.item(), **metrics.numbers([positions.measures])[0]}, gradients


def apart(one: float, other: float) -> float:
    """Relative difference."""
    return abs(one - other) / max(abs(other), 1e-12)


def compare(python: str, folder: Path) -> dict[str, Any]:
    """Largest relative difference of each number of each case, with the peer's version."""
    from safetensors.torch import load_file

    prepare(folder)
    quiet = {"TRL_EXPERIMENTAL_SILENCE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "PYTHONWARNINGS": "ignore"}
    quiet |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    environment = {**os.environ, **quiet, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    subprocess.run([python, str(HERE / "preference.py"), "--peer", str(folder)], check=True, env=environment)
    theirs = json.loads((folder / "trl.json").read_text("utf-8"))
    result: dict[str, Any] = {"version": theirs["version"], "cases": {}}
    for name, terms in CASES.items():
        found, gradients = ours(folder, terms)
        said, other = theirs["cases"][name], load_file(folder / f"{name}.safetensors")
        first = next(iter(terms))
        differences = {
            "loss": apart(found["loss"], said["loss"]),
            # A margin is a difference of rewards, and rounds as they do.
            "margin": abs(found[f"{first}_margin"] - said["rewards/margins"])
            / (abs(said["rewards/chosen"]) + abs(said["rewards/rejected"])),
            "accuracy": apart(found[f"{first}_accuracy"], said["rewards/accuracies"]),
        }
        if first == "dpo":  # CPOTrainer reports log-probabilities a token
            differences["chosen log-prob"] = apart(found["dpo_chosen_log_prob"], said["logps/chosen"])
            differences["rejected log-prob"] = apart(found["dpo_rejected_log_prob"], said["logps/rejected"])
        assert gradients.keys() == other.keys(), gradients.keys() ^ other.keys()
        gap = sum((gradients[key] - other[key]).square().sum().item() for key in other) ** 0.5
        differences["gradient"] = gap / sum(part.square().sum().item() for part in other.values()) ** 0.5
        result["cases"][name] = {"ours": found["loss"], "trl": said["loss"], "differences": differences}
    return result


def main() -> None:
    """Compare and print; exit status 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer is not None:
        return peer(options.peer)
    python = os.environ.get("DISTILL_TRL_PYTHON") or str(HERE / ".venv-trl" / "bin" / "python")
    if not Path(python).exists():
        raise SystemExit("the peer is not installed: `make bench-preference` makes its environment")
    with tempfile.TemporaryDirectory() as folder:
        result = compare(python, Path(folder))
    print(f"TRL {result['version']}; relative differences\n")
    worst = 0.0
    for name, case in result["cases"].items():
        told = "  ".join(f"{what} {value:.1e}" for what, value in case["differences"].items())
        print(f"{name:<20} ours {case['ours']:.6f}  trl {case['trl']:.6f}  {told}")
        worst = max(worst, *case["differences"].values())
    if worst > TOLERANCE:
        raise SystemExit(f"they differ by {worst:.1e}, more than {TOLERANCE:g}")


if __name__ == "__main__":
    main()
