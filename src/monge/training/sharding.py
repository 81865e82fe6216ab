"""Networks that one process does not hold: each keeps a part of every parameter, of its gradient
and of the optimiser's numbers for it (PyTorch's fully sharded data parallelism, FSDP2).

A pass gathers the parameters of a layer as it comes to it. Checkpoints hold whole tensors, so that
a run goes on with any number of processes, sharded or not.

Source: Rajbhandari, Rasley, Ruwase, He, "ZeRO: memory optimizations toward training trillion
parameter models", 2020.
"""

from typing import Any

import torch.distributed as dist
from torch import Tensor

from monge._core.processes import first
from monge.models import Model


def shard(model: Model, device: str) -> None:
    """Leaves each process its part of the parameters of a model's networks, in place; gradients
    are averaged over the processes on their way back. Critics stay whole."""
    # a second to import, for few runs
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard

    # a group of its own, since its messages may overtake others
    mesh = DeviceMesh.from_group(dist.new_group(), device.split(":")[0])  # pyright: ignore
    critic = set() if model.divergence is None else set(model.divergence.modules())
    for layer in model.modules():
        parameters = [p for p in layer.parameters(recurse=False) if p.ndim > 0]
        if parameters and layer not in critic:
            # layers, since what comes out of them is a tensor: FSDP2 does not see into laws
            fully_shard(layer, mesh=mesh, reshard_after_forward=True)


def is_part(x: Any) -> bool:
    """Whether a tensor is one of which each process holds a part: a DTensor."""
    return hasattr(x, "full_tensor")  # to import the class takes a second


def whole(tensors: dict[str, Any]) -> dict[str, Tensor]:
    """Tensors of which processes hold parts, whole on the first process."""
    found = {}
    for name, x in tensors.items():
        x = x.full_tensor() if is_part(x) else x
        if first():
            found[name] = x
    return found


def own(value: Tensor, like: Any) -> Tensor:
    """Of a whole tensor that every process has, what this one holds if `like` is held so."""
    if not is_part(like) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
