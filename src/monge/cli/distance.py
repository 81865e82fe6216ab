"""`monge distance`: how far apart two files of samples are."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from monge.cli.common import Float


@dataclass(frozen=True)
class Distance:
    """Measure how far apart two samples are, each a .npy, .npz or .csv file."""

    a: Positional[Path]
    """The first sample, (n, …)."""
    b: Positional[Path]
    """The second sample, (m, …)."""
    method: Literal[
        "exact", "w1", "sliced", "max-sliced", "gsliced", "sinkhorn", "mmd", "energy", "gromov"
    ] = "sliced"
    """exact: W_p; w1: W_1; sliced: SW_p with its standard error; max-sliced: the worst direction;
    gsliced: circular slices; sinkhorn: the Sinkhorn divergence, on the scale of the cost; mmd:
    unbiased MMD² with the seven-scale inverse multiquadratic kernel whose base is E‖y - y'‖²;
    energy: the energy distance; gromov: Gromov-Wasserstein between Euclidean distances."""
    p: float = 2.0
    """Order, where the method has one."""
    directions: int = 1000
    """Directions or slices drawn, where the method draws any."""
    epsilon: Float = None
    """Regularisation of sinkhorn, in units of the cost; 5 % of its mean by default."""
    seed: int = 0
    """Draws the directions."""
    json: bool = False
    """One JSON object in place of a line."""

    def run(self) -> None:
        x, y = _sample(self.a), _sample(self.b)
        if x.shape[1] != y.shape[1] and self.method != "gromov":
            raise ValueError(
                f"`b` {str(self.b)!r} has samples of {y.shape[1]} numbers, `a` of {x.shape[1]}"
            )
        began = time.perf_counter()
        values = METHODS[self.method](self, x, y)
        seconds = round(time.perf_counter() - began, 4)
        sizes = {"n": len(x), "m": len(y), "d": x.shape[1]}
        result = {"method": self.method, **values, **sizes, "seconds": seconds}
        text = "  ".join(f"{name} {content}" for name, content in result.items())
        print(json.dumps(result) if self.json else text)


def _exact(given: Distance, x, y) -> dict:
    from monge.transport import wasserstein

    p = 1.0 if given.method == "w1" else given.p
    return {"value": float(wasserstein(x, y, p=p)), "p": p}


def _sliced(given: Distance, x, y) -> dict:
    from monge.draws import generator
    from monge.transport import sliced_wasserstein_estimate

    seeded = generator(given.seed, "distance")
    value, error = sliced_wasserstein_estimate(
        x, y, p=given.p, directions=given.directions, generator=seeded
    )
    drawn = {"p": given.p, "directions": given.directions, "seed": given.seed}
    return {"value": float(value), "standard_error": float(error), **drawn}


def _max_sliced(given: Distance, x, y) -> dict:
    from monge.draws import generator
    from monge.transport import max_sliced_wasserstein

    value, _ = max_sliced_wasserstein(x, y, p=given.p, generator=generator(given.seed, "distance"))
    return {"value": float(value), "p": given.p, "seed": given.seed}


def _gsliced(given: Distance, x, y) -> dict:
    from monge.draws import generator
    from monge.transport import Circular, generalized_sliced_wasserstein

    slicer = Circular(x.shape[1], given.directions)
    slicer.resample_(generator(given.seed, "distance"))
    value = generalized_sliced_wasserstein(x, y, slicer, p=given.p).item()
    drawn = {"p": given.p, "slices": given.directions, "seed": given.seed}
    return {"value": value, "radius": slicer.radius, **drawn}


def _sinkhorn(given: Distance, x, y) -> dict:
    from monge.transport import sinkhorn, sinkhorn_divergence
    from monge.transport.gibbs import Points

    epsilon = given.epsilon
    if epsilon is None:
        epsilon = 0.05 * Points(x, y, given.p).mean()
        if not epsilon > 0:
            raise ValueError("`epsilon` has no default for a sample of one point: give --epsilon")
    plan = sinkhorn(x, y, epsilon=epsilon, p=given.p)
    value = float(sinkhorn_divergence(x, y, epsilon=epsilon, p=given.p))
    account = {"marginal_error": plan.marginal_error, "iterations": plan.iterations}
    return {"value": value, "epsilon": epsilon, "p": given.p, **account}


def _mmd(given: Distance, x, y) -> dict:
    from monge.divergences import MMD
    from monge.kernels import multiscale_imq

    base = 2 * float(y.var(0, correction=0).sum())
    if not base > 0:
        raise ValueError(f"`b` {str(given.b)!r} holds one point only: no scale for the kernel")
    return {"value": float(MMD(multiscale_imq(base))(x, y)), "base": base}


def _energy(given: Distance, x, y) -> dict:
    from monge.divergences import MMD
    from monge.kernels import Energy

    return {"value": float(MMD(Energy(), unbiased=False)(x, y))}


def _gromov(given: Distance, x, y) -> dict:
    from monge.kernels import distances
    from monge.transport import gromov_wasserstein

    plan = gromov_wasserstein(distances(x, x), distances(y, y), seed=given.seed)
    return {"value": float(plan.value), "iterations": plan.iterations, "seed": given.seed}


METHODS = {
    "exact": _exact,
    "w1": _exact,
    "sliced": _sliced,
    "max-sliced": _max_sliced,
    "gsliced": _gsliced,
    "sinkhorn": _sinkhorn,
    "mmd": _mmd,
    "energy": _energy,
    "gromov": _gromov,
}


def _sample(path: Path):
    """The samples of a file as rows (n, d) in float64; uint8 images in [0, 1]."""
    import torch

    from monge.data.kinds import kind_of
    from monge.data.readers.arrays import read, real

    samples = real(read(path).samples, str(path))
    kind = kind_of(samples, str(path))
    if kind.unordered:
        raise ValueError(
            f"{str(path)!r} holds clouds of points, whose order a distance of rows would see: "
            "give one cloud as rows (n, 3)"
        )
    scale = 255.0 if kind.bounded and samples.dtype == "uint8" else 1.0
    rows = kind.layout(samples, str(path)).astype("float64")
    return torch.from_numpy(rows).flatten(1) / scale
