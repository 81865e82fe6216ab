"""Networks for sets of points: they do not see in which order the points come.

Source: Qi, Su, Mo, Guibas, "PointNet: Deep learning on point sets", 2017; the auto-encoder is that
of Achlioptas, Diamanti, Mitliagkas, Guibas, "Learning representations and generative models for
3D point clouds", 2018.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from monge.networks.mlp import mlp
from monge.networks.norm import BatchNorm


class PointNet(nn.Module):
    """Sets (n, N, d) to features (n, filters[-1]): one perceptron for every point, then maxima
    over the points.

    `norm` makes a normalisation of so many channels behind each layer.
    """

    def __init__(
        self,
        dim: int,
        filters: Sequence[int],
        norm: Callable[[int], nn.Module] | None = BatchNorm,
    ):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, count in zip([dim, *filters], filters):
            layers.append(nn.Conv1d(inputs, count, 1, bias=norm is None))
            layers += [norm(count)] if norm else []
            layers.append(nn.ReLU())
        self.points = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.points(x.mT).amax(2)


def pointnet_encoder(shape: Sequence[int], outputs: int, filters: Sequence[int]) -> nn.Sequential:
    """(n, N, d) → (n, outputs)."""
    return nn.Sequential(PointNet(shape[1], filters), nn.Linear(filters[-1], outputs))


def pointnet_decoder(shape: Sequence[int], inputs: int, hidden: Sequence[int]) -> nn.Sequential:
    """(n, inputs) → (n, N, d): fully connected, each output point a head of its own."""
    count, dim = shape
    return nn.Sequential(mlp([inputs, *hidden, count * dim]), nn.Unflatten(1, (count, dim)))
