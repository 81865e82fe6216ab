"""The options that recipes have of their own, as frozen dataclasses without torch."""

from dataclasses import dataclass
from typing import Literal

from monge._core.fields import (
    STRONGEST,
    WEAKEST,
    at_least,
    bounded,
    choices,
    demand,
    idle,
    positive,
)

MOST_EPSILON = 1e6
"""In units of the spread, from far below which on a plan is the product of its marginals: rounding
is to leave the cost."""


@dataclass(frozen=True)
class NoOptions:
    """Options of a recipe that has none."""

    def check(self) -> None:
        """A ValueError for values that cannot be."""


@dataclass(frozen=True)
class SharpenOptions:
    """Options of every auto-encoder: a second matching, between samples and data."""

    sharpen: (
        Literal[
            "jensen-shannon",
            "relativistic",
            "wasserstein",
            "feature-sliced",
            "sliced",
            "mmd",
            "energy",
            "sinkhorn",
        ]
        | None
    ) = None
    """Also match samples with data, by a critic: jensen-shannon (of spectral norm 1), relativistic
    (with zero-centred penalties), wasserstein (with a gradient penalty) or feature-sliced (its
    features); or directly in data space: sliced, mmd, energy, sinkhorn. By default samples are not
    compared with data."""
    sharpen_weight: float | None = None
    """μ, the weight of this divergence, in units of the cost; the default depends on the
    divergence and the data's dimension."""
    sharpen_from: float = 0.0
    """The share of training, in [0, 1), after which samples are compared with data; it moves if a
    run is resumed for more steps."""
    sharpen_every: int = 1
    """Compare samples with data only in every N-th step, with N times the weight."""
    sharpen_steps: int = 1
    """Steps of its critic before each step of the model."""
    sharpen_lr: float | None = None
    """Learning rate of its critic, which falls along the schedule; the default is 0.0005, or what
    the recipe is tuned to."""

    def check(self) -> None:
        """A ValueError for values that cannot be."""
        choices(self)
        positive(self, "sharpen_weight", "sharpen_lr")
        bounded(self, "sharpen_weight")
        at_least(self, 1, "sharpen_every", "sharpen_steps")
        demand(0 <= self.sharpen_from < 1, "sharpen_from", self.sharpen_from, "in [0, 1)")
        sharpened = self.sharpen is not None
        names = "sharpen_weight", "sharpen_from", "sharpen_every"
        idle(self, sharpened, "without --sharpen DIVERGENCE", *names)
        learned = self.sharpen in (
            "jensen-shannon",
            "relativistic",
            "wasserstein",
            "feature-sliced",
        )
        why = f"for --sharpen {self.sharpen}, which has no critic" * sharpened
        idle(
            self,
            learned,
            why or "without --sharpen DIVERGENCE",
            "sharpen_steps",
            "sharpen_lr",
        )


@dataclass(frozen=True)
class WAEOptions(SharpenOptions):
    """Options of every Wasserstein auto-encoder."""

    weight: float | None = None
    """λ, the weight of the divergence, in units of the cost; by default proportional to the root
    of the data's dimension."""
    scale: float = 1.0
    """s in the cost s Σ (x - x')², the factor of elastic-net, or s N times a mean over the N
    points of a cloud."""
    cost: (
        Literal[
            "squared-l2",
            "l2",
            "l1",
            "elastic-net",
            "bernoulli",
            "chamfer",
            "earth-mover",
            "sinkhorn",
            "sliced",
            "elementwise",
        ]
        | None
    ) = None
    """Cost c. For images and tables: squared-l2 by default, l2, l1, elastic-net (0.7 times
    squared and 0.3 times absolute errors, to which wae-mmd, wae-gan, alpha-gan and swae are
    tuned for small images), or bernoulli (cross-entropy, images only); the default λ is for
    squared-l2 and elastic-net. For point clouds: chamfer by default, earth-mover, sinkhorn,
    sliced, or elementwise, which depends on the order of the points and produces blobs."""
    cost_directions: int = 64
    """Random directions per batch, for the cost `sliced`."""
    encoder: Literal["deterministic", "random"] = "deterministic"
    """Whether Q(Z|x) is a point or a Gaussian."""
    sigma: float | None = None
    """Standard deviation of a Gaussian decoder; by default the decoder is deterministic."""
    noise: float = 0.0
    """Standard deviation of the truncated Gaussian noise added to the encoder's input in
    training."""

    def check(self) -> None:
        super().check()
        positive(self, "weight", "scale", "sigma")
        at_least(self, 1, "cost_directions")
        at_least(self, 0, "noise")
        bounded(self, "weight", "scale", "sigma", "noise")


@dataclass(frozen=True)
class CriticOptions(WAEOptions):
    """Options of an auto-encoder with a critic of codes."""

    penalty: float | None = None
    """γ of the critic's penalty ½ γ σ² (E ‖∇D(z)‖² + E ‖∇D(z')‖²), over codes z and draws z' of
    the prior, whose coordinates have deviation σ. It keeps codes from circling around the prior,
    and the critic from details. The default is no penalty, or what the recipe is tuned to."""

    def check(self) -> None:
        super().check()
        at_least(self, 0, "penalty")
        bounded(self, "penalty")


@dataclass(frozen=True)
class MMDOptions(WAEOptions):
    """Options of an auto-encoder with an MMD."""

    kernel: Literal["imq", "rbf", "imq-near"] | None = None
    """imq, seven inverse multiquadratics; rbf, one Gaussian as wide as the root mean squared
    distance of two draws of the prior; or imq-near, the seven and 16 times a Gaussian √20 times
    narrower, which fills gaps between codes. imq by default, or what the recipe is tuned to."""


@dataclass(frozen=True)
class SinkhornOptions(WAEOptions):
    """Options of an auto-encoder with a Sinkhorn divergence."""

    epsilon: float = 0.05
    """ε in units of the mean squared distance of two draws of the prior. Between batches a small
    ε draws codes towards their mean; a larger one does less so, and needs a larger λ."""

    def check(self) -> None:
        super().check()
        positive(self, "epsilon")
        bounded(self, "epsilon", most=MOST_EPSILON)


@dataclass(frozen=True)
class SlicedOptions(WAEOptions):
    """Options of an auto-encoder with a sliced divergence."""

    directions: int = 64
    """Random directions (or slices) per batch."""

    def check(self) -> None:
        super().check()
        at_least(self, 1, "directions")


@dataclass(frozen=True)
class SlicerOptions(WAEOptions):
    """Options of an auto-encoder with a divergence along curved slices."""

    slicer: Literal["circular", "polynomial", "neural"] = "circular"
    """Distances to points of a sphere, homogeneous polynomials, or outputs of a network with one
    hidden layer; the default λ is for circular."""
    degree: int = 3
    """Degree of polynomial slices, odd."""

    def check(self) -> None:
        super().check()
        odd = self.degree >= 1 and self.degree % 2 == 1
        demand(odd, "degree", self.degree, "odd and at least 1, for the transform to be injective")
        demand(
            self.slicer == "polynomial" or self.degree == 3,
            "degree",
            self.degree,
            f"left out for {self.slicer} slices: it is for --slicer polynomial",
        )


@dataclass(frozen=True)
class GeneralizedSlicedOptions(SlicerOptions, SlicedOptions):
    """Options of an auto-encoder with random curved slices."""


@dataclass(frozen=True)
class MaxGeneralizedSlicedOptions(SlicerOptions):
    """Options of an auto-encoder with learned worst slices."""

    slices: int = 8
    """Learned slices, of which the worst counts."""

    def check(self) -> None:
        super().check()
        at_least(self, 1, "slices")


@dataclass(frozen=True)
class ConditionalOptions(SharpenOptions):
    """Options of an auto-encoder that completes images."""

    weight: float | None = None
    """λ, the weight of the divergence, in units of the cost; by default proportional to the root
    of the data's dimension."""
    scale: float = 1.0
    """s in the cost s Σ (x - x')²."""
    cost: Literal["squared-l2", "l2", "l1", "elastic-net", "bernoulli"] | None = None
    """Cost of the unknown part: squared-l2 by default, l2, l1, elastic-net (0.7 times squared and
    0.3 times absolute errors), or bernoulli (cross-entropy); the default λ is for squared-l2 and
    elastic-net."""
    encoder: Literal["deterministic", "random"] = "deterministic"
    """Whether Q(Z|x) is a point or a Gaussian."""
    known: str = "top"
    """Part that images are completed from: top, bottom, left, right, surround (all but a centre
    box), random (all but a random box), or a mask image, white where known."""
    summary: int = 32
    """Numbers that summarise the known part."""

    def check(self) -> None:
        super().check()
        positive(self, "weight", "scale")
        bounded(self, "weight", "scale")
        at_least(self, 1, "summary")
        demand(bool(self.known), "known", self.known, "the name of a part, or of a mask image")


@dataclass(frozen=True)
class VAEOptions(SharpenOptions):
    """Options of every variational auto-encoder."""

    beta: float | None = None
    """Weight of the KL term; by default 1, or what the recipe is tuned to for small images."""

    def check(self) -> None:
        super().check()
        positive(self, "beta")
        bounded(self, "beta")


@dataclass(frozen=True)
class GaussianVAEOptions(VAEOptions):
    """Options of a variational auto-encoder with a Gaussian likelihood."""

    sigma: float | None = None
    """Standard deviation of the Gaussian decoder; learned by default."""

    def check(self) -> None:
        super().check()
        positive(self, "sigma")
        bounded(self, "sigma")


@dataclass(frozen=True)
class SlicedGeneratorOptions:
    """Options of a generator with a sliced divergence."""

    directions: int = 64
    """Random directions per batch."""

    def check(self) -> None:
        """A ValueError for values that cannot be."""
        at_least(self, 1, "directions")


@dataclass(frozen=True)
class MMDGeneratorOptions:
    """Options of a generator with an MMD."""

    kernel: Literal["imq", "rbf"] = "imq"
    """Seven inverse multiquadratics, or one Gaussian as wide as the root mean squared distance of
    two samples."""

    def check(self) -> None:
        """A ValueError for values that cannot be."""
        choices(self)


@dataclass(frozen=True)
class FlowOptions:
    """Options of flow matching."""

    coupling: Literal["independent", "exact", "sinkhorn", "semidiscrete"] = "exact"
    """How noise is paired with the samples of a batch: independent; exact, by optimal assignment,
    which makes the paths straighter; sinkhorn, drawn from an entropic plan, which is faster for
    batches of thousands and, with the path sb, gives the Schrödinger bridge; or semidiscrete, with
    the whole training set, by a plan fitted before training."""
    path: Literal["linear", "sb", "vp"] = "linear"
    """Path from noise to data: linear; sb, a Brownian bridge, as in a Schrödinger bridge; or vp,
    variance-preserving."""
    sigma: float = 0.0
    """Standard deviation of the noise on a path: 0 by default for linear paths; required for a
    bridge."""
    solver: Literal["euler", "midpoint", "heun", "dopri5"] = "midpoint"
    """ODE solver for sampling; dopri5 adapts its steps to the tolerance and needs the extra
    `ode`."""
    ode_steps: int = 20
    """Steps of the other solvers."""
    tolerance: float = 1e-5
    """Relative and absolute tolerance of dopri5."""
    label_dropout: float = 0.1
    """With --condition labels: the share of labels dropped in training, in [0, 1), so that the
    flow of all classes is learned as well, as guidance requires."""
    guidance: float = 1.0
    """With --condition labels: how far samples go beyond the flow of all classes towards that of
    their own; 1 is no guidance, larger values give more typical and less diverse samples."""

    def check(self) -> None:
        """A ValueError for values that cannot be."""
        choices(self)
        at_least(self, 0, "sigma", "guidance")
        bounded(self, "sigma", "guidance")
        demand(0 <= self.label_dropout < 1, "label_dropout", self.label_dropout, "in [0, 1)")
        dropped = self.label_dropout > 0
        idle(self, dropped, "for --label-dropout 0, which leaves nothing to guide by", "guidance")
        at_least(self, 1, "ode_steps")
        positive(self, "tolerance")
        bounded(self, "tolerance")
        demand(
            self.path != "sb" or self.sigma > 0,
            "sigma",
            self.sigma,
            "positive for the path sb: give --sigma 0.1",
        )
        demand(
            self.path != "vp" or self.sigma == 0,
            "sigma",
            self.sigma,
            "left out for the path vp: it is for linear and sb",
        )
        adaptive = self.solver == "dopri5"
        idle(self, adaptive, "unless --solver is dopri5", "tolerance")
        idle(self, not adaptive, "for dopri5, which chooses its steps", "ode_steps")


@dataclass(frozen=True)
class DriftingOptions(SlicedGeneratorOptions, MMDGeneratorOptions):
    """Options of a generator that is trained towards where its samples drift."""

    drift: Literal["mean-shift", "mmd", "energy", "sinkhorn", "sliced", "critic"] = "mean-shift"
    """How samples drift: towards data and away from each other by normalised affinities
    (mean-shift), or along the gradient flow of a divergence; critic estimates W_1 with a gradient
    penalty."""
    temperatures: tuple[float, ...] = (0.02, 0.05, 0.2)
    """Ranges of affinities of mean-shift, in mean distances between samples; one drift each."""
    rate: float = 1.0
    """Length of a move, in typical differences of a coordinate between samples."""
    moves: int = 1
    """Number of moves before the regression."""

    def check(self) -> None:
        SlicedGeneratorOptions.check(self)
        MMDGeneratorOptions.check(self)
        positive(self, "rate")
        bounded(self, "rate")
        at_least(self, 1, "moves")
        sized = all(WEAKEST <= one <= STRONGEST for one in self.temperatures)
        wanted = f"one or more numbers from {WEAKEST:g} to {STRONGEST:g}"
        demand(sized and len(self.temperatures) > 0, "temperatures", self.temperatures, wanted)
        for name, drift in (
            ("temperatures", "mean-shift"),
            ("kernel", "mmd"),
            ("directions", "sliced"),
        ):
            idle(self, self.drift == drift, f"unless --drift is {drift}", name)
