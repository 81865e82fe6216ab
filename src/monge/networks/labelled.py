r"""Networks of class-conditional models: they take labels as rows (n, K) after their input.

A row is one-hot, or holds weights of the classes; a row of zeros names none.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge._core.checks import dimension, dimensions, instance
from monge.networks.mlp import mlp


class LabelledDecoder(nn.Module):
    r"""(z, labels) ↦ network(z, √dim · labels): the first linear layer embeds the labels.

    With the factor a label moves that layer's output as far as a code of `dim` numbers does.

    Args:
        network: (n, dim + K) → (n, \*).
        dim: of the codes.
    """

    def __init__(self, network: nn.Module, dim: int):
        super().__init__()
        self.network = instance("network", network, nn.Module, "mlp([dim + classes, 64, d])")
        self.factor = math.sqrt(dimension("dim", dim))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return self.network(torch.cat([z, self.factor * labels.to(z.dtype)], 1))


class LabelledEncoder(nn.Module):
    r"""(x, labels) ↦ head(features(x), labels): any network of samples, and a perceptron that sees
    the label beside its features.

    Args:
        features: (n, \*) → (n, size).
        size: how many features there are; the perceptron has as many hidden units.
        classes: K.
        outputs: how many numbers the perceptron returns.
    """

    def __init__(self, features: nn.Module, size: int, classes: int, outputs: int):
        super().__init__()
        self.features = features
        for name, value in (("size", size), ("classes", classes), ("outputs", outputs)):
            dimension(name, value)
        self.head = LabelledDecoder(mlp([size + classes, size, outputs]), size)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.head(F.relu(self.features(x)), labels)


class CodeCritic(nn.Module):
    """A critic of joint samples (z, s · one-hot y), (n, dim + K), that takes no gradient through
    the labels: a penalty on its gradient is one on its gradient with respect to z.

    Args:
        critic: (n, dim + K) → (n,) or (n, 1).
        classes: K.
    """

    def __init__(self, critic: nn.Module, classes: int):
        super().__init__()
        self.critic, self.classes = critic, classes

    def forward(self, joint: Tensor) -> Tensor:
        z, labels = joint[:, : -self.classes], joint[:, -self.classes :]
        return self.critic(torch.cat([z, labels.detach()], 1))


class JointFeatures(nn.Module):
    r"""Joint samples (x, s · one-hot y), (n, d + K), to (features of x, one-hot y).

    Args:
        features: (n, \*) → (n, size).
        shape: \*, of d elements.
        unit: puts the features of each sample on the unit sphere, so that distances weigh them
            and labels alike.
    """

    def __init__(self, features: nn.Module, shape: Sequence[int], *, unit: bool = False):
        super().__init__()
        self.features, self.unit = features, unit
        self.shape = tuple(dimensions("shape", shape))

    def forward(self, joint: Tensor) -> Tensor:
        d = math.prod(self.shape)
        features = self.features(joint[:, :d].unflatten(1, self.shape))
        if self.unit:
            features = F.normalize(features, dim=1)
        return torch.cat([features, (joint[:, d:] > 0).to(features.dtype)], 1)


class ProjectionHead(nn.Module):
    r"""(φ, one-hot y) ↦ head(φ) + ⟨v_y, φ⟩ + b_y, (n, 1): a critic of joint samples whose features
    are compared with a vector of each class.

    Args:
        head: φ (n, size) → (n, 1).
        size: of the features φ.
        classes: K.

    Source: Miyato, Koyama, "cGANs with projection discriminator", 2018.
    """

    def __init__(self, head: nn.Module, size: int, classes: int):
        super().__init__()
        self.head, self.size = head, dimension("size", size)
        dimension("classes", classes)
        self.vectors = nn.Linear(classes, size, bias=False)
        self.offsets = nn.Linear(classes, 1, bias=False)
        nn.init.zeros_(self.offsets.weight)

    def forward(self, x: Tensor) -> Tensor:
        features, labels = x[:, : self.size], x[:, self.size :]
        agreement = (self.vectors(labels) * features).sum(1, keepdim=True)
        return self.head(features) + agreement + self.offsets(labels)
