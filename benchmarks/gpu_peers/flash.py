"""flash-sinkhorn 0.4 (Ye et al., arXiv 2602.03067): fused kernels in Triton, on CUDA only."""

from typing import Any

MOST_ITERATIONS = 3000


def alternating(epsilon: float, *, tf32: bool = True, **wanted: Any) -> Any:
    """Gauss-Seidel updates at a fixed ε."""
    return _loss("alternating", epsilon, tf32, wanted)


def alternating_exact(epsilon: float, **wanted: Any) -> Any:
    """The same with float32 products."""
    return alternating(epsilon, tf32=False, **wanted)


def symmetric(epsilon: float, **wanted: Any) -> Any:
    """Jacobi updates; ε falls to its value by factors of 4 first."""
    return _loss("symmetric", epsilon, True, wanted)


VARIANTS = {
    "alternating": alternating,
    "symmetric": symmetric,
    "alternating, no TF32": alternating_exact,
}
"""Each returns a function of (x, y): the loss, or the potentials if asked for."""


def _loss(backend: str, epsilon: float, tf32: bool, wanted: dict[str, Any]) -> Any:
    """A loss that makes `iterations`, or stops at a change of the potentials under `threshold`."""
    from flash_sinkhorn import SamplesLoss

    iterations = wanted.pop("iterations", None)
    count = iterations or MOST_ITERATIONS
    schedule = None
    if backend == "symmetric":
        # of points with E‖x - E x‖² = 1: from a scale beyond their distances
        falling = [] if iterations else [s for k in range(12) if (s := 16.0 / 4**k) > epsilon]
        schedule = falling + [epsilon] * (count - len(falling))
    return SamplesLoss(
        "sinkhorn",
        backend=backend,
        blur=epsilon**0.5,
        eps=epsilon,
        n_iters=count,
        eps_list=schedule,
        use_epsilon_scaling=False,
        allow_tf32=tf32,
        **wanted,
    )
