"""Fits the coupling of a flow with its whole training set, which a run keeps."""

import contextlib
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from monge._core import processes
from monge.config import TrainingConfig
from monge.data.kind import Augmentation
from monge.labels import Labelled, Rows, as_floats, unlabelled
from monge.models.flow import FlowMatching
from monge.models.flow_coupling import WholeSet, fitted

NAME = "coupling.safetensors"
"""The file with the plans, in the run directory."""


class FittedCoupling(NamedTuple):
    """What a run stores of its coupling, and a line about it."""

    content: bytes
    line: str


def fit_coupling(
    model: nn.Module,
    samples: Rows,
    config: TrainingConfig,
    augment: Augmentation | None,
    path: Path,
    seed: int,
) -> FittedCoupling | None:
    """Fits the coupling of a flow that has one with its whole training set, or takes up the one
    that its run keeps; None for any other model.

    Raises:
        ValueError: for a training that changes samples or has a validation set, of which such
            a coupling sees nothing, or more data than memory holds.
    """
    coupling = getattr(model, "coupling", None)
    if not isinstance(model, FlowMatching) or not isinstance(coupling, WholeSet):
        return None
    unseen = {
        "patience": (config.patience, "which validates on other samples"),
        "turn` or `jitter": (augment, "which changes samples"),
    }
    for name, (value, why) in unseen.items():
        if value is not None:
            raise ValueError(
                "`coupling` semidiscrete pairs noise with the training samples as they are: leave "
                f"out `{name}`, {why}"
            )
    device = model.units.mean.device
    x = model.units(as_floats(unlabelled(samples)).to(device)).float()
    labels = samples.labels if isinstance(samples, Labelled) else None
    tensors = processes.from_first(lambda: _kept(coupling, x, labels, path))
    if tensors is None:
        tensors = processes.from_first(lambda: fitted(x, labels, seed))
    error = coupling.set(x, labels, tensors)
    plans = "a plan" if labels is None else "a plan for each class"
    line = f"coupling: {plans}, {len(x):,} samples, marginal error {error:.2g}"
    return FittedCoupling(save(tensors), line)


def _kept(
    coupling: WholeSet, x: Tensor, labels: Tensor | None, path: Path
) -> dict[str, Tensor] | None:
    """The plans that a run keeps, unless they are of other data."""
    with contextlib.suppress(OSError, SafetensorError, ValueError, KeyError, RuntimeError):
        tensors = load((path / NAME).read_bytes())
        finite = all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())
        if finite:
            coupling.set(x, labels, tensors)
            return tensors
    return None
