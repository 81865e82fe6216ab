"""`monge distance`: how far apart two files of samples are."""

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from monge.cli.common import Float, Int, Place, tell

WEIGHTED = ("exact", "w1", "sliced", "max-sliced", "gsliced", "max-gsliced", "sinkhorn")
SLICED = ("gsliced", "max-gsliced")
"""Methods that slice along curves, which see where the origin is."""
DRAWN = {"sliced": 1000, "gsliced": 1000, "max-gsliced": 32}
"""How many directions or slices each method draws by default."""


@dataclass(frozen=True)
class Distance:
    """Measure how far apart two samples are, each a .npy, .npz or .csv file."""

    a: Positional[Path]
    """The first sample, (n, …)."""
    b: Positional[Path]
    """The second sample, (m, …)."""
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
        x, y = _pair(self)
        if x.shape[1] != y.shape[1] and self.method != "gromov":
            raise ValueError(
                f"`b` {str(self.b)!r} has samples of {y.shape[1]} numbers, `a` of {x.shape[1]}"
            )
        as_given = self.reach is not None
        weights = (
            _weights("weights_a", self.weights_a, x, as_given),
            _weights("weights_b", self.weights_b, y, as_given),
        )
        began = time.perf_counter()
        values = METHODS[self.method](self, x, y, *weights)
        if not math.isfinite(values["value"]):
            raise ValueError(
                f"`--method` {self.method} gives {values['value']}: samples of this size leave "
                "float64, rescale both"
            )
        seconds = round(time.perf_counter() - began, 4)
        sizes = {"n": len(x), "m": len(y), "d": x.shape[1]}
        result = {"method": self.method, **values, **sizes, "seconds": seconds}
        text = "  ".join(f"{name} {content}" for name, content in result.items())
        tell(json.dumps(result) if self.json else text)

    def _check(self) -> None:
        """Refuses flags that would change what is measured if the method heeded them, before
        anything is read. Settings of the computation are ignored where a method has none, as the
        order and the seed are, so that a loop over methods may give them all."""
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
        """How many directions or slices are drawn."""
        return self.directions or DRAWN[self.method]


def _exact(given: Distance, x, y, a, b) -> dict:
    from monge.transport import wasserstein

    p = 1.0 if given.method == "w1" else given.p
    value = float(wasserstein(x, y, a, b, p=p))
    if given.map is not None and math.isfinite(value):  # otherwise the verb fails
        _save_map(given, x, y, p)
    return {"value": value, "p": p}


def _save_map(given: Distance, x, y, p: float) -> None:
    """Writes the images of x, in the units of the files."""
    import io

    import numpy as np
    import torch

    from monge._core.files import write_all
    from monge.transport import monge_map, quantile_map

    assert given.map is not None
    rows, *_ = _read(given.b)
    if x.shape[1] == 1:
        # of the positions, which are exact whatever the values are
        images = quantile_map(x[:, 0], y[:, 0])
        order = y[:, 0].argsort(stable=True)
        index = order[torch.searchsorted(y[:, 0][order], images.contiguous())]
    else:
        index = monge_map(x, y, p=p)
    content = io.BytesIO()
    np.save(content, rows[index.numpy()])
    write_all(given.map.parent, {given.map.name: content.getvalue()}, "--map")


def _sliced(given: Distance, x, y, a, b) -> dict:
    from monge.draws import generator
    from monge.transport import sliced_wasserstein_estimate

    seeded = generator(given.seed, "distance")
    value, error = sliced_wasserstein_estimate(
        x, y, a, b, p=given.p, directions=given.drawn, generator=seeded
    )
    drawn = {"p": given.p, "directions": given.drawn, "seed": given.seed}
    return {"value": float(value), "standard_error": float(error), **drawn}


def _max_sliced(given: Distance, x, y, a, b) -> dict:
    from monge.draws import generator
    from monge.transport import max_sliced_wasserstein

    seeded = generator(given.seed, "distance")
    value, _ = max_sliced_wasserstein(x, y, a, b, p=given.p, generator=seeded)
    return {"value": float(value), "p": given.p, "seed": given.seed}


def _gsliced(given: Distance, x, y, a, b) -> dict:
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


def _sinkhorn(given: Distance, x, y, a, b) -> dict:
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


def _mean_cost(x, y, a, b, p: float) -> float:
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


def _mmd(given: Distance, x, y, a, b) -> dict:
    from monge.divergences import MMD
    from monge.kernels import multiscale_imq

    base = 2 * float(y.var(0, correction=0).sum())
    if not base > 0:
        raise ValueError(
            f"`b` {str(given.b)!r} has variance 0, or one below float64: no scale for the kernel"
        )
    return {"value": float(MMD(multiscale_imq(base))(x, y)), "base": base}


def _energy(given: Distance, x, y, a, b) -> dict:
    from monge.divergences import EnergyDistance

    return {"value": float(EnergyDistance()(x, y))}


def _gromov(given: Distance, x, y, a, b) -> dict:
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


def _read(path: Path):
    """The samples of a file as rows (n, d), in the dtype of the file, whether they are bytes of
    images, which are divided by 255, and whether they are images."""
    from monge.data.kinds import kind_of
    from monge.data.readers.arrays import real

    samples = real(_numbers(path), str(path))
    kind = kind_of(samples, str(path))
    if kind.unordered:
        raise ValueError(
            f"{str(path)!r} holds point clouds, whose order a distance between rows would depend "
            "on: give one cloud as rows (n, 3)"
        )
    rows = kind.layout(samples, str(path)).reshape(len(samples), -1)
    scaled = kind.bounded and samples.dtype == "uint8"
    return (rows / 255.0 if scaled else rows), scaled, kind.bounded


def _numbers(path: Path):
    """The numbers in a file."""
    from monge.data.readers.arrays import read

    found = read(path)
    for column in () if found.schema is None else found.schema.columns:
        if column.kind == "category":
            raise ValueError(
                f"{str(path)!r} has a column {column.name!r} of texts, such as "
                f"{column.values[0]!r}: distances are between rows of numbers"
            )
    return found.samples


def _pair(given: Distance):
    """Both samples in float64; integers that float64 would round are first shifted by one offset,
    which no distance but those along curves sees."""
    import numpy as np
    import torch

    from monge._core.promotion import EXACT_INTEGERS

    (one, scaled, images), (two, others_scaled, others_images) = _read(given.a), _read(given.b)
    if (scaled and not others_images) or (others_scaled and not images):
        raise ValueError(
            f"`a` {str(given.a)!r} and `b` {str(given.b)!r} are bytes of images, which are "
            "divided by 255, and rows of numbers, which are not: give both in one layout"
        )
    rows = one, two
    wide = [z.dtype.kind in "iu" and abs(z.astype(float)).max() > EXACT_INTEGERS for z in rows]
    if not any(wide):
        return [torch.from_numpy(z.astype(np.float64)) for z in rows]
    if given.method == "gromov":
        columns = [z.min(0) for z in rows]  # each space has an offset of its own
    elif all(z.dtype.kind in "iu" for z in rows) and given.method not in SLICED:
        least = [min(map(int, pair)) for pair in zip(*(z.min(0) for z in rows))]
        columns = [np.array(least, dtype=object)] * 2
    else:
        name = "a" if wide[0] else "b"
        raise ValueError(
            f"`{name}` {str(getattr(given, name))!r} holds integers beyond 2^53, which float64 "
            "rounds: subtract one offset from both samples"
        )
    # exact, as Python's integers
    return [
        torch.from_numpy((z.astype(object) - least).astype(np.float64))
        for z, least in zip(rows, columns)
    ]


def _weights(name: str, path: Path | None, samples, as_given: bool):
    """The weights in a file, as given or divided by their sum; None without a file."""
    import torch

    from monge.data.readers.arrays import real

    if path is None:
        return None
    w = real(_numbers(path), str(path)).astype("float64")
    flag = f"`--{name.replace('_', '-')}` {str(path)!r}"
    if w.size != w.shape[0] or len(w) != len(samples):
        raise ValueError(
            f"{flag} must hold {len(samples)} weights, one for each sample, got shape {w.shape}"
        )
    if not (w.min() >= 0 and 0 < w.sum() < float("inf")):
        raise ValueError(f"{flag} must be at least 0 with a positive, finite sum")
    return torch.from_numpy((w if as_given else w / w.sum()).ravel())
