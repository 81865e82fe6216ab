r"""The passes of a batch through a model: at once, or in parts that fit into memory.

A divergence of samples is not a sum over them, so the gradient of a batch is not the mean of the
gradients of its parts. It is exact in two passes: the pair of all parts without gradient, from
which comes the gradient of the divergence in the pair; then each part again, with the same draws,
and its rows of that gradient put in. Memory holds the graph of one part at a time.

Batch normalisation couples the parts as well. Its moments m_1, …, m_L are those of the whole
batch, found layer by layer from the front; what reaches the parameters through them is found
layer by layer from the back: g_j is the derivative in m_j of the loss and of Σ_{k>j} ⟨g_k, m_k⟩.
Each layer costs one pass more forward and one back.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from monge._core.processes import sum_of_all
from monge.draws import Draws
from monge.models import Pass
from monge.networks.norm import BatchNorm

Forward = Callable[[Tensor, Draws], Pass]
Gradients = Sequence[Tensor | None]


class Passes(Protocol):
    """A batch that has been through a model."""

    terms: dict[str, Tensor]
    """Means over the batch."""
    pair: tuple[Tensor, Tensor]
    """What the divergence sees of it."""

    def backward(self, share: float, gradients: Gradients) -> None:
        """Adds the gradient of share · Σ terms + ⟨gradients, pair⟩ to the parameters'."""
        ...


class Whole:
    """A batch that passes at once."""

    def __init__(self, forward: Forward, batch: Tensor, draws: Draws):
        self.made = forward(batch, draws)
        self.terms, self.pair = self.made

    def backward(self, share: float, gradients: Gradients) -> None:
        torch.autograd.backward(*_start(self.made, share, gradients))


class Parts:
    """A batch that passes in `count` parts: rows i, i + count, i + 2 count, … are part i.

    Raises:
        ValueError: for layers of batch normalisation other than monge's own, which would see the
            moments of a part.
    """

    def __init__(
        self, model: nn.Module, forward: Forward, batch: Tensor, draws: Draws, count: int
    ):
        self.forward, self.moments = forward, Moments(model)
        self.parts = [(batch[i::count], draws.part(i, count)) for i in range(count)]
        self.shares = [len(x) / len(batch) for x, _ in self.parts]
        with torch.no_grad():
            passes = self._first()
        self.terms = {
            name: torch.stack([s * made.terms[name] for s, made in zip(self.shares, passes)]).sum()
            for name in passes[0].terms
        }
        one, two = (joined([made.pair[k] for made in passes]) for k in (0, 1))
        self.pair = one.requires_grad_(), two.requires_grad_()

    def _first(self) -> list[Pass]:
        """The pass of every part, once no layer lacks its moments."""
        while True:
            passes, unknown = [], []
            for x, draws in self.parts:
                try:
                    with self.moments.given():
                        passes.append(self.forward(x, draws))
                except _Unknown as found:
                    unknown.append(found)
            if not unknown:
                return passes
            self.moments.add(unknown[0].layer, torch.stack([u.sums for u in unknown]).sum(0))

    def _starts(self, share: float, gradients: Gradients, known: int) -> Iterator[tuple]:
        """Where the backward pass of each part starts, with the moments from `known` on."""
        count = len(self.parts)
        for i, (x, draws) in enumerate(self.parts):
            with self.moments.given() as sums:
                made = self.forward(x, draws)
            own = [None if g is None else g[i::count] for g in gradients]
            tensors, given = _start(made, share * self.shares[i], own)
            later = range(known, len(sums))
            yield (
                tensors + [sums[k] for k in later],
                given + [self.moments.gradients[k] for k in later],
            )

    def backward(self, share: float, gradients: Gradients) -> None:
        for k in reversed(range(len(self.moments.values))):
            value = self.moments.values[k].requires_grad_()
            gradient = torch.zeros_like(value)
            for start in self._starts(share, gradients, k + 1):
                gradient += torch.autograd.grad(start[0], value, start[1])[0]
            value.requires_grad_(False)
            self.moments.gradients[k] = sum_of_all(gradient)
        for start in self._starts(share, gradients, 0):
            torch.autograd.backward(*start)
        self.moments.move()


def joined(parts: Sequence[Tensor]) -> Tensor:
    """The rows of which part i has i, i + count, i + 2 count, …"""
    whole = parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:])
    for i, rows in enumerate(parts):
        whole[i :: len(parts)] = rows
    return whole


def _start(made: Pass, share: float, gradients: Gradients) -> tuple[list[Tensor], list]:
    found = [(share * term, None) for term in made.terms.values()]
    found += [(z, g) for z, g in zip(made.pair, gradients) if g is not None]
    found = [(z, g) for z, g in found if z.requires_grad]
    return [z for z, _ in found], [g for _, g in found]


class _Unknown(Exception):
    """A pass has come to a layer whose moments are not known yet."""

    def __init__(self, layer: BatchNorm, sums: Tensor):
        self.layer, self.sums = layer, sums


class Moments:
    """The moments that layers of batch normalisation share over the parts of a batch.

    `values[k]` (2, c) are the means of x - r and (x - r)² of what comes to the k-th layer of a
    pass, r its running mean, near which the squares lose no digits; `gradients[k]` are of the loss
    in them.
    """

    def __init__(self, model: nn.Module):
        self.layers: list[BatchNorm] = []
        for name, module in model.named_modules():
            if name.startswith("divergence.") or not module.training:
                continue  # divergences are not passed through
            if isinstance(module, BatchNorm):
                self.layers.append(module)
            elif isinstance(module, nn.modules.batchnorm._NormBase):
                raise ValueError(
                    f"`micro_batch` needs monge.networks.BatchNorm, but {name!r} is a "
                    f"{type(module).__name__}, which would see the moments of a part alone"
                )
        self.order: list[BatchNorm] = []
        self.values: list[Tensor] = []
        self.gradients: dict[int, Tensor] = {}
        self.counts: list[Tensor] = []

    @contextlib.contextmanager
    def given(self) -> Iterator[list[Tensor]]:
        """Inside, one part passes with the moments found so far; it adds what it contributes to
        each of them to the list."""
        sums: list[Tensor] = []
        for layer in self.layers:
            layer.forward = partial(self._normalise, layer, sums)
        try:
            yield sums
        finally:
            for layer in self.layers:
                del layer.forward

    def _normalise(self, layer: BatchNorm, sums: list[Tensor], x: Tensor) -> Tensor:
        axes, shape = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
        d = x.to(layer.running_mean.dtype) - layer.running_mean.view(shape)
        both = torch.stack([d.sum(axes), d.square().sum(axes)])
        k = len(sums)
        if k == len(self.values):
            count = both.new_full((2, 1), d.numel() / d.shape[1])
            raise _Unknown(layer, torch.cat([both, count], 1))
        sums.append(both / self.counts[k])
        mean, square = (m.view(shape) for m in self.values[k])
        out = (d - mean) * (square - mean.square() + layer.eps).rsqrt()
        if layer.weight is not None and layer.bias is not None:
            out = out * layer.weight.view(shape) + layer.bias.view(shape)
        return out.to(x.dtype)

    def add(self, layer: BatchNorm, sums: Tensor) -> None:
        """The moments of the next layer, from the sums of all parts."""
        totals = sum_of_all(sums)
        self.order.append(layer)
        self.counts.append(totals[0, -1])
        self.values.append(totals[:, :-1] / totals[0, -1])

    @torch.no_grad()
    def move(self) -> None:
        """The running moments, as one pass of the whole batch would."""
        shifts = [layer.running_mean.clone() for layer in self.order]
        for layer, shift, n, (mean, square) in zip(self.order, shifts, self.counts, self.values):
            variance = (square - mean.square()) * n / (n - 1)
            layer.running_mean.lerp_(shift + mean, layer.momentum)
            layer.running_var.lerp_(variance, layer.momentum)
