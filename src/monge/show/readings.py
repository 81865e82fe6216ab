"""Plain-language readings of figures: good, fair or poor beside their noise floors."""

import math
import statistics
from typing import NamedTuple

from monge.data import as_floats
from monge.divergences import MMD
from monge.draws import generator
from monge.evaluation.statistics import HIGHER, Figure, has_best
from monge.kernels import multiscale_imq
from monge.models.protocols import prior_of
from monge.runs import Run

RULE = (
    "The readings are rules of thumb. A figure to minimise is good up to 1.5 times its noise "
    "floor and fair up to 4 times. A figure to maximise is good from 95% of its floor and fair "
    "from 80%. Any other figure is good within 10% of its floor and fair within 30%. The MMD² of "
    "codes is good within 3 standard deviations of 0 and fair within 30. A reconstruction is good "
    "if it explains 90% of the variance of the data and fair from 70%."
)


class Reading(NamedTuple):
    """What a figure says."""

    grade: str
    """good, fair, poor, or "" where it is not judged."""
    text: str


NONE = Reading("", "")


def _graded(value: float, good: float, fair: float) -> str:
    return "good" if value <= good else "fair" if value <= fair else "poor"


def of_figure(name: str, figure: Figure) -> Reading:
    """The reading of a figure of an evaluation beside its noise floor; none without a floor."""
    value, floor = figure["value"], figure["floor"]
    if value is None or floor is None or not math.isfinite(value) or name == "MMD² of codes":
        return NONE
    if name in HIGHER:
        if floor <= 0:
            return NONE
        share = value / floor
        return Reading(_graded(-share, -0.95, -0.8), f"{share:.0%} of the noise floor")
    if has_best(name):
        if floor <= 0:  # as of an unbiased estimate, which is 0 for real samples
            return NONE
        times = value / floor
        return Reading(_graded(times, 1.5, 4), f"{times:.3g} times the noise floor")
    if floor == 0:
        return NONE
    away = abs(value - floor) / abs(floor)
    side = "above" if value > floor else "below"
    return Reading(_graded(away, 0.1, 0.3), f"{away:.0%} {side} the noise floor")


def of_summary(run: Run, numbers: dict[str, float]) -> dict[str, Reading]:
    """The readings of a run's summary, by name."""
    found = {}
    if "test reconstruction" in numbers and run.source.kind.ordered:
        kept = 1 - numbers["test reconstruction"] / _variance(run)
        found["test reconstruction"] = Reading(
            _graded(-kept, -0.9, -0.7),
            f"explains {max(kept, 0):.0%} of the variance of test samples",
        )
    prior = prior_of(run.model)
    if "MMD² of codes" in numbers and prior is not None:
        n = round(numbers["n of codes"])
        noise = _deviation(run, n, numbers["noise floor"])
        times = abs(numbers["MMD² of codes"]) / noise
        text = (
            f"{n:,} codes are indistinguishable from samples of the prior"
            if times <= 3
            else f"{n:,} codes are {times:,.0f} standard deviations from a match with the prior"
        )
        found["MMD² of codes"] = Reading(_graded(times, 3, 30), text)
        found["noise floor"] = Reading(
            "", f"the same between two samples of the prior: 0 ± {noise:.2g}"
        )
    return found


def _variance(run: Run) -> float:
    """The error of the best constant in place of reconstructions."""
    x = as_floats(run.source.test[:2000]).double()
    middle = x.mean(0).expand_as(x)
    return max(float(run.source.error()(x, middle).mean()), 1e-30)


def _deviation(run: Run, n: int, floor: float, repeats: int = 6) -> float:
    """The standard deviation of the MMD² of n codes that follow the prior, from some draws and the
    noise floor, which is one."""
    prior = prior_of(run.model)
    assert prior is not None, "only of a model with a prior"
    mmd, seed = MMD(multiscale_imq(prior.spread)), run.config.seed
    values = [floor]
    for i in range(repeats):
        x, y = (prior.sample(n, generator(seed, "readings", i, j)) for j in (0, 1))
        values.append(float(mmd(x, y)))
    return max(math.sqrt(statistics.fmean(v * v for v in values)), 1e-12)
