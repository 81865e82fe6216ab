r"""The exponential moving average of a model's weights.

Weights are averaged, statistics are not: the running moments of batch normalisation describe what
the layers of one network see, and the mean of the moments of many networks is not that of the
network with the mean weights. Before the averaged model is used, its moments are recomputed from
passes of training batches, as those of a trained model are.

Source: Izmailov, Podoprikhin, Garipov, Vetrov, Wilson, "Averaging weights leads to wider optima
and better generalization", 2018, section 3.2, on batch normalisation.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from monge._core.frozen import frozen
from monge.models import matchings
from monge.networks.norm import BatchNorm
from monge.training.passes import Accumulated, Batch, Network, passed

BATCHES = 50
"""The most training batches from which the moments are recomputed."""


class Average:
    r"""A copy of a model whose weights are a moving average θ̄ of those of the model:

        θ̄ ← d_t θ̄ + (1 - d_t) θ,  d_t = min(decay, (1 + t) / (10 + t))

    after t updates; the first one copies. The warm-up d_t lets the average forget the first
    weights in short trainings, too. Buffers are those of the model.

    Args:
        model: the model, which is copied.
        decay: the limit of d_t, in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float):
        for name, weight in model.named_parameters():
            if weight.is_floating_point() and weight.dtype.itemsize < 4:
                raise ValueError(
                    f"`ema` averages weights of at least float32, got {weight.dtype} of {name!r}, "
                    "in which small steps are lost: keep the weights and use precision=bf16"
                )
        self.module, self.decay, self.count = copy.deepcopy(model), decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes the weights of the model after another step."""
        averages: list[Tensor] = list(self.module.parameters())
        weights: list[Tensor] = list(model.parameters())
        decay = min(self.decay, (1 + self.count) / (10 + self.count)) if self.count else 0.0
        torch._foreach_lerp_(averages, weights, 1 - decay)  # pyright: ignore
        self.copy_buffers(model)
        self.count += 1

    @torch.no_grad()
    def copy_buffers(self, model: nn.Module) -> None:
        """Takes the buffers of the model."""
        for mine, its in zip(self.module.buffers(), model.buffers(), strict=True):
            # the vectors of spectral normalisation have no size before the first pass
            mine.resize_(its.shape).copy_(its)


def normalisations(model: nn.Module) -> list[Any]:
    """The layers with running moments, without those of divergences, which no pass reaches."""
    critics = {layer for one in matchings(model) for layer in one.divergence.modules()}
    kinds = BatchNorm, nn.modules.batchnorm._NormBase
    layers = [layer for layer in model.modules() if isinstance(layer, kinds)]
    return [layer for layer in layers if layer not in critics and layer.running_mean is not None]


@torch.no_grad()
def recompute_moments(network: Network, batches: Iterable[Batch]) -> None:
    """Replaces the running moments of a network by their means over passes of batches.

    The passes are those of training; other buffers stay as they are.
    """
    model, layers = network.model, normalisations(network.model)
    if not layers:
        return
    modes = {module: module.training for module in model.modules()}
    momenta = [layer.momentum for layer in layers]
    moments = {id(z) for layer in layers for z in (layer.running_mean, layer.running_var)}
    others: list[Tensor] = [z for z in model.buffers() if id(z) not in moments]
    try:
        model.train()
        with frozen([], others):
            for i, batch in enumerate(batches):
                for layer in layers:
                    layer.momentum = 1 / (i + 1)  # the mean of all batches so far
                result = passed(network, batch)
                if isinstance(result, Accumulated):
                    result.moments.update_running()
    finally:
        for layer, momentum in zip(layers, momenta):
            layer.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
