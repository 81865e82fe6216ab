"""Data of one's own: arrays, files, or a `Source`.

    python examples/new_data.py [--steps 300]

Anything that is an array (n, c, h, w) of images in [0, 1], (n, d) of vectors or (n, N, 3) of
clouds can be given to `monge.fit` as it is, and `.npy`, `.npz` and `.csv` files to the command
line. A `Source` says in addition which samples are for testing, and what their labels are.
"""

import argparse
import math

import torch

import monge
from monge.config import override
from monge.data import Source


def spirals(n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of two arms in the plane, and which arm it was."""
    arm = torch.randint(2, (n,), generator=generator)
    turn = torch.rand(n, generator=generator).sqrt() * 3
    angle = turn + math.pi * arm
    points = torch.stack([turn * angle.cos(), turn * angle.sin()], 1)
    return points + 0.1 * torch.randn(n, 2, generator=generator), arm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    generator = torch.Generator().manual_seed(0)
    train, train_labels = spirals(4000, generator)
    test, test_labels = spirals(1000, generator)
    source = Source(
        "spirals", "vector", train, test, train_labels, test_labels, classes=("one", "two")
    )
    config = override(monge.Config.of("swg"), "training.steps", steps)
    run = monge.fit("swg", source, config, "runs/new-data")
    samples = run.model.sample(1000)
    print(f"mean {samples.mean(0).tolist()}, deviation {samples.std(0).tolist()}")
    assert samples.shape == (1000, 2)


if __name__ == "__main__":
    main()
