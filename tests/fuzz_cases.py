"""Random inputs at the edges of floating point, and what they say by an independent path."""

import warnings
from typing import NamedTuple

import numpy as np
import ot
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

CHOICES = {
    "n": list(range(1, 41)),
    "m": list(range(1, 41)),
    "equal": [True, False],
    "dim": list(range(1, 7)),
    "scale": [1.0, 1.0, 1.0, 1e-30, 1e-20, 1e-8, 1e-3, 1e3, 1e10, 1e20, 1e30],
    "offset": [0.0, 0.0, 0.0, 1e2, 1e4, 1e8],
    "far": [0.0, 0.0, 0.0, 1e4, 1e8],
    "ties": [False, False, True],
    "shared": [0.0, 0.0, 0.5, 1.0],
    "weights": ["none", "none", "uniform", "random", "zeros", "spread", "denormal"],
    "dtype": ["float16", "bfloat16", "float32", "float64"],
    "p": [1, 1.5, 2, 3, 7],
    "epsilon": [1e-6, 0.05, 0.5, 5.0],
    "seed": list(range(1000)),
}
ROUNDING = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 1e-5, torch.float64: 1e-11}


class Case(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor
    a: torch.Tensor | None
    b: torch.Tensor | None
    p: float
    scale: float
    epsilon: float
    """In units of the mean cost."""


class Points(NamedTuple):
    """What the rounded inputs say, in float64 and in units of `unit`, of about their extent."""

    x: np.ndarray
    y: np.ndarray
    a: np.ndarray
    b: np.ndarray
    unit: float
    size: float
    """The largest coordinate, in that unit."""


def made(choice) -> Case:
    """The case of a choice from each list of `CHOICES`."""
    rng = np.random.default_rng(choice["seed"])
    n, dim = choice["n"], choice["dim"]
    m = n if choice["equal"] else choice["m"]
    x, y = rng.normal(size=(n, dim)), 1.3 * rng.normal(size=(m, dim)) + 0.4
    if choice["ties"]:
        x, y = x.round(), y.round()
    copied = rng.random(m) < choice["shared"]
    y[copied] = x[rng.integers(n, size=m)][copied]
    if choice["far"]:
        x[0] = y[-1] = choice["far"]
    dtype = getattr(torch, choice["dtype"])
    x, y = (torch.from_numpy(choice["scale"] * (z + choice["offset"])).to(dtype) for z in (x, y))
    a, b = (weights(choice["weights"], k, rng) for k in (n, m))
    if a is not None:
        a, b = a.to(dtype), b.to(dtype)
    return Case(x, y, a, b, choice["p"], choice["scale"], choice["epsilon"])


def weights(kind, n, rng):
    if kind == "none":
        return None
    w = np.ones(n) if kind == "uniform" else rng.random(n) + 0.01
    if kind == "zeros":
        w *= rng.random(n) < 0.5
    elif kind == "spread":
        w = 10.0 ** rng.uniform(-12, 0, n)
    elif kind == "denormal":
        w[rng.random(n) < 0.3] = 1e-310
    w[0] = max(w[0], 0.5)
    return torch.from_numpy(w / w.sum())


def read(case: Case) -> Points:
    x, y = (z.detach().double().numpy() for z in (case.x, case.y))
    both = np.concatenate([x, y])
    # a power of 2 divides without rounding
    unit = 2.0 ** np.frexp(float(np.ptp(both, 0).max()) or 1.0)[1]
    laws = (
        np.full(len(z), 1 / len(z)) if w is None else w.double().numpy() / w.double().sum().item()
        for z, w in ((x, case.a), (y, case.b))
    )
    return Points(x / unit, y / unit, *laws, unit, np.abs(both).max() / unit)


# References


def optimum(cost, case: Case, points: Points) -> tuple[float, float]:
    """The optimal cost of a matrix of costs of at most 1, and what float64 knows of it."""
    if case.a is None and cost.shape[0] == cost.shape[1]:
        rows, columns = linear_sum_assignment(cost)
        return float(cost[rows, columns].mean()), 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan, log = ot.emd(points.a, points.b, cost, log=True, numItermax=10**7)
    f = log["u"]
    g = (cost - f[:, None]).min(0)
    f = (cost - g).min(1)
    value = float((plan * cost).sum())
    gap = abs(value - float(points.a @ f + points.b @ g))
    # a mass of one rounding error may go anywhere
    return value, gap + 1e-15 * cost.shape[0] * float(cost.max())


def rooted(value, doubt, p):
    """The p-th root with its doubt."""
    low, high = max(value - doubt, 0.0) ** (1 / p), (value + doubt) ** (1 / p)
    return value ** (1 / p), high - low


def of_points(case: Case):
    """W_p, in the unit of the samples."""
    points = read(case)
    value, doubt = optimum(cdist(points.x, points.y) ** case.p, case, points)
    root, doubt = rooted(value, doubt, case.p)
    return root * points.unit, doubt * points.unit


def of_slices(case: Case, theta) -> tuple[float, float]:
    points = read(case)
    powers, doubts = [], []
    for direction in theta.detach().double().numpy():
        u, v = (z @ direction for z in (points.x, points.y))
        cost = np.abs(u[:, None] - v) ** case.p
        value, doubt = optimum(cost, case, points)
        powers.append(value)
        doubts.append(doubt)
    root, doubt = rooted(np.mean(powers), np.mean(doubts), case.p)
    # projections are rounded at the size of the coordinates
    lost = 1e-14 * points.size
    return root * points.unit, (doubt + lost) * points.unit


def entropic(cost, a, b, epsilon) -> tuple[float, float]:
    """OT_ε by plain Sinkhorn in the log domain, and what its marginal error leaves open."""
    live = a > 0, b > 0
    cost, a, b = cost[live[0]][:, live[1]], a[live[0]], b[live[1]]
    f, g, error = np.zeros(len(a)), np.zeros(len(b)), np.inf
    for sweep in range(4000):
        minimum = -epsilon * logsumexp((f[:, None] - cost) / epsilon, axis=0, b=a[:, None])
        if sweep % 20 == 19:
            error = float(np.abs(b * np.expm1((g - minimum) / epsilon)).sum())
            if error < 1e-12:
                break
        g = minimum
        f = -epsilon * logsumexp((g - cost) / epsilon, axis=1, b=b)
    return float(a @ f + b @ g), error * float(cost.max()) if error < 1e-7 else np.inf


def unbalanced(cost, a, b, epsilon, rho, best, dual) -> tuple[float, float]:
    """Unbalanced OT_ε by the plain iteration, with the map from soft minima to potentials and the
    dual of the penalty, and what its residual leaves open."""
    live = a > 0, b > 0
    cost, a, b = cost[live[0]][:, live[1]], a[live[0]], b[live[1]]
    f, g, error = np.zeros(len(a)), np.zeros(len(b)), np.inf
    for _ in range(4000):
        image = best(-epsilon * logsumexp((f[:, None] - cost) / epsilon, axis=0, b=a[:, None]))
        error = float(np.abs(b * np.expm1((g - image) / epsilon)).sum())
        g = image
        f = best(-epsilon * logsumexp((g - cost) / epsilon, axis=1, b=b))
        if error < 1e-12:
            break
    mass = float(np.sum(a[:, None] * b * np.exp((f[:, None] + g - cost) / epsilon)))
    value = a @ dual(f) + b @ dual(g) - epsilon * (mass - a.sum() * b.sum())
    return float(value), error * (float(cost.max()) + rho) if error < 1e-7 else np.inf
