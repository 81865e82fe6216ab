r"""Constraints that keep a critic regular: clipped weights, gradient penalties, spectral norms.

A constraint changes the critic once (`prepare`), adds a penalty to its inner loss (`penalty`), and
puts its parameters back after each inner step (`project_`).
"""

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from monge._core.checks import instance, positive
from monge._core.devices import to_device
from monge._core.products import true_products
from monge._core.shown import Shown
from monge.draws import Draws, generator, standard_normal

SINGULAR_VECTORS, MOST_STEPS = 2, 100
"""How many singular vectors of a layer are tracked, and the most steps of `iterate_`."""


def critic_values(critic: nn.Module, x: Tensor) -> Tensor:
    """The critic's value for each sample, (n,).

    A critic may return (n,) or (n, 1). Any other shape is refused, because (n,) and (n, 1) would
    broadcast to (n, n).
    """
    instance("critic", critic, nn.Module, "mlp([dim, 64, 1])")
    if instance("x", x, Tensor, "torch.randn(100, dim)").ndim < 1 or len(x) == 0:
        raise ValueError(
            f"a critic takes at least one sample of `x` and of `y`, got shape {tuple(x.shape)}"
        )
    values = critic(in_dtype_of(critic, x)).to(x.dtype)
    if values.shape not in ((len(x),), (len(x), 1)):
        raise ValueError(
            f"`critic` must return shape ({len(x)},) or ({len(x)}, 1) for {len(x)} samples, "
            f"got {tuple(values.shape)}"
        )
    return values.reshape(len(x))


def in_dtype_of(network: nn.Module, x: Tensor) -> Tensor:
    """x in the dtype in which a network computes."""
    parameter = next(network.parameters(), x)
    return x.to(parameter.dtype) if parameter.is_floating_point() else x


def gradients(critic: nn.Module, x: Tensor) -> Tensor:
    r"""∇D at samples x (n, \*), flattened to (n, d), with a graph to the critic's parameters."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        values = critic_values(critic, x).sum()
        (gradient,) = torch.autograd.grad(values, x, create_graph=True)
    return gradient.flatten(1)


def refuse_batch_norm(critic: nn.Module) -> None:
    """Refuses a critic that mixes the samples of a batch: it has no gradient at a sample."""
    for name, module in critic.named_modules():
        if "BatchNorm" in type(module).__name__:
            raise ValueError(
                f"`critic` has batch normalisation at {name!r}, under which a gradient "
                "is not that at a sample: use layer normalisation or none"
            )


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
    r"""weight · E (‖∇D(x̂)‖ - 1)² at x̂ = t y + (1 - t) x, one t ~ U(0, 1) per sample.

    The norm is over all dimensions of a sample. The first min(n, m) samples of each side are
    joined. Critics that mix the samples of a batch are refused, because they have no gradient at a
    single sample.

    Args:
        weight: of the penalty, positive.
        one_sided: penalise only norms above 1.

    Source: Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville, "Improved training of Wasserstein
    GANs", 2017.
    """

    random = True

    def __init__(self, weight: float = 10.0, one_sided: bool = False):
        self.weight = positive("weight", weight)
        self.one_sided = instance("one_sided", one_sided, bool, "True")

    def prepare(self, critic: nn.Module) -> None:
        refuse_batch_norm(critic)

    def penalty(
        self, critic: nn.Module, x: Tensor, y: Tensor, *, draws: Draws | None = None
    ) -> Tensor:
        n = min(len(x), len(y))
        shape = [1] * (x.ndim - 1)
        if draws is None:
            t = torch.rand(n, *shape, dtype=torch.float32, device="cpu").to(x)
        else:
            t = draws.rows(
                "inner",
                lambda k, g: torch.rand(k, *shape, generator=g, dtype=torch.float32, device="cpu"),
            )[:n].to(x)
        excess = gradients(critic, torch.lerp(x[:n], y[:n], t)).norm(dim=1) - 1
        if self.one_sided:
            excess = excess.clamp(min=0)
        return self.weight * excess.square().mean()


class ZeroCentredPenalty(Constraint):
    r"""½ weight · (E ‖∇D(y)‖² + E ‖∇D(x)‖²), at the samples themselves: R1 and R2.

    With it the game of a critic and a generator converges near its equilibrium, where the critic
    is flat. The norm is over all dimensions of a sample. Critics that mix the samples of a batch
    are refused, as by `GradientPenalty`.

    Source: Mescheder, Geiger, Nowozin, "Which training methods for GANs do actually converge?",
    2018.
    """

    def __init__(self, weight: float = 1.0):
        self.weight = positive("weight", weight)

    def prepare(self, critic: nn.Module) -> None:
        refuse_batch_norm(critic)

    def penalty(
        self, critic: nn.Module, x: Tensor, y: Tensor, *, draws: Draws | None = None
    ) -> Tensor:
        squares = (gradients(critic, z).square().sum(1).mean() for z in (x, y))
        return 0.5 * self.weight * sum(squares, x.new_zeros(()))


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


class MatrixSpectralNorm(Constraint):
    """Each linear or convolutional weight, with its outputs as rows of a matrix, is divided by its
    largest singular value, which power iteration follows by one step after each inner step.

    It takes a tenth of the time of `SpectralNorm` and is the variant used to train image GANs. It
    does not bound the slope by 1: the norm of a convolution differs from that of the matrix by a
    factor, which the weight of the divergence absorbs.

    Source: Miyato, Kataoka, Koyama, Yoshida, "Spectral normalization for generative adversarial
    networks", 2018, section 2.1.
    """

    def prepare(self, critic: nn.Module) -> None:
        for layer in list(critic.modules()):
            if isinstance(layer, (nn.Linear, _ConvNd)) and not is_parametrized(layer, "weight"):
                outputs = 1 if isinstance(layer, _ConvTransposeNd) else 0
                register_parametrization(layer, "weight", MatrixNorm(layer.weight, outputs))

    def project_(self, critic: nn.Module) -> None:
        for layer in filter(lambda one: is_parametrized(one, "weight"), critic.modules()):
            weight = cast(Any, layer).parametrizations.weight
            if isinstance(weight[0], MatrixNorm):
                weight[0].iterate_(weight.original)


class MatrixNorm(nn.Module):
    """The parametrization W / ‖W‖ of a weight as a matrix, by `MatrixSpectralNorm`; 0 for W = 0.

    Passes do not change the singular vector: it moves in `iterate_` only.

    Args:
        weight: W before training.
        outputs: its axis of outputs.
    """

    left: Tensor
    """The first left singular vector (outputs,), as far as power iteration has come."""

    def __init__(self, weight: Tensor, outputs: int):
        super().__init__()
        self.outputs = outputs
        start = standard_normal((weight.shape[outputs],), generator("spectral normalisation"))
        self.register_buffer("left", F.normalize(start, dim=0).to(weight.device, weight.dtype))
        for _ in range(15):
            self.iterate_(weight)

    def forward(self, weight: Tensor) -> Tensor:
        row = self.left @ self._matrix(weight)
        # the norm has no gradient at 0
        square = row.square().sum()
        return weight / torch.where(square == 0, 1.0, square).sqrt()

    @torch.no_grad()
    def iterate_(self, weight: Tensor) -> None:
        """Moves the vector by a step of power iteration."""
        matrix = self._matrix(weight)
        moved = matrix @ (self.left @ matrix)
        if moved.any():
            self.left.copy_(F.normalize(moved, dim=0))

    def _matrix(self, weight: Tensor) -> Tensor:
        return weight.movedim(self.outputs, 0).flatten(1)


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
        a normalised layer, and steps in the span of AᵀA v only are slow there.
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
