"""Optimisers by their names in a checkpoint."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.optim import Optimizer

from monge._core.untrusted import shortened
from monge.config import TrainingConfig
from monge.training.sharding import is_sharded, sharded_like

Optimisers = Mapping[str, Optimizer]


def optimiser(
    config: TrainingConfig,
    parameters: Iterable[Tensor],
    lr: float,
    betas: tuple[float, float] | None = None,
) -> Optimizer:
    """The optimiser that a training uses for the parameters that require a gradient."""
    trained = [p for p in parameters if p.requires_grad]
    if config.optimiser == "rmsprop":
        return torch.optim.RMSprop(trained, lr)
    return torch.optim.Adam(trained, lr, betas=betas or config.betas, fused=True)


def state_of(optimisers: Optimisers) -> dict[str, Tensor]:
    """The tensors of optimisers, named `<optimiser>.<parameter number>.<name>`."""
    return {
        f"{kind}.{index}.{name}": value
        for kind, one in optimisers.items()
        for index, values in one.state_dict()["state"].items()
        for name, value in values.items()
    }


def load_state(optimisers: Optimisers, state: Mapping[str, Tensor]) -> None:
    """Restores what `state_of` returned; `state` may hold other tensors too.

    Raises:
        ValueError: for the state of an optimiser that is not among these, or of other parameters.
    """
    stored = {key.split(".")[0] for key in state} - {"last", "average", "scaler"}
    if unknown := sorted(stored - optimisers.keys()):
        raise ValueError(
            f"the checkpoint has the state of {unknown[0]!r}, which this model does not train: "
            "resume with the model and the matchings that the run was started with"
        )
    for kind, one in optimisers.items():
        parameters = one.param_groups[0]["params"]
        values: dict[int, dict[str, Tensor]] = {}
        for key in sorted(key for key in state if key.startswith(f"{kind}.")):
            index, _, name = key.removeprefix(f"{kind}.").partition(".")
            known = index.isdecimal() and int(index) < len(parameters)
            real = state[key].is_floating_point()
            if not (known and real) or state[key].shape not in (parameters[int(index)].shape, ()):
                raise ValueError(
                    f"the checkpoint has {shortened(key)} of shape {tuple(state[key].shape)}, "
                    "which is not a state of this model's optimisers"
                )
            parameter = parameters[int(index)]
            value = sharded_like(state[key], parameter)
            if value.shape == parameter.shape and not is_sharded(parameter):
                # fused optimisers need the strides of the parameter, e.g. of channels-last
                like = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
                value = like.copy_(value)
            values.setdefault(int(index), {})[name] = value
        groups = one.state_dict()["param_groups"]
        one.load_state_dict({"state": values, "param_groups": groups})
