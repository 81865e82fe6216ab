r"""One training step, the same for every model and divergence; the only place with optimisers.

    k inner steps:  pair without gradient → inner_loss.backward → inner optimiser → project_
    one outer step: pass → gradient of weight · divergence(pair) in the pair → backward of it and
                    of Σ terms → outer optimiser

The outer step meets the divergence as a fixed function, the inner steps the model: neither
touches the parameters or the buffers of the other.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from monge._core.errors import FailedRun, NotFinite
from monge._core.processes import average_gradients, gather, global_size, part, world
from monge.adversarial import Learned
from monge.config import TrainingConfig
from monge.data.source import as_floats
from monge.draws import Draws
from monge.models import Model, Pass
from monge.training.passes import Parts, Passes, Whole
from monge.training.sharding import is_part, own

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


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


@contextlib.contextmanager
def drawing(rows: Draws, purpose: str) -> Iterator[None]:
    """Inside, torch's global generators follow the draws, on every process and for every part
    alike, and `distributed.own_rows` are theirs."""
    with rows.stream(purpose), part(rows.rank, rows.world, rows.total):
        yield


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
        layers = () if divergence is None else divergence.modules()
        self.coupled = any("BatchNorm" in type(layer).__name__ for layer in layers)
        learned = isinstance(divergence, Learned)
        self.inner = self._optimiser(inner, self.config.inner_lr) if learned else None
        # divergences are in float32, so the scale is for the outer gradients alone
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.config.precision == "fp16"
        )
        self.average = None
        if self.config.ema:
            averages = get_ema_multi_avg_fn(self.config.ema)
            self.average = AveragedModel(model, multi_avg_fn=averages, use_buffers=True)

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
            FailedRun: for a term that is not finite, before it reaches the weights. (On a GPU,
                which would have to be waited for, at steps that are logged.)
        """
        *inner, outer = batches
        for kind, optimiser in self._optimisers().items():
            rate = self.config.lr if kind == "outer" else self.config.inner_lr
            optimiser.param_groups[0]["lr"] = decay * rate
        logged: dict[str, Tensor] = {}
        with self._diverging():
            for i, batch in enumerate(inner):
                draws = self._draws(batch, f"{self.position} inner {i}")
                with torch.no_grad(), frozen([], self.buffers):
                    pair = self._passes(batch, draws).pair
                logged["inner"] = self._inner_step(pair, draws)
            draws = self._draws(outer, self.position)
            passes = self._passes(outer, draws)
            if self.inner is not None and not inner:
                logged["inner"] = self._inner_step(passes.pair, draws)
            logged.update(self._outer_step(passes, draws))
        self.position += 1
        if self.average is not None:
            self.average.update_parameters(self.model)
        return logged

    @contextlib.contextmanager
    def _diverging(self) -> Iterator[None]:
        """Inside, what costs and divergences refuse because it is not finite is no bad input but
        the end of training."""
        try:
            yield
        except FailedRun:
            raise
        except (ValueError, RuntimeError) as error:
            named = self.model.named_parameters()
            bad = [name for name, weights in named if not torch.isfinite(weights).all()]
            if not bad and not isinstance(error, NotFinite):
                raise
            what = f"the weights {bad[0]!r} are not finite: " if bad else ""
            raise FailedRun(
                f"step {self.position + 1}: {what}{' '.join(str(error).split())}: "
                "lower the learning rate or the weight, and look at the data"
            ) from None

    def _draws(self, batch: Tensor, step: int | str) -> Draws:
        rank, count = world()
        total = global_size(len(batch))
        return Draws(self.seed, step, total, rank=rank, world=count, device=self.device)

    def _parts(self, draws: Draws) -> int:
        """In how many parts a process's rows pass, the same for all processes."""
        most = -(-draws.total // draws.world)
        return -(-most // (self.config.micro_batch or most))

    def _passes(self, batch: Tensor, draws: Draws) -> Passes:
        if (count := self._parts(draws)) > 1:
            return Parts(self.model, self._pass, batch, draws, min(count, len(batch)))
        return Whole(self._pass, batch, draws)

    def _pass(self, batch: Tensor, draws: Draws) -> Pass:
        batch = as_floats(batch)
        if self.augment is not None:
            batch = self.augment(batch, draws)
        half = HALVES.get(self.config.precision)
        with (
            draws.stream("network"),
            torch.autocast(self.device.type, half, enabled=half is not None),
        ):
            terms, (x, y) = self.model(batch, draws)
        if half is not None:
            terms = {name: value.float() for name, value in terms.items()}
            x, y = x.float(), y.float()
        return Pass(terms, (x, y))

    def _inner_step(self, pair: tuple[Tensor, Tensor], draws: Draws) -> Tensor:
        divergence = self.model.divergence
        assert isinstance(divergence, Learned)
        assert self.inner is not None
        self.inner.zero_grad()
        loss = pair[0].new_zeros(())
        for x, y, share, rows in self._shown((pair[0].detach(), pair[1].detach()), draws):
            with drawing(rows, "inner"):
                own = share * divergence.inner_loss(x, y)
            own.backward()
            loss += own.detach()
        self._check({"inner": loss})
        average_gradients(self.divergence_parameters)
        self.inner.step()
        divergence.project_()
        return loss

    def _outer_step(self, passes: Passes, draws: Draws) -> dict[str, Tensor]:
        own = self._share(passes.pair, draws)
        terms = {name: own * value.detach() for name, value in passes.terms.items()}
        loss = sum(terms.values(), passes.pair[0].new_zeros(()))
        gradients: list[Tensor | None] = [None, None]
        if self.model.divergence is not None:
            terms["divergence"], gradients = self._divergence(passes.pair, draws)
            loss = loss + self.model.weight * terms["divergence"]
        terms["loss"] = loss
        self._check(terms)
        self.outer.zero_grad()
        one = torch.ones((), device=self.device)
        scale = float(self.scaler.scale(one)) if self.scaler.is_enabled() else 1.0
        passes.backward(scale * own, [g if g is None else scale * g for g in gradients])
        average_gradients(p for p in self.parameters if not is_part(p))
        self._update()
        return terms

    def _divergence(self, pair: tuple[Tensor, Tensor], draws: Draws):
        """This process's share of the divergence, and of its weighted gradient in the pair."""
        divergence = self.model.divergence
        assert divergence is not None
        leaves = [z.detach().requires_grad_(z.requires_grad) for z in pair]
        total = leaves[0].new_zeros(())
        with frozen(self.divergence_parameters, self.divergence_buffers):
            for x, y, share, rows in self._shown((leaves[0], leaves[1]), draws):
                with drawing(rows, "divergence"):
                    value = share * divergence(x, y)
                if value.requires_grad:
                    (self.model.weight * value).backward()
                total += value.detach()
        return total, [z.grad for z in leaves]

    def _update(self) -> None:
        self.scaler.unscale_(self.outer)
        if self.config.clip is not None:
            clip_grad_norm_([p for p in self.parameters if p.grad is not None], self.config.clip)
        self.scaler.step(self.outer)
        self.scaler.update()

    def _share(self, pair: tuple[Tensor, Tensor], draws: Draws) -> float:
        """The weight of a local mean over n_r of n rows, averaged over K processes: n_r K / n."""
        return len(pair[0]) * draws.world / draws.total

    def _shown(
        self, pair: tuple[Tensor, Tensor], draws: Draws
    ) -> Iterator[tuple[Tensor, Tensor, float, Draws]]:
        """What the divergence sees, its weight, and the draws of those rows: all rows of all
        processes; or if it is a mean over samples, own rows, as many at once as pass at once."""
        divergence, (x, y) = self.model.divergence, pair
        assert divergence is not None
        if not divergence.additive:
            yield gather(x, draws.total), gather(y, draws.total), 1.0, draws
            return
        count = 1 if self.coupled else min(self._parts(draws), len(x))
        for i in range(count):
            rows, own = draws.part(i, count), (x[i::count], y[i::count])
            yield *own, self._share(own, draws), rows

    def _check(self, terms: dict[str, Tensor]) -> None:
        waits = self.device.type == "cuda" and (self.position + 1) % self.config.log_every
        if waits or math.isfinite(sum(float(term) for term in terms.values())):
            return
        for name, term in terms.items():
            if not math.isfinite(float(term)):
                raise FailedRun(
                    f"step {self.position + 1}: the term {name!r} is {float(term)}: "
                    "lower the learning rate or the weight, and look at the data"
                )

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        named = {"outer": self.outer, "inner": self.inner}
        return {name: optimiser for name, optimiser in named.items() if optimiser is not None}

    @property
    def trained(self) -> Model:
        """The model as it stands: of the last step, or the moving average of its weights."""
        return self.model if self.average is None else cast(Model, self.average.module)

    def state(self) -> dict[str, Tensor]:
        """What training goes on from besides the trained model: the optimisers' tensors, named
        `outer.<parameter number>.<name>`, the weights behind averages, the scale of fp16."""
        found = {
            f"{kind}.{index}.{name}": value
            for kind, optimiser in self._optimisers().items()
            for index, values in optimiser.state_dict()["state"].items()
            for name, value in values.items()
        }
        if self.average is not None:
            found |= {f"last.{name}": value for name, value in self.model.state_dict().items()}
            found["average.n"] = self.average.n_averaged
        for name, value in self.scaler.state_dict().items():
            found[f"scaler.{name}"] = torch.tensor(value)
        return found

    def restore(self, weights: dict[str, Tensor], state: dict[str, Tensor], position: int) -> None:
        """The inverse of `trained.state_dict()` and `state`, at step `position`."""
        named: dict[str, dict[str, Tensor]] = {}
        for key, value in state.items():
            owner, name = key.split(".", 1)
            named.setdefault(owner, {})[name] = value
        like = self.model.state_dict()
        last = named.get("last", weights)
        self.model.load_state_dict({name: own(last[name], like[name]) for name in sorted(last)})
        if self.average is not None:
            self.average.module.load_state_dict(weights)
            self.average.n_averaged.copy_(named["average"]["n"])
        self.scaler.load_state_dict({k: v.item() for k, v in named.get("scaler", {}).items()})
        for kind, optimiser in self._optimisers().items():
            values: dict[int, dict[str, Tensor]] = {}
            parameters = optimiser.param_groups[0]["params"]
            for key, value in sorted(named.get(kind, {}).items()):
                index, name = key.split(".")
                values.setdefault(int(index), {})[name] = own(value, parameters[int(index)])
            fresh = optimiser.state_dict()
            optimiser.load_state_dict({"state": values, "param_groups": fresh["param_groups"]})
        self.position = position
