"""The networks of models: for tables, for images, for point clouds, and as published.

A family makes an encoder, a decoder, the two stages of a critic of data, and a velocity field, for
samples of one shape.
"""

import abc
from collections.abc import Callable, Sequence

import torch
from torch import nn

from monge._core.checks import dimensions
from monge.adversarial import LogPriorCritic
from monge.config import NetworkConfig
from monge.networks.conv import Details, conv_critic, conv_decoder, conv_encoder, conv_features
from monge.networks.mlp import Standardise, Unstandardise, mlp
from monge.networks.paper import paper_critic, paper_decoder, paper_encoder, published
from monge.networks.pointnet import PointNet, pointnet_decoder, pointnet_encoder
from monge.networks.unet import ImageVelocity
from monge.networks.velocity import CloudVelocity, VectorVelocity
from monge.priors import Gaussian, Prior

Norm = Callable[[int], nn.Module]


class Networks(abc.ABC):
    """Builders of networks for samples of a shape (*)."""

    def __init__(self, shape: Sequence[int], sizes: NetworkConfig):
        self.shape, self.sizes = tuple(dimensions("shape", shape)), sizes

    @abc.abstractmethod
    def encoder(self, outputs: int) -> nn.Module:
        r"""(n, \*) → (n, outputs)."""

    @abc.abstractmethod
    def decoder(self, inputs: int) -> nn.Module:
        r"""(n, inputs) → (n, \*)."""

    @abc.abstractmethod
    def features(self, norm: Norm | None = None) -> tuple[nn.Module, nn.Linear]:
        r"""A critic of data in two stages: (n, \*) → (n, features) → (n, 1).

        `norm(filters)` makes a normalisation layer, for networks of images.
        """

    def detailed_features(self) -> tuple[nn.Module, nn.Linear]:
        """`features` of a critic that sees the details of images beside them."""
        return self.features()

    def velocity(self, classes: int = 0) -> nn.Module:
        r"""A velocity field of samples in standard units: x (n, \*) and t (n,) → (n, \*); with
        K classes it takes labels (n, K) after t.

        Raises:
            ValueError: for a family without one.
        """
        raise ValueError(
            f"`networks` {type(self).__name__} has no method `velocity`, which a flow needs"
        )

    def critic(self, prior: Prior, classes: int = 0) -> nn.Module:
        """A critic of codes, (n, dim) → (n, 1) or (n,); of codes with labels, (n, dim + K)."""
        return mlp([prior.dim + classes, *self.sizes.critic, 1])


class VectorNetworks(Networks):
    """Multi-layer perceptrons that standardise the columns of a table on the way in and out."""

    def __init__(
        self,
        shape: Sequence[int],
        sizes: NetworkConfig,
        moments: tuple[torch.Tensor, torch.Tensor],
    ):
        super().__init__(shape, sizes)
        self.moments = moments

    def encoder(self, outputs: int) -> nn.Module:
        body = mlp([self.shape[0], *self.sizes.hidden, outputs])
        return nn.Sequential(Standardise(*self.moments), body)

    def decoder(self, inputs: int) -> nn.Module:
        body = mlp([inputs, *reversed(self.sizes.hidden), self.shape[0]])
        return nn.Sequential(body, Unstandardise(*self.moments))

    def features(self, norm: Norm | None = None) -> tuple[nn.Module, nn.Linear]:
        hidden = self.sizes.hidden
        body = nn.Sequential(mlp([self.shape[0], *hidden]), nn.ReLU())
        return body, nn.Linear(hidden[-1], 1)

    def velocity(self, classes: int = 0) -> nn.Module:
        return VectorVelocity(self.shape[0], self.sizes.hidden, classes)


class ImageNetworks(Networks):
    """Small convolutional networks for images of any size."""

    def encoder(self, outputs: int) -> nn.Module:
        return conv_encoder(self.shape, outputs, self.sizes.filters)

    def decoder(self, inputs: int) -> nn.Module:
        return conv_decoder(self.shape, inputs, self.sizes.filters)

    def features(self, norm: Norm | None = None) -> tuple[nn.Module, nn.Linear]:
        filters = self.sizes.filters
        body = conv_critic(self.shape, filters, norm)
        return body, nn.Linear(conv_features(self.shape, filters), 1)

    def detailed_features(self) -> tuple[nn.Module, nn.Linear]:
        if not self.sizes.details:
            return self.features()
        channels, *sides = self.shape
        features, head = ImageNetworks((2 * channels, *sides), self.sizes).features()
        return nn.Sequential(Details(self.sizes.details), features), head

    def velocity(self, classes: int = 0) -> nn.Module:
        return ImageVelocity(self.shape, self.sizes.filters, classes)


class CloudNetworks(Networks):
    """PointNets and perceptrons for sets of points."""

    def encoder(self, outputs: int) -> nn.Module:
        return pointnet_encoder(self.shape, outputs, self.sizes.points)

    def decoder(self, inputs: int) -> nn.Module:
        return pointnet_decoder(self.shape, inputs, self.sizes.cloud)

    def features(self, norm: Norm | None = None) -> tuple[nn.Module, nn.Linear]:
        points = self.sizes.points
        return PointNet(self.shape[1], points), nn.Linear(points[-1], 1)

    def velocity(self, classes: int = 0) -> nn.Module:
        return CloudVelocity(self.shape[1], self.sizes.points, classes)


class PublishedNetworks(Networks):
    """The networks of the WAE paper; a critic of data has the filters of the encoder, with layer
    normalisation."""

    def __init__(self, shape: Sequence[int], sizes: NetworkConfig):
        super().__init__(shape, sizes)
        self.published = published(shape)

    def encoder(self, outputs: int) -> nn.Module:
        return paper_encoder(self.shape, outputs)

    def decoder(self, inputs: int) -> nn.Module:
        return paper_decoder(self.shape, inputs)

    def features(self, norm: Norm | None = None) -> tuple[nn.Module, nn.Linear]:
        filters = self.published.down
        norm = norm or (lambda count: nn.GroupNorm(1, count))
        body = conv_critic(self.shape, filters, norm)
        return body, nn.Linear(conv_features(self.shape, filters), 1)

    def critic(self, prior: Prior, classes: int = 0) -> nn.Module:
        critic = paper_critic(prior.dim + classes, self.sizes.critic)
        if self.published.knows_prior and isinstance(prior, Gaussian):
            return LogPriorCritic(critic, prior)
        return critic
