"""Whether the parts of a source are what its kind says, and belong together."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from monge.data.kind import Kind

TYPES = (torch.float32, torch.float64, torch.float16, torch.uint8)
"""Those of samples."""


def demand_part(
    part: str,
    samples: Tensor,
    labels: Tensor | None,
    contents: np.ndarray | None,
    kind: Kind,
    like: Tensor,
) -> None:
    """
    Args:
        part: `train` or `test`.
        samples: of the part (n, *).
        labels: of the samples (n,).
        contents: digests of what was read of them (n,).
        kind: what they are.
        like: samples of their shape and type.

    Raises:
        ValueError: for samples with NaN or infinity, or of another shape or range than the kind's;
            for labels or contents that are not one for each sample.
    """
    _demand_samples(part, samples, kind, like)
    n = len(samples)
    if labels is not None and not _are_classes(labels, n):
        raise ValueError(
            f"`{part}_labels` must be {n} int64 from 0 on, one for each sample of `{part}`, got "
            f"{_described(labels)}"
        )
    if contents is not None and len(contents) != n:
        raise ValueError(
            f"`contents` has {len(contents)} digests for {n} samples of `{part}`: with other "
            "samples, give contents=None"
        )


def demand_plain(part: str, samples: Tensor) -> None:
    """
    Raises:
        ValueError: for what is no dense tensor on the CPU, without gradients, of these `TYPES`.
    """
    if not isinstance(samples, Tensor):
        raise ValueError(f"`{part}` must be a tensor, got {_described(samples)}")
    reasons = {
        f"is on {samples.device}": samples.device.type != "cpu",
        f"is {samples.layout}": samples.layout != torch.strided,
        "requires gradients": samples.requires_grad,
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(
                f"`{part}` must be a dense tensor on the CPU without gradients, but it {reason}"
            )
    if samples.dtype not in TYPES:
        raise ValueError(
            f"`{part}` must hold float32, float64, float16 or uint8, got {_described(samples)}"
        )


def _demand_samples(part: str, samples: Tensor, kind: Kind, like: Tensor) -> None:
    shape = tuple(samples.shape)
    as_many = kind.dimensions is None or len(shape) == kind.dimensions + 1
    if not as_many or (kind.turns and shape[-1] != 3):
        raise ValueError(f"`{part}` has shape {shape}, which {kind.name}s do not have")
    if shape[1:] != like.shape[1:] or samples.dtype != like.dtype:
        raise ValueError(
            f"`{part}` is {_described(samples)}, and `train` {_described(like)}: samples of both "
            "must have one shape and type"
        )
    if samples.dtype == torch.uint8 and kind.bounded:
        return
    if not samples.is_floating_point():
        raise ValueError(f"`{part}` must hold floating-point numbers, got {_described(samples)}")
    if not torch.isfinite(samples).all():
        raise ValueError(f"`data` has NaN or infinite values in `{part}`")
    low, high = (float(end) for end in torch.aminmax(samples))
    if kind.bounded and not 0 <= low <= high <= 1:
        raise ValueError(
            f"`{part}`: {kind.name}s that are not uint8 must lie in [0, 1], "
            f"got [{low:.4g}, {high:.4g}]"
        )


def _are_classes(labels: object, n: int) -> bool:
    if not isinstance(labels, Tensor) or labels.shape != (n,) or labels.dtype != torch.int64:
        return False
    return bool((labels >= 0).all())


def _described(values: Any) -> str:
    """The type and shape of an array, and the ends of int64."""
    if not isinstance(values, (Tensor, np.ndarray)):
        return type(values).__name__
    text = f"{type(values).__name__} {tuple(values.shape)} of {values.dtype}"
    if not isinstance(values, Tensor) or values.dtype is not torch.int64 or not len(values):
        return text
    return f"{text} from {int(values.min())} to {int(values.max())}"
