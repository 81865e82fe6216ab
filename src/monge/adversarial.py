r"""Learned divergences: those with parameters, which are trained on an inner objective.

The divergence holds the objective (`inner_loss`) and the constraint (`project_`); optimisers,
rates and the number of inner steps belong to the trainer.
"""

import abc
import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from monge._core.checks import instance, order, positive, sample_pair
from monge._core.devices import to_device
from monge._core.products import true_products
from monge._core.promotion import ANY, promoted, promoted_critic
from monge._core.shown import Shown
from monge.divergences import Divergence, SlicedWasserstein
from monge.draws import Draws, generator, standard_normal
from monge.priors import Gaussian, Mixture
from monge.transport.sliced import slice_powers
from monge.transport.slicers import Linear, Slicer

SINGULAR_VECTORS, MOST_STEPS = 2, 100
"""Of spectral normalisation: how many vectors follow a layer, and the most steps at a time."""


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
    values = critic(_in_dtype_of(critic, x)).to(x.dtype)
    if values.shape not in ((len(x),), (len(x), 1)):
        raise ValueError(
            f"a critic must return shape ({len(x)},) or ({len(x)}, 1) for {len(x)} samples, "
            f"got {tuple(values.shape)}"
        )
    return values.reshape(len(x))


def _in_dtype_of(network: nn.Module, x: Tensor) -> Tensor:
    """x in the dtype in which a network computes."""
    parameter = next(network.parameters(), x)
    return x.to(parameter.dtype) if parameter.is_floating_point() else x


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
        self.critic = instance("critic", critic, nn.Module, "mlp([dim, 64, 1])")
        self.saturating = saturating

    @promoted_critic(x=ANY, y=ANY)
    def inner_loss(self, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(self.critic, x, y)

    @promoted_critic(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if self.saturating:
            return -self.inner_loss(x, y)
        return F.softplus(-critic_values(self.critic, x)).mean()


class Constraint(Shown):
    """Keeps a critic (nearly) 1-Lipschitz; the base class does nothing."""

    random: bool = False
    """Whether `penalty` draws random numbers."""

    def prepare(self, critic: nn.Module) -> None:
        """Changes the critic once, before it is trained."""

    def penalty(
        self, critic: nn.Module, x: Tensor, y: Tensor, *, draws: Draws | None = None
    ) -> Tensor:
        """A scalar that is added to the inner loss; random numbers come from `draws`, or without
        them from torch's global generator."""
        return x.new_zeros(())

    def project_(self, critic: nn.Module) -> None:
        """Changes the critic after each inner step."""


class WeightClipping(Constraint):
    """Every parameter of the critic is put back into [-c, c] after each step.

    Source: Arjovsky, Chintala, Bottou, "Wasserstein generative adversarial networks", 2017.
    """

    def __init__(self, c: float = 0.01):
        self.c = positive("c", c)

    @torch.no_grad()
    def project_(self, critic: nn.Module) -> None:
        for parameter in critic.parameters():
            parameter.clamp_(-self.c, self.c)


class GradientPenalty(Constraint):
    r"""weight · E (‖∇D(x̂)‖ - 1)² at x̂ = t y + (1 - t) x, one t ~ U(0, 1) a sample.

    The norm is over all dimensions of a sample. `one_sided` counts norms above 1 only. The first
    min(n, m) samples of each side are joined. Critics that mix the samples of a batch are refused:
    theirs is no gradient at a sample.

    Source: Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville, "Improved training of Wasserstein
    GANs", 2017.
    """

    random = True

    def __init__(self, weight: float = 10.0, one_sided: bool = False):
        self.weight, self.one_sided = positive("weight", weight), one_sided

    def prepare(self, critic: nn.Module) -> None:
        for name, module in critic.named_modules():
            if "BatchNorm" in type(module).__name__:
                raise ValueError(
                    f"`critic` has batch normalisation at {name!r}, under which a gradient "
                    "is not that at a sample: use layer normalisation or none"
                )

    def penalty(
        self, critic: nn.Module, x: Tensor, y: Tensor, *, draws: Draws | None = None
    ) -> Tensor:
        n = min(len(x), len(y))
        shape = [1] * (x.ndim - 1)
        if draws is None:
            t = torch.rand(n, *shape).to(x)
        else:
            t = draws.rows("inner", lambda k, g: torch.rand(k, *shape, generator=g))[:n].to(x)
        between = torch.lerp(x[:n].detach(), y[:n].detach(), t).requires_grad_()
        with torch.enable_grad():
            values = critic_values(critic, between).sum()
            (gradient,) = torch.autograd.grad(values, between, create_graph=True)
        excess = gradient.flatten(1).norm(dim=1) - 1
        if self.one_sided:
            excess = excess.clamp(min=0)
        return self.weight * excess.square().mean()


class SpectralNorm(Constraint):
    r"""Each linear or convolutional layer is divided by its norm sup ‖A v‖ / ‖v‖ as an operator.

    A is the layer without its bias: a matrix, or the (transposed) convolution itself with its
    stride and padding, at the size of its input. Where activations and other layers are
    1-Lipschitz, the critic is. The norm is found by subspace iteration, in the first pass of an
    input size and again after each inner step, each time until it grows by less than 1e-4.

    Source: Miyato, Kataoka, Koyama, Yoshida, "Spectral normalization for generative adversarial
    networks", 2018; of convolutions as operators Tsuzuku, Sato, Sugiyama, "Lipschitz-margin
    training", 2018, and Gouk, Frank, Pfahringer, Cree, "Regularisation of neural networks by
    enforcing Lipschitz continuity", 2021.
    """

    def prepare(self, critic: nn.Module) -> None:
        for name, layer in list(critic.named_modules()):
            if not isinstance(layer, (nn.Linear, _ConvNd)):
                continue
            given = is_parametrized(layer, "weight")
            if given and isinstance(cast(Any, layer).parametrizations["weight"][-1], OperatorNorm):
                continue
            weight = None if given else layer._parameters.get("weight")
            if not given and (weight is None or isinstance(weight, UninitializedParameter)):
                raise ValueError(
                    f"`critic` has a layer {name!r} whose weight is not a parameter yet or is set "
                    "by a hook: pass a sample through lazy layers first, and use "
                    "nn.utils.parametrizations"
                )
            norm = OperatorNorm(layer)
            register_parametrization(layer, "weight", norm)
            if isinstance(layer, nn.Linear):
                # of one input size; some modules read its weight without a call
                norm.start_(layer.weight.shape[1:])
            else:
                layer.register_forward_pre_hook(_at_size_of_input)

    def project_(self, critic: nn.Module) -> None:
        for module in critic.modules():
            if isinstance(module, OperatorNorm):
                module.iterate_()


class OperatorNorm(nn.Module):
    r"""The parametrization W / ‖A_W‖ of a layer's weight W, by `SpectralNorm`; 0 for W = 0.

    It stands behind other parametrizations of the weight. Passes do not change the singular
    vectors: they move in `iterate_` only. There are a few of them, because one would follow too
    slowly where two singular values change their order.
    """

    vectors: Tensor
    """Orthonormal estimates of the first right singular vectors, the first one first, shaped as a
    batch of inputs; empty before the first pass."""

    def __init__(self, layer: nn.Linear | _ConvNd):
        super().__init__()
        self._layer = (layer,)  # as a submodule it would contain itself
        self.register_buffer("vectors", layer.weight.new_empty(0))
        self.seen = layer.weight.detach()  # the weight that was last divided

    @property
    def layer(self) -> nn.Linear | _ConvNd:
        """The layer."""
        return self._layer[0]

    def forward(self, weight: Tensor) -> Tensor:
        self.seen = weight.detach()
        if not len(self.vectors):
            return weight
        unit = _in_unit(self.seen)
        wide = (weight / unit).to(torch.promote_types(weight.dtype, torch.float32))
        norm = self._applied(wide, self.vectors[:1].to(wide)).norm()
        return (wide / torch.where(norm == 0, 1.0, norm)).to(weight.dtype)

    def start_(self, shape: torch.Size) -> None:
        """Iterates from fixed random vectors, unless there are vectors of inputs of this shape
        already."""
        if self.vectors.shape[1:] == shape:
            return
        count = min(SINGULAR_VECTORS, shape.numel())
        start = standard_normal((count, *shape), generator("spectral normalisation"))
        # a new tensor: the graph of a pass of another size may still need the vectors of that
        self.vectors = start.to(self.vectors)
        self.iterate_()

    @torch.no_grad()
    def iterate_(self) -> None:
        """Moves the vectors until ‖A v‖ of the first grows by less than 1e-4 of it in a step.

        A step takes the best vectors in the span of v and AᵀA v. Training flattens the spectrum of
        a normalised layer, and steps in the span of AᵀA v alone are slow there.
        """
        if not len(self.vectors):
            return
        with torch.autocast(self.vectors.device.type, enabled=False), true_products():
            self.vectors = self._iterated().to(self.vectors)

    def _iterated(self) -> Tensor:
        _ = self.layer.weight  # as it is now, behind other parametrizations
        weight = self.seen / _in_unit(self.seen)
        weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
        vectors, before = self.vectors.to(weight), 0.0
        for _ in range(MOST_STEPS):
            v = vectors.clone().requires_grad_()
            with torch.enable_grad():
                (moved,) = torch.autograd.grad(self._applied(weight, v).square().sum(), v)
            span = torch.cat([moved, vectors]).flatten(1)
            basis = torch.linalg.qr(span.T).Q.T
            image = self._applied(weight, basis.view(-1, *v.shape[1:])).flatten(1).double()
            # a few numbers: on the host, which reads the norm in any case
            squares, rotation = torch.linalg.eigh((image @ image.T).cpu())  # the smallest first
            best = to_device(rotation.T.flip(0)[: len(v)].to(basis.dtype), basis.device)
            vectors = (best @ basis).view_as(v)
            norm = math.sqrt(max(float(squares[-1]), 0.0))
            if norm <= before * (1 + 1e-4):
                break
            before = norm
        return vectors

    def _applied(self, weight: Tensor, x: Tensor) -> Tensor:
        """The layer with a weight, without its bias."""
        layer = self.layer
        if isinstance(layer, nn.Linear):
            return F.linear(x, weight)
        if not isinstance(layer, _ConvTransposeNd):
            return layer._conv_forward(x, weight, None)  # pyright: ignore
        transposed = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[x.ndim - 3]
        sizes = layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation
        return transposed(x, weight, None, *cast(Any, sizes))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args, **options) -> None:
        self.vectors.resize_(state_dict.get(f"{prefix}vectors", self.vectors).shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **options)


def _in_unit(weight: Tensor) -> Tensor:
    """A unit in which a weight is of order 1, so that squares stay in range."""
    largest = weight.abs().amax()
    return torch.where(largest == 0, 1.0, largest)


@torch.no_grad()
def _at_size_of_input(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Before a pass: the norm is that at the size of the input."""
    norm, weight = cast(Any, layer).parametrizations["weight"][-1], cast(Tensor, layer.weight)
    # of a linear layer 1, of a convolution with its channels
    ndim = weight.ndim - 1
    norm.start_(inputs[0].shape[-ndim:])


class KantorovichRubinstein(Learned):
    r"""W_1 by its dual: sup E D(y) - E D(x) over 1-Lipschitz critics D.

    inner_loss = mean D(x) - mean D(y) + the constraint's penalty; the divergence itself is
    mean D(y) - mean D(x), which the model decreases through x.

    Source: Arjovsky, Chintala, Bottou, "Wasserstein generative adversarial networks", 2017.
    """

    additive = True

    def __init__(self, critic: nn.Module, constraint: Constraint):
        super().__init__()
        instance("critic", critic, nn.Module, "mlp([dim, 64, 1])")
        instance("constraint", constraint, Constraint, "GradientPenalty()")
        constraint.prepare(critic)
        self.critic, self.constraint, self.random = critic, constraint, constraint.random

    @promoted_critic(x=ANY, y=ANY)
    def inner_loss(self, x: Tensor, y: Tensor, *, draws: Draws | None = None) -> Tensor:
        return self.constraint.penalty(self.critic, x, y, draws=draws) - self(x, y)

    @promoted_critic(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor, *, draws: Draws | None = None) -> Tensor:
        return critic_values(self.critic, y).mean() - critic_values(self.critic, x).mean()

    def project_(self) -> None:
        self.constraint.project_(self.critic)


class MaxGeneralizedSliced(Learned):
    """The largest W_p^p over a slicer's slices, each of which ascends.

    Source: Kolouri, Nadjahi, Simsekli, Badeau, Rohde, "Generalized sliced Wasserstein distances",
    2019.
    """

    def __init__(self, slicer: Slicer, p: float = 2):
        super().__init__()
        self.slicer, self.p = instance("slicer", slicer, Slicer, "Circular(dim)"), order(p)

    @promoted(x=ANY, y=ANY)
    def inner_loss(self, x: Tensor, y: Tensor) -> Tensor:
        return -self._powers(x, y).sum()

    @promoted(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self._powers(x, y).max()

    def _powers(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = sample_pair(x, y)
        return slice_powers(x, y, self.slicer, self.p)

    def project_(self) -> None:
        self.slicer.project_()


class MaxSliced(MaxGeneralizedSliced):
    """The largest W_p^p over one straight slice: at its best max_θ W_p^p(θ_# x, θ_# y).

    Source: Deshpande et al., "Max-sliced Wasserstein distance and its use for GANs", 2019.
    """

    def __init__(self, dim: int, p: float = 2):
        super().__init__(Linear(dim, 1), p)
        self.dim = dim


class FeatureSliced(Learned):
    r"""SW_p^p between features φ(x), φ(y) of a discriminator that learns to tell x from y.

    The discriminator head(φ(·)) returns logits and is trained by cross-entropy. Features are put
    on the unit sphere: on unbounded ones the distance grows without end.

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
            F.normalize(
                self.features(_in_dtype_of(self.features, z)).to(z.dtype).flatten(1), dim=1
            )
            for z in (x, y)
        )
        return one, two

    @promoted_critic(x=ANY, y=ANY)
    def inner_loss(self, x: Tensor, y: Tensor, *, draws: Draws | None = None) -> Tensor:
        return cross_entropy(self.head, *self._features(x, y))

    @promoted(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor, *, draws: Draws | None = None) -> Tensor:
        return self.sliced(*self._features(x, y), draws=draws)
