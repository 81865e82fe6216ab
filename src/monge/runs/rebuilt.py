"""The trained model of a run, rebuilt from its configuration and the weights of a checkpoint."""

import copy
import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from torch import nn

from monge._core.references import resolve
from monge.builders import build
from monge.builders.settle import with_kept_mask
from monge.config import CUSTOM, Config, Settled, read_config
from monge.training import checkpoint

Given = nn.Module | Callable[[], nn.Module] | str | None
"""A model of your own: an instance, which is copied, a class or function that makes one, or
`package.module:name` of either."""

WEIGHTS = "model.safetensors"


def load(run_directory: str | Path, model: Given = None) -> nn.Module:
    """Rebuilds a trained model, in evaluation mode, on the CPU.

    Arguments:
        run_directory: a run, or a folder that `monge export --hub` wrote.
        model: of a run that was fitted to a model of your own, that model with any weights: an
            instance, which is copied and not changed, a class or function that makes one, or
            `package.module:name`.

    Raises:
        ValueError: if the directory is no run, holds no checkpoint that verifies, or weights that
            are not the model's.
    """
    path = Path(run_directory)
    config, settled = read_config(path)
    return rebuilt(path, config, settled, model, trained(path))


def trained(path: Path) -> checkpoint.Verified:
    """The checkpoint that holds the trained model of a run: the best one on the validation set, or
    the newest one that verifies; the weights of a folder in the hub's layout.

    Raises:
        ValueError: if there is none.
    """
    if not (path / "checkpoints").is_dir() and (path / WEIGHTS).is_file():
        return path / WEIGHTS, {WEIGHTS: (path / WEIGHTS).read_bytes()}
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
    data = checkpoint.notes(found[1]).get("data") if "training.json" in found[1] else None
    return named if data is None else {**named, "trained on": data}


def rebuilt(
    path: Path, config: Config, settled: Settled, model: Given, found: checkpoint.Verified
) -> nn.Module:
    """The model of a run with the weights of a checkpoint, in evaluation mode."""
    if config.recipe == CUSTOM:
        built = _given(model, path)
    elif model is not None:
        raise ValueError(f"`model` is for runs of a model of your own, and {path} is of a recipe")
    else:
        built = build(with_kept_mask(config, path), settled)
    try:
        weights = checkpoint.tensors(found[1], WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{str(found[0])!r} is damaged: {error}") from None
    checkpoint.load_weights(built, weights, repr(str(found[0])))
    return built.eval()


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
