"""Networks that are too large for one process: each process keeps a shard of every parameter, of
its gradient and of its optimiser state (PyTorch's fully sharded data parallelism, FSDP2).

A pass gathers the parameters of each layer when it reaches the layer. Checkpoints hold full
tensors, so a run can be resumed with any number of processes, sharded or not.

Source: Rajbhandari, Rasley, Ruwase, He, "ZeRO: memory optimizations toward training trillion
parameter models", 2020.
"""

from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from monge._core.processes import first
from monge.models import matchings


def shard(model: nn.Module, device: str) -> None:
    """Leaves each process its shard of the parameters of a model's networks, in place.

    The backward pass averages gradients over the processes. Divergences stay whole.
    """
    # takes a second to import, and few runs need it
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard

    # a process group of its own, because its messages may overtake others
    mesh = DeviceMesh.from_group(dist.new_group(), device.split(":")[0])  # pyright: ignore
    kept = {layer for one in matchings(model) for layer in one.divergence.modules()}
    for layer in model.modules():
        parameters = [p for p in layer.parameters(recurse=False) if p.ndim > 0]
        if parameters and layer not in kept:
            # layer by layer, because FSDP2 handles modules that return tensors only, and an
            # encoder may return a distribution
            fully_shard(layer, mesh=mesh, reshard_after_forward=True)


def is_sharded(x: Any) -> bool:
    """Whether each process holds a shard of a tensor, i.e. whether it is a DTensor."""
    return hasattr(x, "full_tensor")  # importing the class takes a second


def full_tensors(tensors: dict[str, Any]) -> dict[str, Tensor]:
    """The full tensors on the first process, and nothing on the others.

    Every process must call this, because the shards are gathered.
    """
    full = {}
    for name, x in tensors.items():
        x = x.full_tensor() if is_sharded(x) else x
        if first():
            full[name] = x
    return full


def sharded_like(value: Tensor, like: Any) -> Tensor:
    """This process's shard of a full tensor if `like` is sharded, otherwise the tensor itself."""
    if not is_sharded(like) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
