"""Samplers fitted to the codes after training, for auto-encoders whose Q_Z is not P_Z.

A sampler is a prior: `model.sample(n, prior=sampler)` decodes its draws.
"""

import torch
from torch import Tensor

from monge._core.checks import finite, floating
from monge.data import as_floats
from monge.draws import stream
from monge.models import AutoEncoder, evaluating
from monge.priors import Mixture


def draw_codes(model: AutoEncoder, x: Tensor, seed: int = 0) -> Tensor:
    r"""A draw of Q(Z|x) for each row of x (n, \*), images as they are stored, as (n, dim)."""
    with evaluating(model), stream(seed, "codes"):
        return torch.cat([model.encode(as_floats(part)).rsample() for part in x.split(500)])


def fit_mixture(codes: Tensor, components: int = 10, seed: int = 0) -> Mixture:
    """The mixture of Gaussians with full covariances fitted to codes (n, dim) by EM.

    Raises:
        ValueError: for codes that are not finite, or fewer than components.
    """
    finite("codes", floating("codes", codes))
    if not 1 <= components <= len(codes):
        raise ValueError(
            f"`components` must be from 1 to the {len(codes)} codes, got {components}"
        )
    from sklearn.mixture import GaussianMixture

    found = GaussianMixture(components, random_state=seed).fit(codes.double().cpu().numpy())
    weights = torch.from_numpy(found.weights_)
    return Mixture(
        torch.from_numpy(found.means_), torch.from_numpy(found.covariances_),
        weights / weights.sum(),
    )  # fmt: skip
