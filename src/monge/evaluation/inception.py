"""The Inception network of the FID: the Fréchet distance between its features.

The graph is that of the TensorFlow file inception-2015-12-05, which differs from later ones: its
average pools do not count the padding, its last block uses a max pool, and its normalisations have
ε = 10⁻³. The weights come from a file that you supply, pt_inception-2015-12-05-6726825d.pth of
pytorch-fid or weights-inception-2015-12-05-6726825d.pth of torch-fidelity; both are the same
95,628,359 bytes.

Source: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception architecture for
computer vision", 2016; Heusel et al., "GANs trained by a two time-scale update rule", 2017; on
resizing Parmar, Zhang, Zhu, "On aliased resizing and surprising subtleties in GAN evaluation",
2022.
"""

import hashlib
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge.evaluation.extractors import Extractor

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""The sha256 of the only weights whose Fréchet distance is the FID."""
SIDE = 299

Resize = Literal["tf1", "clean"]


class Unit(nn.Module):
    """Convolution, normalisation, rectifier."""

    def __init__(self, inputs: int, outputs: int, kernel: Any, stride: Any = 1, padding: Any = 0):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


def mean_pool(x: Tensor) -> Tensor:
    """Means of 3 × 3 pixels without the padding."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def max_pool(x: Tensor) -> Tensor:
    """Maxima of 3 × 3 pixels, at every pixel."""
    return F.max_pool2d(x, 3, 1, 1)


def halving_pool(x: Tensor) -> Tensor:
    """Maxima of 3 × 3 pixels, at every second pixel."""
    return F.max_pool2d(x, 3, 2)


class Mixed(nn.Module):
    """Parallel branches, whose outputs are concatenated in their order.

    Args:
        inputs: channels of the input.
        branches: each a text of units `name outputs kernel`, where a kernel is 1, 3, 5, 1x7, 7x1,
            1x3 or 3x1, and 3/2 has stride 2 and no padding. Branches may share their first units.
        pool: the pool of the last branch.
        projected: outputs of the unit after the pool; 0 for none.
    """

    def __init__(
        self, inputs: int, branches: list[str], pool: Callable[[Tensor], Tensor], projected: int
    ):
        super().__init__()
        self.pool, self.lines = pool, []
        for branch in branches:
            words, width, line = branch.split(), inputs, []
            for name, outputs, kernel in zip(words[::3], words[1::3], words[2::3]):
                self._add(f"branch{name}", width, int(outputs), kernel)
                line.append(f"branch{name}")
                width = int(outputs)
            self.lines.append(line)
        self.branch_pool = Unit(inputs, projected, 1) if projected else nn.Identity()

    def _add(self, name: str, inputs: int, outputs: int, kernel: str) -> None:
        sides, _, stride = kernel.partition("/")
        height, width = (int(side) for side in (sides.split("x") * 2)[:2])
        padding = 0 if stride else (height // 2, width // 2)
        if name not in dict(self.named_children()):
            unit = Unit(inputs, outputs, (height, width), int(stride or 1), padding)
            self.add_module(name, unit)

    def forward(self, x: Tensor) -> Tensor:
        made: dict[tuple[str, ...], Tensor] = {(): x}
        for line in self.lines:
            for i, name in enumerate(line):
                so_far = tuple(line[: i + 1])
                if so_far not in made:
                    made[so_far] = self.get_submodule(name)(made[so_far[:-1]])
        ends = [made[tuple(line)] for line in self.lines]
        return torch.cat([*ends, self.branch_pool(self.pool(x))], 1)


def _a(inputs: int, projected: int) -> Mixed:
    branches = ["1x1 64 1", "5x5_1 48 1 5x5_2 64 5", "3x3dbl_1 64 1 3x3dbl_2 96 3 3x3dbl_3 96 3"]
    return Mixed(inputs, branches, mean_pool, projected)


def _c(c: int) -> Mixed:
    branches = [
        "1x1 192 1",
        f"7x7_1 {c} 1 7x7_2 {c} 1x7 7x7_3 192 7x1",
        f"7x7dbl_1 {c} 1 7x7dbl_2 {c} 7x1 7x7dbl_3 {c} 1x7 7x7dbl_4 {c} 7x1 7x7dbl_5 192 1x7",
    ]
    return Mixed(768, branches, mean_pool, 192)


def _e(inputs: int, pool: Callable[[Tensor], Tensor]) -> Mixed:
    double = "3x3dbl_1 448 1 3x3dbl_2 384 3"
    branches = [
        "1x1 320 1",
        "3x3_1 384 1 3x3_2a 384 1x3",
        "3x3_1 384 1 3x3_2b 384 3x1",
        f"{double} 3x3dbl_3a 384 1x3",
        f"{double} 3x3dbl_3b 384 3x1",
    ]
    return Mixed(inputs, branches, pool, 192)


def _halving(inputs: int, *branches: str) -> Mixed:
    return Mixed(inputs, list(branches), halving_pool, 0)


def graph() -> nn.Sequential:
    """Images (n, 3, 299, 299) in [-1, 1] to the 2,048 features after the last pool."""
    layers = {
        "Conv2d_1a_3x3": Unit(3, 32, 3, 2),
        "Conv2d_2a_3x3": Unit(32, 32, 3),
        "Conv2d_2b_3x3": Unit(32, 64, 3, padding=1),
        "MaxPool_1": nn.MaxPool2d(3, 2),
        "Conv2d_3b_1x1": Unit(64, 80, 1),
        "Conv2d_4a_3x3": Unit(80, 192, 3),
        "MaxPool_2": nn.MaxPool2d(3, 2),
        "Mixed_5b": _a(192, 32),
        "Mixed_5c": _a(256, 64),
        "Mixed_5d": _a(288, 64),
        "Mixed_6a": _halving(288, "3x3 384 3/2", "3x3dbl_1 64 1 3x3dbl_2 96 3 3x3dbl_3 96 3/2"),
        "Mixed_6b": _c(128),
        "Mixed_6c": _c(160),
        "Mixed_6d": _c(160),
        "Mixed_6e": _c(192),
        "Mixed_7a": _halving(
            768,
            "3x3_1 192 1 3x3_2 320 3/2",
            "7x7x3_1 192 1 7x7x3_2 192 1x7 7x7x3_3 192 7x1 7x7x3_4 192 3/2",
        ),
        "Mixed_7b": _e(1280, mean_pool),
        "Mixed_7c": _e(2048, max_pool),
        "AvgPool": nn.AdaptiveAvgPool2d(1),
        "Flatten": nn.Flatten(),
    }
    return nn.Sequential(OrderedDict(layers))


def tf1(images: Tensor) -> Tensor:
    """Images (n, c, h, w) at 299 × 299 as TensorFlow 1 resizes: bilinear between the pixels at
    i h / 299 without antialiasing, which is not symmetric."""
    rows, columns = (_linear(side).to(images) for side in images.shape[2:])
    return rows @ images @ columns.T


def _linear(side: int) -> Tensor:
    """The matrix (299, side) of the interpolation of `tf1` along one axis."""
    at = torch.arange(SIDE) * torch.tensor(side / SIDE)
    low = at.long()
    share = at - low
    matrix = torch.zeros(SIDE, side)
    matrix[torch.arange(SIDE), low] = 1 - share
    matrix[torch.arange(SIDE), (low + 1).clamp_max(side - 1)] += share
    return matrix


def clean(images: Tensor) -> Tensor:
    """Images in [0, 255] at 299 × 299 by Pillow's bicubic filter with antialiasing, in floats."""
    resized = F.interpolate(images, (SIDE, SIDE), mode="bicubic", antialias=True)
    return resized.clamp(0, 255)


class Preprocess(nn.Module):
    """Images in [0, 1], rounded to 8 bits as saved images are, in the layout of the graph."""

    def __init__(self, resize: Callable[[Tensor], Tensor]):
        super().__init__()
        self.resize = resize

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                "`images` must have shape (n, 1, h, w) or (n, 3, h, w) for Inception, got "
                f"{tuple(images.shape)}"
            )
        bytes_ = images.expand(-1, 3, -1, -1).mul(255).round()
        return (self.resize(bytes_) - 128) / 128


def inception_network(weights: str | Path, resize: Resize = "tf1") -> Extractor:
    """The features of the FID, from a local file of weights.

    Only the published file is accepted, by its sha256, and only its tensors are read.

    Args:
        weights: the file.
        resize: tf1 for the resizing of the first implementation, clean for Pillow's antialiased
            bicubic one. The two differ by several points of FID; name the one you use.

    Raises:
        ValueError: for a missing file, or another one.
    """
    if not isinstance(weights, (str, Path)):
        raise ValueError(f"`weights` must be the path of a file, got {weights!r}")
    file, resizes = Path(weights), {"tf1": tf1, "clean": clean}
    if resize not in resizes:
        raise ValueError(f"`resize` must be tf1 or clean, got {resize!r}")
    if not file.is_file():
        raise ValueError(
            f"`weights` {str(file)!r} is not a file: give the Inception weights' path"
        )
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != SHA256:
        raise ValueError(
            f"`weights` {str(file)!r} has the sha256 {digest[:12]}…, but the features of FID are "
            f"those of {SHA256[:12]}…: get pt_inception-2015-12-05-6726825d.pth of pytorch-fid"
        )
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise ValueError(f"`weights` {str(file)!r} cannot be read: {error}") from None
    network = graph()
    network.load_state_dict({k: v for k, v in state.items() if not k.startswith("fc.")})
    names = ("FID", "MIND") if resize == "tf1" else ("clean-FID", "clean-MIND")
    whole = nn.Sequential(Preprocess(resizes[resize]), network)
    return Extractor("Inception", digest, whole, names, f"299 × 299, {resize}", batch=50)
