"""The trained model of a run, rebuilt from its configuration and the weights of a checkpoint."""

import copy
import math
import os
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from monge._core.defaults import float32_on_cpu
from monge._core.references import resolve
from monge._core.untrusted import read_regular
from monge._core.visible import brief
from monge.builders import build
from monge.builders.settle import with_kept_mask
from monge.config import CUSTOM, Config, Settled, read_config
from monge.draws import stream
from monge.training import checkpoint

Given = nn.Module | Callable[[], nn.Module] | str | None
"""A model of your own: an instance, which is copied, a class or function that makes one, or
`package.module:name` of either."""

WEIGHTS = "model.safetensors"
LEAST_BOUND = 2**22
"""Numbers that may be made whatever the weights are, for what is no weight."""


def load(run_directory: str | Path, model: Given = None) -> nn.Module:
    """Rebuilds a trained model, in evaluation mode, on the CPU.

    Args:
        run_directory: a run, or a folder that `monge export --hub` wrote.
        model: of a run that was fitted to a model of your own, that model with any weights: an
            instance, which is copied and not changed, a class or function that makes one, or
            `package.module:name`.

    Raises:
        ValueError: if the directory is no run, holds no checkpoint that verifies, or weights that
            are not the model's.
    """
    path = Path(os.path.expanduser(run_directory))
    config, settled = read_config(path)
    return rebuilt(path, config, settled, model, trained(path))


def trained(path: Path) -> checkpoint.Verified:
    """The checkpoint that holds the trained model of a run: the best one on the validation set, or
    the newest one that verifies; the weights of a folder in the hub's layout.

    Raises:
        ValueError: if there is none.
    """
    if not (path / "checkpoints").is_dir() and (path / WEIGHTS).is_file():
        return path / WEIGHTS, {WEIGHTS: read_regular(path / WEIGHTS, most=None)}
    found = checkpoint.newest(path / "best") or checkpoint.newest(path / "checkpoints")
    if found is None:
        damaged = checkpoint.newest_first(path / "checkpoints")
        if damaged:
            checkpoint.verified(damaged[0])  # says what is wrong with it
        raise ValueError(f"`run` {str(path)!r} has no checkpoint: train it with --resume")
    return found


def named(found: checkpoint.Verified) -> dict[str, str]:
    """The step, the digest of the weights and the fingerprint of the data of a checkpoint."""
    named = {"checkpoint": found[0].name, "weights": checkpoint.weights_of(found)}
    data = checkpoint.notes(found[1]).data if "training.json" in found[1] else None
    return named if data is None else {**named, "trained on": data}


def rebuilt(
    path: Path, config: Config, settled: Settled, model: Given, found: checkpoint.Verified
) -> nn.Module:
    """The model of a run with the weights of a checkpoint, in evaluation mode.

    Raises:
        ValueError: if they are not the model's, or of other settings than config.json has.
    """
    if "training.json" in found[1]:
        noted, settings = checkpoint.notes(found[1]), checkpoint.settings_of(config, settled)
        checkpoint.refuse_settings(noted, settings, path)
    try:
        weights = checkpoint.tensors(found[1], WEIGHTS)
    except ValueError as error:
        raise ValueError(f"{str(found[0])!r} is damaged: {error}") from None
    if config.recipe == CUSTOM:
        built = _given(model, path)
    elif model is not None:
        raise ValueError(f"`model` is for runs of a model of your own, and {path} is of a recipe")
    else:
        built = _built(with_kept_mask(config, path), settled, weights, path)
    checkpoint.load_weights(built, weights, repr(str(found[0])))
    return built.eval()


def _built(config: Config, settled: Settled, weights: dict[str, Tensor], path: Path) -> nn.Module:
    """The untrained model, for which not many more numbers are made than the weights have:
    config.json may name any size."""
    most = LEAST_BOUND + 4 * sum(tensor.numel() for tensor in weights.values())
    try:
        with stream("weights to be replaced"), float32_on_cpu(), BoundedByWeights(most):
            return build(config, settled)
    except (RuntimeError, OverflowError, TypeError, ZeroDivisionError, IndexError) as error:
        reason = brief(f"{type(error).__name__}: {error}", 300)
        raise ValueError(
            f"`run` {str(path)!r} has a config.json from which no model can be built: {reason}"
        ) from None


class BoundedByWeights(TorchDispatchMode):
    """Inside, the tensors that are made have no more than `most` numbers together.

    Args:
        most: the number.
    """

    def __init__(self, most: int):
        super().__init__()
        self.most, self.made = most, 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for sizes in args:
            if isinstance(sizes, (list, tuple)) and all(isinstance(n, int) for n in sizes):
                self._count(math.prod(sizes))
        plain = [abs(n) for n in args if isinstance(n, (int, float))]
        name = func.overloadpacket.__name__
        if plain and name in ("arange", "linspace", "logspace", "eye"):
            self._count(max(plain) ** (2 if name == "eye" else 1))
        return func(*args, **(kwargs or {}))

    def _count(self, numbers: float) -> None:
        self.made += numbers
        if self.made > self.most:
            raise ValueError(
                f"config.json asks for more than {self.most:,} numbers, and the weights have "
                "fewer: it is not of these weights"
            )


def _given(model: Given, path: Path) -> nn.Module:
    """The model of one's own that a person has given."""
    if model is None:
        raise ValueError(
            f"`run` {str(path)!r} was fitted to a model of your own: give it as `model`, or as "
            "--model package.module:name"
        )
    if isinstance(model, str):
        model = resolve(model, "model", beside=os.getcwd())
    if isinstance(model, nn.Module):
        return copy.deepcopy(model)  # otherwise two runs opened with it would share their weights
    if callable(model):
        model = model()
    if not isinstance(model, nn.Module):
        raise ValueError(f"`model` must be a torch.nn.Module, got {type(model).__name__}")
    return model
