r"""Learned divergences: those that own parameters, trained on an inner objective of their own.

The divergence holds the objective (`inner_loss`) and the constraint (`project_`); optimisers,
rates and the number of inner steps belong to the trainer.
"""

import abc

import torch.nn.functional as F
from torch import Tensor, nn

from monge.divergences import Divergence


class Learned(Divergence):
    """A divergence with parameters, fitted to tell x from y while the model is held fixed."""

    @abc.abstractmethod
    def inner_loss(self, x: Tensor, y: Tensor) -> Tensor:
        """A scalar that the trainer minimises over this module's parameters."""

    def project_(self) -> None:
        """Puts the parameters back where they must be, after each inner step."""


def critic_values(critic: nn.Module, x: Tensor) -> Tensor:
    """The critic's value for each sample, (n,).

    A critic may return (n,) or (n, 1). Anything else is refused, so that no (n,) meets an
    (n, 1) and broadcasts to (n, n).
    """
    values = critic(x)
    if values.shape not in ((len(x),), (len(x), 1)):
        raise ValueError(
            f"a critic must return shape ({len(x)},) or ({len(x)}, 1) for {len(x)} samples, "
            f"got {tuple(values.shape)}"
        )
    return values.reshape(len(x))


class JensenShannon(Learned):
    r"""The game of a GAN, with D = sigmoid(critic): the critic returns **logits**.

    inner_loss = -(mean log D(y) + mean log(1 - D(x))); its optimum over all critics is
    log 4 - 2 JS(x, y). The model decreases

    - -mean log D(x) by default (non-saturating; log 2 at equality),
    - mean log D(y) + mean log(1 - D(x)) with `saturating=True` (the value of the minimax game;
      -log 4 at equality).

    Source: Goodfellow et al., "Generative adversarial nets", 2014; as a latent penalty:
    Makhzani et al., "Adversarial autoencoders", 2015.
    """

    additive = True

    def __init__(self, critic: nn.Module, saturating: bool = False):
        super().__init__()
        self.critic, self.saturating = critic, saturating

    def inner_loss(self, x: Tensor, y: Tensor) -> Tensor:
        real, fake = critic_values(self.critic, y), critic_values(self.critic, x)
        # log D = -softplus(-logit), log(1 - D) = -softplus(logit)
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if self.saturating:
            return -self.inner_loss(x, y)
        return F.softplus(-critic_values(self.critic, x)).mean()
