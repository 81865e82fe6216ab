"""The tables of distances, divergences and recipes that the property tests run over.

A new divergence is one row here, and so is a new distance; `test_divergences.py`, `test_laws.py`
and `test_edges.py` then hold it to every law it claims.
"""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from monge.adversarial import (
    FeatureSliced,
    GradientPenalty,
    JensenShannon,
    KantorovichRubinstein,
    Learned,
    MaxGeneralizedSliced,
    MaxSliced,
    Relativistic,
    SpectralNorm,
    WeightClipping,
    ZeroCentredPenalty,
)
from monge.builders import build, settled
from monge.config import Config, NetworkConfig, override
from monge.divergences import (
    MMD,
    CramerWold,
    Divergence,
    EnergyDistance,
    ExactWasserstein,
    GeneralizedSlicedWasserstein,
    MomentMatching,
    SinkhornDivergence,
    SlicedWasserstein,
)
from monge.kernels import IMQ, RBF, Energy, Laplace, RationalQuadratic, multiscale_imq
from monge.models import ConditionalWAE, Model
from monge.particles import Drifting, LearnedDrifting, MeanShift
from monge.recipes import RECIPES as ROWS
from monge.transport import (
    KL,
    TV,
    Circular,
    Linear,
    fused_gromov_wasserstein,
    generalized_sliced_wasserstein,
    gromov_wasserstein,
    max_sliced_wasserstein,
    multiscale_sinkhorn,
    multiscale_sinkhorn_divergence,
    partial_gromov_wasserstein,
    partial_wasserstein,
    sinkhorn,
    sinkhorn_divergence,
    sliced_gromov_wasserstein,
    sliced_wasserstein,
    uniform_directions,
    wasserstein,
    wasserstein_1d,
)

DIM = 3


def smooth_critic() -> nn.Module:
    """A critic without kinks, so that finite differences are exact to second order."""
    return nn.Sequential(nn.Linear(DIM, 5), nn.Tanh(), nn.Linear(5, 1))


class Row(NamedTuple):
    make: Callable[[], Divergence]
    symmetric: bool = True
    """D(x, y) = D(y, x)."""
    zero: bool = False
    """D(x, x) = 0; the unbiased estimators are negative there."""
    nonnegative: bool = False
    """D ≥ 0 on every pair of samples."""
    surrogate: bool = False
    """Only its gradient means something: the value depends on x alone, or on a critic."""
    translation: bool = True
    """D(x + v, y + v) = D(x, y)."""
    vectors: bool = False
    """Reads samples of the shape its network was built for; others flatten."""
    paired: bool = False
    """Compares samples of one size, whose rows belong together."""
    regression: bool = False
    """Its gradient is that of a regression on a target that is held fixed, not of the value;
    test_particles.py checks both."""
    second: bool = True
    """Second derivatives are right; otherwise they raise."""


DIVERGENCES = {
    "mmd-imq-unbiased": Row(lambda: MMD(multiscale_imq(2.0 * DIM))),
    "mmd-imq-paired": Row(
        lambda: MMD(multiscale_imq(2.0 * DIM), paired=True), zero=True, paired=True
    ),
    "mmd-imq-biased": Row(
        lambda: MMD(multiscale_imq(2.0 * DIM), unbiased=False), zero=True, nonnegative=True
    ),
    "mmd-rbf": Row(lambda: MMD(RBF(1.3), unbiased=False), zero=True, nonnegative=True),
    "mmd-laplace": Row(lambda: MMD(Laplace(1.3), unbiased=False), zero=True, nonnegative=True),
    "mmd-energy": Row(lambda: MMD(Energy(), unbiased=False), zero=True, nonnegative=True),
    "mmd-algebra": Row(
        lambda: MMD(0.5 * RBF(1.0) * IMQ(2.0) + RationalQuadratic(1.0, 0.7), unbiased=False),
        zero=True,
        nonnegative=True,
    ),
    "sliced-2": Row(lambda: SlicedWasserstein(16), zero=True, nonnegative=True),
    "sliced-3": Row(lambda: SlicedWasserstein(16, p=3), zero=True, nonnegative=True),
    "generalized": Row(
        lambda: GeneralizedSlicedWasserstein(Circular(DIM, 16)),
        zero=True,
        nonnegative=True,
        translation=False,
    ),
    "energy": Row(EnergyDistance, zero=True, nonnegative=True),
    "cramer-wold": Row(lambda: CramerWold(0.3), zero=True, nonnegative=True),
    "sinkhorn": Row(lambda: SinkhornDivergence(0.5, tolerance=1e-11), zero=True),
    "sinkhorn-kl": Row(lambda: SinkhornDivergence(0.5, tolerance=1e-11, reach=1.0), zero=True),
    "sinkhorn-tv": Row(lambda: SinkhornDivergence(0.5, tolerance=1e-11, reach=TV(2.0)), zero=True),
    "exact": Row(ExactWasserstein, zero=True, nonnegative=True),
    "exact-1": Row(lambda: ExactWasserstein(p=1), zero=True, nonnegative=True),
    "moments": Row(MomentMatching, zero=True, nonnegative=True),
    "max-sliced": Row(lambda: MaxSliced(DIM), zero=True, nonnegative=True),
    "max-generalized": Row(
        lambda: MaxGeneralizedSliced(Circular(DIM, 3)),
        zero=True,
        nonnegative=True,
        translation=False,
    ),
    "feature-sliced": Row(
        lambda: FeatureSliced(nn.Sequential(nn.Linear(DIM, 5), nn.Tanh()), nn.Linear(5, 1), 16),
        zero=True,
        nonnegative=True,
        translation=False,
        vectors=True,
    ),
    "wasserstein-clipped": Row(
        lambda: KantorovichRubinstein(smooth_critic(), WeightClipping(0.5)),
        symmetric=False,
        surrogate=True,
    ),
    "wasserstein-penalty": Row(
        lambda: KantorovichRubinstein(smooth_critic(), GradientPenalty()),
        symmetric=False,
        surrogate=True,
    ),
    "wasserstein-one-sided": Row(
        lambda: KantorovichRubinstein(smooth_critic(), GradientPenalty(1.0, one_sided=True)),
        symmetric=False,
        surrogate=True,
    ),
    "wasserstein-spectral": Row(
        lambda: KantorovichRubinstein(smooth_critic(), SpectralNorm()).eval(),
        symmetric=False,
        surrogate=True,
    ),
    "drifting": Row(
        lambda: Drifting(MeanShift((0.5,))),
        symmetric=False,
        nonnegative=True,
        regression=True,
        second=False,
    ),
    "drifting-critic": Row(
        lambda: LearnedDrifting(KantorovichRubinstein(smooth_critic(), GradientPenalty())),
        symmetric=False,
        surrogate=True,
        regression=True,
        second=False,
    ),
    "js": Row(lambda: JensenShannon(smooth_critic()), symmetric=False, surrogate=True),
    "js-minimax": Row(
        lambda: JensenShannon(smooth_critic(), saturating=True), symmetric=False, surrogate=True
    ),
    "js-spectral": Row(
        lambda: JensenShannon(smooth_critic(), constraint=SpectralNorm()).eval(),
        symmetric=False,
        surrogate=True,
    ),
    "relativistic": Row(
        lambda: Relativistic(smooth_critic(), ZeroCentredPenalty()),
        symmetric=False,
        surrogate=True,
    ),
}

LEARNED = tuple(name for name, row in DIVERGENCES.items() if isinstance(row.make(), Learned))

CONDITIONAL = tuple(name for name, row in ROWS.items() if row.needs == ("grid",))
AUTOENCODERS = tuple(
    name
    for name, row in ROWS.items()
    if row.family == "auto-encoder" and not {"grid", "unordered"} & set(row.needs)
)
GENERATORS = tuple(name for name, row in ROWS.items() if row.family == "generator")
FLOWS = tuple(name for name, row in ROWS.items() if row.family == "flow")
RECIPES = (*AUTOENCODERS, *GENERATORS, *CONDITIONAL, *FLOWS)
BY_SAMPLE = {name: {"coupling": "independent"} for name in FLOWS}
"""Options under which a loss is a mean over samples, whatever their batch."""
LABELLED = (*AUTOENCODERS, *GENERATORS, *FLOWS)
"""The recipes that have a class-conditional form, but for those of clouds."""


def model(
    recipe: str,
    kind: str = "image",
    shape: tuple[int, ...] = (1, 8, 8),
    classes: int = 0,
    **changes,
) -> Model:
    """A small untrained model of a recipe, class-conditional with classes; whatever the recipe is
    conditioned on by default."""
    network = NetworkConfig(filters=(4, 8), hidden=(16,), critic=(16,))
    config = dataclasses.replace(Config.of(recipe), network=network, latent=DIM)
    given: dict[str, Any] = {"condition": "labels" if classes else None, **changes}
    for name, value in given.items():
        config = override(config, name, value)
    facts = settled(config, kind, shape, samples=100)
    names, shares = tuple(map(str, range(classes))), (1 / max(1, classes),) * classes
    return build(config, dataclasses.replace(facts, classes=names, shares=shares))


def sample(model: Model, n: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """n draws; of a conditional model, completions of grey images."""
    given = {"given": torch.full((n, 1, 8, 8), 0.5)} if isinstance(model, ConditionalWAE) else {}
    return model.sample(n, generator, **given)


def pair(n: int = 7, m: int = 7, shift: float = 0.7) -> tuple[torch.Tensor, torch.Tensor]:
    """Two samples in float64, the second one moved and stretched."""
    generator = torch.Generator().manual_seed(n * 100 + m)
    x = torch.randn(n, DIM, dtype=torch.float64, generator=generator)
    y = torch.randn(m, DIM, dtype=torch.float64, generator=generator)
    return x, 1.2 * y + shift


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def law(n):
    w = torch.rand(n, generator=seeded(n), dtype=torch.float64) + 0.1
    return w / w.sum()


def slices(x):
    return uniform_directions(7, np.shape(x)[-1], generator=seeded()).to(x)


def tight(x):
    """A tolerance that the dtype of the samples can reach."""
    return 1e-6 if isinstance(x, torch.Tensor) and x.dtype != torch.float64 else 1e-11


def first_coordinates(x, y, *weights, p):
    return wasserstein_1d(x[:, 0], y[:, 0], *weights, p=p)


def linear_slicer(dim):
    slicer = Linear(dim, 5)
    slicer.resample_(seeded())
    return slicer


SLICERS = {dim: linear_slicer(dim) for dim in range(1, 8)}


def linear_slices(x, y, size):
    slicer = SLICERS[np.shape(x)[-1]]
    if isinstance(x, torch.Tensor) and x.device.type != "cpu":
        slicer = copy.deepcopy(slicer).to(x.device)
    return generalized_sliced_wasserstein(x, y, slicer, p=2)


def weighted(function, **options):
    def value(x, y, size):
        return function(x, y, law(len(x)).to(x), law(len(y)).to(y), **options)

    return value


class Law(NamedTuple):
    value: Callable
    """(x, y, unit of length) -> the value; regularisations are in that unit."""
    degree: float = 1
    """value(cx, cy) = c^degree value(x, y)."""
    zero: bool = True
    """value(x, x) = 0, up to rounding of a p-th power."""
    symmetric: bool = True
    exchangeable: bool = True
    """The order of the points does not matter."""
    points: bool = True
    """Of arrays and of batches of points; otherwise of what the row makes of them."""
    second: bool = True
    """Second derivatives are right; otherwise they raise."""


DISTANCES = {
    "line": Law(lambda x, y, size: first_coordinates(x, y, p=2), points=False),
    "line-3": Law(lambda x, y, size: first_coordinates(x, y, p=3), points=False),
    "line-weighted": Law(weighted(first_coordinates, p=2), exchangeable=False, points=False),
    "exact-1": Law(lambda x, y, size: wasserstein(x, y, p=1)),
    "exact-2": Law(lambda x, y, size: wasserstein(x, y)),
    "exact-weighted": Law(weighted(wasserstein), exchangeable=False),
    "partial-2": Law(lambda x, y, size: partial_wasserstein(x, y, mass=0.7), exchangeable=True),
    "partial-weighted-1": Law(weighted(partial_wasserstein, mass=0.7, p=1), exchangeable=False),
    "sliced-1": Law(lambda x, y, size: sliced_wasserstein(x, y, p=1, directions=slices(x))),
    "sliced-2": Law(lambda x, y, size: sliced_wasserstein(x, y, directions=slices(x))),
    "sliced-3": Law(lambda x, y, size: sliced_wasserstein(x, y, p=3, directions=slices(x))),
    "sliced-weighted": Law(
        lambda x, y, size: weighted(sliced_wasserstein, directions=slices(x))(x, y, size),
        exchangeable=False,
    ),
    "max-sliced": Law(
        lambda x, y, size: max_sliced_wasserstein(x, y, generator=seeded())[0], second=False
    ),
    "generalized": Law(linear_slices),
    "sinkhorn": Law(
        lambda x, y, size: sinkhorn(x, y, epsilon=0.5 * size**2, tolerance=tight(x)).value,
        degree=2,
        zero=False,
    ),
    "sinkhorn-divergence": Law(
        lambda x, y, size: sinkhorn_divergence(x, y, epsilon=0.5 * size**2, tolerance=tight(x)),
        degree=2,
    ),
    "sinkhorn-kl": Law(
        lambda x, y, size: (
            sinkhorn(
                x, y, epsilon=0.5 * size**2, tolerance=tight(x), reach=(KL(size**2), None)
            ).value
        ),
        degree=2,
        zero=False,
        symmetric=False,
    ),
    "sinkhorn-divergence-kl": Law(
        lambda x, y, size: sinkhorn_divergence(
            x, y, epsilon=0.5 * size**2, tolerance=tight(x), reach=KL(size**2)
        ),
        degree=2,
    ),
    "sinkhorn-divergence-tv-weighted": Law(
        lambda x, y, size: weighted(
            sinkhorn_divergence, epsilon=0.5 * size**2, tolerance=tight(x), reach=TV(2 * size**2)
        )(x, y, size),
        degree=2,
        exchangeable=False,
    ),
    "sinkhorn-divergence-1": Law(
        lambda x, y, size: sinkhorn_divergence(x, y, epsilon=0.5 * size, p=1, tolerance=tight(x))
    ),
    "sinkhorn-divergence-weighted": Law(
        lambda x, y, size: weighted(
            sinkhorn_divergence, epsilon=0.5 * size**2, tolerance=tight(x)
        )(x, y, size),
        degree=2,
        exchangeable=False,
    ),
    "multiscale-sinkhorn": Law(
        lambda x, y, size: (
            multiscale_sinkhorn(x, y, epsilon=0.5 * size**2, tolerance=tight(x)).value
        ),
        degree=2,
        zero=False,
        second=False,
    ),
    "multiscale-sinkhorn-divergence": Law(
        lambda x, y, size: multiscale_sinkhorn_divergence(
            x, y, epsilon=0.5 * size**2, tolerance=tight(x)
        ),
        degree=2,
        second=False,
    ),
    "multiscale-sinkhorn-divergence-weighted": Law(
        lambda x, y, size: weighted(
            multiscale_sinkhorn_divergence, epsilon=0.5 * size**2, tolerance=tight(x)
        )(x, y, size),
        degree=2,
        exchangeable=False,
        second=False,
    ),
    "energy": Law(lambda x, y, size: MMD(Energy(), unbiased=False)(x, y)),
    "gromov": Law(
        # a stationary point, not always the global one
        lambda x, y, size: gromov_wasserstein(-Energy()(x, x), -Energy()(y, y)).value,
        degree=2,
        zero=False,
        symmetric=False,
        exchangeable=False,
        points=False,
        second=False,
    ),
    "gromov-fused": Law(
        lambda x, y, size: (
            fused_gromov_wasserstein(
                -size * Energy()(x, y), -Energy()(x, x), -Energy()(y, y), alpha=0.7
            ).value
        ),
        degree=2,
        zero=False,
        symmetric=False,
        exchangeable=False,
        points=False,
        second=False,
    ),
    "gromov-partial": Law(
        lambda x, y, size: (
            partial_gromov_wasserstein(-Energy()(x, x), -Energy()(y, y), mass=0.7).value
        ),
        degree=2,
        zero=False,
        symmetric=False,
        exchangeable=False,
        points=False,
        second=False,
    ),
    "sliced-gromov": Law(
        lambda x, y, size: sliced_gromov_wasserstein(x, y, directions=slices(x)), degree=4
    ),
}
