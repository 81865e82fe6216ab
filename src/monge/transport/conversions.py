r"""Plans and settings in the conventions of POT and GeomLoss.

POT has the cost of `ot.dist`, ‖x_i - y_j‖², and `reg` in units of it, as monge has. `ot.emd`
centres its dual potentials so that ⟨a, u⟩ = ⟨b, v⟩, and `ot.sinkhorn` gives scalings

    π_ij = u_i exp(-C_ij/ε) v_j,   u_i = a_i exp(f_i/ε),   v_j = b_j exp(g_j/ε),

of which only the product is determined. GeomLoss divides the cost by its order, ‖x_i - y_j‖^p / p,
and writes ε as blur^p and the marginal penalty as reach^p, so that monge's ε is p·blur^p, its
penalty p·reach^p, and its values are p times those of GeomLoss.

Source: Flamary et al., "POT: Python optimal transport", 2021; Feydy et al., "Interpolating between
optimal transport and MMD using Sinkhorn divergences", 2019.
"""

import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from monge._core.checks import distribution_weights, finite, instance, order, positive
from monge._core.promotion import WEIGHTS, as_tensor, promoted
from monge.transport.plan import Plan

OPTIMAL = 1
"""The result code of POT's network simplex."""
MOST_ROUNDING = 0.01
"""The largest rounding of a potential, in units of ε, with which scalings still give the plan."""
LEAST_ACCURACY = 1e-5
"""The relative difference up to which the dual value of a plan may differ from its cost."""
MOST_MISMATCH = 0.01
"""The relative difference above which a plan is refused as that of another problem."""


def to_pot(
    plan: Plan, a: Any = None, b: Any = None, *, epsilon: float | None = None
) -> tuple[Tensor, dict[str, Any]]:
    """A plan as `ot.emd(..., log=True)` returns it, or `ot.sinkhorn(..., log=True)`.

    Args:
        plan: of one problem, by `solve`, `sinkhorn` or `solve_entropic`.
        a: weights (n,) of the entropic problem; uniform by default.
        b: weights (m,).
        epsilon: ε of an entropic plan; None for an exact one.

    Returns:
        π (n, m) and the log, in float64 and without gradient. For an exact plan the log has the
        keys `cost`, `u`, `v`, `warning` and `result_code`; of an entropic one the scalings `u`
        and `v`, their logarithms `log_u` and `log_v`, `niter`, and `err` with ‖πᵀ1 - b‖.

    Raises:
        ValueError: for the plans of a batch, and for weights or an ε that are not those of the
            plan.

    Example:
        >>> matrix, log = to_pot(solve(cost, a, b))
        >>> value, dual = log["cost"], log["u"]
    """
    instance("plan", plan, Plan, "solve(cost)")
    if plan.value.ndim:
        raise ValueError(
            f"`plan` must be of one problem, got a batch of {len(plan.value)}: solve them in turn"
        )
    matrix = plan.plan.detach().double()
    rows, columns = matrix.sum(1), matrix.sum(0)
    f, g = (potential.detach().double() for potential in plan.potentials)
    # the network simplex loses digits of potentials beside costs that forbid pairs
    accuracy = max(torch.finfo(plan.potentials[0].dtype).eps ** 0.5, LEAST_ACCURACY)
    if abs(float(matrix.sum()) - 1) > plan.marginal_error + accuracy:
        raise ValueError(
            f"`plan` transports a mass of {float(matrix.sum()):.4g}, not 1: unbalanced and "
            "partial plans have no counterpart"
        )
    linear = plan.value_linear.double()
    # ε KL(π | a⊗b): exactly 0 where there is mass only where f_i + g_j = C_ij
    penalty = float(rows @ f + columns @ g - linear)
    rounding = accuracy * float(rows @ f.abs() + columns @ g.abs() + linear.abs())
    if epsilon is not None:
        mu, nu = _weights(a, b, matrix)
        missed = float(max((rows - mu).abs().sum(), (columns - nu).abs().sum()))
        if missed > plan.marginal_error + accuracy:
            raise ValueError(
                f"`a` and `b` must be the weights of the plan, which misses them by {missed:.3g}"
            )
        divergence = _divergence(matrix, mu, nu)
        if abs(positive("epsilon", epsilon) * divergence - penalty) > rounding:
            found = penalty / divergence if divergence > 0 else 0.0
            raise ValueError(f"`epsilon` must be that of the plan, {found:.4g}, got {epsilon:.4g}")
        return matrix, _scalings(plan, mu, nu, epsilon)
    if abs(penalty) > rounding:
        raise ValueError(
            f"`epsilon` must be given for a plan whose potentials differ from its cost, here by "
            f"{penalty:.3g}: pass that of the plan"
        )
    shift = (columns @ g - rows @ f) / 2
    log = {"cost": float(plan.value_linear), "u": f + shift, "v": g - shift}
    return matrix, log | {"warning": None, "result_code": OPTIMAL}


def _scalings(plan: Plan, mu: Tensor, nu: Tensor, epsilon: float) -> dict[str, Any]:
    """The log of `ot.sinkhorn`."""
    f, g = (potential.detach().double() for potential in plan.potentials)
    largest = float(max(f.abs().max(), g.abs().max()))
    rounding = torch.finfo(plan.potentials[0].dtype).eps * largest
    if rounding > MOST_ROUNDING * epsilon:
        raise ValueError(
            f"`plan` has potentials up to {largest:.3g}, rounded by {rounding:.2g}: too much for "
            f"`epsilon` {epsilon:.2g}; solve it in float64, with points about 0"
        )
    log_u, log_v = mu.log() + f / epsilon, nu.log() + g / epsilon
    # a factor is free: with this one neither side overflows before the other
    shift = (log_v.max() - log_u.max()) / 2
    log_u, log_v = log_u + shift, log_v - shift
    missed = plan.plan.detach().double().sum(0) - nu
    log = {"err": [float(missed.square().sum().sqrt())], "niter": plan.iterations}
    return log | {"log_u": log_u, "log_v": log_v, "u": log_u.exp(), "v": log_v.exp()}


@promoted(matrix=2, cost=2, a=WEIGHTS, b=WEIGHTS)
def from_pot(
    matrix: Tensor,
    log: Mapping[str, Any],
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float | None = None,
    tolerance: float = 1e-4,
) -> Plan:
    """The plan that `ot.emd` or `ot.sinkhorn` returned with log=True, with its observed error.

    Args:
        matrix: π (n, m).
        log: what came with it: that of `ot.emd`, or of any method of `ot.sinkhorn`.
        cost: C (n, m), which POT calls M.
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        epsilon: POT's `reg`; None for a plan of `ot.emd`.
        tolerance: on the marginal error, for `converged`.

    Returns:
        The plan, without gradient. `value` is ⟨C, π⟩, entropic ⟨C, π⟩ + ε KL(π | a⊗b), as of
        `ot.solve` with its default `reg_type`.

    Raises:
        ValueError: for a cost or ε that is not that of the plan, scalings that have
            underflowed, NaN, or invalid weights.

    Example:
        >>> plan = from_pot(*ot.emd(a, b, M, log=True), M, a, b)
        >>> plan = from_pot(*ot.sinkhorn(a, b, M, reg, log=True), M, a, b, epsilon=reg)
    """
    tolerance = positive("tolerance", tolerance)
    if matrix.ndim != 2 or matrix.shape != cost.shape:
        raise ValueError(
            f"`matrix` and `cost` must be matrices of one shape, got {tuple(matrix.shape)} and "
            f"{tuple(cost.shape)}"
        )
    instance("log", log, Mapping, "that of ot.emd(..., log=True)")
    pi, wide = finite("matrix", matrix).detach().double(), finite("cost", cost).detach().double()
    mu, nu = _weights(a, b, pi)
    linear = (wide * pi).sum()
    if epsilon is None:
        f, g = _values(log, "u", mu), _values(log, "v", nu)
        optimal = log.get("result_code") == OPTIMAL
        gap = abs(float(mu @ f + nu @ g - linear))
        size = float(mu @ f.abs() + nu @ g.abs() + linear.abs())
        if optimal and gap > MOST_MISMATCH * size:
            raise ValueError(
                f"`cost`, `a` and `b` must be those of the plan, but its dual potentials differ "
                f"from its cost by {gap:.3g}"
            )
        value = linear
    else:
        f, g = _potentials(log, wide, mu, nu, positive("epsilon", epsilon))
        excess = (pi - mu[:, None] * nu * ((f[:, None] + g - wide) / epsilon).exp()).abs().max()
        if float(excess) > MOST_MISMATCH * float(pi.max()):
            raise ValueError(
                f"`epsilon` and `cost` must be those of the plan, from which its scalings differ "
                f"by {float(excess):.3g}; got `epsilon` {epsilon:.4g}"
            )
        value, optimal = mu @ f + nu @ g - epsilon * (pi.sum() - 1), True
    error = float(max((pi.sum(1) - mu).abs().sum(), (pi.sum(0) - nu).abs().sum()))
    return Plan(
        value=value.to(cost),
        value_linear=linear.to(cost),
        potentials=(f.to(cost), g.to(cost)),
        marginal_error=error,
        iterations=log.get("niter", log.get("n_iter")),
        converged=optimal and error <= tolerance,
        make=lambda: matrix.detach(),
    )


def _potentials(
    log: Mapping[str, Any], cost: Tensor, mu: Tensor, nu: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """f = ε log(u/a) and g = ε log(v/b); where there is no weight, their soft minima."""
    f, g = _log_scaling(log, "u", mu), _log_scaling(log, "v", nu)
    if (f[mu > 0].isinf()).any() or (g[nu > 0].isinf()).any():
        raise ValueError(
            '`log` has scalings that have underflowed to 0: use method="sinkhorn_log" or '
            "`monge.transport.sinkhorn`"
        )
    exponents = -cost / epsilon
    free_f = -(exponents + g).logsumexp(1)
    free_g = -(exponents + f[:, None]).logsumexp(0)
    f = torch.where(mu > 0, f - mu.log(), free_f)
    g = torch.where(nu > 0, g - nu.log(), free_g)
    return epsilon * f, epsilon * g


def _log_scaling(log: Mapping[str, Any], name: str, weights: Tensor) -> Tensor:
    """The logarithm of a scaling: methods of POT call it `log_u`, `logu`, or give `u` alone."""
    for key in (f"log_{name}", f"log{name}"):
        if key in log:
            return _values(log, key, weights)
    return _values(log, name, weights).log()


def _values(log: Mapping[str, Any], key: str, weights: Tensor) -> Tensor:
    if key not in log:
        raise ValueError(
            f"`log` must have `{key}`, as that of ot.emd or ot.sinkhorn with log=True, got "
            f"{sorted(log)}"
        )
    values = as_tensor("log", log[key]).detach().to(weights)
    if values.shape != weights.shape or values.isnan().any():
        raise ValueError(
            f"`log` must have {len(weights)} numbers in `{key}`, got shape {tuple(values.shape)}"
            + (" with NaN" if values.isnan().any() else "")
        )
    return values


def _weights(a: Any, b: Any, matrix: Tensor) -> tuple[Tensor, Tensor]:
    mu, nu = (
        distribution_weights(name, None if w is None else as_tensor(name, w), matrix, count)
        for name, w, count in zip(("a", "b"), (a, b), matrix.shape)
    )
    return mu.detach(), nu.detach()


def _divergence(matrix: Tensor, mu: Tensor, nu: Tensor) -> float:
    """KL(π | a⊗b)."""
    held = matrix > 0
    mass = matrix[held]
    return float((mass * (mass / torch.outer(mu, nu)[held]).log()).sum())


def from_geomloss(
    *, p: float = 2, blur: float = 0.05, reach: float | None = None
) -> dict[str, float]:
    """The arguments of `sinkhorn` and `sinkhorn_divergence` that are those of
    `geomloss.SamplesLoss("sinkhorn", p, blur, reach)`.

    GeomLoss's cost is ‖x - y‖^p / p, its ε is blur^p and its marginal penalty reach^p; monge's
    cost has no factor. Values are p times GeomLoss's, potentials and gradients too. With
    `debias=True`, GeomLoss's default, the function is `sinkhorn_divergence`, else the `value` of
    `sinkhorn`. `scaling`, the ratio of GeomLoss's annealing, has no counterpart: `tolerance`
    states the accuracy.

    Args:
        p: order, at least 1.
        blur: of GeomLoss, a length.
        reach: of GeomLoss, a length; None for balanced transport.

    Returns:
        `p`, `epsilon` = p·blur^p and, if reach is given, `reach` = p·reach^p.

    Raises:
        ValueError: for a length that is not positive, or whose power is beyond float64.

    Example:
        >>> value = sinkhorn_divergence(x, y, **from_geomloss(p=2, blur=0.05)) / 2
    """
    p = order(p)
    made = {"p": p, "epsilon": _of_length("blur", blur, p)}
    return made if reach is None else made | {"reach": _of_length("reach", reach, p)}


def _of_length(name: str, length: float, p: float) -> float:
    """p · length^p."""
    try:
        power = float(p) * positive(name, length) ** float(p)
    except OverflowError:
        power = 0.0
    if power < sys.float_info.min:
        raise ValueError(
            f"`{name}` {length:.3g} to the power of {p:g} is beyond float64: rescale the samples"
        )
    return power
