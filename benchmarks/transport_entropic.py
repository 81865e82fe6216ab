"""Rows of `transport.py` for entropic transport: balanced, unbalanced and in batches."""

import functools
import math
import time

import geomloss
import jax
import ot
import torch
from ott.geometry import pointcloud
from ott.solvers import linear
from ott.solvers.linear import acceleration
from ott.tools import sinkhorn_divergence as ott_divergence
from torch import Tensor
from transport_row import ERROR, Row, differentiated, jitted, of_unit_variance

from monge.transport import sinkhorn, sinkhorn_divergence

LONGEST = 40.0
"""Seconds above which a peer is left out."""
ours_alone = False
"""Whether rows have no peers, whose settings take long to find."""


def divergence(n: int, d: int, blur: float, target: float = 1.0, others: bool = True) -> Row:
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


def batch(count: int, n: int, d: int, blur: float, target: float) -> Row:
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
