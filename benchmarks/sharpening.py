"""What a second matching, of samples and data, adds to a training step.

    python benchmarks/sharpening.py [--rounds 40]

CPU seconds of a step of `wae-gan` on images of MNIST's shape, without a second matching and with
each critic of `--sharpen`: medians of alternating rounds, and their ratio.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch

from monge.builders import build, settled
from monge.builders.settle import with_tuned
from monge.config import Config
from monge.training import Trainer

SHAPE = (1, 28, 28)
CRITICS = (None, "jensen-shannon", "relativistic", "wasserstein", "feature-sliced")


def step(critic: str | None) -> Callable[[], object]:
    """A training step; a second matching is at its full weight."""
    asked = {} if critic is None else {"sharpen": critic}
    config = with_tuned(Config.of("wae-gan", **asked), "image", SHAPE)
    torch.manual_seed(0)
    model = build(config, settled(config, "image", SHAPE, samples=60_000)).train()
    trainer, x = Trainer(model, config.training), torch.rand(config.training.batch, *SHAPE)
    return lambda: trainer.step([x], done=1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    steps = {str(critic): step(critic) for critic in CRITICS}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for call in steps.values():
        call()
    for _ in range(rounds):
        for name, call in steps.items():
            began = time.process_time()
            call()
            times[name].append(time.process_time() - began)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print("| --sharpen | step | of the step without |")
    print("|---|---|---|")
    without = median(times["None"])
    for name, taken in times.items():
        print(f"| {name} | {median(taken) * 1e3:.1f} ms | {median(taken) / without:.2f} |")


if __name__ == "__main__":
    main()
