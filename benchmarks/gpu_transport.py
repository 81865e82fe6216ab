"""Section `transport` of gpu.py: entropic transport, against each library that can be imported.

`fixed`: the potentials after exactly 100 iterations, forward only. `divergence`: value and
gradient of the Sinkhorn divergence, each solver with its cheapest setting whose plan between x and
y has an L1 marginal error of at most 1e-3. The error is not the solver's own account: it is
computed here, in float64, from the potentials that the solver returns. The potentials and ε are of
the cost ‖x - y‖² and the plan is a_i b_j exp((f_i + g_j - C_ij)/ε), whatever the library's own
convention. The problems of x with x and y with y are solved with the same setting.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from gpu_measured import Record, differentiated, importable, milliseconds, seconds_of
from gpu_peers import flash, geomloss, ott, pot
from torch import Tensor

from monge.transport import Plan, sinkhorn, sinkhorn_divergence

ERROR = 1e-3
BLUR = 0.05
ITERATIONS = 100
LONGEST = 6.0
"""Seconds of one solution above which a solver's next setting is not tried."""
DENSE = 20_000
"""Most points of solvers that store n m costs."""

Potentials = tuple[Tensor, Tensor]


class Solver(NamedTuple):
    """A solver of entropic transport, in a setting each time."""

    settings: Sequence[Any]
    """From the cheapest to the dearest."""
    potentials: Callable[[Tensor, Tensor, Any], Potentials]
    """(x, y, setting) -> (f, g)."""
    divergence: Callable[[Tensor, Tensor, Any], Tensor]
    """(x, y, setting) -> the Sinkhorn divergence, differentiable in x."""


def run(record: Record, device: torch.device, tiny: bool) -> None:
    warnings.filterwarnings("ignore")  # a solver that stops early is what is measured here
    n = 200 if tiny else 10_000
    for name, work in fixed(*clouds(n, 64, device), epsilon=0.2):
        record.attempt(f"fixed, n = {n:,}, {name}", lambda w=work: w(device))
    for n in (100, 200) if tiny else (10_000, 1_000, 50_000):
        x, y = clouds(n, 64, device)
        for name, solver in solvers(n, device).items():
            record.attempt(
                f"divergence, n = {n:,}, {name}",
                lambda s=solver, x=x, y=y: cheapest(s, x, y, 2 * BLUR**2),
                needs=5.0,
            )


def clouds(n: int, d: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Two samples with E‖x - E x‖² = 1, the second moved by 0.5."""
    draws = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, d, generator=draws) / d**0.5 for _ in range(2))
    return x.to(device), (y + 0.5 / d**0.5).to(device)


def observed_error(x: Tensor, y: Tensor, f: Tensor, g: Tensor, epsilon: float) -> float:
    """The larger of |π1 - a|_1 and |πᵀ1 - b|_1, in float64, for uniform weights."""
    centre = x.double().mean(0)
    x, y, f, g = x.double() - centre, y.double() - centre, f.double(), g.double()
    n, m = len(x), len(y)
    columns, excess = torch.zeros_like(g), torch.zeros((), dtype=f.dtype, device=f.device)
    for rows in torch.arange(n, device=x.device).split(max(1, 2**26 // m)):
        cost = x[rows].square().sum(1)[:, None] + y.square().sum(1) - 2 * (x[rows] @ y.T)
        plan = ((f[rows, None] + g - cost) / epsilon).exp_().div_(n * m)
        excess += (plan.sum(1) - 1 / n).abs().sum()
        columns += plan.sum(0)
    return max(float(excess), float((columns - 1 / m).abs().sum()))


def ours(x: Tensor, y: Tensor, epsilon: float, tolerance: float, **settings: Any) -> Plan:
    return sinkhorn(x, y, epsilon=epsilon, tolerance=tolerance, **settings)


def solvers(n: int, device: torch.device) -> dict[str, Solver]:
    """Those that can run here, for ε = 2 blur², the most interesting first."""
    epsilon = 2 * BLUR**2
    found = {
        "monge": Solver(
            (ERROR, ERROR / 2, ERROR / 5),
            lambda x, y, t: ours(x, y, epsilon, t).potentials,
            lambda x, y, t: sinkhorn_divergence(x, y, epsilon=epsilon, tolerance=t),
        )
    }
    if device.type == "cuda" and importable("flash_sinkhorn"):
        steps = tuple(epsilon * share for share in (0.1, 0.03, 0.01, 3e-3, 1e-3))
        for name, make in flash.VARIANTS.items():
            found[f"flash-sinkhorn, {name}"] = Solver(
                steps,
                lambda x, y, t, make=make: make(epsilon, threshold=t, potentials=True)(x, y),
                lambda x, y, t, make=make: make(epsilon, threshold=t, debias=True)(x, y),
            )
    if importable("geomloss"):
        scalings = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
        for name in geomloss.backends(n, DENSE):
            found[f"GeomLoss, {name}"] = Solver(
                scalings,
                lambda x, y, s, name=name: geomloss.potentials(x, y, BLUR, s, name),
                lambda x, y, s, name=name: geomloss.divergence(x, y, BLUR, s, name),
            )
    if importable("ott") and ott.serves(device):
        for name in ott.ACCELERATIONS:
            found[f"OTT-JAX, {name}"] = Solver(
                (ERROR, ERROR / 3),
                lambda x, y, t, name=name: ott.potentials(x, y, epsilon, t, name),
                lambda x, y, t, name=name: ott.divergence(x, y, epsilon, t, name),
            )
    if n <= DENSE and importable("ot"):
        found["POT torch"] = Solver(
            (1e-2, ERROR, ERROR / 10, ERROR / 100),
            lambda x, y, t: pot.potentials(x, y, epsilon, t),
            lambda x, y, t: pot.divergence(x, y, epsilon, t),
        )
    return found


def cheapest(solver: Solver, x: Tensor, y: Tensor, epsilon: float) -> dict[str, Any]:
    """Milliseconds of value and gradient with the first setting that reaches the error."""
    found: dict[str, Any] = {"reached": False}
    for setting in solver.settings:
        with torch.no_grad():
            f, g = solver.potentials(x, y, setting)
            error = observed_error(x, y, f, g, epsilon)
        found |= {"setting": setting, "marginal error": float(f"{error:.3g}")}
        if not math.isfinite(error):
            continue
        if error <= 1.05 * ERROR:
            found["reached"] = True
            break
        taken = seconds_of(lambda s=setting: solver.potentials(x, y, s), x.device)
        if taken > LONGEST:
            return found | {"seconds of a solution": round(taken, 2)}
    work = differentiated(lambda x, y: solver.divergence(x, y, found["setting"]), x, y)
    found["value"] = float(f"{float(work()):.6g}")
    return found | {"ms": milliseconds(work, x.device, 1.0)}


def fixed(
    x: Tensor, y: Tensor, epsilon: float
) -> Iterator[tuple[str, Callable[[torch.device], dict[str, Any]]]]:
    """Each solver's name, and what measures its potentials after ITERATIONS iterations."""

    def measured(solve: Callable[[], Potentials]) -> Callable[[torch.device], dict[str, Any]]:
        def work(device: torch.device) -> dict[str, Any]:
            with torch.no_grad():
                error = observed_error(x, y, *solve(), epsilon)
                return {"ms": milliseconds(solve, device), "marginal error": float(f"{error:.3g}")}

        return work

    plain: dict[str, Any] = {"max_iterations": ITERATIONS, "acceleration": None}
    yield "monge", measured(lambda: ours(x, y, epsilon, 1e-300, **plain).potentials)
    if x.is_cuda and importable("flash_sinkhorn"):
        for name, make in flash.VARIANTS.items():
            solver = make(epsilon, iterations=ITERATIONS, potentials=True)
            yield f"flash-sinkhorn, {name}", measured(lambda s=solver: s(x, y))
    if importable("ott") and ott.serves(x.device):
        yield "OTT-JAX", measured(lambda: ott.fixed(x, y, epsilon, ITERATIONS))
    if importable("ot"):
        yield "POT torch", measured(lambda: pot.potentials(x, y, epsilon, 0.0, ITERATIONS))
