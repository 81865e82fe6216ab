"""Rows of `transport.py` without a gradient in points: partial plans, barycenters, semidiscrete
plans and plans of low rank. Each function returns what is timed for each library."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import ot
import semidiscrete as to_a_goal
import torch
from ott.geometry import pointcloud
from ott.initializers.linear import initializers_lr
from ott.problems.linear import linear_problem
from ott.solvers.linear import sinkhorn_lr

from monge.transport import (
    free_support_barycenter,
    gaussian_barycenter,
    grid_barycenter,
    histogram_barycenter,
    low_rank_sinkhorn,
    solve_entropic_partial,
    solve_partial,
)

Subjects = dict[str, Callable[[], float]]
ERROR = 1e-3


def doubles(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def quietly(function: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """A result that stops at a limit on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **named)


def partial(n: int, mass: float) -> Subjects:
    """The exact cost of a share of the mass, between points in three dimensions."""
    cost, w = ot.dist(doubles(n, 3), doubles(n, 3, seed=1) + 0.5), np.full(n, 1 / n)
    return {
        "monge": lambda: float(solve_partial(cost, w, w, mass=mass).value),
        "POT": lambda: float(ot.partial.partial_wasserstein2(w, w, cost, m=mass)),
    }


def entropic_partial(n: int, mass: float, share: float) -> Subjects:
    """⟨C, π⟩ at ε = `share` of the mean cost, both to 10⁻⁹ in the change of the plan."""
    cost, w = ot.dist(doubles(n, 3), doubles(n, 3, seed=1) + 0.5), np.full(n, 1 / n)
    epsilon = share * float(cost.mean())

    def pot() -> float:
        plan = ot.partial.entropic_partial_wasserstein(
            w, w, cost, epsilon, m=mass, numItermax=10**5, stopThr=1e-9
        )
        return float((plan * cost).sum())

    def ours() -> float:
        plan = solve_entropic_partial(cost, w, w, mass=mass, epsilon=epsilon, tolerance=1e-9)
        return float(plan.value_linear)

    return {"monge": ours, "POT": pot}


def free_support(count: int, n: int, iterations: int) -> Subjects:
    """The mean norm of the positions after equally many iterations, by exact plans."""
    clouds = [doubles(n, 2, seed=k) * (1 + k) + k for k in range(count)]
    weights = [np.full(n, 1 / n)] * count
    ours = functools.partial(free_support_barycenter, clouds, start=clouds[0])

    def pot() -> float:
        points = ot.lp.free_support_barycenter(
            clouds, weights, clouds[0], numItermax=iterations, stopThr=1e-30
        )
        return float(np.linalg.norm(points, axis=1).mean())

    def monge() -> float:
        points = quietly(ours, tolerance=1e-15, max_iterations=iterations).points
        return float(points.norm(dim=1).mean())

    return {"monge": monge, "POT": pot}


def fixed_support(bins: int, epsilon: float) -> Subjects:
    """The entropic barycenter of three histograms: its second moment."""
    places = np.linspace(0, 1, bins)
    b = np.stack([np.exp(-((places - m) ** 2) / 0.02) for m in (0.25, 0.5, 0.8)])
    b, cost = b / b.sum(1, keepdims=True), (places[:, None] - places) ** 2
    options = {"epsilon": epsilon, "debiased": False, "tolerance": 1e-7}
    return {
        "monge": lambda: float(histogram_barycenter(b, cost, **options).masses @ places**2),
        "POT": lambda: float(
            ot.bregman.barycenter(b.T, cost, epsilon, numItermax=10_000, stopThr=1e-7) @ places**2
        ),
    }


def images(side: int, epsilon: float) -> Subjects:
    """The entropic barycenter of three images, by convolution: the sum of its squares."""
    b = np.random.default_rng(0).uniform(size=(3, side, side)) ** 8
    b /= b.sum((1, 2), keepdims=True)
    options = {"epsilon": epsilon, "spacing": 1 / (side - 1), "debiased": False}
    return {
        "monge": lambda: float(
            grid_barycenter(b, tolerance=1e-6, **options).masses.square().sum()
        ),
        "POT": lambda: float(
            (ot.bregman.convolutional_barycenter2d(b, epsilon, stopThr=1e-7) ** 2).sum()
        ),
    }


def gaussians(count: int, d: int) -> Subjects:
    """The trace of the covariance of the barycenter, to 10⁻⁸."""
    factors, means = doubles(count, d, d), doubles(count, d, seed=1)
    covs = factors @ factors.transpose(0, 2, 1) + np.eye(d)
    return {
        "monge": lambda: float(gaussian_barycenter(means, covs, tolerance=1e-8)[1].trace()),
        "POT": lambda: float(
            ot.gaussian.bures_wasserstein_barycenter(means, covs, num_iter=1000, eps=1e-8)[
                1
            ].trace()
        ),
    }


def semidiscrete(m: int, d: int) -> Subjects:
    """With the fewest draws with which each is within 1 % of the best dual value. What is
    returned, a mean of potentials, compares nothing."""
    y = to_a_goal.points(m, d)
    best = to_a_goal.best_known(y)
    draws = {
        name: to_a_goal.reached(one, y, best)["value"]["draws"] // m
        for name, one in to_a_goal.SOLVERS.items()
    }
    print("   draws for each point:", draws)
    return {
        title: functools.partial(
            lambda name: float(to_a_goal.SOLVERS[name](y, draws[name], 0).mean()), name
        )
        for title, name in (("monge", "monge"), ("POT", "pot"))
    }


def low_rank(n: int, d: int, rank: int) -> Subjects:
    """The cost of a plan of low rank, OTT's compiled before, from clusters by k-means."""
    x, y = (torch.from_numpy(doubles(n, d, seed=k)).float() * (1 + 0.3 * k) + k for k in (0, 1))
    solver = sinkhorn_lr.LRSinkhorn(rank, initializer=initializers_lr.KMeansInitializer(rank))

    def solve(x: Any, y: Any) -> Any:
        return solver(linear_problem.LinearProblem(pointcloud.PointCloud(x, y))).primal_cost

    compiled, arrays = jax.jit(solve), (x.numpy(), y.numpy())

    def ours() -> float:
        random = torch.Generator().manual_seed(0)
        return float(low_rank_sinkhorn(x, y, rank=rank, generator=random).value)

    return {"monge": ours, "OTT": lambda: float(jax.block_until_ready(compiled(*arrays)))}
