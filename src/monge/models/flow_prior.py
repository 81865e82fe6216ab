"""A flow as a distribution of codes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from monge._core.checks import dimension
from monge.models.flow import FlowMatching
from monge.networks import VectorVelocity
from monge.priors import Prior
from monge.transport.couplings import Exact

HIDDEN = (256, 256, 256)


class FlowPrior(Prior):
    """The distribution of a flow on R^dim, to be fitted to codes (`fit_flow`).

    Args:
        dim: of the codes.
        moments: mean and deviation (dim,) of the codes; by default 0 and 1.
        hidden: hidden layers of the velocity.
    """

    def __init__(
        self,
        dim: int,
        moments: tuple[Tensor, Tensor] | None = None,
        hidden: Sequence[int] = HIDDEN,
    ):
        super().__init__()
        self.dim = dimension("dim", dim)
        moments = moments or (torch.zeros(dim), torch.ones(dim))
        velocity = VectorVelocity(dim, hidden)
        self.flow = FlowMatching(velocity, (dim,), coupling=Exact(), moments=moments)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.flow.sample(n, generator).cpu()

    @property
    def spread(self) -> float:
        return 2 * float(self.flow.units.deviation.square().sum())

    def log_prob(self, z: Tensor) -> Tensor:
        """log density at z (n, dim), as (n,)."""
        return self.flow.log_prob(z)
