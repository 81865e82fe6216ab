"""Learning rates and numbers of inner steps, as functions of the step; when matchings begin."""

import math
from collections.abc import Sequence

from torch import nn

from monge.config import TrainingConfig
from monge.models.base import matchings


def decay(config: TrainingConfig, step: int, per_epoch: int, steps: int) -> float:
    """The factor of all learning rates in a step.

    Args:
        config: `schedule`, `warmup` and `drop_every`.
        step: the step, from 0.
        per_epoch: outer steps in an epoch.
        steps: outer steps of the whole training.
    """
    warmup = min(1.0, (step + 1) / (config.warmup or 1))
    epoch, done = step // per_epoch, step / steps
    match config.schedule:
        case "smooth":
            return warmup * 0.01**done
        case "cosine":
            return warmup * (1 + math.cos(math.pi * done)) / 2
        case "step":
            return warmup * 0.1 ** (epoch // config.drop_every)
        case "drops":
            drops = ((30, 2), (50, 5), (100, 10))
            return warmup / math.prod(divisor for first, divisor in drops if epoch >= first)
        case "constant" | None:
            return warmup


def last_begin(model: nn.Module, steps: int) -> int:
    """The first step, from 0, at which every matching that gets a weight has had one.

    Args:
        model: whose matchings may have schedules.
        steps: outer steps of the whole training.
    """
    scheduled = [one.schedule for one in matchings(model) if one.schedule and one.weight]
    return max((next((k for k in range(steps) if f(k / steps)), 0) for f in scheduled), default=0)


def inner_steps(config: TrainingConfig, step: int, fixed: int | None = None) -> int:
    """The inner steps of a learned divergence before an outer step.

    Args:
        config: `inner_first` and `inner_steps`.
        step: the outer step, from 0.
        fixed: the number that the matching itself sets (`Inner.steps`), if it does.
    """
    if fixed is not None:
        return fixed
    first, count = config.inner_first
    return count if step < first else config.inner_steps


def inner_batches(
    config: TrainingConfig, step: int, fixed: Sequence[int | None] = (None,)
) -> range:
    """The numbers of the inner batches before an outer step.

    The inner batches of a run are numbered from 0. Each is shown to every learned divergence that
    has inner steps left, so a step has as many as its most demanding divergence needs.

    Args:
        config: `inner_first` and `inner_steps`.
        step: the outer step, from 0.
        fixed: `Inner.steps` of each learned divergence.
    """

    def most(at: int) -> int:
        return max((inner_steps(config, at, count) for count in fixed), default=0)

    first, _ = config.inner_first
    before = min(step, first) * most(0) + max(0, step - first) * most(first)
    return range(before, before + most(step))
