"""A recipe of one's own: a named composition of parts.

    python examples/new_recipe.py [--steps 300]

A recipe is a function of `Parts`, which knows data, networks, prior and weight. Inside the library
it is one entry of `RECIPES` and one line in `monge/config.py`; outside, build the model from the
same parts. This one is a WAE whose codes are matched by their means and covariances and, for the
rest, by slices.
"""

import argparse

import torch
from torch import Tensor

import monge
from monge.builders import Parts
from monge.config import TrainingConfig
from monge.divergences import Divergence, MomentMatching, SlicedWasserstein
from monge.models import Model


class Both(Divergence):
    """MomentMatching() + SlicedWasserstein()."""

    def __init__(self, directions: int):
        super().__init__()
        self.moments, self.slices = MomentMatching(), SlicedWasserstein(directions)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.moments(x, y) + self.slices(x, y)


def moment_swae(parts: Parts) -> Model:
    """The recipe."""
    return parts.wae(Both(parts.config.directions))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    torch.manual_seed(0)
    # what is not set follows the kind, shape and number of the data
    config = monge.Config.of("swae", data="digits").settled("image", (1, 8, 8), samples=1617)
    model = moment_swae(Parts(config))
    run = monge.fit(
        model, "digits", monge.Config(training=TrainingConfig(steps=steps)), "runs/new-recipe"
    )
    print(run.metrics()[-1])
    assert model.sample(4).shape == (4, 1, 8, 8)


if __name__ == "__main__":
    main()
