"""Networks for sets of points: they do not see in which order the points come.

Source: Qi, Su, Mo, Guibas, "PointNet: Deep learning on point sets", 2017; the auto-encoder is that
of Achlioptas, Diamanti, Mitliagkas, Guibas, "Learning representations and generative models for
3D point clouds", 2018.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from monge._core.checks import dimension, dimensions
from monge.networks.mlp import mlp
from monge.networks.norm import BatchNorm


class PointNet(nn.Module):
    """Sets (n, N, d) to features (n, filters[-1]): one perceptron for every point, then maxima
    over the points.

    A maximum has a gradient at a single point, so the graph is made of as many points as there
    are features, and not of all: the same values and gradients at a third of the cost. Batch
    normalisation of points, which the source has, would join them all; the initial weights keep
    the size of features from layer to layer in its place (He, Zhang, Ren, Sun, "Delving deep into
    rectifiers", 2015).
    """

    def __init__(self, dim: int, filters: Sequence[int]):
        super().__init__()
        sizes = [dimension("dim", dim), *dimensions("filters", filters)]
        self.points = nn.Sequential(mlp(sizes), nn.ReLU())
        for weight in self.points.parameters():
            if weight.ndim == 2:
                nn.init.kaiming_normal_(weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return self.points(x).amax(1)  # a graph for any number of clouds has no parts
        with torch.no_grad():
            # some clouds at a time stay in the cache of a processor
            maxima = [self.points(some).max(1) for some in x.split(4)]
        if not torch.is_grad_enabled():
            return torch.cat([one.values for one in maxima])
        index = torch.cat([one.indices for one in maxima])
        some = torch.gather(x, 1, index[..., None].expand(-1, -1, x.shape[2]))
        return self.points(some).diagonal(dim1=1, dim2=2)


def pointnet_encoder(shape: Sequence[int], outputs: int, filters: Sequence[int]) -> nn.Sequential:
    """(n, N, d) → (n, outputs), features of sets normalised over the batch."""
    _, dim = dimensions("shape", shape, 2)
    size = dimensions("filters", filters)[-1]
    dimension("outputs", outputs)
    return nn.Sequential(PointNet(dim, filters), BatchNorm(size), nn.Linear(size, outputs))


def pointnet_decoder(shape: Sequence[int], inputs: int, hidden: Sequence[int]) -> nn.Sequential:
    """(n, inputs) → (n, N, d): fully connected, a separate head for each output point."""
    count, dim = dimensions("shape", shape, 2)
    hidden = dimensions("hidden", hidden, least=0)
    return nn.Sequential(
        mlp([dimension("inputs", inputs), *hidden, count * dim]), nn.Unflatten(1, (count, dim))
    )
