"""Section `training` of gpu.py: steps of small and published networks, against the bare loop.

The bare loop has the same networks, optimiser and batch, no divergence and no draws, and on a GPU
it is captured in a CUDA graph: what the hardware allows. Steps take their batches from data that
are resident on the device.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import torch
from gpu_measured import Record, importable, milliseconds, peak_bytes
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from monge.builders import build, settled
from monge.config import Config
from monge.data import as_floats
from monge.models import AutoEncoder, Model
from monge.training import Trainer
from monge.training.objective import LearnedObjective

MNIST, CELEBA = (1, 28, 28), (3, 64, 64)
NETWORKS = {
    "small MNIST": ("small", "mnist", MNIST),
    "paper MNIST": ("paper", "mnist", MNIST),
    "CelebA": ("paper", "/images", CELEBA),
}
RECIPES = ("wae-mmd", "vae", "wgan-gp")
VARIANTS = {
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    "fp32, compiled": {"precision": "fp32", "compile": True},
    "bf16, compiled": {"precision": "bf16", "compile": True},
}
IMAGES = 2000


def run(record: Record, device: torch.device, tiny: bool) -> None:
    kept = ("fp32",) if tiny else ("fp32", "bf16")
    for network, recipe in itertools.product(NETWORKS, RECIPES):
        if tiny and network != "small MNIST":
            continue
        case = Case(recipe, network, device, tiny)
        record.attempt(f"{network}, {recipe}, bare", lambda c=case: c.bare())
        for variant in kept:
            record.attempt(f"{network}, {recipe}, {variant}", lambda c=case, v=variant: c.ours(v))
    if importable("pythae") and not tiny:
        record.attempt("small MNIST, wae-mmd, Pythae", lambda: pythae_rate(device))
    if not tiny:
        # the compiler takes most of a minute: last
        for network, variant in itertools.product(("small MNIST", "CelebA"), list(VARIANTS)[2:]):
            case = Case("wae-mmd", network, device, tiny)
            name = f"{network}, wae-mmd, {variant}"
            record.attempt(name, lambda c=case, v=variant: c.ours(v), needs=15.0)


class Case:
    """One recipe with one of the networks, on random images that lie on the device."""

    def __init__(self, recipe: str, network: str, device: torch.device, tiny: bool):
        preset, data, self.shape = NETWORKS[network]
        self.config, self.device = Config.of(recipe, preset, data), device
        self.batch = 10 if tiny else self.config.training.batch
        draws = torch.Generator().manual_seed(0)
        size = (IMAGES // 20 if tiny else IMAGES, *self.shape)
        images = torch.randint(0, 256, size, dtype=torch.uint8, generator=draws)
        self.images = images.to(device)

    def model(self) -> Model:
        torch.manual_seed(0)
        facts = settled(self.config, "image", self.shape, samples=IMAGES)
        model = build(self.config, facts).to(self.device).train()
        if self.device.type == "cuda":
            # as in training: the order in which tensor cores take convolutions
            model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return model

    def ours(self, variant: str) -> dict[str, Any]:
        """A step of `Trainer`, its inner steps included."""
        config = dataclasses.replace(self.config.training, batch=self.batch, **VARIANTS[variant])
        model = self.model()
        if config.compile:
            for network in model.children():
                if network is not model.divergence and network is not model.prior:
                    mode = "reduce-overhead" if self.device.type == "cuda" else None
                    network.compile(mode=mode)
        trainer = Trainer(model, config, device=self.device)
        inner = most_inner_steps(trainer)
        shown = inner > 1 or (inner == 1 and not isinstance(model, AutoEncoder))
        parts = itertools.cycle(self.images.split(self.batch))

        def step() -> None:
            trainer.step([next(parts) for _ in range((inner if shown else 0) + 1)])

        return self._figures(step) | {"inner steps": inner}

    def bare(self) -> dict[str, Any]:
        """Forward, backward and optimiser of the outer networks."""
        model = self.model()
        networks = (
            [model.encoder, model.decoder] if isinstance(model, AutoEncoder) else [model.decoder]
        )
        parameters = [p for network in networks for p in network.parameters()]
        captured = self.device.type == "cuda"
        optimiser = torch.optim.Adam(parameters, 1e-3, fused=True, capturable=captured)
        x, z = as_floats(self.images[: self.batch]), model.prior.sample(self.batch).to(self.device)

        def step() -> None:
            codes = model.encode(x).mean if isinstance(model, AutoEncoder) else z
            loss = (model.decode(codes) - x).square().sum() / len(x)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

        return self._figures(in_graph(step) if captured else step)

    def _figures(self, step: Callable[[], None]) -> dict[str, Any]:
        taken = milliseconds(step, self.device, 0.5)
        return {
            "ms": taken,
            "images/s": round(1e3 * self.batch / taken),
            "kernels": kernels(step, self.device),
            "peak bytes": peak_bytes(step, self.device),
        }


def most_inner_steps(trainer: Trainer) -> int:
    """The inner steps before an outer one, after the first outer steps."""
    learned: list[LearnedObjective] = trainer.learned
    counts = [trainer.config.inner_steps if one.steps is None else one.steps for one in learned]
    return max(counts, default=0)


def in_graph(step: Callable[[], None]) -> Callable[[], None]:
    """A step captured in a CUDA graph, and replayed."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def kernels(step: Callable[[], None], device: torch.device) -> int | None:
    """Kernels that a step launches; None on a CPU."""
    if device.type != "cuda":
        return None
    step()
    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        step()
        torch.cuda.synchronize(device)
    return sum(
        not event.name.startswith(("Memcpy", "Memset"))
        for event in seen.events() or ()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )


def pythae_rate(device: torch.device) -> dict[str, Any]:
    """Pythae's WAE-MMD and trainer, with networks of the same sizes."""
    from training import BATCH, pythae

    images: Tensor = torch.randint(0, 256, (IMAGES, *MNIST), dtype=torch.uint8)
    epoch = pythae(images, no_cuda=device.type != "cuda")
    taken = milliseconds(epoch, device, 1.0)
    return {"ms": round(taken * BATCH / IMAGES, 4), "images/s": round(1e3 * IMAGES / taken)}
