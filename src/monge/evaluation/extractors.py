"""Feature spaces in which images are compared, each with a name and a hash.

`classifier` is a small network that is trained on labelled training samples and cached under the
sha256 of the data and of its recipe. It is not trained on `floor_rows`: the features of images
that a network was trained on differ from those of other images, so a noise floor must come from
images that are new to it, as the test images are. `random_network` has fixed random weights, for
data without labels. Distances in either must not be called FID, which is defined by the weights
of one Inception file.
"""

import hashlib
import logging
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from monge._core.checks import unit_range
from monge._core.defaults import float32_on_cpu, outside_autocast, recording
from monge._core.files import keep, user_cache
from monge.data import Batches, Source, as_floats
from monge.draws import permutation, stream
from monge.models import evaluating

log = logging.getLogger(__name__)
LOG_SECONDS = 10.0
STEPS, BATCH, RATE, WIDTH = 1500, 128, 1e-3, 64
RECIPE = f"conv5 16, conv5 32, linear {WIDTH}; Adam {RATE}, {STEPS} steps of batch {BATCH}; 2"


class Extractor(NamedTuple):
    """A network from images in [0, 1] to features, with its name and hash."""

    name: str
    sha256: str
    """The hash of the weights."""
    network: nn.Module
    figures: tuple[str, str]
    """The names of the Fréchet distance and of the scaled sliced distance of its features."""
    resize: str = "none"
    batch: int = 500
    accuracy: float | None = None
    """The accuracy of a classifier on the test part."""

    def __call__(self, images: Tensor) -> Tensor:
        r"""Features (n, d) of images (n, c, h, w), as they are stored or in [0, 1].

        Raises:
            ValueError: for images of another range, or NaN.
        """
        with outside_autocast(), evaluating(self.network):
            parts = [unit_range("images", as_floats(part)) for part in images.split(self.batch)]
            return torch.cat([self.network(part) for part in parts])


def sha256_of(tensors: Sequence[Tensor]) -> str:
    """The sha256 of tensors, with their shapes and types."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().cpu().numpy().data)
    return digest.hexdigest()


def weights_hash(network: nn.Module) -> str:
    """The sha256 of a network's weights and buffers."""
    return sha256_of(list(network.state_dict().values()))


def lenet(shape: Sequence[int]) -> nn.Sequential:
    """Two convolutions, then 64 features: (n, c, h, w) → (n, 64)."""
    channels, height, width = shape
    area = (height // 4) * (width // 4)
    return nn.Sequential(
        nn.Conv2d(channels, 16, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * area, WIDTH),
        nn.ReLU(),
    )


def floor_rows(source: Source) -> Tensor:
    """The indices of the training samples of which noise floors are made.

    They are random, and as many as there are test samples; of labelled images, on which a
    classifier is trained, at most half of the training part.
    """
    labelled = source.kind.grid and source.train_labels is not None
    most = len(source.train) // 2 if labelled else len(source.train)
    order = permutation(0, "evaluation floor", len(source.train))
    return order[: min(len(source.test), most)]


@float32_on_cpu()
@recording()
def classifier(source: Source, cache: Path | None = None) -> tuple[Extractor, nn.Module]:
    """The features of a classifier of the source's training part, and its last layer.

    It is trained once, with fixed draws, and cached. `floor_rows` are left out of its training,
    whose progress is logged at level INFO.

    Raises:
        ValueError: for a source without labels, or of other samples than images.

    Source of the architecture: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied
    to document recognition", 1998.
    """
    labels = source.train_labels
    if not source.kind.grid or labels is None or source.test_labels is None:
        raise ValueError(f"`data` {source.name!r} must be labelled images for a classifier")
    made_from = sha256_of([source.train, labels, floor_rows(source)]) + RECIPE
    key = hashlib.sha256(made_from.encode()).hexdigest()[:16]
    file = (cache or user_cache()) / f"lenet-{key}.safetensors"
    with stream("classifier weights"):
        network = lenet(source.shape)
        head = nn.Linear(WIDTH, int(labels.max()) + 1)
    whole = nn.Sequential(network, head)
    if os.path.exists(file):  # no error where the cache cannot be read
        try:
            whole.load_state_dict(load_tensors(file.read_bytes()))
            return _extractor(source, network, head), head
        except (SafetensorError, OSError) as error:
            warnings.warn(f"{str(file)!r} is damaged and is trained again: {error}", stacklevel=2)
    optimiser = torch.optim.Adam(whole.parameters(), RATE, fused=True)
    seen = torch.ones(len(labels), dtype=torch.bool)
    seen[floor_rows(source)] = False
    rows = seen.nonzero()[:, 0]
    batches = Batches(len(rows), min(BATCH, len(rows)), 0)
    log.info("training the classifier whose features the figures use, once for these data")
    began = logged = time.monotonic()
    for step in range(STEPS):
        if step and (now := time.monotonic()) - logged >= LOG_SECONDS:
            left, logged = (now - began) / step * (STEPS - step), now
            log.info(f"step {step:,}/{STEPS:,}  left {int(left) // 60}:{int(left) % 60:02d}")
        index = rows[batches.outer(step)]
        loss = F.cross_entropy(whole(as_floats(source.train[index])), labels[index])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    content = save_tensors({k: v.contiguous() for k, v in whole.state_dict().items()})
    keep(file, content, "the classifier whose features the figures use is trained")
    return _extractor(source, network, head), head


def _extractor(source: Source, network: nn.Module, head: nn.Module) -> Extractor:
    extractor = Extractor("LeNet", weights_hash(network), network, ("LeNet-FD", "LeNet-MIND"))
    with torch.no_grad():
        guessed = head(extractor(source.test)).argmax(1)
    accuracy = float((guessed == source.test_labels).float().mean())
    return extractor._replace(accuracy=accuracy)


@float32_on_cpu()
def random_network(shape: Sequence[int]) -> Extractor:
    """Convolutions with fixed random weights, (n, c, h, w) → (n, 256): for data without labels."""
    layers: list[nn.Module] = []
    with stream("random network"):
        for inputs, outputs in ((shape[0], 16), (16, 32), (32, 64)):
            layer = nn.Conv2d(inputs, outputs, 3, 2, 1)
            nn.init.kaiming_normal_(layer.weight, 0.2)
            layers += [layer, nn.LeakyReLU(0.2)]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
    names = "random network-FD", "random network-MIND"
    return Extractor("random network", weights_hash(network), network, names)
