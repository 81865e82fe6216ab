"""The Gaussian mixture of a run's codes, kept beside the run: sampler-mixture.safetensors."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from monge._core.files import write_whole
from monge._core.locks import NotWritable, alone
from monge._core.visible import brief
from monge.priors import Mixture
from monge.training.checkpoint import refuse_infinite

NAME = "sampler-mixture.safetensors"


def read(run: Path, made_for: Mapping[str, str], dim: int | None) -> Mixture | None:
    """The mixture that is kept; None where there is none, or one for something else.

    Args:
        run: the run directory.
        made_for: what the mixture must have been made for, e.g. the digest of the weights.
        dim: the dimension of the codes, where it is known.

    Raises:
        ValueError: for a damaged file, or one of other codes.
    """
    file = run / NAME
    if not file.exists():
        return None
    try:
        with safe_open(file, "pt") as stored:
            if stored.metadata() != made_for:
                return None
            names = ("means", "factors", "weights")
            means, factors, weights = map(stored.get_tensor, names)
        refuse_infinite({"means": means, "factors": factors, "weights": weights}, "its")
        count, found = means.shape if means.ndim == 2 else (0, 0)
        if dim not in (None, found) or factors.shape != (count, found, found):
            raise ValueError(f"it is not of codes of dimension {dim}")
        mixture = Mixture(means, factors @ factors.mT, weights)
        # to the bit, so that figures do not depend on whether it was just fitted
        mixture.load_state_dict({"means": means, "factors": factors, "weights": weights})
        return mixture
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{str(file)!r} is damaged: {brief(str(error), 300)}: remove it"
        ) from None


def write(run: Path, mixture: Mixture, made_for: Mapping[str, str]) -> None:
    """Keeps a mixture, unless another process writes into the directory, or it is read-only."""
    with contextlib.suppress(NotWritable), alone(run, "run"):
        write_whole(run / NAME, save(dict(mixture.state_dict()), dict(made_for)))
