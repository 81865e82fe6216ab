"""Transport distances with their gradients: monge, POT, GeomLoss, OTT-JAX and plain PyTorch.

    python benchmarks/transport.py [--rounds 5] [--only WORD ...] [--memory] [--write]

Every row computes a value and its gradient in x on the same inputs (those marked "value", which
are in `transport_plans.py`, only the value), in one process, on the same number of threads, on one
thread in processor time; where directions are drawn, all take the same ones. Values are compared
before anything is timed. Entropic solvers stop at the same L1 marginal error: GeomLoss, which has
no stopping rule, gets its smallest scaling that reaches it, OTT the fastest of its accelerations.
Ratios of medians over alternating rounds are the result. `--memory` measures in processes of their
own how far the resident memory rises. `--write` puts each figure here and in the docs as it comes,
among those of other rows.
"""

import argparse
import functools
import json
import math
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import geomloss
import jax
import jax.numpy as jnp
import numpy as np
import ot
import ott
import torch
import transport_plans as plans
from ott.geometry import pointcloud
from ott.solvers import linear
from ott.solvers.linear import acceleration
from ott.tools import sinkhorn_divergence as ott_divergence
from ott.tools import sliced as ott_sliced
from torch import Tensor

from monge.divergences import MMD
from monge.kernels import Compiled, multiscale_imq
from monge.transport import (
    gromov_wasserstein,
    max_sliced_wasserstein,
    sinkhorn,
    sinkhorn_divergence,
    sliced_wasserstein,
    uniform_directions,
    wasserstein,
    wasserstein_1d,
)

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs" / "distances.md"
PEERS = ("plain", "POT", "GeomLoss", "OTT")
ERROR = 1e-3
"""The L1 marginal error at which entropic solvers stop."""
ours_alone = False
LONGEST = 40.0
"""Seconds above which a peer is left out."""
SLOW = 10.0
"""Seconds above which a subject is timed once."""


class Row(NamedTuple):
    """A workload: each subject computes a value, and what it returns is thrown away when timed."""

    subjects: dict[str, Callable[[], float]]
    tolerance: float = 1e-3
    target: float = 1.0


def differentiated(function: Callable[..., Tensor], x: Tensor, *others: Tensor):
    """Value and gradient in x."""

    def run() -> float:
        leaf = x.clone().requires_grad_()
        value = function(leaf, *others)
        torch.autograd.grad(value, leaf)
        return float(value.detach())

    return run


def jitted(function: Callable, x: Tensor, *others: Tensor):
    """Value and gradient in x of a JAX function."""
    arrays = [jnp.asarray(z.numpy()) for z in (x, *others)]
    compiled = jax.jit(jax.value_and_grad(function))
    return lambda: float(jax.block_until_ready(compiled(*arrays))[0])


def sliced(n: int, d: int, count: int, target: float, libraries: bool = True) -> Row:
    """SW_2 on given directions."""
    x, y, theta = torch.randn(n, d), torch.randn(n, d) + 0.5, uniform_directions(count, d)

    def plain(x, y, theta):
        u, v = (x @ theta.T).sort(0).values, (y @ theta.T).sort(0).values
        return (u - v).square().mean().sqrt()

    def otts(x, y, theta):
        project = lambda z, *_, **__: z @ theta.T  # noqa: E731
        return jnp.sqrt(ott_sliced.sliced_wasserstein(x, y, proj_fn=project)[0])

    def pot(x, y, t):
        return ot.sliced_wasserstein_distance(x, y, projections=t.T)

    subjects = {
        "monge": differentiated(
            lambda x, y, t: sliced_wasserstein(x, y, directions=t), x, y, theta
        ),
        "plain": differentiated(plain, x, y, theta),
    }
    if libraries:
        subjects |= {"POT": differentiated(pot, x, y, theta), "OTT": jitted(otts, x, y, theta)}
    return Row(subjects, target=target)


def unequal(n: int, m: int, d: int, count: int) -> Row:
    """SW_2 between weighted samples of unlike sizes."""
    a, b = torch.rand(n, dtype=torch.float64), torch.rand(m, dtype=torch.float64)
    a, b = (a / a.sum()).float(), (b / b.sum()).float()
    x, y, theta = torch.randn(n, d), torch.randn(m, d) + 0.5, uniform_directions(count, d)
    return Row(
        {
            "monge": differentiated(
                lambda x, y: sliced_wasserstein(x, y, a, b, directions=theta), x, y
            ),
            "POT": differentiated(
                lambda x, y: ot.sliced_wasserstein_distance(x, y, a, b, projections=theta.T), x, y
            ),
        },
        target=4.0,
    )


def max_sliced(n: int, d: int) -> Row:
    """The worst slice of samples whose covariances differ: a larger value is a better one."""
    x, y = torch.randn(n, d), torch.randn(n, d)
    y[:, :5] *= 1.5

    def ours(x, y):
        return max_sliced_wasserstein(x, y, generator=torch.Generator().manual_seed(0))[0]

    def plain(x, y):
        """Adam on one direction, in the manner of the published codes."""
        theta = uniform_directions(1, d).requires_grad_()
        optimiser = torch.optim.Adam([theta], 0.1)

        def power(x, y, theta):
            theta = torch.nn.functional.normalize(theta)
            return (x @ theta.T).sort(0).values.sub((y @ theta.T).sort(0).values).square().mean()

        for _ in range(100):
            optimiser.zero_grad()
            (-power(x.detach(), y, theta)).backward()
            optimiser.step()
        return power(x, y, theta.detach()).sqrt()

    def pot(x, y):
        return ot.max_sliced_wasserstein_distance(x, y, n_projections=1000, seed=0)

    subjects = {"monge": ours, "plain": plain, "POT": pot}
    return Row({k: differentiated(f, x, y) for k, f in subjects.items()}, math.inf, target=6.0)


def line(n: int, gradient: bool) -> Row:
    """W_2 on the line."""
    u, v = torch.randn(n), torch.randn(n)
    subjects = {
        "monge": wasserstein_1d,
        "plain": lambda u, v: (u.sort().values - v.sort().values).square().mean().sqrt(),
        "POT": lambda u, v: ot.wasserstein_1d(u, v, p=2).sqrt(),
    }
    if gradient:
        return Row({k: differentiated(f, u, v) for k, f in subjects.items()}, target=5.0)
    return Row(
        {k: functools.partial(lambda f: float(f(u, v)), f) for k, f in subjects.items()},
        target=15.0,
    )


def mmd(n: int, d: int, target: float, others: bool = True) -> Row:
    """Unbiased MMD² with the seven-scale kernel."""

    def plain(x, y):
        def mean(x, y, off=0):
            squared = torch.cdist(x, y).square()
            scales = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
            k = sum(s * 2 * d / (s * 2 * d + squared) for s in scales)
            return (k.sum() - off) / (n * n if off == 0 else n * (n - 1))

        return mean(x, x, 7 * n) + mean(y, y, 7 * n) - 2 * mean(x, y)

    x, y = torch.randn(n, d), torch.randn(n, d) + 0.5
    kernel = multiscale_imq(2.0 * d)
    subjects = {"monge": differentiated(MMD(kernel), x, y)}
    if others:
        # not a peer: the opt-in, whose first call compiles
        subjects["monge, compiled"] = differentiated(MMD(Compiled(kernel)), x, y)
        began = time.perf_counter()
        subjects["monge, compiled"]()
        print(f"  compiled in {time.perf_counter() - began:.1f} s")
        subjects["plain"] = differentiated(plain, x, y)
    return Row(subjects, target=target)


def of_unit_variance(n: int, d: int, generator: torch.Generator | None = None):
    """Two samples of E‖x - E x‖² = 1, the second moved by 0.5."""
    x, y = (torch.randn(n, d, generator=generator) / d**0.5 for _ in range(2))
    return x, y + 0.5 / d**0.5


def entropic(n: int, d: int, blur: float, target: float = 1.0, others: bool = True) -> Row:
    """The Sinkhorn divergence for the cost ‖x - y‖², of samples with E‖x - E x‖² = 1."""
    (x, y), epsilon = of_unit_variance(n, d), 2 * blur**2
    subjects = {
        "monge": differentiated(
            lambda x, y: sinkhorn_divergence(x, y, epsilon=epsilon, tolerance=ERROR), x, y
        )
    }
    if others and not ours_alone:
        loss = geomloss.SamplesLoss(
            "sinkhorn", p=2, blur=blur, scaling=scaling_of(d, blur), backend="tensorized"
        )
        once = differentiated(lambda x, y: 2 * loss(x, y), x, y)
        began = time.perf_counter()
        differentiated(loss, x[:1024], y[:1024])()
        expected = (time.perf_counter() - began) * (n / 1024) ** 2
        if expected < LONGEST:
            subjects["GeomLoss"] = once
        else:
            print(f"  GeomLoss left out: it would take {expected:.0f} s")
        options = acceleration_of(d, blur)
        subjects["OTT"] = jitted(functools.partial(otts_divergence, epsilon, options), x, y)
    return Row(subjects, 0.02, target=target)


def otts_divergence(epsilon: float, options: dict, x, y):
    value, _ = ott_divergence.sinkhorn_divergence(
        pointcloud.PointCloud, x, y, epsilon=epsilon, solve_kwargs=options
    )
    return value


@functools.cache
def scaling_of(d: int, blur: float, n: int = 1024) -> float:
    """GeomLoss's smallest scaling that reaches the marginal error, or its best."""
    x, y = of_unit_variance(n, d, torch.Generator().manual_seed(1))
    scalings = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
    for scaling in scalings:
        loss = geomloss.SamplesLoss(
            "sinkhorn",
            p=2,
            blur=blur,
            scaling=scaling,
            debias=False,
            potentials=True,
            backend="tensorized",
        )
        f, g = (h.view(-1).double() for h in loss(x, y))
        exponent = (f[:, None] + g - torch.cdist(x.double(), y.double()).square() / 2) / blur**2
        plan = exponent.exp() / n**2
        error = max((plan.sum(k) - 1 / n).abs().sum() for k in (0, 1))
        if error <= ERROR:
            break
    print(f"  GeomLoss, d = {d}, blur {blur}: scaling {scaling}, error {float(error):.2g}")
    return scaling


@functools.cache
def acceleration_of(d: int, blur: float, n: int = 1024) -> dict:
    """OTT's fastest setting that converges."""
    x, y = of_unit_variance(n, d, torch.Generator().manual_seed(1))
    common = {"threshold": ERROR, "max_iterations": 20_000}
    settings = {
        "default": {},
        "momentum 1.5": {"momentum": acceleration.Momentum(value=1.5)},
        "adaptive momentum": {"momentum": acceleration.Momentum(start=50)},
        "Anderson": {"anderson": acceleration.AndersonAcceleration(memory=5)},
        "checked each time": {"inner_iterations": 1},
    }
    times = {}
    for name, extra in settings.items():
        run = jitted(functools.partial(otts_divergence, 2 * blur**2, common | extra), x, y)
        if math.isfinite(run()):
            began = time.perf_counter()
            run()
            times[name] = time.perf_counter() - began
    best = min(times, key=times.__getitem__)
    print(f"  OTT, d = {d}, blur {blur}: {best}")
    return common | settings[best]


def unbalanced(n: int, d: int, blur: float, rho: float, target: float = 2.5) -> Row:
    """The divergence with KL penalties of ρ on the marginals, of samples of unit variance.

    OTT is left out: with τ = ρ/(ρ + ε) on both sides its divergence has another value.
    """
    (x, y), epsilon = of_unit_variance(n, d), 2 * blur**2
    settings = {"epsilon": epsilon, "tolerance": ERROR, "reach": rho}
    subjects = {"monge": differentiated(functools.partial(sinkhorn_divergence, **settings), x, y)}
    if ours_alone:
        return Row(subjects, 0.02, target=target)
    method, stop = method_of(d, blur, rho)
    subjects["POT"] = lambda: pots_divergence(x, y, epsilon, rho, method, stop)
    if n <= 1024:
        loss = geomloss.SamplesLoss(
            "sinkhorn",
            p=2,
            blur=blur,
            reach=(rho / 2) ** 0.5,
            scaling=unbalanced_scaling_of(d, blur, rho),
            backend="tensorized",
        )
        subjects["GeomLoss"] = differentiated(lambda x, y: 2 * loss(x, y), x, y)
    return Row(subjects, 0.02, target=target)


def pots_plan(x: Tensor, y: Tensor, epsilon: float, rho: float, method: str, stop: float):
    """POT's plan of uniform weights, its value, its gradient in x, and the residual of its
    potentials. POT's own gradient goes through all iterations, which takes longer."""
    a, b = (torch.full((len(z),), 1 / len(z)) for z in (x, y))
    cost = torch.cdist(x, y).square()
    options = {"reg_type": "kl", "numItermax": 20_000, "stopThr": stop, "method": method}
    plan, log = ot.unbalanced.sinkhorn_unbalanced(a, b, cost, epsilon, rho, log=True, **options)
    rows, columns = plan.sum(1), plan.sum(0)

    def kl(p, q):
        return torch.xlogy(p, p / q).sum() - p.sum() + q.sum()

    value = (plan * cost).sum() + epsilon * kl(plan, a[:, None] * b)
    value = value + rho * (kl(rows, a) + kl(columns, b))
    slope = 2 * (rows[:, None] * x - plan @ y)
    f, g = (epsilon * log[name].double() for name in ("logu", "logv"))
    residuals = [
        float((w * ((h + rho * (r / w).double().log()) / (rho + epsilon)).expm1().abs()).sum())
        for w, h, r in ((a, f, rows), (b, g, columns))
    ]
    return value, slope, max(residuals)


def pots_divergence(x, y, epsilon: float, rho: float, method: str, stop: float) -> float:
    options = epsilon, rho, method, stop
    values = [pots_plan(*pair, *options)[0] for pair in ((x, y), (x, x), (y, y))]
    return float(values[0] - values[1] / 2 - values[2] / 2)


@functools.cache
def method_of(d: int, blur: float, rho: float, n: int = 1024) -> tuple[str, float]:
    """POT's fastest method, and the largest threshold with which it reaches the error."""
    x, y = of_unit_variance(n, d, torch.Generator().manual_seed(1))
    times = {}
    for method in ("sinkhorn", "sinkhorn_stabilized", "sinkhorn_translation_invariant"):
        for stop in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7):
            began = time.perf_counter()
            *_, error = pots_plan(x, y, 2 * blur**2, rho, method, stop)
            if error <= ERROR:
                times[method, stop] = time.perf_counter() - began
                break
    best = min(times, key=times.__getitem__) if times else ("sinkhorn", 1e-6)
    print(f"  POT, d = {d}, blur {blur}, ρ {rho}: {best if times else 'none reaches the error'}")
    return best


@functools.cache
def unbalanced_scaling_of(d: int, blur: float, rho: float, n: int = 512) -> float:
    """GeomLoss's smallest scaling that reaches the residual, or its best."""
    x, y = of_unit_variance(n, d, torch.Generator().manual_seed(1))
    epsilon, error = 2 * blur**2, math.inf
    cost, scaling = torch.cdist(x.double(), y.double()).square(), 0.5
    for scaling in (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995):
        loss = geomloss.SamplesLoss(
            "sinkhorn",
            p=2,
            blur=blur,
            reach=(rho / 2) ** 0.5,
            scaling=scaling,
            debias=False,
            potentials=True,
            backend="tensorized",
        )
        f, g = (2 * h.view(-1).double() for h in loss(x, y))
        soft = -epsilon * (((g - cost) / epsilon).logsumexp(1) - math.log(n))
        error = ((f - soft / (1 + epsilon / rho)) / epsilon).expm1().abs().mean()
        if error <= ERROR:
            break
    print(
        f"  GeomLoss, d = {d}, blur {blur}, ρ {rho}: scaling {scaling}, error {float(error):.2g}"
    )
    return scaling


def exact(n: int, d: int, target: float) -> Row:
    """W_2 between equally many points."""
    x, y = torch.randn(n, d), torch.randn(n, d)

    def pot(x, y):
        weights = torch.full((n,), 1 / n)
        return ot.emd2(weights, weights, ot.dist(x, y), numItermax=10**7).sqrt()

    subjects = {"monge": differentiated(wasserstein, x, y), "POT": differentiated(pot, x, y)}
    return Row(subjects, target=target)


def batched_exact(count: int, n: int, d: int, target: float) -> Row:
    """The sum of W_2 over a batch of pairs of equally many points; POT's is a loop."""
    x, y = torch.randn(count, n, d), torch.randn(count, n, d) + 0.5
    w = torch.full((n,), 1 / n)

    def pot(x, y):
        values = [ot.emd2(w, w, ot.dist(u, v), numItermax=10**7).sqrt() for u, v in zip(x, y)]
        return torch.stack(values).sum()

    subjects = {
        "monge": differentiated(lambda x, y: wasserstein(x, y).sum(), x, y),
        "POT": differentiated(pot, x, y),
    }
    return Row(subjects, target=target)


def batched_entropic(count: int, n: int, d: int, blur: float, target: float) -> Row:
    """The sum of OT_ε over a batch, each item to the same marginal error."""
    (x, y), epsilon = of_unit_variance(count * n, d), 2 * blur**2
    x, y = x.view(count, n, d), y.view(count, n, d)
    subjects = {
        "monge": differentiated(
            lambda x, y: sinkhorn(x, y, epsilon=epsilon, tolerance=ERROR).value.sum(), x, y
        )
    }
    for method in ("log_sinkhorn", "sinkhorn"):
        solve = pots_batch(x, y, epsilon, method)
        if solve is not None:
            name = "POT" if method == "log_sinkhorn" else "POT, plain"
            subjects[name] = differentiated(lambda x, y, f=solve: f(x, y).value.sum(), x, y)
    settings = {"default": {}, "each": {"inner_iterations": 1}, "kernel": {"lse_mode": False}}
    found = {}
    for name, extra in settings.items():
        run = jitted(functools.partial(otts_batch, epsilon, extra), x, y)
        if math.isclose(run(), subjects["monge"](), rel_tol=1e-3):
            began = time.perf_counter()
            run()
            found[name] = time.perf_counter() - began, run
    if found:
        best = min(found, key=lambda name: found[name][0])
        print(f"  OTT, vmap: {best}")
        subjects["OTT"] = found[best][1]
    return Row(subjects, target=target)


def pots_batch(x: Tensor, y: Tensor, epsilon: float, method: str):
    """POT's batched solver at its loosest tolerance that reaches the marginal error, or None where
    none does within `LONGEST` seconds."""

    def solve(x, y, tolerance):
        cost = ot.batch.dist_batch(x, y)
        return ot.batch.solve_batch(
            cost, epsilon, tol=tolerance, reg_type="kl", method=method, max_iter=10**5
        )

    for tolerance in (1e-2, 3e-3, 1e-3, 3e-4, 1e-4):
        began = time.perf_counter()
        plans = solve(x, y, tolerance).plan
        error = max(
            float((plans.sum(side) - 1 / plans.shape[3 - side]).abs().sum(1).max())
            for side in (1, 2)
        )
        if error <= ERROR:
            print(f"  POT, {method}: tolerance {tolerance}, error {error:.2g}")
            return functools.partial(solve, tolerance=tolerance)
        if not math.isfinite(error) or time.perf_counter() - began > LONGEST:
            break
    print(f"  POT, {method}: left out, error {error:.2g}")
    return None


def otts_batch(epsilon: float, options: dict, x, y):
    def one(x, y):
        geometry = pointcloud.PointCloud(x, y, epsilon=epsilon)
        return linear.solve(
            geometry, threshold=ERROR, max_iterations=20_000, **options
        ).reg_ot_cost

    return jax.vmap(one)(x, y).sum()


def gromov(n: int) -> Row:
    """The Gromov-Wasserstein objective from the product plan, without gradient."""
    x, y = torch.randn(n, 3, dtype=torch.float64), torch.randn(n, 2, dtype=torch.float64)
    cx, cy, w = torch.cdist(x, x), torch.cdist(y, y), np.full(n, 1 / n)

    def pot() -> float:
        options = {"max_iter": 10_000, "tol_rel": 1e-9, "tol_abs": 1e-9}
        return ot.gromov.gromov_wasserstein2(cx.numpy(), cy.numpy(), w, w, **options)

    subjects = {
        "monge": lambda: float(gromov_wasserstein(cx, cy, starts=1).value),
        "POT": pot,
    }
    return Row(subjects, 1e-3)


ROWS: dict[str, Callable[[], Row]] = {
    "sliced W2 (256, 8, 50)": lambda: sliced(256, 8, 50, 12),
    "sliced W2 (1,024, 784, 1,000)": lambda: sliced(1024, 784, 1000, 4),
    "sliced W2 (10,000, 64, 1,000)": lambda: sliced(10_000, 64, 1000, 25),
    "sliced W2 (1,000,000, 3, 50)": lambda: sliced(1_000_000, 3, 50, 12, libraries=False),
    "sliced W2, weighted (10,000 / 7,000, 64, 100)": lambda: unequal(10_000, 7_000, 64, 100),
    "max-sliced W2 (10,000, 64)": lambda: max_sliced(10_000, 64),
    "line, 10⁶ points, value": lambda: line(10**6, gradient=False),
    "line, 10⁶ points": lambda: line(10**6, gradient=True),
    "line, 10⁷ points, value": lambda: line(10**7, gradient=False),
    "line, 10⁷ points": lambda: line(10**7, gradient=True),
    "MMD (1,024, 64)": lambda: mmd(1024, 64, 2),
    "MMD (8,192, 64)": lambda: mmd(8192, 64, 9),
    "MMD (65,536, 64)": lambda: mmd(65_536, 64, 1, others=False),
    **{
        f"Sinkhorn divergence ({n:,}, {d}), blur {blur}": functools.partial(
            entropic, n, d, blur, target
        )
        for n, target in ((1024, 2.3), (4096, 2.8), (10_000, 3.0))
        for d in (3, 64)
        for blur in (0.5, 0.05)
    },
    "Sinkhorn divergence (100,000, 3), blur 0.5": lambda: entropic(100_000, 3, 0.5, others=False),
    **{
        f"unbalanced Sinkhorn divergence ({n:,}, {d}), blur {blur}, ρ {rho}": functools.partial(
            unbalanced, n, d, blur, rho
        )
        for n, rho in ((1024, 0.1), (1024, 1.0), (4096, 1.0))
        for d in (3, 64)
        for blur in (0.5, 0.15)
    },
    "exact W2 (1,000, 3)": lambda: exact(1000, 3, 1.5),
    "exact W2 (2,000, 3)": lambda: exact(2000, 3, 1.5),
    "exact W2 (5,000, 3)": lambda: exact(5000, 3, 2),
    "256 × exact W2 (64, 3)": lambda: batched_exact(256, 64, 3, 4),
    "256 × Sinkhorn (64, 3), blur 0.5": lambda: batched_entropic(256, 64, 3, 0.5, 5),
    "256 × Sinkhorn (64, 3), blur 0.1": lambda: batched_entropic(256, 64, 3, 0.1, 5),
    "partial (1,000), 0.7 of the mass, value": lambda: Row(plans.partial(1000, 0.7)),
    **{
        f"entropic partial (500), ε {share} of the mean cost, value": functools.partial(
            lambda share: Row(plans.entropic_partial(500, 0.7, share)), share
        )
        for share in (0.1, 0.03)
    },
    "free-support barycenter, 3 × 300 points, value": lambda: Row(
        plans.free_support(3, 300, 10), target=2.0
    ),
    "histogram barycenter, 3 × 500 bins, value": lambda: Row(
        plans.fixed_support(500, 5e-3), target=2.0
    ),
    "image barycenter, 3 × 64 × 64, value": lambda: Row(plans.images(64, 5e-3), target=2.0),
    "Gaussian barycenter, 10 in 20 dimensions, value": lambda: Row(
        plans.gaussians(10, 20), target=2.0
    ),
    "semidiscrete to 1 % (300, 3), value": lambda: Row(
        plans.semidiscrete(300, 3), math.inf, target=10.0
    ),
    "low rank 20 (2,000, 3), value": lambda: Row(plans.low_rank(2000, 3, 20), math.inf),
    "Gromov-Wasserstein (500)": lambda: gromov(500),
    "Gromov-Wasserstein (1,000)": lambda: gromov(1000),
}


def made(name: str) -> Row:
    """The row, with the same inputs whatever ran before."""
    torch.manual_seed(0)
    return ROWS[name]()


def measure(row: Row, rounds: int) -> dict[str, float]:
    """Median milliseconds of each subject; an error if they do not agree."""
    # on one thread, that of the processor: other programs do not count
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    values, times = {}, {}
    for name, run in row.subjects.items():
        began = clock()
        values[name] = run()
        if clock() - began < SLOW:
            began = clock()
            run()
        times[name] = [clock() - began]
    for name, value in values.items():
        if abs(value - values["monge"]) > row.tolerance * abs(values["monge"]):
            print(f"  {name} disagrees: {values}")
    repeats = {name: min(200, max(1, round(0.02 / times[name][0]))) for name in times}
    for _ in range(rounds):
        for name, run in row.subjects.items():
            if times[name][0] > SLOW:
                continue
            began = clock()
            for _ in range(repeats[name]):
                run()
            times[name].append((clock() - began) / repeats[name])
    print("  values:", {name: round(value, 5) for name, value in values.items()})
    return {name: 1e3 * statistics.median(found) for name, found in times.items()}


def resident(field: str) -> int:
    """Kilobytes from the process's own account."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if field in x)
    return int(line.split()[1])


def alone(name: str, subject: str) -> None:
    """Prints by how many megabytes the resident memory rises while a subject runs."""
    global ours_alone
    ours_alone = subject == "monge"
    run = made(name).subjects[subject]
    if subject == "OTT":
        run()  # compiles
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    run()
    print((resident("VmHWM") - before) // 1024)


def memory(name: str, subjects) -> dict[str, int]:
    command = [sys.executable, __file__, "--alone", name]
    return {
        subject: int(
            subprocess.run(
                [*command, subject], check=True, capture_output=True, text=True
            ).stdout.split()[-1]
        )
        for subject in subjects
    }


def table(results: dict[str, dict]) -> str:
    """The results in Markdown."""
    lines = [
        "| value and gradient | monge, ms | "
        + " | ".join(f"{p}, ×" for p in PEERS)
        + " | target, × | memory, MB: monge / least of the others |",
        "|---" * (len(PEERS) + 4) + "|",
    ]
    for name, found in results.items():
        times, space = found["milliseconds"], found.get("megabytes", {})
        ratios = [f"{times[p] / times['monge']:.1f}" if p in times else "" for p in PEERS]
        others = [f"{v:,}" for k, v in sorted(space.items(), key=lambda i: i[1]) if k != "monge"]
        spaces = f"{space['monge']:,} / {others[0] if others else '–'}" if space else ""
        if "monge, compiled" in times:
            name += f", compiled {times['monge, compiled']:,.1f} ms"
        if found["threads"] == 1:
            name += ", one thread"
        goal = f"{found['target']:g}" if len(times) > 1 else "runs"
        lines.append(
            f"| {name} | {times['monge']:,.1f} | {' | '.join(ratios)} | {goal} | {spaces} |"
        )
    return "\n".join(lines)


def machine() -> dict[str, str | int]:
    """What the figures depend on."""
    cpu = Path("/proc/cpuinfo").read_text()
    flags = cpu.split("flags", 1)[1].split("\n", 1)[0]
    versions = {m.__name__: m.__version__ for m in (torch, np, ot, ott, jax)}
    return {
        "processor": cpu.split("model name", 1)[1].split(":", 1)[1].split("\n", 1)[0].strip(),
        "vectors": "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "SSE",
        "geomloss": "0.3.1",
        **versions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[""], help="words in the names of rows")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    if given.alone:
        alone(*given.alone)
        return
    results = {}
    for name in ROWS:
        if not any(word in name for word in given.only):
            continue
        print(name, flush=True)
        row = made(name)
        found: dict = {"milliseconds": measure(row, given.rounds), "target": row.target}
        found["threads"] = torch.get_num_threads()
        if given.memory and max(found["milliseconds"].values()) < 1e3 * SLOW:
            # the peers' settings for these take long to find
            subjects = ["monge"] if "Sinkhorn" in name else row.subjects
            found["megabytes"] = memory(name, subjects)
        results[name] = found
        print(table({name: found}).splitlines()[-1], flush=True)
        if given.write:
            record(results, given.rounds)
    print(table(results))
    print(f"most memory of this process: {resident('VmHWM') // 1024:,} MB")


def record(results: dict[str, dict], rounds: int) -> None:
    """Writes the results beside this file and into the docs, among those of other rows."""
    path = HERE / "transport.json"
    known = json.loads(path.read_text()).get("rows", {}) if path.exists() else {}
    rows = {name: row for name in ROWS if (row := results.get(name, known.get(name)))}
    about = {"machine": machine(), "rounds": rounds, "rows": rows}
    path.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    page, marks = DOCS.read_text(), r"(<!-- rates -->\n).*(<!-- end of rates -->)"
    DOCS.write_text(re.sub(marks, lambda m: f"{m[1]}\n{table(rows)}\n\n{m[2]}", page, flags=re.S))


if __name__ == "__main__":
    main()
