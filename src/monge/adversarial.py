r"""Learned divergences: those with parameters, which are trained on an inner objective.

The divergence holds the objective (`inner_loss`) and the constraint (`project_`); optimisers,
rates and the number of inner steps belong to the trainer.
"""

import abc

import torch.nn.functional as F
from torch import Tensor, nn

from monge._core.checks import instance, order, sample_pair
from monge._core.promotion import ANY, promoted_critic, promoted_powers
from monge.constraints import (
    Constraint,
    GradientPenalty,
    MatrixSpectralNorm,
    SpectralNorm,
    WeightClipping,
    ZeroCentredPenalty,
    critic_values,
    in_dtype_of,
)
from monge.divergences import Divergence, SlicedWasserstein
from monge.draws import Draws
from monge.priors import Gaussian, Mixture
from monge.transport.sliced import slice_powers
from monge.transport.slicers import Linear, Slicer

__all__ = [
    "Constraint",
    "FeatureSliced",
    "GradientPenalty",
    "JensenShannon",
    "KantorovichRubinstein",
    "Learned",
    "LogPriorCritic",
    "MatrixSpectralNorm",
    "MaxGeneralizedSliced",
    "MaxSliced",
    "Relativistic",
    "SpectralNorm",
    "WeightClipping",
    "ZeroCentredPenalty",
    "critic_values",
    "cross_entropy",
]


class Learned(Divergence):
    """A divergence with parameters, fitted to distinguish x from y with the model held fixed."""

    @abc.abstractmethod
    def inner_loss(self, x: Tensor, y: Tensor) -> Tensor:
        """A scalar that the trainer minimises over this module's parameters."""

    def project_(self) -> None:
        """Puts the parameters back where they must be, after each inner step."""


class LogPriorCritic(nn.Module):
    """z ↦ network(z) + log p(z), (n,): the best logit is log p(z) - log q(z), of which only log q
    is left to learn.

    Source: Mescheder, Nowozin, Geiger, "Adversarial variational Bayes", 2017.
    """

    def __init__(self, network: nn.Module, prior: Gaussian | Mixture):
        super().__init__()
        self.network = instance("network", network, nn.Module, "mlp([dim, 64, 1])")
        if not isinstance(prior, (Gaussian, Mixture)):
            raise ValueError(f"`prior` must be a Gaussian or a Mixture, got {prior!r}")
        self.prior = prior

    def forward(self, z: Tensor) -> Tensor:
        # of joint samples of codes and labels, the prior is that of the codes
        return critic_values(self.network, z) + self.prior.log_prob(z[:, : self.prior.dim])


def cross_entropy(critic: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """-(mean log D(y) + mean log(1 - D(x))) with D = sigmoid(critic)."""
    real, fake = critic_values(critic, y), critic_values(critic, x)
    # log D = -softplus(-logit), log(1 - D) = -softplus(logit)
    return F.softplus(-real).mean() + F.softplus(fake).mean()


class Critical(Learned):
    """A divergence that is read off a critic's values, which a constraint keeps regular."""

    def __init__(self, critic: nn.Module, constraint: Constraint):
        super().__init__()
        instance("critic", critic, nn.Module, "mlp([dim, 64, 1])")
        instance("constraint", constraint, Constraint, "GradientPenalty()")
        constraint.prepare(critic)
        self.critic, self.constraint, self.random = critic, constraint, constraint.random

    @abc.abstractmethod
    def game(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of the critic, without the constraint's penalty."""

    @promoted_critic(x=ANY, y=ANY)
    def inner_loss(self, x: Tensor, y: Tensor, *, draws: Draws | None = None) -> Tensor:
        return self.game(x, y) + self.constraint.penalty(self.critic, x, y, draws=draws)

    def project_(self) -> None:
        self.constraint.project_(self.critic)


class JensenShannon(Critical):
    r"""The game of a GAN, with D = sigmoid(critic): the critic returns **logits**.

    inner_loss = -(mean log D(y) + mean log(1 - D(x))) + the constraint's penalty, by default
    none; its optimum over all critics is log 4 - 2 JS(x, y). The model decreases

    - -mean log D(x) by default (non-saturating; log 2 at equality),
    - mean log D(y) + mean log(1 - D(x)) with `saturating=True` (the value of the minimax game;
      -log 4 at equality).

    Args:
        critic: samples (n, \*) to logits (n,) or (n, 1).
        saturating: whether the model decreases the value of the minimax game.
        constraint: what keeps the critic regular; nothing by default.

    Source: Goodfellow et al., "Generative adversarial nets", 2014; as a latent penalty:
    Makhzani et al., "Adversarial autoencoders", 2015.
    """

    additive = True

    def __init__(
        self,
        critic: nn.Module,
        saturating: bool = False,
        constraint: Constraint | None = None,
    ):
        super().__init__(critic, Constraint() if constraint is None else constraint)
        self.saturating = instance("saturating", saturating, bool, "True")

    def game(self, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(self.critic, x, y)

    @promoted_critic(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor, *, draws: Draws | None = None) -> Tensor:
        if self.saturating:
            return -cross_entropy(self.critic, x, y)
        return F.softplus(-critic_values(self.critic, x)).mean()


class Relativistic(Critical):
    r"""The relativistic pairing game: the critic's value of a target sample against that of a
    model sample, over all pairs.

    inner_loss = mean log(1 + exp(D(x_i) - D(y_j))) + the constraint's penalty; the model decreases
    mean log(1 + exp(D(y_j) - D(x_i))), both log 2 at equality. Each model sample is judged beside
    the data, so covering a single mode is not an equilibrium. Under a `ZeroCentredPenalty` of
    both samples the game converges to equality from nearby.

    Args:
        critic: samples (n, \*) to values (n,) or (n, 1).
        constraint: what keeps the critic regular.

    Source: Jolicoeur-Martineau, "The relativistic discriminator: a key element missing from
    standard GAN", 2019; Huang, Gokaslan, Kuleshov, Tompkin, "The GAN is dead; long live the GAN!
    A modern baseline GAN", 2024, where samples are paired one by one.
    """

    def game(self, x: Tensor, y: Tensor) -> Tensor:
        return F.softplus(self._differences(x, y)).mean()

    @promoted_critic(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor, *, draws: Draws | None = None) -> Tensor:
        return F.softplus(-self._differences(x, y)).mean()

    def _differences(self, x: Tensor, y: Tensor) -> Tensor:
        """D(x_i) - D(y_j), (n, m)."""
        return critic_values(self.critic, x)[:, None] - critic_values(self.critic, y)


class KantorovichRubinstein(Critical):
    r"""W_1 by its dual: sup E D(y) - E D(x) over 1-Lipschitz critics D.

    inner_loss = mean D(x) - mean D(y) + the constraint's penalty; the divergence itself is
    mean D(y) - mean D(x), which the model decreases through x.

    Args:
        critic: samples (n, \*) to values (n,) or (n, 1).
        constraint: what keeps the critic 1-Lipschitz, e.g. `GradientPenalty()`.

    Source: Arjovsky, Chintala, Bottou, "Wasserstein generative adversarial networks", 2017.
    """

    additive = True

    def game(self, x: Tensor, y: Tensor) -> Tensor:
        return critic_values(self.critic, x).mean() - critic_values(self.critic, y).mean()

    @promoted_critic(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor, *, draws: Draws | None = None) -> Tensor:
        return -self.game(x, y)


class MaxGeneralizedSliced(Learned):
    """The largest W_p^p over a slicer's slices, each of which ascends.

    Args:
        slicer: maps samples to their slices, whose parameters are trained.
        p: order, at least 1.

    Source: Kolouri, Nadjahi, Simsekli, Badeau, Rohde, "Generalized sliced Wasserstein distances",
    2019.
    """

    def __init__(self, slicer: Slicer, p: float = 2):
        super().__init__()
        self.slicer, self.p = instance("slicer", slicer, Slicer, "Circular(dim)"), order(p)

    @promoted_powers(x=ANY, y=ANY)
    def inner_loss(self, x: Tensor, y: Tensor) -> Tensor:
        return -self._powers(x, y).sum()

    @promoted_powers(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self._powers(x, y).max()

    def _powers(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = sample_pair(x, y)
        return slice_powers(x, y, self.slicer, self.p)

    def project_(self) -> None:
        self.slicer.project_()


class MaxSliced(MaxGeneralizedSliced):
    """The largest W_p^p over one straight slice: at its best max_θ W_p^p(θ_# x, θ_# y).

    Args:
        dim: elements of a sample.
        p: order, at least 1.

    Source: Deshpande et al., "Max-sliced Wasserstein distance and its use for GANs", 2019.
    """

    def __init__(self, dim: int, p: float = 2):
        super().__init__(Linear(dim, 1), p)
        self.dim = dim


class FeatureSliced(Learned):
    r"""SW_p^p between features φ(x), φ(y) of a discriminator that learns to tell x from y.

    The discriminator head(φ(·)) returns logits and is trained by cross-entropy. Features are
    normalised to the unit sphere, because with unbounded features the distance diverges.

    Args:
        features: φ, samples (n, \*) to features (n, \*).
        head: features (n, k) to logits (n,) or (n, 1).
        directions: how many random directions of the features are drawn at each call.
        p: order, at least 1.

    Source: Deshpande, Zhang, Schwing, "Generative modeling using the sliced Wasserstein distance",
    2018.
    """

    random = True

    def __init__(self, features: nn.Module, head: nn.Module, directions: int = 128, p: float = 2):
        super().__init__()
        self.features = instance("features", features, nn.Module, "mlp([dim, 64])")
        self.head = instance("head", head, nn.Module, "mlp([64, 1])")
        self.sliced = SlicedWasserstein(directions, p)
        self.directions, self.p = directions, p

    def _features(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        sample_pair(x, y)
        one, two = (
            F.normalize(self.features(in_dtype_of(self.features, z)).to(z.dtype).flatten(1), dim=1)
            for z in (x, y)
        )
        return one, two

    @promoted_critic(x=ANY, y=ANY)
    def inner_loss(self, x: Tensor, y: Tensor, *, draws: Draws | None = None) -> Tensor:
        return cross_entropy(self.head, *self._features(x, y))

    @promoted_powers(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor, *, draws: Draws | None = None) -> Tensor:
        return self.sliced(*self._features(x, y), draws=draws)
