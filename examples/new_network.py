"""Networks of one's own: any module from samples to codes, and any from codes to samples.

    python examples/new_network.py [--steps 300]

An encoder returns codes (n, dim), or (n, 2 dim) inside a `NormalEncoder`; a decoder returns
samples of the data's shape, images in [0, 1]. Here attention over the rows of an image encodes
it, and one wide layer decodes.
"""

import argparse

import torch
from torch import Tensor, nn

import monge
from monge.config import TrainingConfig
from monge.costs import SquaredL2
from monge.divergences import MMD
from monge.kernels import multiscale_imq
from monge.models import WAE
from monge.priors import Gaussian


class RowAttention(nn.Module):
    """Images (n, 1, h, w) to codes (n, dim), by attention between their rows."""

    def __init__(self, height: int, width: int, dim: int, size: int = 32):
        super().__init__()
        self.embed = nn.Linear(width, size)
        self.position = nn.Parameter(0.02 * torch.randn(height, size))
        self.attention = nn.MultiheadAttention(size, num_heads=4, batch_first=True)
        self.head = nn.Linear(size, dim)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.embed(x[:, 0]) + self.position
        mixed, _ = self.attention(rows, rows, rows, need_weights=False)
        return self.head((rows + mixed).mean(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    torch.manual_seed(0)
    prior = Gaussian(4)
    decoder = nn.Sequential(
        nn.Linear(4, 256), nn.GELU(), nn.Linear(256, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8))
    )
    model = WAE(
        RowAttention(8, 8, prior.dim),
        decoder,
        prior,
        MMD(multiscale_imq(prior.spread)),
        cost=SquaredL2(),
        weight=20.0,
    )
    run = monge.fit(
        model, "digits", monge.Config(training=TrainingConfig(steps=steps)), "runs/new-network"
    )
    first, last = run.metrics()[0], run.metrics()[-1]
    print(f"reconstruction {first['reconstruction']:.2f} → {last['reconstruction']:.2f}")
    assert last["reconstruction"] < first["reconstruction"]


if __name__ == "__main__":
    main()
