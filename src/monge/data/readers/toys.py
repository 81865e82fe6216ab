r"""Toy distributions in the plane, whose right answer the eye knows, and on the line; fixed seeds.

Eight Gaussians on a circle of radius 2, two rings of radii 1 and 2, a swiss roll of size 2, and
a distribution on the line with two bumps. Each has 10,000 training and 2,000 test samples.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from monge.data.kinds import VECTOR
from monge.data.source import Source, split
from monge.draws import generator, standard_normal
from monge.priors import SwissRoll

TRAIN, TEST = 10_000, 2_000


def eight_gaussians(n: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Eight Gaussians of deviation 0.1 on a circle of radius 2, and which one it was."""
    k = torch.randint(8, (n,), generator=random, device="cpu")
    angle = k * (math.pi / 4)
    centres = 2 * torch.stack([angle.cos(), angle.sin()], 1)
    return centres + 0.1 * standard_normal((n, 2), random), k


def rings(n: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two rings of radii 1 and 2, of deviation 0.05, and which one it was."""
    k = torch.randint(2, (n,), generator=random, device="cpu")
    angle = 2 * math.pi * torch.rand(n, generator=random, dtype=torch.float32, device="cpu")
    radius = 1 + k + 0.05 * standard_normal((n,), random)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1), k


def swiss_roll(n: int, random: torch.Generator) -> tuple[Tensor, None]:
    """A spiral in the square of side 4."""
    return 2 * SwissRoll().sample(n, random), None


def line(n: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """An even mixture of N(-1, 0.3²) and N(1, 0.3²), (n, 1), and which one it was."""
    k = torch.randint(2, (n,), generator=random, device="cpu")
    return (2.0 * k - 1)[:, None] + 0.3 * standard_normal((n, 1), random), k


TOYS: dict[str, Callable[[int, torch.Generator], tuple[Tensor, Tensor | None]]] = {
    "eight-gaussians": eight_gaussians,
    "rings": rings,
    "swiss-roll": swiss_roll,
    "line": line,
}


def toy(name: str) -> Source:
    """A toy distribution by name; the same samples whatever the run's seed."""
    samples, labels = TOYS[name](TRAIN + TEST, generator("toy", name))
    parts = np.repeat(["train", "test"], [TRAIN, TEST])
    return split(name, VECTOR, samples.numpy(), None if labels is None else labels.numpy(), parts)
