r"""Probability paths of flow matching: from noise at t = 0 to data at t = 1.

A path turns a pair (x_0, x_1) into a point x_t, on which a velocity field is regressed, and the
target u_t of the regression. The field that minimises E‖v(x_t, t) - u_t‖² is v = E[u_t | x_t],
whose flow carries the distribution of x_0 to that of x_1.
"""

import abc
import math

from torch import Tensor

from monge._core.checks import nonnegative, positive
from monge._core.shown import Shown

EDGE = 1e-3
"""How close t comes to 0 and 1 on a bridge, whose targets are unbounded there."""


class ProbabilityPath(Shown, abc.ABC):
    """A conditional path: the distribution of x_t given its two ends."""

    _shows_defaults = False

    noisy: bool = False
    """Whether x_t is random given its ends, so that `at` needs noise."""

    @abc.abstractmethod
    def at(
        self, x0: Tensor, x1: Tensor, t: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""The point and the target at time t.

        Args:
            x0: noise (n, \*).
            x1: data (n, \*).
            t: times (n,) in [0, 1].
            noise: N(0, I) draws (n, \*), if the path is `noisy`.

        Returns:
            (x_t, u_t), both (n, \*).
        """


class LinearPath(ProbabilityPath):
    r"""x_t = (1 - t) x_0 + t x_1 + σ ξ, with target u = x_1 - x_0.

    Args:
        sigma: σ ≥ 0, the deviation of the Gaussian around the line.

    Source: Lipman, Chen, Ben-Hamu, Nickel, Le, "Flow matching for generative modeling", 2023; Liu,
    Gong, Liu, "Flow straight and fast", 2023; with σ: Tong et al., "Improving and generalizing
    flow-based generative models with minibatch optimal transport", 2024.
    """

    def __init__(self, sigma: float = 0.0):
        self.sigma = nonnegative("sigma", sigma)
        self.noisy = self.sigma > 0

    def at(
        self, x0: Tensor, x1: Tensor, t: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        target = x1 - x0
        x = x0 + _over(t, x0) * target
        return (x if noise is None else x + self.sigma * noise), target


class BridgePath(ProbabilityPath):
    r"""A Brownian bridge: x_t = (1 - t) x_0 + t x_1 + σ √(t (1 - t)) ξ.

    The target is u_t = x_1 - x_0 + σ (1 - 2 t) / (2 √(t (1 - t))) ξ. With pairs from the entropic
    plan of ε = 2 σ² for the cost ‖x_0 - x_1‖², the flow has the marginals of the Schrödinger
    bridge between noise and data. Times are kept in [0.001, 0.999], because the target is
    unbounded at the ends.

    Args:
        sigma: σ > 0.

    Source: Tong et al., "Improving and generalizing flow-based generative models with minibatch
    optimal transport", 2024, section 3.4.
    """

    noisy = True

    def __init__(self, sigma: float):
        self.sigma = positive("sigma", sigma)

    def at(
        self, x0: Tensor, x1: Tensor, t: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if noise is None:
            raise ValueError("`noise` is missing: a bridge is random given its ends")
        t = _over(t.clamp(EDGE, 1 - EDGE), x0)
        width = self.sigma * (t * (1 - t)).sqrt()
        slope = self.sigma**2 * (1 - 2 * t) / (2 * width)
        target = x1 - x0
        return x0 + t * target + width * noise, target + slope * noise


class VariancePreservingPath(ProbabilityPath):
    r"""x_t = cos(π t / 2) x_0 + sin(π t / 2) x_1, with target its derivative in t.

    Where noise and data are independent and of unit variance, so is every x_t.

    Source: Albergo, Vanden-Eijnden, "Building normalizing flows with stochastic interpolants",
    2023.
    """

    def at(
        self, x0: Tensor, x1: Tensor, t: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        angle = 0.5 * math.pi * _over(t, x0)
        c, s = angle.cos(), angle.sin()
        return c * x0 + s * x1, 0.5 * math.pi * (c * x1 - s * x0)


def _over(t: Tensor, x: Tensor) -> Tensor:
    r"""Times (n,) as (n, 1, …), to be multiplied with samples (n, \*)."""
    return t.view(-1, *[1] * (x.ndim - 1))
