"""Samplers fitted to a run's codes, kept beside the run as `sampler-NAME.safetensors`."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from monge._core.files import write_whole
from monge._core.locks import NotWritable, alone
from monge._core.visible import brief
from monge.models.flow_prior import FlowPrior
from monge.priors import Mixture, Prior
from monge.training.checkpoint import load_weights, refuse_infinite

Rebuild = Callable[[dict[str, Tensor], int | None], Prior]
"""The sampler that tensors hold, of codes of a dimension where that is known."""


def mixture(tensors: dict[str, Tensor], dim: int | None) -> Mixture:
    """The Gaussian mixture that tensors hold."""
    means, factors, weights = (tensors[name] for name in ("means", "factors", "weights"))
    count, found = means.shape if means.ndim == 2 else (0, 0)
    if dim not in (None, found) or factors.shape != (count, found, found):
        raise ValueError(f"it is not of codes of dimension {dim}")
    made = Mixture(means, factors @ factors.mT, weights)
    # to the bit, so that figures do not depend on whether it was just fitted
    load_weights(made, tensors, "it")
    return made


def flow(tensors: dict[str, Tensor], dim: int | None) -> FlowPrior:
    """The flow that tensors hold."""
    mean = tensors["flow.units.mean"]
    if mean.ndim != 1 or dim not in (None, len(mean)):
        raise ValueError(f"it is not of codes of dimension {dim}")
    prior = FlowPrior(len(mean))
    load_weights(prior, tensors, "it")
    return prior.eval()


REBUILD: dict[str, Rebuild] = {"mixture": mixture, "flow": flow}
"""The samplers that are fitted to codes, by their names."""


def path(run: Path, name: str) -> Path:
    """Where the sampler with a name lies."""
    return run / f"sampler-{name}.safetensors"


def read(run: Path, name: str, made_for: Mapping[str, str], dim: int | None) -> Prior | None:
    """The sampler that is kept; None where there is none, or one for something else.

    Args:
        run: the run directory.
        name: of the sampler.
        made_for: what it must have been made for, e.g. the digest of the weights.
        dim: the dimension of the codes, where it is known.

    Raises:
        ValueError: for a damaged file, or one of other codes.
    """
    file = path(run, name)
    if not file.exists():
        return None
    try:
        with safe_open(file, "pt") as stored:
            if stored.metadata() != made_for:
                return None
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        refuse_infinite(tensors, "its")
        return REBUILD[name](tensors, dim)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{str(file)!r} is damaged: {brief(str(error), 300)}: remove it"
        ) from None


def write(run: Path, name: str, sampler: Prior, made_for: Mapping[str, str]) -> None:
    """Keeps a sampler, unless another process writes into the directory, or it is read-only."""
    tensors = {key: value.contiguous() for key, value in sampler.state_dict().items()}
    with contextlib.suppress(NotWritable), alone(run, "run"):
        write_whole(path(run, name), save(tensors, dict(made_for)))
