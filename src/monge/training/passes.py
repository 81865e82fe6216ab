r"""The pass of a batch through a model: at once, or in micro-batches that fit into memory.

A divergence of samples is not a sum over them, so the gradient of a batch is not the mean of the
gradients of its micro-batches. Two passes make it exact. The first computes the pairs of all
micro-batches without gradient, from which follows the gradient of each divergence with respect to
its pair. The second runs each micro-batch again, with the same draws, and starts its backward pass
from its rows of that gradient. Memory holds the graph of one micro-batch at a time.

Batch normalisation couples the micro-batches too; `monge.training.moments` holds the moments that
they share. The gradient with respect to the moments m_1, …, m_L is found layer by layer from the
back: g_j is the derivative with respect to m_j of the loss plus Σ_{k>j} ⟨g_k, m_k⟩. Each layer
costs one more pass forward and one back.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from monge._core.processes import sum_of_all
from monge.data.source import as_floats
from monge.draws import Draws
from monge.labels import Rows, labels_of, unlabelled
from monge.models.base import Pair, checked, named_pairs, pairs
from monge.training.moments import SharedMoments, layers
from monge.training.precision import in_precision

Gradients = Mapping[str, Sequence[Tensor | None]]
"""The gradient with respect to both samples of each pair, None where there is none."""
Roots = tuple[list[Tensor], list[Tensor | None]]
"""The tensors from which a backward pass starts, and the gradients there (None for 1)."""


@dataclass(frozen=True)
class Batch:
    """This process's rows of a global batch.

    Args:
        x: the samples, (rows, \\*), with their labels for a class-conditional model.
        draws: the draws of the step for these rows.
        micro_batches: in how many micro-batches they pass, the same number on every process.
        wanted: the matchings whose pairs are made, where a function makes them; None for all.
    """

    x: Rows
    draws: Draws
    micro_batches: int = 1
    wanted: Collection[str] | None = None

    def share(self, rows: int) -> float:
        """The weight of a mean over some of the rows in a mean over the processes.

        A mean over n_r of the n rows, averaged over K processes, has the weight n_r K / n.
        """
        return rows * self.draws.world / self.draws.total


class Outputs(NamedTuple):
    """The output of a model for some samples: a `Pass` whose pairs are named."""

    terms: dict[str, Tensor]
    pairs: dict[str, Pair]


class Network:
    """A model as training calls it: with augmentation, draws and reduced precision.

    Args:
        model: the model.
        names: the names of its matchings.
        columns: the names that its terms may not have.
        augment: applied to samples before the model, with draws of the step.
        device: where the model is.
        dtype: the reduced precision of the networks, if any.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Iterable[str],
        columns: Iterable[str],
        augment: Callable[[Tensor, Draws], Tensor] | None,
        device: torch.device,
        dtype: torch.dtype | None,
    ):
        self.model, self.names, self.augment = model, set(names), augment
        self.columns = set(columns)
        self.device, self.dtype = device, dtype

    def __call__(self, rows: Rows, draws: Draws, wanted: Collection[str] | None = None) -> Outputs:
        """The terms of samples, and the pairs of the matchings that are wanted."""
        x = as_floats(unlabelled(rows))
        if self.augment is not None:
            x = self.augment(x, draws)
        with (
            draws.stream("network"),
            in_precision(self.device, self.dtype),
        ):
            made = checked(self.model, self.model(x, draws, *labels_of(rows)))
            if (found := named_pairs(made).keys()) != self.names:
                raise ValueError(
                    f"`model` returns the pairs {sorted(found)}, but its matchings are "
                    f"{sorted(self.names)}: give each matching the pair of its name"
                )
            terms, named = made.terms, pairs(made, wanted)
        if clashing := sorted(self.columns & terms.keys()):
            raise ValueError(
                f"`model` has a term {clashing[0]!r}, which names another column of the log: give "
                "the term another name"
            )
        if self.dtype is not None:
            terms = {name: value.float() for name, value in terms.items()}
            named = {name: (x.float(), y.float()) for name, (x, y) in named.items()}
        return Outputs(terms, named)


class Passed(Protocol):
    """A batch that has passed through a model."""

    terms: dict[str, Tensor]
    """Means over the batch."""
    pairs: dict[str, Pair]
    """The samples that each divergence compares."""

    def backward(self, share: float, gradients: Gradients) -> None:
        """Adds the gradient of share · Σ terms + ⟨gradients, pairs⟩ to that of the parameters."""
        ...


def passed(network: Network, batch: Batch) -> Passed:
    """Passes a batch through a model.

    Raises:
        ValueError: if the batch passes in micro-batches and the model has layers of batch
            normalisation other than monge's, which would normalise each micro-batch on its own.
    """
    return Whole(network, batch) if batch.micro_batches == 1 else Accumulated(network, batch)


class Whole:
    """A batch that passes at once."""

    def __init__(self, network: Network, batch: Batch):
        self.outputs = network(batch.x, batch.draws, batch.wanted)
        self.terms, self.pairs = self.outputs

    def backward(self, share: float, gradients: Gradients) -> None:
        torch.autograd.backward(*_roots(self.outputs, share, gradients))


class Accumulated:
    """A batch that passes in micro-batches; of k, number i has the rows i, i + k, i + 2k, …"""

    def __init__(self, network: Network, batch: Batch):
        self.network, self.moments = network, SharedMoments(layers(network.model))
        self.wanted = batch.wanted
        count = min(batch.micro_batches, len(batch.x))
        self.micro_batches = [
            (batch.x[i::count], batch.draws.micro_batch(i, count)) for i in range(count)
        ]
        self.shares = [len(x) / len(batch.x) for x, _ in self.micro_batches]
        with torch.no_grad():
            outputs = self._outputs()
        self.terms = {
            name: torch.stack([s * one.terms[name] for s, one in zip(self.shares, outputs)]).sum()
            for name in outputs[0].terms
        }
        self.pairs = {}
        for name in outputs[0].pairs:
            x, y = (_interleaved([one.pairs[name][side] for one in outputs]) for side in (0, 1))
            self.pairs[name] = x.requires_grad_(), y.requires_grad_()

    def _outputs(self) -> list[Outputs]:
        """The outputs of every micro-batch. One round of passes for each layer of batch
        normalisation finds its moments, and a last one has them all."""
        while True:
            outputs, sums = [], []
            for x, draws in self.micro_batches:
                with self.moments.shared(len(self.moments.values)) as record:
                    outputs.append(self.network(x, draws, self.wanted))
                sums += record.unknown
            if not sums:
                return outputs
            self.moments.add(sums)

    def backward(self, share: float, gradients: Gradients) -> None:
        for k in reversed(range(len(self.moments.values))):
            value = self.moments.values[k].requires_grad_()
            gradient = torch.zeros_like(value)
            for roots, given in self._backward_roots(share, gradients, k + 1):
                gradient += torch.autograd.grad(roots, value, given)[0]
            value.requires_grad_(False)
            self.moments.gradients[k] = sum_of_all(gradient)
        for roots, given in self._backward_roots(share, gradients, 0):
            torch.autograd.backward(roots, given)
        self.moments.update_running()

    def _backward_roots(self, share: float, gradients: Gradients, first: int) -> Iterator[Roots]:
        """The roots of the backward pass of each micro-batch; the moments from number `first` on
        are among them."""
        count = len(self.micro_batches)
        for i, (x, draws) in enumerate(self.micro_batches):
            with self.moments.shared(first) as record:
                outputs = self.network(x, draws, self.wanted)
            rows = {
                name: [None if g is None else g[i::count] for g in pair]
                for name, pair in gradients.items()
            }
            roots, given = _roots(outputs, share * self.shares[i], rows)
            later = range(first, first + len(record.means))
            yield roots + record.means, given + [self.moments.gradients[k] for k in later]


def _interleaved(rows: Sequence[Tensor]) -> Tensor:
    """The batch of which micro-batch i of k has the rows i, i + k, i + 2k, …"""
    batch = rows[0].new_empty(sum(map(len, rows)), *rows[0].shape[1:])
    for i, some in enumerate(rows):
        batch[i :: len(rows)] = some
    return batch


def _roots(outputs: Outputs, share: float, gradients: Gradients) -> Roots:
    """The roots of the backward pass of some outputs."""
    roots = [(share * term, None) for term in outputs.terms.values()]
    for name, pair in outputs.pairs.items():
        roots += [(z, g) for z, g in zip(pair, gradients[name]) if g is not None]
    roots = [(z, g) for z, g in roots if z.requires_grad]
    return [z for z, _ in roots], [g for _, g in roots]
