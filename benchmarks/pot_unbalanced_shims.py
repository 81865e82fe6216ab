"""Functions of POT that call monge: unbalanced and partial transport, fused and partial
Gromov-Wasserstein, plans of low rank and the circle (see `pot_shims.py`)."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from pot_shims import like, refuse, settings, shim, tensors, warned, weighted, without_gradient

from monge import transport as mt

# Unbalanced and partial transport

PENALTIES = {"kl": mt.KL, "tv": mt.TV}


def reach_of(strength: Any, kind: str = "kl") -> Any:
    """The `reach` of POT's `reg_m` or `unbalanced`: a number for both sides, or one for each."""
    if not isinstance(kind, str) or kind.lower() not in PENALTIES:
        refuse(f"no counterpart of `unbalanced_type` = {kind!r}")
    penalty = PENALTIES[kind.lower()]
    numbers = [float(rho) for rho in np.atleast_1d(np.asarray(strength, dtype=float))]
    sides = tuple(penalty(rho) if math.isfinite(rho) else None for rho in numbers)
    return sides[0] if len(sides) == 1 else sides


def unbalanced(v: SimpleNamespace) -> tuple[Any, mt.Plan]:
    if v.method not in ("sinkhorn", "sinkhorn_stabilized", "sinkhorn_translation_invariant"):
        refuse("its one solver has no names of methods")
    if v.reg_type.lower() != "kl":
        refuse(f"no counterpart of `reg_type` = {v.reg_type!r}")
    cost, a, b = tensors(v.M, v.a, v.b)
    if b is not None and b.ndim == 2:
        b = b.T
    with warned(True):
        plan = mt.solve_entropic(cost, a, b, epsilon=v.reg, reach=reach_of(v.reg_m), **settings(v))
    return cost, plan


UNBALANCED = "a b M reg reg_m method reg_type numItermax stopThr log"


@shim("unbalanced.sinkhorn_unbalanced", kept=UNBALANCED)
def sinkhorn_unbalanced(v: SimpleNamespace) -> Any:
    without_gradient("a plan", v.M, v.a, v.b)
    _, plan = unbalanced(v)
    matrix = like(plan.plan if plan.value.ndim == 0 else plan.value_linear, v.M)
    return (matrix, _costs(v, plan)) if v.log else matrix


@shim("unbalanced.sinkhorn_unbalanced2", kept=f"{UNBALANCED} returnCost")
def sinkhorn_unbalanced2(v: SimpleNamespace) -> Any:
    _, plan = unbalanced(v)
    if v.returnCost == "linear":
        without_gradient("⟨C, π⟩, only of the entropic value", v.M, v.a, v.b)
    value = like(plan.value_linear if v.returnCost == "linear" else plan.value, v.M)
    return (value, _costs(v, plan)) if v.log else value


def _costs(v: SimpleNamespace, plan: mt.Plan) -> dict[str, Any]:
    logs = like([h / v.reg for h in plan.potentials], v.M)
    log = {"logu": logs[0], "logv": logs[1], "err": [plan.marginal_error]}
    return log | {"cost": like(plan.value_linear, v.M), "total_cost": like(plan.value, v.M)}


PARTIAL = "a b M m nb_dummies log"


def partial(v: SimpleNamespace) -> tuple[mt.Plan, dict[str, Any]]:
    cost, a, b = tensors(v.M, v.a, v.b)
    plan = mt.solve_partial(cost, a, b, mass=_mass(v.m, a, b))
    value = like(plan.value, v.M)
    return plan, {"partial_w_dist": value, "cost": value, "T": like(plan.plan, v.M)}


def _mass(mass: Any, a: torch.Tensor | None, b: torch.Tensor | None) -> float:
    """All that can be moved, where POT's m is None."""
    totals = [1.0 if w is None else float(w.sum()) for w in (a, b)]
    return min(totals) if mass is None else float(mass)


@shim("partial.partial_wasserstein", kept=PARTIAL)
def partial_wasserstein(v: SimpleNamespace) -> Any:
    without_gradient("a plan", v.M, v.a, v.b)
    _, log = partial(v)
    return (log["T"], log) if v.log else log["T"]


@shim("partial.partial_wasserstein2", kept=PARTIAL)
def partial_wasserstein2(v: SimpleNamespace) -> Any:
    _, log = partial(v)
    return (log["cost"], log) if v.log else log["cost"]


def entropic_partial(v: SimpleNamespace) -> Any:
    if getattr(v, "method", "sinkhorn") not in ("sinkhorn", "sinkhorn_log"):
        refuse("its one solver has no names of methods")
    without_gradient("⟨C, π⟩, only of the entropic value", v.M, v.a, v.b)
    cost, a, b = tensors(v.M, v.a, v.b)
    # POT stops at 10⁻¹⁰⁰ by default, which is at its limit of iterations
    limits = {"tolerance": max(v.stopThr, 1e-13), "max_iterations": int(v.numItermax)}
    plan = mt.solve_entropic_partial(cost, a, b, mass=_mass(v.m, a, b), epsilon=v.reg, **limits)
    matrix, value = like(plan.plan, v.M), like(plan.value_linear, v.M)
    return (matrix, {"partial_w_dist": value, "err": [plan.marginal_error]}) if v.log else matrix


ENTROPIC_PARTIAL = "a b M reg m method numItermax stopThr log"
for _name in ("entropic_partial_wasserstein", "entropic_partial_wasserstein_logscale"):
    shim(f"partial.{_name}", kept=ENTROPIC_PARTIAL)(entropic_partial)


# Gromov-Wasserstein


def partial_gromov(v: SimpleNamespace) -> tuple[Any, dict[str, Any]]:
    if getattr(v, "loss_fun", "square_loss") != "square_loss":
        refuse(f"no counterpart of `loss` = {v.loss_fun!r}")
    cx, cy, a, b = tensors(v.C1, v.C2, v.p, v.q)
    # from the starts of `gromov_wasserstein`, which the whole mass is compared with
    plan = mt.partial_gromov_wasserstein(cx, cy, a, b, mass=_mass(v.m, a, b), starts=4)
    value, matrix = like(plan.value, v.C1), like(plan.plan, v.C1)
    return matrix, {"partial_gw_dist": value, "T": matrix}


GROMOV = "C1 C2 p q m nb_dummies thres numItermax tol log symmetric warn"
PLANS = "partial.partial_gromov_wasserstein", "gromov.partial_gromov_wasserstein"
VALUES = "partial.partial_gromov_wasserstein2", "gromov.partial_gromov_wasserstein2"


def partial_gromov_plan(v: SimpleNamespace) -> Any:
    without_gradient("a plan", v.C1, v.C2)
    matrix, log = partial_gromov(v)
    return (matrix, log) if v.log else matrix


def partial_gromov_value(v: SimpleNamespace) -> Any:
    _, log = partial_gromov(v)
    return (log["partial_gw_dist"], log) if v.log else log["partial_gw_dist"]


# two functions each, with arguments of their own
for _name in PLANS:
    shim(_name, kept=GROMOV)(partial_gromov_plan)
for _name in VALUES:
    shim(_name, kept=GROMOV)(partial_gromov_value)


def of_plan(plan: mt.Plan, v: SimpleNamespace, distance: str) -> Any:
    """The matrix of a plan between spaces, and its log."""
    matrix = like(plan.plan, v.C1)
    return (matrix, {distance: like(plan.value, v.C1)}) if v.log else matrix


def of_value(plan: mt.Plan, v: SimpleNamespace, distance: str) -> Any:
    """The value of a plan between spaces, and its log."""
    value = like(plan.value, v.C1)
    return (value, {"T": like(plan.plan, v.C1), distance: value}) if v.log else value


def fused(v: SimpleNamespace) -> mt.Plan:
    cost, cx, cy, a, b = tensors(v.M, v.C1, v.C2, v.p, v.q)
    weighted(a, b)
    return mt.fused_gromov_wasserstein(cost, cx, cy, a, b, alpha=v.alpha)


FUSED = "M C1 C2 p q alpha log max_iter tol_rel tol_abs symmetric"


@shim("gromov.fused_gromov_wasserstein", "fused_gromov_wasserstein", kept=FUSED)
def fused_gromov_wasserstein(v: SimpleNamespace) -> Any:
    without_gradient("a plan", v.M, v.C1, v.C2)
    return of_plan(fused(v), v, "fgw_dist")


@shim("gromov.fused_gromov_wasserstein2", "fused_gromov_wasserstein2", kept=FUSED)
def fused_gromov_wasserstein2(v: SimpleNamespace) -> Any:
    return of_value(fused(v), v, "fgw_dist")


# Low rank


def _of_factors(plan: mt.LowRankPlan, given: Any, log: bool) -> Any:
    factors = tuple(like([plan.q, plan.r, plan.g], given))
    value = like(plan.value_linear, given)
    account = {"value": value, "value_linear": value, "lazy_plan": like(plan.plan, given)}
    return (*factors, account) if log else factors


@shim("lowrank.lowrank_sinkhorn", "lowrank_sinkhorn", kept="X_s X_t a b rank seed_init log warn")
def lowrank_sinkhorn(v: SimpleNamespace) -> Any:
    x, y, a, b = tensors(v.X_s, v.X_t, v.a, v.b)
    random = torch.Generator().manual_seed(v.seed_init)
    rank = v.rank or min(len(x), len(y))
    return _of_factors(mt.low_rank_sinkhorn(x, y, a, b, rank=rank, generator=random), v.X_s, v.log)


# The circle


def circle(v: SimpleNamespace) -> Any:
    u, w, a, b = tensors(v.u_values, v.v_values, v.u_weights, v.v_weights)
    weighted(a, b)
    # POT's samples are columns
    u, w, a, b = (z if z is None else z.movedim(0, -1) for z in (u, w, a, b))
    return like(mt.wasserstein_circle(u, w, a, b, p=v.p, period=1) ** v.p, v.u_values)


CIRCLE = "u_values v_values u_weights v_weights p Lm Lp tm tp eps"
for _name in ("wasserstein_circle", "binary_search_circle"):
    shim(_name, f"lp.{_name}", kept=CIRCLE)(circle)
