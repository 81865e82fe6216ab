"""What the kinds of faults share: a count, small runs of every recipe, children that train."""

import dataclasses
import functools
import hashlib
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

import monge
from monge._core.errors import FailedRun, Interrupted
from monge.config import Config, DataConfig, NetworkConfig, override
from monge.data import Source, load
from monge.data.readers.arrays import from_array
from monge.recipes import find
from monge.training import checkpoint

TABLES = (
    "swae",
    "max-swae",
    "gswae",
    "max-gswae",
    "vae",
    "swg",
    "max-swg",
    "mmd-generator",
    "sinkhorn-generator",
    "wgan",
)
"""The recipes that train on a toy law here; pointcloud-wae on clouds, the others on digits."""


@dataclass
class Tally:
    """How many faults of a kind there were, and what became of those not survived."""

    faults: int = 0
    failures: list[str] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def add(self, what: str, complaint: str | None, count: int = 1) -> None:
        """`count` faults, survived if there is nothing to complain of."""
        self.faults += count
        if complaint is not None:
            self.failures += [f"{what}: {complaint}"] * count

    @property
    def survived(self) -> int:
        return self.faults - len(self.failures)


def config(recipe: str, steps: int, **training) -> Config:
    """A recipe with tiny networks, which logs every step."""
    own = Config.of(recipe)
    first = (2, 3) if recipe == "wgan" else (0, 0)
    for name, value in {"directions": 16, "summary": 4}.items():
        if name in find(recipe).option_names and not hasattr(own.options, "drift"):
            own = override(own, name, value)
    return dataclasses.replace(
        own,
        latent=None if find(recipe).family == "flow" else 3,
        threads=1,
        network=NetworkConfig(
            filters=(4, 8), hidden=(16,), critic=(16,), cloud=(16,), points=(8, 16)
        ),
        training=dataclasses.replace(
            own.training,
            batch=20,
            steps=steps,
            log_every=1,
            inner_first=first,
            schedule="constant",
            **training,
        ),
    )


@functools.cache
def data(recipe: str) -> Source:
    """A few samples of the kind that a recipe trains on here."""
    if recipe == "pointcloud-wae":
        points = np.random.default_rng(0).normal(size=(60, 16, 3))
        return from_array(points, name="clouds")
    source = load(DataConfig("rings" if recipe in TABLES else "digits"))
    return dataclasses.replace(
        source,
        train=source.train[:200],
        test=source.test[:50],
        train_labels=None,
        test_labels=None,
        contents=None,
    )


def train(config: Config, out: Path, source: Source | None = None) -> None:
    """Starts or goes on with a run; without its report, which is not part of training."""
    with mock.patch("monge.show.report.write"):
        monge.fit(
            config.recipe, source or data(config.recipe), config, out, resume=True, quiet=True
        )


def newest_step(out: Path) -> int:
    """The step of the newest checkpoint, whether it verifies or not; 0 without one."""
    found = checkpoint.newest_first(out / "checkpoints")
    return int(found[0].name.removeprefix("step-")) if found else 0


def digest(out: Path, steps: int) -> str:
    """The sha256 of the weights of a run that has ended at `steps`."""
    assert newest_step(out) == steps, f"{out.name} ended at step {newest_step(out)} of {steps}"
    contents = checkpoint.verified(out / "checkpoints" / f"step-{steps}")
    return hashlib.sha256(contents["model.safetensors"]).hexdigest()


def sound(out: Path) -> str | None:
    """What is wrong with the newest checkpoint that a run goes on from: None if it is finite."""
    found = checkpoint.newest(out / "checkpoints")
    if found is None:
        return "no checkpoint verifies"
    for file in ("model.safetensors", "training.safetensors"):
        for name, tensor in checkpoint.tensors(found[1], file).items():
            if not torch.isfinite(tensor.float()).all():
                return f"{name} of {found[0].name} is not finite"
    return None


def failed(config: Config, out: Path, source: Source | None = None) -> str | None:
    """The words of the FailedRun with which training ends, or what else it is; None if it ends
    well."""
    try:
        train(config, out, source)
    except FailedRun as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def other_end(config: Config, out: Path, source: Source, expected: str) -> str | None:
    """What is wrong with the end of a run that goes on after a fault: None if its weights are the
    expected ones."""
    if (words := failed(config, out, source)) is not None:
        return f"it does not go on: {words}"
    assert config.training.steps is not None
    return None if digest(out, config.training.steps) == expected else "the end differs"


def child(work: Callable, *given) -> int:
    """Starts `work(*given)` in a copy of this process, whose number is returned.

    It exits with 0, with 1 and a traceback, or after a signal with 128 + its number. This process
    must not have trained: autograd does not survive a fork.
    """
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        work(*given)
        code = 0
    except Interrupted as stop:
        code = 128 + stop.number
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def going(number: int) -> bool:
    """Whether a child has not ended yet."""
    return os.waitid(os.P_PID, number, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def ended(number: int) -> int:
    """The exit code of a child when it has ended, negative where a signal killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def whole(config: Config, out: Path) -> str:
    """The digest of a run that a child trains without any fault."""
    code = ended(child(train, config, out))
    assert code == 0, f"{config.recipe} without any fault ended with exit code {code}"
    steps = config.training.steps
    assert steps is not None
    return digest(out, steps)
