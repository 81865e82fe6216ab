"""What a second matching, of samples and data, adds to a training step.

    python benchmarks/sharpening.py [--rounds 10]

CPU seconds of a step of `wae-gan` on images of MNIST's shape, without a second matching, with each
critic of `--sharpen`, and with one in every second and third step: means of six steps, the medians
of alternating rounds, and their ratios.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from monge.builders import build, settled
from monge.builders.settle import with_tuned
from monge.config import Config
from monge.training import Trainer

SHAPE = (1, 28, 28)
CASES = {
    "none": {},
    "jensen-shannon": {"sharpen": "jensen-shannon"},
    "jensen-shannon, every 2": {"sharpen": "jensen-shannon", "sharpen_every": 2},
    "jensen-shannon, every 3": {"sharpen": "jensen-shannon", "sharpen_every": 3},
    "relativistic": {"sharpen": "relativistic"},
    "wasserstein": {"sharpen": "wasserstein"},
    "feature-sliced": {"sharpen": "feature-sliced"},
}
STEPS = 6


def steps(asked: dict[str, Any]) -> Callable[[], object]:
    """Six training steps; a second matching is at its full weight."""
    config = with_tuned(Config.of("wae-gan", **asked), "image", SHAPE)
    torch.manual_seed(0)
    model = build(config, settled(config, "image", SHAPE, samples=60_000)).train()
    trainer, x = Trainer(model, config.training), torch.rand(config.training.batch, *SHAPE)
    return lambda: [trainer.step([x], done=1.0) for _ in range(STEPS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    calls = {name: steps(asked) for name, asked in CASES.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.process_time()
            call()
            times[name].append((time.process_time() - began) / STEPS)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print("| --sharpen | step | of the step without |")
    print("|---|---|---|")
    without = median(times["none"])
    for name, taken in times.items():
        print(f"| {name} | {median(taken) * 1e3:.1f} ms | {median(taken) / without:.2f} |")


if __name__ == "__main__":
    main()
