r"""One training step, the same for every model and divergence; the only place with optimisers.

    k inner steps:  pair without gradient → inner_loss.backward → inner optimiser → project_
    one outer step: pass → Σ terms + weight · divergence(pair) → backward → outer optimiser

The outer step meets the divergence as a fixed function, the inner steps the model: neither
touches the parameters or the buffers of the other.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from monge.adversarial import Learned
from monge.config import TrainingConfig
from monge.data.source import as_floats
from monge.distributed import average_gradients, gather, global_size, world
from monge.draws import Draws
from monge.errors import FailedRun
from monge.models import Model, Pass


@contextlib.contextmanager
def frozen(parameters: Iterable[Tensor], buffers: Iterable[Tensor]) -> Iterator[None]:
    """Inside, no gradient reaches `parameters`; afterwards `buffers` are as they were.

    Batch normalisation moves its statistics, and spectral normalisation its vectors, at every
    forward pass in training mode, gradients or not.
    """
    active = [p for p in parameters if p.requires_grad]
    kept = [(b, b.clone()) for b in buffers]
    for p in active:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in active:
            p.requires_grad_(True)
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)


class Trainer:
    """Holds a model, its optimisers and the step they have reached.

    Arguments:
        model: what is trained, in place.
        config: batch size, rates, betas, inner steps, precision.
        seed: with the step, the seed of every draw.
        device: where the model is.
        augment: what is done to samples before the model sees them, with draws of the step.
    """

    def __init__(
        self,
        model: Model,
        config: TrainingConfig | None = None,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        augment: Callable[[Tensor, Draws], Tensor] | None = None,
    ):
        self.model, self.config, self.seed = model, config or TrainingConfig(), seed
        self.augment = augment
        self.device = torch.device(device)
        self.position = 0
        divergence = model.divergence
        inner = [] if divergence is None else list(divergence.parameters())
        theirs = {id(tensor) for tensor in inner}
        self.parameters = [p for p in model.parameters() if id(p) not in theirs]
        self.divergence_parameters = inner
        self.divergence_buffers = [] if divergence is None else list(divergence.buffers())
        theirs = {id(tensor) for tensor in self.divergence_buffers}
        self.buffers = [b for b in model.buffers() if id(b) not in theirs]
        self.outer = self._optimiser(self.parameters, self.config.lr)
        learned = isinstance(divergence, Learned)
        self.inner = self._optimiser(inner, self.config.inner_lr) if learned else None

    def _optimiser(self, parameters: list[nn.Parameter] | list[Tensor], lr: float):
        trained = [p for p in parameters if p.requires_grad]
        if self.config.optimiser == "rmsprop":
            return torch.optim.RMSprop(trained, lr)
        return torch.optim.Adam(trained, lr, betas=self.config.betas, fused=True)

    def step(self, batches: Sequence[Tensor], decay: float = 1.0) -> dict[str, Tensor]:
        """One outer step, after its inner steps.

        Arguments:
            batches: the inner batches, in order, and last the outer batch. With a learned
                divergence and the outer batch alone, its pair serves one inner step too.
            decay: what all learning rates are multiplied by in this step.

        Returns:
            The terms of the step, without graph: the model's own, `divergence` (unweighted),
            `inner` (the last inner loss) and `loss`, the sum that was decreased. Of several
            processes their means over the processes are the terms of the global batch.

        Raises:
            FailedRun: for a term that is not finite, before it reaches the weights.
        """
        *inner, outer = batches
        for kind, optimiser in self._optimisers().items():
            rate = self.config.lr if kind == "outer" else self.config.inner_lr
            optimiser.param_groups[0]["lr"] = decay * rate
        logged: dict[str, Tensor] = {}
        for i, batch in enumerate(inner):
            draws = self._draws(batch, f"{self.position} inner {i}")
            with torch.no_grad(), frozen([], self.buffers):
                pair = self._pass(batch, draws).pair
            logged["inner"] = self._inner_step(pair, draws)
        draws = self._draws(outer, self.position)
        result = self._pass(outer, draws)
        if self.inner is not None and not inner:
            logged["inner"] = self._inner_step(result.pair, draws)
        logged.update(self._outer_step(result, draws))
        self.position += 1
        return logged

    def _draws(self, batch: Tensor, step: int | str) -> Draws:
        rank, count = world()
        total = global_size(len(batch))
        return Draws(self.seed, step, total, rank=rank, world=count, device=self.device)

    def _pass(self, batch: Tensor, draws: Draws) -> Pass:
        batch = as_floats(batch)
        if self.augment is not None:
            batch = self.augment(batch, draws)
        half = self.config.precision == "bf16"
        with (
            draws.stream("network"),
            torch.autocast(self.device.type, torch.bfloat16, enabled=half),
        ):
            terms, (x, y) = self.model(batch, draws)
        if half:
            terms = {name: value.float() for name, value in terms.items()}
            x, y = x.float(), y.float()
        return Pass(terms, (x, y))

    def _inner_step(self, pair: tuple[Tensor, Tensor], draws: Draws) -> Tensor:
        divergence = self.model.divergence
        assert isinstance(divergence, Learned)
        assert self.inner is not None
        (x, y), share = self._shown((pair[0].detach(), pair[1].detach()), draws)
        with draws.stream("inner"):
            loss = share * divergence.inner_loss(x, y)
        self._check({"inner": loss})
        self.inner.zero_grad()
        loss.backward()
        average_gradients(self.divergence_parameters)
        self.inner.step()
        divergence.project_()
        return loss.detach()

    def _outer_step(self, result: Pass, draws: Draws) -> dict[str, Tensor]:
        terms, pair = result
        own = self._share(pair, draws)
        loss = own * sum(terms.values(), pair[0].new_zeros(()))
        divergence = self.model.divergence
        with frozen(self.divergence_parameters, self.divergence_buffers):
            if divergence is not None:
                (x, y), share = self._shown(pair, draws)
                with draws.stream("divergence"):
                    value = divergence(x, y)
                terms = {**terms, "divergence": value}
                loss = loss + self.model.weight * share * value
            terms = {**terms, "loss": loss}
            self._check(terms)
            self.outer.zero_grad()
            loss.backward()
        average_gradients(self.parameters)
        self.outer.step()
        weighed = {name: own * term.detach() for name, term in terms.items()}
        return weighed | {"loss": loss.detach()}

    def _share(self, pair: tuple[Tensor, Tensor], draws: Draws) -> float:
        """The weight of a local mean over n_r of n rows, averaged over K processes: n_r K / n."""
        return len(pair[0]) * draws.world / draws.total

    def _shown(self, pair: tuple[Tensor, Tensor], draws: Draws):
        """What the divergence sees, and its weight: own rows if it is additive, else all rows."""
        assert self.model.divergence is not None
        if self.model.divergence.additive:
            return pair, self._share(pair, draws)
        return (gather(pair[0], draws.total), gather(pair[1], draws.total)), 1.0

    def _check(self, terms: dict[str, Tensor]) -> None:
        if math.isfinite(sum(float(term.detach()) for term in terms.values())):
            return
        for name, term in terms.items():
            if not math.isfinite(float(term.detach())):
                raise FailedRun(
                    f"step {self.position + 1}: the term {name!r} is {float(term.detach())}: "
                    "lower the learning rate or the weight, and look at the data"
                )

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        named = {"outer": self.outer, "inner": self.inner}
        return {name: optimiser for name, optimiser in named.items() if optimiser is not None}

    def state(self) -> dict[str, Tensor]:
        """The optimisers' tensors, named `outer.<parameter number>.<name>`."""
        return {
            f"{kind}.{index}.{name}": value
            for kind, optimiser in self._optimisers().items()
            for index, values in optimiser.state_dict()["state"].items()
            for name, value in values.items()
        }

    def restore(self, state: dict[str, Tensor], position: int) -> None:
        """The inverse of `state`, at step `position`."""
        for kind, optimiser in self._optimisers().items():
            values: dict[int, dict[str, Tensor]] = {}
            for key, value in state.items():
                owner, index, name = key.split(".")
                if owner == kind:
                    values.setdefault(int(index), {})[name] = value
            fresh = optimiser.state_dict()
            optimiser.load_state_dict({"state": values, "param_groups": fresh["param_groups"]})
        self.position = position
