"""More functions of POT that call monge: Gaussians, barycenters, Gromov-Wasserstein, the common
solvers and maps (see `pot_shims.py`)."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import ot
import torch
from pot_shims import (
    _method,
    _power,
    like,
    refuse,
    settings,
    shim,
    tensors,
    warned,
    weighted,
    with_log,
    without_gradient,
)
from pot_unbalanced_shims import of_plan, of_value, reach_of

from monge import maps
from monge import transport as mt

# Gaussians


def _moments(x: Any, w: Any, reg: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean (d,) and the covariance (d, d) of an array, as POT has them."""
    x, w = tensors(x, w)
    w = x.new_full((len(x),), 1 / len(x)) if w is None else w.reshape(-1)
    mean = w @ x
    return mean, (x - mean).T @ (w[:, None] * (x - mean)) + reg * torch.eye(x.shape[1]).to(x)


def _pairs(v: SimpleNamespace, ms: torch.Tensor, mt_: torch.Tensor) -> Any:
    """W_2 between all Gaussians of two sets, or those of equal number."""
    cs, ct = tensors(v.Cs, v.Ct)
    if ms.ndim == 1:
        return mt.gaussian_wasserstein(ms, cs, mt_, ct)
    n, m = len(ms), len(mt_)
    if v.paired:
        return mt.gaussian_wasserstein(ms, cs, mt_, ct)
    i, j = torch.arange(n).repeat_interleave(m), torch.arange(m).repeat(n)
    return mt.gaussian_wasserstein(ms[i], cs[i], mt_[j], ct[j]).reshape(n, m)


@shim("gaussian.bures_wasserstein_distance", kept="ms mt Cs Ct paired log")
def bures_wasserstein_distance(v: SimpleNamespace) -> Any:
    return with_log(v, like(_pairs(v, *tensors(v.ms, v.mt)), v.ms))


@shim("gaussian.bures_distance", kept="Cs Ct paired log")
def bures_distance(v: SimpleNamespace) -> Any:
    cs, ct = tensors(v.Cs, v.Ct)
    zeros = torch.zeros_like(cs[..., 0]), torch.zeros_like(ct[..., 0])
    return with_log(v, like(_pairs(v, *zeros), v.Cs))


@shim("gaussian.bures_wasserstein_mapping", kept="ms mt Cs Ct log")
def bures_wasserstein_mapping(v: SimpleNamespace) -> Any:
    ms, mt_, cs, ct = tensors(v.ms, v.mt, v.Cs, v.Ct)
    linear, shift = mt.gaussian_map(ms.reshape(-1), cs, mt_.reshape(-1), ct)
    return with_log(v, *like((linear, shift.reshape(ms.shape)), v.ms))


@shim("gaussian.empirical_bures_wasserstein_mapping", kept="xs xt reg ws wt log")
def empirical_bures_wasserstein_mapping(v: SimpleNamespace) -> Any:
    linear, shift = mt.gaussian_map(*_moments(v.xs, v.ws, v.reg), *_moments(v.xt, v.wt, v.reg))
    return with_log(v, *like((linear, shift[None]), v.xs))


@shim("gaussian.empirical_bures_wasserstein_distance", kept="xs xt reg ws wt log")
def empirical_bures_wasserstein_distance(v: SimpleNamespace) -> Any:
    source, target = _moments(v.xs, v.ws, v.reg), _moments(v.xt, v.wt, v.reg)
    return with_log(v, like(mt.gaussian_wasserstein(*source, *target), v.xs))


@shim("gaussian.bures_wasserstein_barycenter", kept="m C weights num_iter eps log")
def bures_wasserstein_barycenter(v: SimpleNamespace) -> Any:
    m, c, w = tensors(v.m, v.C, v.weights)
    weighted(w)
    found = mt.gaussian_barycenter(m, c, w, tolerance=v.eps, max_iterations=v.num_iter)
    return with_log(v, *like(found, v.m))


# Barycenters

BARYCENTER = "A M reg weights method numItermax stopThr log warn"


def _account(v: SimpleNamespace, found: mt.HistogramBarycenter) -> Any:
    masses = like(found.masses, v.A)
    log = {"err": [found.marginal_error], "niter": found.iterations}
    return (masses, log) if v.log else masses


def _histograms(v: SimpleNamespace, debiased: bool) -> Any:
    _method(v)
    without_gradient("a barycenter", v.A)
    a, cost, w = tensors(v.A, v.M, v.weights)
    weighted(a, w)
    with warned(v.warn):
        found = mt.histogram_barycenter(
            a.T, cost, w, epsilon=v.reg, debiased=debiased, **settings(v)
        )
    return _account(v, found)


def _grids(v: SimpleNamespace, debiased: bool) -> Any:
    _method(v)
    without_gradient("a barycenter", v.A)
    stack = v.A if not isinstance(v.A, (list, tuple)) else np.stack([tensors(z)[0] for z in v.A])
    a, w = tensors(stack, v.weights)
    if a.shape[1] != a.shape[2]:
        refuse("grids have square cells")
    weighted(w)
    if not torch.allclose(a.sum((1, 2)).double(), torch.ones(()).double(), atol=1e-5):
        refuse("weights must sum to 1")
    epsilon = v.reg * (a.shape[1] - 1) ** 2
    with warned(v.warn):
        found = mt.grid_barycenter(a, w, epsilon=epsilon, debiased=debiased, **settings(v))
    return _account(v, found)


shim("barycenter", "bregman.barycenter", kept=BARYCENTER)(lambda v: _histograms(v, False))
shim("bregman.barycenter_debiased", kept=BARYCENTER)(lambda v: _histograms(v, True))
shim("bregman.convolutional_barycenter2d", kept=BARYCENTER)(lambda v: _grids(v, False))
shim("bregman.convolutional_barycenter2d_debiased", kept=BARYCENTER)(lambda v: _grids(v, True))


@shim(
    "lp.free_support_barycenter",
    kept="measures_locations measures_weights X_init weights numItermax stopThr",
)
def free_support_barycenter(v: SimpleNamespace) -> Any:
    samples, masses = tensors(*v.measures_locations), tensors(*v.measures_weights)
    start, w = tensors(v.X_init, v.weights)
    weighted(w, *masses)
    found = mt.free_support_barycenter(
        samples, w, start=start, sample_masses=masses, **settings(v)
    )
    return like(found.points, v.X_init)


# Gromov-Wasserstein

GROMOV = "C1 C2 p q log max_iter tol_rel tol_abs symmetric"


def _gromov(v: SimpleNamespace) -> mt.Plan:
    cx, cy, a, b = tensors(v.C1, v.C2, v.p, v.q)
    weighted(a, b)
    return mt.gromov_wasserstein(cx, cy, a, b)


@shim("gromov.gromov_wasserstein", "gromov_wasserstein", kept=GROMOV)
def gromov_wasserstein(v: SimpleNamespace) -> Any:
    without_gradient("a plan", v.C1, v.C2)
    return of_plan(_gromov(v), v, "gw_dist")


@shim("gromov.gromov_wasserstein2", "gromov_wasserstein2", kept=GROMOV)
def gromov_wasserstein2(v: SimpleNamespace) -> Any:
    return of_value(_gromov(v), v, "gw_dist")


@shim(
    "gromov.entropic_gromov_wasserstein",
    "gromov.entropic_gromov_wasserstein2",
    kept="C1 C2 p q epsilon max_iter tol symmetric",
)
def entropic_gromov_wasserstein(v: SimpleNamespace) -> Any:
    cx, cy, a, b = tensors(v.C1, v.C2, v.p, v.q)
    weighted(a, b)
    plan = mt.entropic_gromov_wasserstein(cx, cy, a, b, epsilon=v.epsilon)
    return like(plan.plan, v.C1)


# The common solvers


class Result:
    """What `ot.solve` returns, as far as monge has it."""

    def __init__(self, plan: mt.Plan, given: Any, value: bool = True):
        self._backend = ot.backend.get_backend(given)
        self.plan = like(plan.plan, given)
        self.value_linear = like(plan.value_linear, given)
        self.potentials = like(plan.potentials, given)
        self.potential_a, self.potential_b = self.potentials
        matrix = plan.plan.detach()
        self.marginals = like((matrix.sum(1), matrix.sum(0)), given)
        self.marginal_a, self.marginal_b = self.marginals
        if value:
            self.value = like(plan.value, given)

    def __getattr__(self, name: str) -> Any:
        refuse(f"a Plan has no `{name}`")


LINEAR = "a b reg reg_type unbalanced unbalanced_type max_iter tol method grad"
"""`unbalanced_type` has no effect without `unbalanced`."""


def _limits(v: SimpleNamespace) -> dict[str, Any]:
    if v.method is not None:
        refuse("its one solver has no names of methods")
    if v.reg_type != "KL" and v.reg:
        refuse(f"no counterpart of `reg_type` = {str(v.reg_type)!r}")
    tolerance = {} if v.tol is None else {"tolerance": max(v.tol, 1e-300)}
    if v.unbalanced is not None:
        if not v.reg:
            refuse("unbalanced transport has an epsilon")
        tolerance["reach"] = reach_of(v.unbalanced, v.unbalanced_type)
    return tolerance | ({} if v.max_iter is None else {"max_iterations": v.max_iter})


def _no_plan_gradient(v: SimpleNamespace, *given: Any) -> None:
    if v.grad not in ("autodiff", "envelope"):
        refuse(f"no counterpart of `grad` = {v.grad!r}")
    if v.reg:
        without_gradient("a plan", *given)


@shim("solve", kept=f"M {LINEAR}")
def solve(v: SimpleNamespace) -> Any:
    _no_plan_gradient(v, v.M)
    cost, a, b = tensors(v.M, v.a, v.b)
    limits = _limits(v)
    if v.unbalanced is None:
        weighted(a, b)
    if v.reg:
        return Result(mt.solve_entropic(cost, a, b, epsilon=v.reg, **limits), v.M)
    if v.max_iter is not None:
        refuse("no limit of the network simplex")
    return Result(mt.solve(cost, a, b), v.M)


@shim("solve_sample", kept=f"X_a X_b metric debias {LINEAR}")
def solve_sample(v: SimpleNamespace) -> Any:
    _no_plan_gradient(v, v.X_a, v.X_b)
    x, y, a, b = tensors(v.X_a, v.X_b, v.a, v.b)
    p, limits = _power(v.metric if v.metric != "cityblock" else None), _limits(v)
    if v.unbalanced is None:
        weighted(a, b)
    if v.debias:
        if not v.reg:
            refuse("an exact distance has no bias")
        value = mt.sinkhorn_divergence(x, y, a, b, epsilon=v.reg, p=p, **limits)
        result = Result(mt.sinkhorn(x, y, a, b, epsilon=v.reg, p=p, **limits), v.X_a, value=False)
        result.value = like(value, v.X_a)
        return result
    if v.reg:
        return Result(mt.sinkhorn(x, y, a, b, epsilon=v.reg, p=p, **limits), v.X_a)
    if v.max_iter is not None:
        refuse("no limit of the network simplex")
    return Result(mt.solve(torch.cdist(x, y) ** p, a, b), v.X_a)


@shim(
    "solve_gromov",
    kept="Ca Cb M a b loss alpha reg unbalanced unbalanced_type symmetric max_iter tol",
)
def solve_gromov(v: SimpleNamespace) -> Any:
    if v.loss != "L2":
        refuse(f"no counterpart of `loss` = {v.loss!r}")
    cx, cy, cost, a, b = tensors(v.Ca, v.Cb, v.M, v.a, v.b)
    if v.unbalanced_type == "semirelaxed":
        refuse("no counterpart of `unbalanced_type` = 'semirelaxed'")
    if v.unbalanced is not None:
        if v.unbalanced_type != "partial" or v.reg:
            refuse("no fused unbalanced Gromov-Wasserstein with one penalty")
        if cost is not None and v.alpha != 1:
            refuse("no fused partial Gromov-Wasserstein")
        plan = mt.partial_gromov_wasserstein(cx, cy, a, b, mass=v.unbalanced)
        return _of_both_terms(v, plan, None)
    weighted(a, b)
    if v.reg:
        without_gradient("a plan", v.Ca, v.Cb, v.M)
    if cost is None:
        plan = (
            mt.entropic_gromov_wasserstein(cx, cy, a, b, epsilon=v.reg)
            if v.reg
            else mt.gromov_wasserstein(cx, cy, a, b)
        )
    elif v.reg:
        plan = mt.entropic_fused_gromov_wasserstein(
            cost, cx, cy, a, b, epsilon=v.reg, alpha=v.alpha
        )
    else:
        plan = mt.fused_gromov_wasserstein(cost, cx, cy, a, b, alpha=v.alpha)
    return _of_both_terms(v, plan, cost)


def _of_both_terms(v: SimpleNamespace, plan: mt.Plan, cost: torch.Tensor | None) -> Result:
    """The result with the two terms of the objective; POT's entropy is not relative to weights."""
    result = Result(plan, v.Ca, value=not v.reg)
    linear = plan.value_linear.new_zeros(())
    if cost is not None:
        linear = (1 - v.alpha) * (cost.detach() * plan.plan).sum()
    result.value_linear = None if cost is None else like(linear, v.Ca)
    result.value_quad = like(plan.value_linear - linear, v.Ca)
    return result


# Maps


class Transport:
    """A class of `ot.da`, as far as a map of monge has its methods."""

    def __init__(self, made: maps.TransportMap):
        self.map = made

    def fit(self, Xs: Any = None, ys: Any = None, Xt: Any = None, yt: Any = None) -> "Transport":
        if ys is not None or yt is not None:
            refuse("labels have another penalty")
        self.map.fit(Xs, Xt)
        return self

    def transform(self, Xs: Any = None, **rest: Any) -> Any:
        return self.map.transform(Xs)

    def inverse_transform(self, Xt: Any = None, **rest: Any) -> Any:
        return self.map.inverse_transform(Xt)

    def fit_transform(self, Xs: Any = None, ys: Any = None, Xt: Any = None, yt: Any = None) -> Any:
        return self.fit(Xs, ys, Xt, yt).transform(Xs)

    def __getattr__(self, name: str) -> Any:
        refuse(f"maps have no `{name}`")


@shim("da.EMDTransport", kept="")
def emd_transport(v: SimpleNamespace) -> Any:
    return Transport(maps.ExactMap())


@shim("da.SinkhornTransport", kept="reg_e tol")
def sinkhorn_transport(v: SimpleNamespace) -> Any:
    return Transport(maps.EntropicMap(v.reg_e, tolerance=v.tol))


class Linear(Transport):
    """`ot.da.LinearTransport`: x ↦ x A + B, and back by A1 and B1."""

    @property
    def A_(self) -> Any:
        return self.map.matrix_.numpy()

    @property
    def A1_(self) -> Any:
        return self.map.inverse_matrix_.numpy()

    @property
    def B_(self) -> Any:
        return self.map.shift_.numpy()

    @property
    def B1_(self) -> Any:
        return self.map.inverse_shift_.numpy()


@shim("da.LinearTransport", kept="reg log")
def linear_transport(v: SimpleNamespace) -> Any:
    if v.reg > 1e-6:
        refuse("`reg` is relative to the variance")
    return Linear(maps.LinearMap(v.reg))
