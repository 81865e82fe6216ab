"""The moving average of the weights beside the last weights, of the same trainings on digits.

    python benchmarks/ema.py [--steps 3000] [--ema 0.999] [--seeds 3]

Twenty minutes on one core. Auto-encoders are judged by their reconstruction of the test images,
Σ (x - G(z))² at the mean code, and everything that generates by the Fréchet distance of 360
samples to the 360 test images in the features of a classifier, a mean of ten draws. Figures are
means over the seeds, beside those of each. Writes benchmarks/ema.json.
"""

import argparse
import dataclasses
import json
import statistics
import tempfile
from pathlib import Path

import monge
from monge.builders import build
from monge.config import TrainingConfig
from monge.evaluation import evaluate
from monge.runs import Run
from monge.training import checkpoint

RECIPES = "wae-mmd", "wae-gan", "swae", "vae", "wgan-gp"
FIGURES = "test reconstruction", "LeNet-FD"


def figures(model, run: Run) -> dict[str, float]:
    """The judged figures of a model of a run."""
    found = evaluate(model, run.source, seeds=10, metrics=["frechet"])["figures"]
    return {name: round(found[name]["value"], 4) for name in FIGURES if name in found}


def last_weights(run: Run):
    """The model with the weights of the last step, which a checkpoint has beside the average."""
    newest = checkpoint.newest(run.path / "checkpoints")
    assert newest is not None
    state = checkpoint.tensors(newest[1], "training.safetensors")
    model = build(run.config, run.settled)
    last = {k.removeprefix("last."): v for k, v in state.items() if k.startswith("last.")}
    checkpoint.load_weights(model, last, "the checkpoint")
    return model.eval()


def trained(recipe: str, given: argparse.Namespace, seed: int) -> dict[str, dict[str, float]]:
    """The figures of both weights of one training."""
    config = monge.Config.of(recipe, seed=seed)
    training: TrainingConfig = dataclasses.replace(
        config.training, steps=given.steps, ema=given.ema
    )
    config = dataclasses.replace(config, training=training, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        run = monge.fit(recipe, "digits", config, Path(folder) / "run", quiet=True)
        return {"last": figures(last_weights(run), run), "averaged": figures(run.model, run)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    table = {}
    for recipe in RECIPES:
        found = [trained(recipe, given, seed) for seed in range(given.seeds)]
        table[recipe] = {
            weights: {
                name: {
                    "mean": round(statistics.mean(run[weights][name] for run in found), 4),
                    "seeds": [run[weights][name] for run in found],
                }
                for name in found[0][weights]
            }
            for weights in ("last", "averaged")
        }
        print(recipe, table[recipe], flush=True)
    result = {"steps": given.steps, "ema": given.ema, "figures": table}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
