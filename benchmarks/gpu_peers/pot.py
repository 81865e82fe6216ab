"""POT's back end of torch (Flamary et al. 2021): Sinkhorn in the log domain on stored costs."""

import math

import torch
from torch import Tensor

MOST_ITERATIONS = 2000


def _solve(x: Tensor, y: Tensor, epsilon: float, tolerance: float, most: int):
    import ot

    cost = torch.cdist(x, y).square()
    options = {"reg_type": "KL", "max_iter": most, "tol": tolerance, "grad": "envelope"}
    return ot.solve(cost, reg=epsilon, **options)


def potentials(
    x: Tensor, y: Tensor, epsilon: float, tolerance: float, most: int = MOST_ITERATIONS
) -> tuple[Tensor, Tensor]:
    """(f, g); its plan is exp(u_i + v_j - C_ij/ε), with the weights in u and v."""
    u, v = _solve(x, y, epsilon, tolerance, most).potentials
    return epsilon * (u + math.log(len(x))), epsilon * (v + math.log(len(y)))


def divergence(x: Tensor, y: Tensor, epsilon: float, tolerance: float) -> Tensor:
    cross, of_x, of_y = (
        _solve(u, v, epsilon, tolerance, MOST_ITERATIONS).value
        for u, v in ((x, y), (x, x), (y, y))
    )
    return cross - (of_x + of_y) / 2
