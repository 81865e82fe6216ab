"""Matchings in training: the gradient of a divergence, and the fit of one that is learned."""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from monge._core.processes import average_gradients, gather
from monge.adversarial import Learned
from monge.config import TrainingConfig
from monge.draws import Draws
from monge.models import Matching, matchings
from monge.models.base import Pair
from monge.training.optimisers import optimiser
from monge.training.passes import Batch

RESERVED = ("inner", "loss")


@contextlib.contextmanager
def frozen(parameters: Iterable[Tensor], buffers: Iterable[Tensor]) -> Iterator[None]:
    """Keeps gradients away from `parameters`, and restores `buffers` on exit.

    Batch normalisation moves its statistics, and spectral normalisation its vectors, at every
    forward pass in training mode, with gradients or without.
    """
    active = [p for p in parameters if p.requires_grad]
    kept = [(b, b.clone()) for b in buffers]
    for p in active:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in active:
            p.requires_grad_(True)
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)


def arguments(divergence: nn.Module, draws: Draws) -> dict[str, Draws]:
    """The keyword arguments of a divergence: `draws`, if it takes random numbers."""
    return {"draws": draws} if getattr(divergence, "random", False) else {}


class Objective:
    """A matching in training.

    Args:
        matching: the matching.
        config: the defaults of its optimiser.
        only: whether it is the only one of its model. Its draws then have the plain purposes
            `inner` and `divergence`, and its last inner loss is logged as `inner`; otherwise its
            name comes before them.
    """

    def __init__(self, matching: Matching, config: TrainingConfig, *, only: bool):
        self.name, self.divergence, self.only = matching.name, matching.divergence, only
        self.inner_name = "inner" if only else f"{self.name} inner"
        self.parameters = list(self.divergence.parameters())
        self.buffers = list(self.divergence.buffers())
        names = [type(layer).__name__ for layer in self.divergence.modules()]
        self.splits = self.divergence.additive and not any("BatchNorm" in name for name in names)
        inner = matching.inner
        self.lr = config.inner_lr if inner.lr is None else inner.lr
        self.steps = inner.steps
        self.optimiser: Optimizer | None = None
        if isinstance(self.divergence, Learned):
            self.optimiser = optimiser(config, self.parameters, self.lr, inner.betas)

    def gradient(self, pair: Pair, batch: Batch, weight: float) -> tuple[Tensor, list]:
        """This process's share of the divergence, and of its weighted gradient in the pair."""
        x, y = (z.detach().requires_grad_(z.requires_grad) for z in pair)
        total = x.new_zeros(())
        with frozen(self.parameters, self.buffers):
            for rows, share, draws in self._compared((x, y), batch):
                with draws.stream("divergence"):
                    value = share * self.divergence(*rows, **arguments(self.divergence, draws))
                if value.requires_grad:
                    (weight * value).backward()
                total += value.detach()
        return total, [x.grad, y.grad]

    def inner_gradient(self, pair: Pair, batch: Batch) -> Tensor:
        """This process's share of the inner loss, whose gradient is left in the parameters."""
        assert isinstance(self.divergence, Learned)
        assert self.optimiser is not None
        self.optimiser.zero_grad()
        x, y = (z.detach() for z in pair)
        total = x.new_zeros(())
        for rows, share, draws in self._compared((x, y), batch):
            with draws.stream("inner"):
                value = share * self.divergence.inner_loss(
                    *rows, **arguments(self.divergence, draws)
                )
            value.backward()
            total += value.detach()
        return total

    def update(self) -> None:
        """An optimiser step along the inner gradient, and back into the constraint."""
        assert isinstance(self.divergence, Learned)
        assert self.optimiser is not None
        average_gradients(self.parameters)
        self.optimiser.step()
        self.divergence.project_()

    def _compared(self, pair: Pair, batch: Batch) -> Iterator[tuple[Pair, float, Draws]]:
        """The rows that the divergence compares at a time, their weight, and their draws.

        These are all rows of all processes. A mean over samples takes this process's rows, as many
        at a time as pass through the model at a time.
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


def objectives(model: nn.Module, config: TrainingConfig) -> list[Objective]:
    """The objectives of a model's matchings.

    Raises:
        ValueError: for names that two matchings share or that the log and the checkpoint cannot
            hold, and for a learned divergence whose weights are not among the model's.
    """
    named = matchings(model)
    names = [one.name for one in named]
    for name in names:
        if names.count(name) > 1 or name in RESERVED or not name or "." in name:
            raise ValueError(
                f"`matchings` has the names {names}: give each a name of its own, without a dot "
                f"and other than {' and '.join(RESERVED)}"
            )
    modules = set(model.modules())
    for one in named:
        if isinstance(one.divergence, Learned) and one.divergence not in modules:
            raise ValueError(
                f"`matchings` has a learned divergence {one.name!r} that is no module of "
                f"{type(model).__name__}: assign it to an attribute, so that it is saved"
            )
    return [Objective(one, config, only=len(named) == 1) for one in named]
