"""Rows of `transport.py` for distances between samples that are no entropic ones: on slices and on
the line, by kernels, exact, and between metric spaces."""

import functools
import math
import time

import jax.numpy as jnp
import numpy as np
import ot
import torch
from ott.tools import sliced as ott_sliced
from transport_row import Row, differentiated, jitted

from monge.divergences import MMD
from monge.kernels import Compiled, multiscale_imq
from monge.transport import (
    gromov_wasserstein,
    max_sliced_wasserstein,
    sliced_wasserstein,
    uniform_directions,
    wasserstein,
    wasserstein_1d,
)


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
