"""Matchings in training: the gradient of a divergence, and the fit of one that is learned."""

import contextlib
import math
from collections.abc import Iterator

from torch import Tensor, nn

from monge._core.frozen import frozen
from monge._core.processes import average_gradients, gather
from monge._core.products import true_products
from monge.adversarial import Learned
from monge.config import TrainingConfig
from monge.divergences import arguments
from monge.draws import Draws
from monge.models import Matching, matchings
from monge.models.base import Pair
from monge.training.optimisers import optimiser
from monge.training.passes import Batch

RESERVED = ("inner", "loss", "step", "epoch", "seconds", "stage", "stage_step", "validation")
"""Columns of the log that are not the model's to name."""


class Objective:
    """A matching in training: the gradient of its divergence for the outer step.

    Args:
        matching: the matching.
        only: whether it is the only one of its model. Its draws then have the plain purposes
            `inner` and `divergence`; otherwise its name comes before them.
    """

    def __init__(self, matching: Matching, *, only: bool):
        self.name, self.divergence, self.only = matching.name, matching.divergence, only
        self.parameters = list(self.divergence.parameters())
        self.buffers = list(self.divergence.buffers())
        names = [type(layer).__name__ for layer in self.divergence.modules()]
        self.splits = self.divergence.additive and not any("BatchNorm" in name for name in names)

    def gradient(
        self, pair: Pair, batch: Batch, weight: float
    ) -> tuple[Tensor, list[Tensor | None]]:
        """This process's share of the divergence, and of the gradient of weight · divergence with
        respect to the pair."""
        x, y = (z.detach().requires_grad_(z.requires_grad) for z in pair)
        total = x.new_zeros(())
        with frozen(self.parameters, self.buffers):
            for rows, share, draws in self._compared((x, y), batch):
                random = arguments(self.divergence, draws)
                with draws.stream("divergence"):
                    value = share * self.divergence(*rows, **random)
                if value.requires_grad:
                    with self._products(x):
                        (weight * value).backward()
                total += value.detach()
        return total, [x.grad, y.grad]

    def _products(self, x: Tensor) -> contextlib.AbstractContextManager[None]:
        """In what a backward pass multiplies matrices: a distance in float32, a critic, which is a
        network, as the user has set it."""
        if self.divergence.additive or not x.is_cuda:
            return contextlib.nullcontext()
        return true_products()

    def _compared(self, pair: Pair, batch: Batch) -> Iterator[tuple[Pair, float, Draws]]:
        """The rows that the divergence compares at a time, their weight, and their draws.

        In general these are the rows of all processes. A divergence that is a mean over samples
        compares the rows of this process only, one micro-batch at a time, unless batch
        normalisation couples them.
        """
        x, y = pair
        draws = batch.draws if self.only else batch.draws.named(self.name)
        if not self.divergence.additive:
            yield (gather(x, draws.total), gather(y, draws.total)), 1.0, draws
            return
        count = min(batch.micro_batches, len(x)) if self.splits else 1
        for i in range(count):
            rows = x[i::count], y[i::count]
            yield rows, batch.share(len(rows[0])), draws.micro_batch(i, count)


class LearnedObjective(Objective):
    """A matching with a learned divergence: also its optimiser and its inner steps.

    Args:
        matching: the matching.
        divergence: its divergence.
        config: what its `inner` leaves open.
        only: as for `Objective`. The last inner loss of the only matching is logged as `inner`,
            and otherwise as `<name> inner`.
    """

    divergence: Learned

    def __init__(
        self, matching: Matching, divergence: Learned, config: TrainingConfig, *, only: bool
    ):
        super().__init__(matching, only=only)
        self.divergence, inner = divergence, matching.inner
        self.inner_name = "inner" if only else f"{self.name} inner"
        self.steps, self.lr = inner.steps, config.inner_rate if inner.lr is None else inner.lr
        self.optimiser = optimiser(config, self.parameters, self.lr, inner.betas)

    def inner_gradient(self, pair: Pair, batch: Batch) -> Tensor:
        """This process's share of the inner loss, whose gradient is left in the parameters."""
        self.optimiser.zero_grad()
        x, y = (z.detach() for z in pair)
        total = x.new_zeros(())
        for rows, share, draws in self._compared((x, y), batch):
            random = arguments(self.divergence, draws)
            with draws.stream("inner"):
                value = share * self.divergence.inner_loss(*rows, **random)
            with self._products(x):
                value.backward()
            total += value.detach()
        return total

    def update(self) -> None:
        """Takes an optimiser step along the inner gradient, and restores the constraint."""
        average_gradients(self.parameters)
        self.optimiser.step()
        self.divergence.project_()


def weight_of(matching: Matching, step: int, done: float) -> float:
    """The weight of a matching in a step, when a share of training is done.

    Raises:
        ValueError: for one that is negative or not finite.
    """
    # the last of each `every` steps, so that logged steps are among them
    weight = matching.weight * (matching.every if (step + 1) % matching.every == 0 else 0)
    if matching.schedule is not None:
        weight *= matching.schedule(done)
    if isinstance(weight, Tensor) or not (weight >= 0 and math.isfinite(weight)):
        raise ValueError(
            f"`weight` of the matching {matching.name!r} must be a number, at least 0 and finite, "
            f"got {weight!r}"
        )
    return weight


def objectives(model: nn.Module, config: TrainingConfig) -> list[Objective]:
    """The objectives of a model's matchings.

    Raises:
        ValueError: for names that two matchings share or that the log and the checkpoint cannot
            hold, for a learned divergence whose weights are not among the model's, and for fewer
            than one inner step.
    """
    named = matchings(model)
    names = [one.name for one in named]
    for name in names:
        if names.count(name) > 1 or name in RESERVED or not name or "." in name:
            raise ValueError(
                f"`matchings` has the names {names}: give each a name of its own, without a dot "
                f"and other than {', '.join(RESERVED)}"
            )
    modules, only = set(model.modules()), len(named) == 1
    made: list[Objective] = []
    for one in named:
        if not isinstance(one.divergence, Learned):
            made.append(Objective(one, only=only))
            continue
        if one.divergence not in modules:
            raise ValueError(
                f"`matchings` has a learned divergence {one.name!r} that is not a module of "
                f"{type(model).__name__}: assign it to an attribute, so that it is saved"
            )
        made.append(LearnedObjective(one, one.divergence, config, only=only))
    return made
