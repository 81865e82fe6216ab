"""A recipe of your own: a row that names its function, in a module of its own.

    python examples/new_recipe.py [--steps 300]
    PYTHONPATH=examples monge train new_recipe:MOMENT_SWAE --directions 100

This one is a WAE whose codes match the prior's mean and covariance and, for the rest, slices of
it.
"""

import argparse

import monge
from monge.recipes import Recipe
from monge.recipes.options import SlicedOptions


def moment_swae(parts):
    """The model: the parts that monge has made for the data, with a divergence of its own."""
    from monge.divergences import Divergence, MomentMatching, SlicedWasserstein

    class Both(Divergence):
        """MomentMatching() + SlicedWasserstein()."""

        random = True

        def __init__(self, directions: int):
            super().__init__()
            self.moments, self.slices = MomentMatching(), SlicedWasserstein(directions)

        def forward(self, x, y, draws=None):
            return self.moments(x, y) + self.slices(x, y, draws=draws)

    return parts.wae(Both(parts.options.directions))


MOMENT_SWAE = Recipe(
    name="moment-swae",
    build="new_recipe:moment_swae",
    line="WAE, sliced W_2² of codes with their first two moments",
    options=SlicedOptions,
    weight=3.6,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    name = "new_recipe:MOMENT_SWAE"
    config = monge.config.override(monge.Config.of(name), "training.steps", steps)
    run = monge.fit(name, "digits", config, "runs/new-recipe")
    print(run.metrics()[-1])
    assert monge.load(run.path).sample(4).shape == (4, 1, 8, 8)


if __name__ == "__main__":
    main()
