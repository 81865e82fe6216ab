"""The samplers of a run's codes: the prior of its model, and those that are fitted to the codes of
the training part and kept beside the run."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast, get_args

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from monge._core.names import SamplerName
from monge.evaluation.samplers import draw_codes, fit_flow, fit_mixture, tempered
from monge.labels import Rows
from monge.models.flow_prior import FlowPrior
from monge.models.protocols import generates, has, prior_of, require
from monge.priors import Mixture, Prior
from monge.runs import fitted

P = TypeVar("P", bound=Prior)


def names(model: nn.Module) -> list[str]:
    """The names of the samplers that a model has: its own prior, if it can be sampled, and those
    that are fitted to the codes, if it has any."""
    own = ["prior"] if generates(model) else []
    return [*own, *fitted.REBUILD] if has(model, "encode", "decode") else own


def chosen(known: Sequence[str], sampler: str, components: int | None) -> list[str]:
    """The samplers of an evaluation.

    Args:
        known: the names of those that the model has.
        sampler: a name, or all for each of them.
        components: of the mixture; None for as many as held-out codes ask for.

    Raises:
        ValueError: for another name, or `components` where there is no mixture.
    """
    if sampler not in (*get_args(SamplerName), "all"):
        every = ", ".join(get_args(SamplerName))
        raise ValueError(f"`sampler` must be one of {every}, all, got {sampler!r}")
    wanted = (known or ["prior"]) if sampler == "all" else [sampler]
    if "mixture" not in wanted:
        refuse_components(components, sampler)
    return list(wanted)


def refuse_components(components: int | None, sampler: str) -> None:
    """Refuses a number of components for a sampler without."""
    if components is not None:
        raise ValueError(
            f"`components` is {components}, and the sampler {sampler} has no mixture: give "
            'sampler="mixture" (--sampler mixture)'
        )


def at_temperature(prior: Prior | None, temperature: float, model: nn.Module) -> Prior:
    """A sampler of a model at a temperature.

    Raises:
        ValueError: where it is the model's prior, and the model has none.
    """
    if prior is None:
        raise ValueError(
            f"`model` {type(model).__name__} has no `prior`, which a temperature of "
            f"{temperature:g} needs: leave it out"
        )
    return tempered(prior, temperature)


@dataclass(frozen=True)
class FittedSamplers:
    """Samplers that are fitted to codes of the training part and kept beside a run.

    A file names the weights that the model has, by their sha256, and the sampler is fitted again
    for others. It is fitted to an evenly spaced subset of many training samples, and not kept
    while another process writes into the directory, or where that is read-only.
    """

    path: Path
    """The run directory."""
    model: nn.Module
    """Its trained model."""
    seed: int
    """The seed of the fits."""
    train: Callable[[], Rows]
    """Reads the training samples, as the model takes them."""
    fingerprint: Callable[[], str | None]
    """That of the data."""

    def mixture(self, components: int | None) -> Mixture:
        """A Gaussian mixture, of at most 20,000 codes."""
        settings = {"components": "best" if components is None else str(components)}
        return self._fitted(
            "mixture", settings, lambda codes: fit_mixture(codes, components, self.seed), 20_000
        )

    def flow(self, steps: int) -> FlowPrior:
        """A flow, of at most 60,000 codes."""
        settings = {"steps": str(steps)}
        return self._fitted(
            "flow", settings, lambda codes: fit_flow(codes, steps, self.seed), 60_000
        )

    def _fitted(
        self, name: str, settings: dict[str, str], fit: Callable[[Tensor], P], most: int
    ) -> P:
        """The sampler that is kept, or one that is fitted to the codes of at most `most` training
        samples."""
        require(self.model, "encode", f"the {name} sampler")
        fingerprint = self.fingerprint() or "unknown"
        made_for = {"weights": _digest(self.model), **settings, "fingerprint": fingerprint}
        prior = prior_of(self.model)
        kept = fitted.read(self.path, name, made_for, None if prior is None else prior.dim)
        if kept is not None:
            return cast(P, kept)  # a file of a name holds what `fit` makes
        train = self.train()
        x = train[torch.linspace(0, len(train) - 1, min(most, len(train))).long()]
        made = fit(draw_codes(self.model, x, self.seed))
        fitted.write(self.path, name, made, made_for)
        return made


def _digest(model: nn.Module) -> str:
    """The sha256 of a model's weights, as safetensors hold them."""
    weights = {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    return hashlib.sha256(save_tensors(weights)).hexdigest()
