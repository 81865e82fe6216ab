"""NaN and infinity: in data, loss, gradients, weights, optimisers and critics.

Survived: a ValueError at the door for data; else FailedRun that names the step and a term or
tensor, a newest checkpoint that is finite and, the fault gone, the same bits at the end as of the
run that nothing happened to. The step is that of the fault or the next; but what reaches no term
of the loss, as an infinite second moment of Adam or a bias of -inf before a ReLU, is noticed by
the next checkpoint, which looks at every tensor before it is written.
"""

import dataclasses
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

import monge
from monge._core.errors import FailedRun
from monge.config import Config, DataConfig
from monge.data import as_floats
from monge.training import checkpoint
from monge.training.trainer import Trainer

from .common import Tally, config, data, digest, failed, other_end, sound, train

BAD = (float("nan"), float("inf"))
FIRST, STEPS = 2, 6
RECIPES = (
    "wae-mmd",
    "wae-gan",
    "wae-wgan-gp",
    "swae",
    "max-swae",
    "sinkhorn-ae",
    "energy-ae",
    "vae",
    "vae-bernoulli",
    "pointcloud-wae",
    "conditional-wae",
    "gan",
    "wgan",
    "wgan-gp",
    "swg",
    "swgan",
    "mmd-generator",
)


class Broken(torch.autograd.Function):
    """x, whose gradient has one bad element."""

    @staticmethod
    def forward(ctx, x: Tensor, bad: float) -> Tensor:
        ctx.bad = bad
        return x.clone()

    @staticmethod
    def backward(ctx, *gradients: Tensor):
        gradient = gradients[0].clone()
        gradient.view(-1)[0] = ctx.bad
        return gradient, None


def one_element(tensors: list[Tensor], bad: float, chosen: random.Random) -> None:
    """One element of one of them is bad."""
    tensor = chosen.choice(tensors)
    with torch.no_grad():
        tensor.view(-1)[chosen.randrange(tensor.numel())] = bad


def loss(trainer: Trainer, bad: float, chosen: random.Random) -> list:
    """The cost, or without one the divergence, is bad."""
    model = trainer.model
    part = getattr(model, "cost", None) or getattr(model, "likelihood", None) or model.divergence
    return [part.register_forward_hook(lambda module, given, value: value * bad)]


def gradient(trainer: Trainer, bad: float, chosen: random.Random) -> list:
    """What the decoder makes is finite, its gradient is not."""
    decoder = trainer.model.decoder
    return [decoder.register_forward_hook(lambda module, given, out: Broken.apply(out, bad))]


def weights(trainer: Trainer, bad: float, chosen: random.Random) -> list:
    one_element([p for p in trainer.parameters if p.requires_grad], bad, chosen)
    return []


def moments(trainer: Trainer, bad: float, chosen: random.Random) -> list:
    """The state of the optimiser."""
    one_element(_states(trainer.outer), bad, chosen)
    return []


def critic_gradient(trainer: Trainer, bad: float, chosen: random.Random) -> list:
    parameter = next(p for p in trainer.objectives[0].parameters if p.requires_grad)
    return [parameter.register_hook(lambda g: torch.full_like(g, bad))]


def critic_weights(trainer: Trainer, bad: float, chosen: random.Random) -> list:
    one_element([p for p in trainer.objectives[0].parameters if p.requires_grad], bad, chosen)
    return []


def critic_moments(trainer: Trainer, bad: float, chosen: random.Random) -> list:
    one_element(_states(trainer.optimisers["inner"]), bad, chosen)
    return []


def _states(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    return [
        value
        for values in optimiser.state.values()
        for name, value in values.items()
        if name != "step"
    ]


FAULTS: tuple[Callable[[Trainer, float, random.Random], list], ...] = (
    loss,
    gradient,
    weights,
    moments,
    critic_gradient,
    critic_weights,
    critic_moments,
)


def injected(fault: Callable, at: int, bad: float, chosen: random.Random):
    """A `Trainer.step` with a fault in the step at position `at`."""
    step = Trainer.step

    def stepped(trainer: Trainer, *given, **named):
        handles = fault(trainer, bad, chosen) if trainer.position == at else []
        terms = step(trainer, *given, **named)
        for handle in handles:
            handle.remove()
        return terms

    return mock.patch.object(Trainer, "step", stepped)


def in_training(work: Path, short: bool, tally: Tally) -> int:
    """Counts every fault in a run of every recipe: how many only a later checkpoint noticed."""
    late = 0
    for i, recipe in enumerate(("wae-gan",) if short else RECIPES):
        source, saving = data(recipe), (1e-9, 1000.0)[i % 2]  # every step, or at the end alone
        given = config(recipe, STEPS, checkpoint_seconds=saving)
        begun, whole = work / f"{recipe} begun", work / f"{recipe} whole"
        train(config(recipe, FIRST, checkpoint_seconds=saving), begun, source)
        shutil.copytree(begun, whole)
        train(given, whole, source)
        expected = digest(whole, STEPS)
        for fault in FAULTS[: None if _has_critic(whole) else 4]:
            for bad in BAD:
                chosen = random.Random(f"{recipe} {fault.__name__} {bad}")
                out, at = work / "run", chosen.randrange(FIRST, STEPS)
                shutil.copytree(begun, out)
                with injected(fault, at, bad, chosen):
                    words = failed(given, out, source)
                found = _lost(given, out, source, words, at, expected)
                tally.add(f"{recipe}, {fault.__name__} {bad} at step {at + 1}", found)
                late += (step_of(words) or 0) > at + 2
                shutil.rmtree(out)
    return late


def step_of(words: str | None) -> int | None:
    """The step of a FailedRun that names a term or tensor."""
    found = re.match(r"step (\d+): .*'.+'", words or "")
    return int(found[1]) if found else None


def _has_critic(out: Path) -> bool:
    """Whether a run has an optimiser of its divergence."""
    found = checkpoint.newest(out / "checkpoints")
    assert found is not None
    tensors = checkpoint.tensors(found[1], "training.safetensors")
    return any(name.startswith("inner.") for name in tensors)


def _lost(given: Config, out: Path, source, words: str | None, at: int, expected: str):
    """What is wrong with how a run has ended in which the step after position `at` went bad."""
    step = step_of(words)
    if step is None:
        return f"no FailedRun that names step and term: {words}"
    if not at + 1 <= step <= at + 2 and "no checkpoint could be saved" not in (words or ""):
        return f"noticed late: {words}"
    if (unsound := sound(out)) is not None:
        return unsound
    return other_end(given, out, source, expected)


def at_the_door(work: Path, tally: Tally) -> None:
    """Data in files and in memory, of which one number is bad."""
    folder, chosen = work / "data", np.random.default_rng(0)
    for bad in BAD:
        for kind, shape in (("table", (40, 3)), ("image", (40, 1, 8, 8)), ("cloud", (40, 16, 3))):
            values = chosen.random(shape).astype(np.float32)
            values.flat[chosen.integers(values.size)] = bad
            shutil.rmtree(folder, ignore_errors=True)
            for given in (*files(folder, kind, values), values, torch.from_numpy(values)):
                name = given.name if isinstance(given, Path) else type(given).__name__
                tally.add(f"data, {kind} of {name} with {bad}", taken(given, work / "taken"))
        for recipe in ("wae-mmd", "swg", "pointcloud-wae"):
            source = data(recipe)
            samples = as_floats(source.train).clone()
            samples.view(-1)[0] = bad
            given = dataclasses.replace(source, train=samples, test=as_floats(source.test))
            tally.add(f"data, Source of {source.kind} with {bad}", taken(given, work / "taken"))


def files(folder: Path, kind: str, values: np.ndarray) -> list[Path]:
    """The same samples in every format that holds such numbers."""
    folder.mkdir()
    written = [folder / f"{kind}.npy", folder / f"{kind}.npz"]
    np.save(written[0], values)
    np.savez(written[1], x=values)
    if kind == "table":
        written.append(folder / "table.csv")
        np.savetxt(written[-1], values, delimiter=",")
    if kind == "cloud":
        written.append(folder / "clouds")
        written[-1].mkdir()
        for i, cloud in enumerate(values):
            np.savetxt(written[-1] / f"{i}.xyz", cloud)
    return written


def taken(given, out: Path) -> str | None:
    """What is wrong with how bad data are taken: they are to be refused, nothing written."""
    points = 16 if isinstance(given, Path) and given.is_dir() else None
    with_points = dataclasses.replace(config("wae-mmd", 2), data=DataConfig(points=points))
    try:
        monge.fit("wae-mmd", given, with_points, out, quiet=True)
    except ValueError as error:
        if out.exists():
            return f"written before: {error}"
        # in a table NaN is a missing cell
        named = "finite" in str(error) or "is missing, 'nan'" in str(error)
        return None if named else f"not named: {error}"
    except FailedRun as error:
        words = str(error)
    else:
        words = "no words"
    shutil.rmtree(out)
    return f"trained on: {words}"


def run(work: Path, short: bool) -> Tally:
    tally = Tally()
    at_the_door(work, tally)
    in_data = tally.faults
    late = in_training(work, short, tally)
    tally.notes = {
        "in data": in_data,
        "recipes": 1 if short else len(RECIPES),
        "by a later checkpoint": late,
    }
    return tally
