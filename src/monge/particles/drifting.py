r"""Drifting: a generator is trained towards where its samples would move.

A field V(x; y) says how generated samples x should move towards data y. A step of training moves
x = G(z) to x' = x + V(x; y), holds x' fixed, and regresses G(z) on it. Sampling is one pass of G.

For V = -n ∇D and a single move this regression has the gradient of D itself, up to a factor. What
sets drifting apart is that the drift is normalised over the batch, that the field need not be a
gradient, that samples may take several moves before they are regressed on, and that all of it may
happen in features.
"""

import abc
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from monge._core.checks import dimension, instance, positive, sample_pair
from monge._core.numerics import envelope
from monge._core.promotion import ANY, promoted
from monge._core.shown import Shown
from monge.adversarial import Learned
from monge.divergences import Divergence, arguments
from monge.draws import Draws
from monge.particles.gradient_flow import velocity


class Field(Shown, nn.Module, abc.ABC):
    """The drift of one sample towards another, as one field or several that are added."""

    random: bool = False
    """Whether the drift draws random numbers, which `forward` then takes from `draws`."""

    @abc.abstractmethod
    def forward(self, x: Tensor, y: Tensor, *, draws: Draws | None = None) -> Tensor:
        """
        Args:
            x: the generated sample, (n, d).
            y: the data, (m, d).
            draws: random numbers of the field; torch's global generator by default.

        Returns:
            (k, n, d): k drifts of each generated sample, in its units and without graph.
        """


class MeanShift(Field):
    r"""The drifting field of Deng et al.: towards data and away from other generated samples.

        V(x_i) = Σ_{j,l} a_ij b_il (y_j - x_l),

    where a_ij for the data and b_il for the other generated samples (l ≠ i) are affinities: the
    entries of

        K = exp(-‖x_i - ·‖ / (τ m)),   each divided by √(sum of its row · sum of its column),

    over the data and the generated samples together; m is the mean of these distances, so that τ
    depends neither on the units nor on the dimension. Attraction and repulsion balance where both
    samples have one distribution. The field is not the gradient of a divergence (Franz et al.).

    Args:
        temperatures: τ; one drift each.

    Raises:
        ValueError: for no temperature, or one that is not positive; when called, for fewer than
            two generated samples.

    Source: Deng, Li, Li, Du, He, "Generative modeling via drifting", 2026, algorithm 2 and
    appendix A.6, arXiv 2602.04770; Franz et al., "Drifting fields are not conservative", 2026.
    """

    def __init__(self, temperatures: Sequence[float] = (0.02, 0.05, 0.2)):
        super().__init__()
        if not isinstance(temperatures, Sequence) or not temperatures:
            raise ValueError(
                f"`temperatures` must be one number or more, e.g. (0.05,), got {temperatures!r}"
            )
        self.temperatures = tuple(positive("temperatures", one) for one in temperatures)

    @torch.no_grad()
    @promoted(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor, *, draws: Draws | None = None) -> Tensor:
        x, y = sample_pair(x, y)
        if len(x) < 2:
            raise ValueError("`x` must hold at least 2 samples, which repel each other, got 1")
        distances = torch.cat([_distances(x, y), _distances(x, x)], 1)
        pairs = len(x) * (len(x) + len(y) - 1)
        unit = (distances.sum() / pairs).clamp(min=_least(distances))
        distances[:, len(y) :].fill_diagonal_(torch.inf)
        # differences of barycentres keep few digits of either, and all about one of the points
        wide = x.double() - y[0].double(), y.double() - y[0].double()
        drifts = [self._drift(*wide, distances / (t * unit)) for t in self.temperatures]
        return torch.stack(drifts).to(x.dtype)

    @staticmethod
    def _drift(x: Tensor, y: Tensor, exponents: Tensor) -> Tensor:
        affinities = (-exponents).log_softmax(0) + (-exponents).log_softmax(1)
        near, others = (affinities / 2).exp().split([len(y), len(x)], 1)
        pulled, pushed = near.sum(1, keepdim=True), others.sum(1, keepdim=True)
        return pushed * (near @ y) - pulled * (others @ x)


class GradientField(Field):
    r"""The velocity of the Wasserstein gradient flow of a divergence, V_i = -n ∇_{x_i} D(x, y).

    For a Sinkhorn divergence with the squared cost it is 2 (T_xy(x_i) - T_xx(x_i)), twice the
    difference of the barycentric projections of the entropic plans between x and y, and between x
    and itself: the field of Sinkhorn drifting.

    Args:
        divergence: D.

    Source: Gretton et al., "On the Wasserstein gradient flow interpretation of drifting models",
    2026, arXiv 2605.05118; for the Sinkhorn divergence He et al., "Sinkhorn-drifting generative
    models", 2026, arXiv 2603.12366.
    """

    def __init__(self, divergence: Divergence):
        super().__init__()
        self.divergence = instance("divergence", divergence, Divergence, "EnergyDistance()")
        self.random = divergence.random

    def forward(self, x: Tensor, y: Tensor, *, draws: Draws | None = None) -> Tensor:
        return velocity(x, self.divergence, y, draws=draws)[None]


class Drifting(Divergence):
    r"""The drift of generated samples towards data, as a divergence that a generator decreases.

    Samples take moves x ← x + rate · s Σ_k V_k(x; y) / rms(V_k) along the drifts of a field, each
    of which is divided by its root mean square over the batch and the coordinates; s is the mean
    distance between generated samples and data over √d, a typical difference of a coordinate.
    Where they arrive, x', is held fixed, and the gradient is that of the regression

        Σ_i ‖x_i - x'_i‖² / (n d s²).

    The value is the mean square Σ_k ‖V_k‖² / (n d s²) of the drifts *before* they are normalised;
    the loss itself is nearly constant. It is near 0 where both samples have one distribution.

    Args:
        field: V.
        rate: the length of a move, in units of s.
        moves: how many moves before samples are regressed on.
        normalised: whether drifts are divided by their root mean squares. Otherwise a move is
            rate Σ_k V_k, and a single one along a `GradientField` has the gradient of its
            divergence, up to a factor.
        features: a fixed map φ in whose values φ(x), φ(y) samples drift; by default the samples
            themselves. Several maps, each of which drifts by itself, are given as a sequence.

    Source: Deng, Li, Li, Du, He, "Generative modeling via drifting", 2026, arXiv 2602.04770.
    """

    def __init__(
        self,
        field: Field,
        rate: float = 1.0,
        moves: int = 1,
        *,
        normalised: bool = True,
        features: nn.Module | Sequence[nn.Module] | None = None,
    ):
        super().__init__()
        self.field = instance("field", field, Field, "MeanShift()")
        fitted = [type(one).__name__ for one in field.modules() if isinstance(one, Learned)]
        if fitted and not isinstance(self, Learned):
            raise ValueError(
                f"`field` follows {fitted[0]}, which must be fitted: give that to LearnedDrifting"
            )
        self.random = field.random
        self.rate, self.moves = positive("rate", rate), dimension("moves", moves)
        self.normalised = normalised
        if features is None:
            features = nn.Identity()
        maps = [features] if isinstance(features, nn.Module) else features
        if not isinstance(maps, Sequence) or not maps:
            raise ValueError(f"`features` must be one module or more, got {features!r}")
        self.features = nn.ModuleList(instance("features", one, nn.Module, "φ") for one in maps)
        self.features.requires_grad_(False)

    @promoted(x=ANY, y=ANY)
    def forward(self, x: Tensor, y: Tensor, *, draws: Draws | None = None) -> Tensor:
        sample_pair(x, y)
        values = []
        for i, network in enumerate(self.features):
            named = None if draws is None or i == 0 else draws.named(f"features {i}")
            values.append(self._regression(*sample_pair(network(x), network(y)), named or draws))
        return torch.stack(values).sum()

    def _regression(self, x: Tensor, y: Tensor, draws: Draws | None) -> Tensor:
        start, y = x.detach(), y.detach()
        unit = (_distances(start, y).mean() / x.shape[1] ** 0.5).to(x).clamp(min=_least(x))
        value, shift = x.new_zeros(()), torch.zeros_like(start)  # in units of `unit`
        for i in range(self.moves):
            named = draws.named(f"move {i}") if draws is not None and i else draws
            drifts = self.field(start + unit * shift, y, draws=named)
            drifts = drifts / unit
            sizes = _root_mean_squares(drifts)
            if i == 0:
                value = sizes.square().sum()
            if self.normalised:
                drifts = drifts / sizes.clamp(min=_least(x))
            shift = shift + self.rate * drifts.sum(0)
        # that of the mean square of (x - x') / unit
        return envelope(value, (x, -2 * shift / x.numel() / unit), linear=False)


class LearnedDrifting(Drifting, Learned):
    """Drifting along the gradient of a learned divergence, e.g. of a critic, which is fitted to
    tell generated samples from data.

    Args:
        divergence: D, of samples themselves.
        rate: the length of a move, as of `Drifting`.
        moves: how many moves before samples are regressed on.
        normalised: whether drifts are divided by their root mean squares.

    Source: Gretton et al., "On the Wasserstein gradient flow interpretation of drifting models",
    2026, arXiv 2605.05118.
    """

    def __init__(
        self, divergence: Learned, rate: float = 1.0, moves: int = 1, *, normalised: bool = True
    ):
        instance("divergence", divergence, Learned, "MaxSliced(dim)")
        super().__init__(GradientField(divergence), rate, moves, normalised=normalised)
        self.divergence = divergence

    def inner_loss(self, x: Tensor, y: Tensor, *, draws: Draws | None = None) -> Tensor:
        random = {} if draws is None else arguments(self.divergence, draws)
        return self.divergence.inner_loss(x, y, **random)

    def project_(self) -> None:
        self.divergence.project_()


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """‖x_i - y_j‖ in float64, (n, m), to 10⁻⁸ of the spread of the samples."""
    centre = y.double().mean(0)
    return torch.cdist(x.double() - centre, y.double() - centre)


def _root_mean_squares(drifts: Tensor) -> Tensor:
    """The root mean square of each drift (k, n, d), as (k, 1, 1), at every magnitude."""
    largest = drifts.abs().amax((1, 2), keepdim=True).clamp(min=_least(drifts))
    return largest * (drifts / largest).square().mean((1, 2), keepdim=True).sqrt()


def _least(x: Tensor) -> float:
    """The least divisor."""
    return torch.finfo(x.dtype).tiny
