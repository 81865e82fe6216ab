"""The choice of a device, and copies to it for which the host does not wait."""

import contextlib
import os

import torch
from torch import Tensor


def chosen_device(asked: str) -> str:
    """The device for `auto`, cpu, cuda, cuda:1, … or mps.

    `auto` is cuda where CUDA reaches a GPU for each process of this machine, otherwise cpu. It is
    never mps: distances compute in float64, which mps does not have.

    Raises:
        ValueError: for a device that is not there, saying which are.
    """
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if asked == "auto":
        return "cuda" if cards >= processes else "cpu"
    kind, _, index = asked.partition(":")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"`device` is {asked!r}, which is not on this machine: give cpu or auto")
    if kind != "cuda":
        return asked
    if cards == 0:
        built = torch.version.cuda is not None or torch.version.hip is not None
        reason = "finds no GPU" if built else "is built without CUDA"
        raise ValueError(
            f"`device` is {asked!r}, but torch {torch.__version__} {reason}, and the only device "
            "here is cpu: give cpu or auto"
        )
    names = ", ".join(f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(cards))
    if index and processes > 1:
        raise ValueError(
            f"`device` is {asked!r}, but each of {processes} processes uses a GPU of its own: "
            "give cuda"
        )
    if int(index or 0) >= cards:
        raise ValueError(f"`device` is {asked!r}, but this machine has cpu, {names}")
    if processes > cards:
        raise ValueError(
            f"`device` is {asked!r}, but there are {processes} processes for {names}: start one "
            "process for each GPU, or give cpu"
        )
    return asked


def described(device: torch.device) -> str:
    """The device with the name of its card, for people to read."""
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"


def current(device: str) -> contextlib.AbstractContextManager[object]:
    """Inside, a GPU that is given with its index is the current one, on which kernels start."""
    if device.startswith("cuda:"):
        return torch.cuda.device(device)
    return contextlib.nullcontext()


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """x on the device; copies from the host to a GPU go through pinned memory, so that the host
    does not wait for them."""
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)
