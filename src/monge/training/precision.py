"""The precision of the networks in training."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def chosen_precision(asked: str, model: nn.Module, device: torch.device) -> str:
    """The precision that `auto` stands for; any other name as it is.

    bf16 for convolutional networks on GPUs of compute capability 8.0 (Ampere) and newer, otherwise
    fp32. Networks of linear layers are bound by the launch of their kernels, to which autocast
    adds, and the coordinates they return would keep 8 bits. Networks in float64 stay in it.
    """
    if asked != "auto":
        return asked
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return "fp32"
    double = any(p.dtype == torch.float64 for p in model.parameters())
    return "bf16" if is_convolutional(model) and not double else "fp32"


def is_convolutional(model: nn.Module) -> bool:
    """Whether a model has convolutions of images."""
    return any(isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) for layer in model.modules())


@contextlib.contextmanager
def in_precision(device: torch.device, dtype: torch.dtype | None) -> Iterator[None]:
    """Inside, networks compute in half precision; in that of their tensors if `dtype` is None."""
    with torch.autocast(device.type, dtype, enabled=dtype is not None):
        yield
    if dtype is not None:  # a program's own autocast would keep copies of weights that change
        torch.clear_autocast_cache()
