"""Samples of a model for evaluation, and samplers fitted to its codes after training.

A sampler is a prior: `model.sample(n, prior=sampler)` decodes its draws. A sampler fitted to the
codes helps an auto-encoder whose aggregate posterior Q_Z differs from its prior.
"""

import copy
import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from monge._core.checks import dimension, finite, floating, positive
from monge._core.checks import seed as checked_seed
from monge._core.defaults import float32_on_cpu, recording
from monge.data import Source, as_floats
from monge.data.batches import Batches
from monge.draws import Draws, permutation, stream
from monge.labels import Rows
from monge.models import evaluating
from monge.models.flow import FlowMatching
from monge.models.flow_prior import FlowPrior
from monge.models.protocols import Completer, drawn_codes
from monge.models.sampling import samples
from monge.priors import Mixture, Prior, Sphere
from monge.training.averages import Average

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

COMPLETED = 10_000
"""How many samples are completed at a time."""
COMPONENTS, SEARCH_STEPS = (1, 2, 5, 10, 20, 50, 100), 20
"""The numbers that `best_components` tries, and the steps of EM for each."""
MOST_TEMPERATURE = 1e10
"""Temperatures up to this, and down to its inverse, keep draws and their squares in float32."""
FLOW_STEPS = 4000
"""Steps of `fit_flow`."""
FLOW_BATCH, FLOW_RATE = 192, 2e-3


def draw(
    model: nn.Module,
    source: Source | None,
    n: int,
    generator: torch.Generator | None = None,
    prior: Prior | None = None,
    labels: Any = None,
) -> Iterator[Tensor]:
    """n samples of a model in batches, so that n may exceed what memory holds.

    Args:
        model: any model that can be sampled.
        source: the data, whose held-out samples a `Completer` completes in turn; None for other
            models.
        n: how many.
        generator: a CPU generator; torch's global one by default.
        prior: draws the codes in place of the model's own prior.
        labels: of a class-conditional model; see `monge.models.sampling.samples`.
    """
    if source is None or not isinstance(model, Completer):
        yield from samples(model, n, generator, prior, labels=labels)
        return
    for rows in torch.arange(dimension("n", n)).split(COMPLETED):
        given = as_floats(source.test[rows % len(source.test)])
        yield from samples(model, len(rows), generator, prior, given)


def draw_codes(model: nn.Module, x: Rows, seed: int = 0) -> Tensor:
    r"""A draw of Q(Z|x) for each row of x (n, \*), images as they are stored, as (n, dim)."""
    with evaluating(model), stream(checked_seed(seed), "codes"):
        return torch.cat([drawn_codes(model, as_floats(batch)) for batch in x.split(500)])


def fit_mixture(codes: Tensor, components: int | None = None, seed: int = 0) -> Mixture:
    """A mixture of Gaussians, fitted to codes (n, dim) by EM.

    Covariances are full where there are at least 2 dim codes for each component, and otherwise
    diagonal. A millionth of the mean variance is added to their diagonals.

    Args:
        codes: (n, dim), n >= 2.
        components: how many; by default `best_components`.
        seed: of the first assignment of codes to components.

    Raises:
        ValueError: for codes that are not finite, fewer than two, or fewer than components.
    """
    finite("codes", floating("codes", codes))
    if len(codes) < 2:
        raise ValueError(f"`codes` must be at least two, got {len(codes)}")
    if components is None:
        components = best_components(codes, seed)
    if not 1 <= components <= len(codes):
        raise ValueError(
            f"`components` must be from 1 to the {len(codes)} codes, got {components}"
        )
    fitted = _em(codes, components, seed, 100)
    means, weights = torch.from_numpy(fitted.means_), torch.from_numpy(fitted.weights_)
    covariances = torch.from_numpy(fitted.covariances_)
    if covariances.ndim == 2:
        covariances = covariances.diag_embed()
    return Mixture(means, covariances, weights / weights.sum())


def best_components(codes: Tensor, seed: int = 0) -> int:
    """The number of components of a mixture that held-out codes ask for.

    Mixtures of 1, 2, 5, 10, 20, 50 and 100 components, with at least 100 codes and 2 dim codes
    each, are fitted to four fifths of the codes (n, dim). The mean log density of the last fifth
    decides: the fewest components that are within one standard error of the best. Components that
    repeat the codes they were fitted to lose, since they are judged by others.

    Source: Smyth, "Model selection for probabilistic clustering using cross-validated
    likelihood", 2000; the rule of one standard error is that of Breiman et al., "Classification
    and regression trees", 1984.
    """
    rows = permutation(seed, "held-out codes", len(codes))
    held, rest = codes[rows[: len(codes) // 5]], codes[rows[len(codes) // 5 :]]
    most = len(rest) // max(100, 2 * codes.shape[1])
    counts = [count for count in COMPONENTS if count <= most]
    if len(counts) < 2:
        return 1
    x = held.detach().double().cpu().numpy()
    scores = torch.stack(
        [
            torch.from_numpy(_em(rest, count, seed, SEARCH_STEPS).score_samples(x))
            for count in counts
        ]
    )
    behind = scores[scores.mean(1).argmax()] - scores  # code by code, (counts, held)
    within = behind.mean(1) <= behind.std(1) / math.sqrt(len(held))
    return counts[int(within.int().argmax())]


def _em(codes: Tensor, components: int, seed: int, steps: int) -> "GaussianMixture":
    """A mixture fitted to codes by at most `steps` steps of EM."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    x = codes.detach().double().cpu()
    variance = float(x.var(0, correction=0).mean())
    fitted = GaussianMixture(
        components,
        covariance_type="full" if len(x) >= 2 * x.shape[1] * components else "diag",
        reg_covar=1e-6 * variance or 1e-6,
        max_iter=steps,
        random_state=checked_seed(seed) % 2**32,  # scikit-learn takes no others
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last steps change little
        return fitted.fit(x.numpy())


@float32_on_cpu()
@recording()
def fit_flow(codes: Tensor, steps: int = FLOW_STEPS, seed: int = 0) -> FlowPrior:
    """A flow fitted to codes (n, dim): a linear path, exact couplings of batches of 192, and rates
    along half a cosine.

    Raises:
        ValueError: for codes that are not finite, or fewer than two.
    """
    finite("codes", floating("codes", codes))
    if len(codes) < 2:
        raise ValueError(f"`codes` must be at least two, got {len(codes)}")
    codes = codes.detach().float().cpu()
    deviation, mean = torch.std_mean(codes, 0, correction=0)
    moments = mean, torch.where(deviation > 0, deviation, 1.0)
    with stream(checked_seed(seed), "flow of codes"):
        prior = FlowPrior(codes.shape[1], moments)
    flow, average = prior.flow, Average(prior.flow, decay=0.999)
    optimiser = torch.optim.Adam(flow.parameters(), lr=FLOW_RATE)
    batches = Batches(len(codes), min(FLOW_BATCH, len(codes)), seed)
    # a loop of its own, since only the first of several processes fits
    for step in range(dimension("steps", steps)):
        x = codes[batches.outer(step)]
        optimiser.param_groups[0]["lr"] = FLOW_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimiser.zero_grad()
        flow(x, Draws(seed, step, len(x))).terms["regression"].backward()
        optimiser.step()
        average.update(flow)
    flow.load_state_dict(average.module.state_dict())
    return prior.eval()


class Tempered(Prior):
    """A prior whose draws are multiplied by a temperature T > 0."""

    def __init__(self, prior: Prior, temperature: float):
        super().__init__()
        self.prior, self.temperature, self.dim = prior, temperature, prior.dim

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return self.temperature * self.prior.sample(n, generator)

    @property
    def spread(self) -> float:
        return self.temperature**2 * self.prior.spread


class TemperedFlow(Tempered):
    """A flow of codes whose noise is multiplied by a temperature T > 0."""

    prior: FlowPrior

    @property
    def flow(self) -> FlowMatching:
        return self.prior.flow

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.cat(list(self.flow.sampled(n, generator, temperature=self.temperature))).cpu()

    @property
    def spread(self) -> float:
        """Twice the trace of the covariance of 10,000 draws."""
        drawn = self.sample(10_000, torch.Generator().manual_seed(0))
        return 2 * float(drawn.var(0).sum())


def checked_temperature(temperature: float) -> float:
    """A temperature, if draws in float32 can have it."""
    temperature = positive("temperature", temperature)
    if not 1 / MOST_TEMPERATURE <= temperature <= MOST_TEMPERATURE:
        raise ValueError(
            f"`temperature` must be from {1 / MOST_TEMPERATURE:g} to {MOST_TEMPERATURE:g}, got "
            f"{temperature:g}: draws are float32"
        )
    return temperature


def tempered(prior: Prior, temperature: float) -> Prior:
    """A prior at a temperature T > 0.

    T multiplies the draws of a prior around 0, the deviations of a mixture's components around
    their means, and the noise of a flow. Below 1 samples are more typical and less diverse.

    Raises:
        ValueError: for a temperature beyond 10^±10, and for a sphere, of which all draws are
            equally far from the middle.

    Source: Kingma, Dhariwal, "Glow: generative flow with invertible 1×1 convolutions", 2018,
    section 6, where the noise of a flow has the deviation T.
    """
    temperature = checked_temperature(temperature)
    if temperature == 1:
        return prior
    if isinstance(prior, Sphere):
        raise ValueError(
            f"`temperature` is {temperature:g}, but draws of a sphere are all equally far from "
            "its middle: leave it out"
        )
    if isinstance(prior, Mixture):
        scaled = copy.deepcopy(prior)
        scaled.factors = (temperature * prior.factors.double()).float()
        return scaled
    return (TemperedFlow if isinstance(prior, FlowPrior) else Tempered)(prior, temperature)
