"""`monge distance`: how far apart two files of samples are."""

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from monge.cli.common import Float, Int, Place, tell
from monge.cli.samples import SLICED, Weights, in_float64, read_both, read_weights

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Measured = dict[str, Any]
"""The `value` of a distance, and what it rests on, by name."""
WEIGHTED = ("exact", "w1", "sliced", "max-sliced", "gsliced", "max-gsliced", "sinkhorn")
DRAWN = {"sliced": 1000, "gsliced": 1000, "max-gsliced": 32}
"""The number of directions or slices that each method draws by default."""


@dataclass(frozen=True)
class Distance:
    """Measure how far apart two samples are, each a .npy, .npz or .csv file."""

    a: Positional[Path]
    """The first sample, (n, …)."""
    b: Positional[Path]
    """The second sample, (m, …). Columns of two tables that both name the same columns are matched
    by their names."""
    method: Literal[
        "exact",
        "w1",
        "sliced",
        "max-sliced",
        "gsliced",
        "max-gsliced",
        "sinkhorn",
        "mmd",
        "energy",
        "gromov",
    ] = "sliced"
    """exact: W_p; w1: W_1; sliced: SW_p with its standard error; max-sliced: the worst direction;
    gsliced: SW_p along the slices of --slicer; max-gsliced: the worst of them, by gradient ascent;
    sinkhorn: the Sinkhorn divergence, on the scale of the cost; mmd: unbiased MMD² with the
    seven-scale inverse multiquadratic kernel whose base is E‖y - y'‖²; energy: the energy
    distance; gromov: Gromov-Wasserstein between Euclidean distances."""
    p: float = 2.0
    """Order of the distance, where the method has one."""
    weights_a: Place = None
    """Weights of the samples of a, (n,), at least 0; divided by their sum except with --reach;
    uniform by default. For exact, w1, sinkhorn and the sliced methods."""
    weights_b: Place = None
    """Weights of the samples of b, (m,)."""
    directions: Int = None
    """Number of random directions or slices, where the method draws any: 1,000 by default, 32 for
    max-gsliced."""
    slicer: Literal["circular", "polynomial", "neural"] | None = None
    """Slices of gsliced and max-gsliced: distances to points of a sphere of radius 2 (default),
    homogeneous polynomials of degree 3, or outputs of a network with one hidden layer."""
    epsilon: Float = None
    """Regularisation of sinkhorn, in units of the cost; 5 % of its mean by default."""
    reach: Float = None
    """Make sinkhorn unbalanced and robust to outliers: the cost of leaving out a unit of mass, in
    units of the cost (the ρ of a KL on both marginals). Weights then keep their sums."""
    map: Place = None
    """A .npy file for the images of the samples of a under the optimal map of exact or w1, (n, d):
    the quantile map for samples of one column, otherwise a permutation of as many samples of b."""
    seed: int = 0
    """Seed of the random directions."""
    json: bool = False
    """Print one JSON object instead of a line."""

    def run(self) -> None:
        self._check()
        first, second = read_both(self.a, self.b, self.method)
        x, y = in_float64(first, second, self.method)
        if x.shape[1] != y.shape[1] and self.method != "gromov":
            raise ValueError(
                f"`b` {str(self.b)!r} has samples of {y.shape[1]} numbers, `a` of {x.shape[1]}"
            )
        as_given = self.reach is not None
        weights = (
            read_weights("weights_a", self.weights_a, x, as_given),
            read_weights("weights_b", self.weights_b, y, as_given),
        )
        began = time.perf_counter()
        values = METHODS[self.method](self, x, y, *weights)
        if not math.isfinite(values["value"]):
            raise ValueError(
                f"`--method` {self.method} gives {values['value']}: samples of this size exceed "
                "the range of float64, rescale both"
            )
        if self.map is not None:
            _save_map(self.map, x, y, second.rows, values["p"])
        seconds = round(time.perf_counter() - began, 4)
        sizes = {"n": len(x), "m": len(y), "d": x.shape[1]}
        result = {"method": self.method, **values, **sizes, "seconds": seconds}
        text = "  ".join(f"{name} {content}" for name, content in result.items())
        tell(json.dumps(result) if self.json else text)

    def _check(self) -> None:
        """Refuses flags that would change what is measured if the method used them, before
        anything is read.

        Settings of the computation, such as the order and the seed, are ignored by methods that do
        not have them, so that a loop over methods may pass them all.
        """
        only = {
            "weights_a": WEIGHTED,
            "weights_b": WEIGHTED,
            "slicer": SLICED,
            "reach": ("sinkhorn",),
            "map": ("exact", "w1"),
        }
        for name, methods in only.items():
            if getattr(self, name) is not None and self.method not in methods:
                raise ValueError(
                    f"`--{name.replace('_', '-')}` is for {', '.join(methods)}, not for "
                    f"--method {self.method}: leave it out"
                )
        least = 2 if self.method == "sliced" else 1
        if self.directions is not None and self.directions < least:
            why = ", which a standard error needs" if least == 2 else ""
            raise ValueError(
                f"`--directions` must be at least {least}{why}, got {self.directions}"
            )
        if self.map is not None and self.map.resolve() in (self.a.resolve(), self.b.resolve()):
            raise ValueError(f"`--map` {str(self.map)!r} is one of the samples: name another file")
        if self.map is not None and self.map.suffix != ".npy":
            raise ValueError(f"`--map` must end in .npy, got {str(self.map)!r}")
        if self.map is not None and (self.weights_a or self.weights_b):
            raise ValueError("`--map` is between samples without weights, which may split mass")

    @property
    def drawn(self) -> int:
        """The number of directions or slices that are drawn."""
        return self.directions or DRAWN[self.method]


def _exact(given: Distance, x: "Tensor", y: "Tensor", a: Weights, b: Weights) -> Measured:
    from monge.transport import wasserstein

    p = 1.0 if given.method == "w1" else given.p
    return {"value": float(wasserstein(x, y, a, b, p=p)), "p": p}


def _save_map(place: Path, x: "Tensor", y: "Tensor", rows: "np.ndarray", p: float) -> None:
    """Writes the images of x, which are `rows`, those of y as they are in their file."""
    import io

    import numpy as np
    import torch

    from monge._core.files import write_all
    from monge.transport import monge_map, quantile_map

    if x.shape[1] == 1:
        # of the positions, which are exact whatever the values are
        images = quantile_map(x[:, 0], y[:, 0])
        order = y[:, 0].argsort(stable=True)
        index = order[torch.searchsorted(y[:, 0][order], images.contiguous())]
    else:
        index = monge_map(x, y, p=p)
    content = io.BytesIO()
    np.save(content, rows[index.numpy()])
    write_all(place.parent, {place.name: content.getvalue()}, "--map")


def _sliced(given: Distance, x: "Tensor", y: "Tensor", a: Weights, b: Weights) -> Measured:
    from monge.draws import generator
    from monge.transport import sliced_wasserstein_estimate

    seeded = generator(given.seed, "distance")
    value, error = sliced_wasserstein_estimate(
        x, y, a, b, p=given.p, directions=given.drawn, generator=seeded
    )
    drawn = {"p": given.p, "directions": given.drawn, "seed": given.seed}
    return {"value": float(value), "standard_error": float(error), **drawn}


def _max_sliced(given: Distance, x: "Tensor", y: "Tensor", a: Weights, b: Weights) -> Measured:
    from monge.draws import generator
    from monge.transport import max_sliced_wasserstein

    seeded = generator(given.seed, "distance")
    value, _ = max_sliced_wasserstein(x, y, a, b, p=given.p, generator=seeded)
    return {"value": float(value), "p": given.p, "seed": given.seed}


def _gsliced(given: Distance, x: "Tensor", y: "Tensor", a: Weights, b: Weights) -> Measured:
    from monge import transport
    from monge.builders.parts import slicer
    from monge.draws import generator

    name = given.slicer or "circular"
    slices = slicer(name, x.shape[1], given.drawn)
    slices.resample_(generator(given.seed, "distance"))
    distance = transport.generalized_sliced_wasserstein
    if given.method == "max-gsliced":
        distance = transport.max_generalized_sliced_wasserstein
    value = distance(x, y, slices, a, b, p=given.p).item()
    drawn = {"p": given.p, "slicer": name, "slices": given.drawn, "seed": given.seed}
    radius = getattr(slices, "radius", None)
    return {"value": value, **drawn, **({} if radius is None else {"radius": radius})}


def _sinkhorn(given: Distance, x: "Tensor", y: "Tensor", a: Weights, b: Weights) -> Measured:
    from monge.transport import sinkhorn, sinkhorn_divergence

    epsilon = given.epsilon
    if epsilon is None:
        epsilon = 0.05 * _mean_cost(x, y, a, b, given.p)
        if not epsilon > 0:
            raise ValueError(
                "`epsilon` has no default where the mean cost is 0 or below float64: give "
                "--epsilon, or rescale the samples"
            )
        if not math.isfinite(epsilon):
            raise ValueError("the samples have costs beyond float64: rescale both")
    options = {"epsilon": epsilon, "p": given.p, "reach": given.reach}
    plan = sinkhorn(x, y, a, b, **options)
    value = float(sinkhorn_divergence(x, y, a, b, **options))
    account = {"marginal_error": plan.marginal_error, "iterations": plan.iterations}
    unbalanced = {} if given.reach is None else {"reach": given.reach, "mass": float(plan.mass)}
    return {"value": value, "epsilon": epsilon, "p": given.p, **unbalanced, **account}


def _mean_cost(x: "Tensor", y: "Tensor", a: Weights, b: Weights, p: float) -> float:
    """E ‖x - y‖^p of independent x and y."""
    import torch

    from monge.transport.ground import Points

    if a is None and b is None:
        return Points(x, y, p).mean()
    a = torch.full((len(x),), 1 / len(x)).to(x) if a is None else a
    b = torch.full((len(y),), 1 / len(y)).to(y) if b is None else b
    a, b = a / a.sum(), b / b.sum()
    rows = zip(x.split(1000), a.split(1000))
    return float(sum(w @ (torch.cdist(some, y) ** p) @ b for some, w in rows))


def _mmd(given: Distance, x: "Tensor", y: "Tensor", a: Weights, b: Weights) -> Measured:
    from monge.divergences import MMD
    from monge.kernels import multiscale_imq

    base = 2 * float(y.var(0, correction=0).sum())
    if not base > 0:
        raise ValueError(
            f"`b` {str(given.b)!r} has variance 0, or one below float64: no scale for the kernel"
        )
    return {"value": float(MMD(multiscale_imq(base))(x, y)), "base": base}


def _energy(given: Distance, x: "Tensor", y: "Tensor", a: Weights, b: Weights) -> Measured:
    from monge.divergences import EnergyDistance

    return {"value": float(EnergyDistance()(x, y))}


def _gromov(given: Distance, x: "Tensor", y: "Tensor", a: Weights, b: Weights) -> Measured:
    from monge.draws import generator
    from monge.kernels import distances
    from monge.transport import gromov_wasserstein

    seeded = generator(given.seed, "distance")
    plan = gromov_wasserstein(distances(x, x), distances(y, y), generator=seeded)
    return {"value": float(plan.value), "iterations": plan.iterations, "seed": given.seed}


METHODS = {
    "exact": _exact,
    "w1": _exact,
    "sliced": _sliced,
    "max-sliced": _max_sliced,
    "gsliced": _gsliced,
    "max-gsliced": _gsliced,
    "sinkhorn": _sinkhorn,
    "mmd": _mmd,
    "energy": _energy,
    "gromov": _gromov,
}
