"""Two processes are one: gathered samples, batch moments and gradients of the global batch."""

import os
import socket
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

from monge.adversarial import JensenShannon
from monge.costs import SquaredL2
from monge.divergences import MMD
from monge.draws import Draws
from monge.kernels import multiscale_imq
from monge.models import WAE
from monge.networks import BatchNorm, mlp
from monge.priors import Gaussian
from monge.training import Trainer
from monge.training.distributed import gather

TOTAL = 7  # uneven over two processes


def problem():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), BatchNorm(4), torch.nn.Linear(4, 2))
    return network.double(), torch.randn(TOTAL, 3, dtype=torch.float64)


def trained(rank: int, world: int):
    """Every weight and buffer after three steps with an additive and a gathered divergence."""
    x = torch.randn(TOTAL, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    tensors = []
    for divergence in (JensenShannon(mlp([2, 8, 1])), MMD(multiscale_imq(4.0))):
        # a bias before the normalisation has gradient 0, and Adam would scale its rounding up
        first = torch.nn.Linear(3, 4, bias=False)
        encoder = torch.nn.Sequential(first, BatchNorm(4), torch.nn.Linear(4, 2))
        wae = WAE(
            encoder, torch.nn.Linear(2, 3), Gaussian(2), divergence, cost=SquaredL2(), weight=2.0
        )
        with torch.no_grad():
            for i, p in enumerate(wae.parameters()):
                p.copy_(torch.sin(torch.arange(p.numel()) + i).view_as(p))
        trainer = Trainer(wae.double())
        for _ in range(3):
            trainer.step([x[rank::world]])
        tensors += list(wae.state_dict().values())
    return tensors


def gradients(rank: int, world: int):
    """The gradient of MMD²(codes, prior draws) of the global batch, by this process's rows."""
    network, x = problem()
    x = x[rank::world]
    z = network(x)
    target = Draws(0, 0, TOTAL, rank=rank, world=world).normal("prior", z)
    value = MMD(multiscale_imq(4.0))(gather(z, TOTAL), gather(target, TOTAL))
    value.backward()
    parameters = [p.grad for p in network.parameters()]
    if world > 1:
        for g in parameters:
            dist.all_reduce(g)
            g /= world
    return [value.detach(), network[1].running_mean, network[1].running_var, *parameters]


def named(tensors):
    return {str(i): t.contiguous() for i, t in enumerate(tensors)}


def work(rank: int, world: int, port: int, file: str):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=world)
    save_file(named(gradients(rank, world) + trained(rank, world)), f"{file}{rank}")
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)


def test_divergence_batch_norm_gradient_and_training_of_two_processes_equal_those_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (2, port, str(tmp_path / "rank")), nprocs=2)
    expected = gradients(0, 1) + trained(0, 1)
    for rank in range(2):
        ours = load_file(tmp_path / f"rank{rank}")
        torch.testing.assert_close(ours, named(expected), rtol=1e-10, atol=1e-12)
