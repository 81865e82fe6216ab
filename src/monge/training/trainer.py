r"""One training step, the same for every model and divergence; the only place with optimisers.

    inner steps: pair without gradient → inner_loss.backward → inner optimiser → project_
    outer step:  pass → gradient of Σ weight · divergence(pair) with respect to the pairs
                 → backward of it and of Σ terms → outer optimiser

The outer step treats each divergence as a fixed function, and the inner steps treat the model so:
neither changes the parameters or the buffers of the other.
"""

import contextlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from monge._core.checks import seed as checked_seed
from monge._core.defaults import outside_autocast, recording
from monge._core.errors import FIX_OF_DIVERGENCE, FailedRun, NotFinite
from monge._core.frozen import frozen
from monge._core.processes import average_gradients, global_sizes, read, world
from monge.config import TrainingConfig
from monge.draws import Draws, alone_with_global_generators
from monge.labels import Rows
from monge.models import matchings
from monge.models.base import Pair
from monge.training.averages import Average, recompute_moments
from monge.training.checkpoint import load_weights, number_of, refuse_infinite
from monge.training.memory import is_out_of_memory, running_out
from monge.training.objective import (
    RESERVED,
    LearnedObjective,
    objectives,
    weight_of,
)
from monge.training.optimisers import load_state, optimiser, state_of
from monge.training.passes import Batch, Network, Passed, passed
from monge.training.precision import HALVES, chosen_precision
from monge.training.schedule import inner_steps
from monge.training.sharding import is_sharded, sharded_like


class Trainer:
    """A model, its optimisers, and the step that training has reached.

    Args:
        model: the model, which is trained in place.
        config: batch size, learning rates, betas, inner steps, precision.
        seed: the seed of the run; with the step it decides every draw.
        device: where the model is.
        augment: applied to samples before the model, with draws of the step.
        foreign: whether the model may draw from torch's global generators, as layers of dropout
            do. Its steps then run one at a time, whichever threads take them. The recipes of
            monge do not.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainingConfig | None = None,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        augment: Callable[[Tensor, Draws], Tensor] | None = None,
        foreign: bool = True,
    ):
        self.model, self.config = model, config or TrainingConfig()
        self.seed = checked_seed(seed)
        self.foreign = foreign
        self.device = torch.device(device)
        self.position = 0
        self.precision = chosen_precision(self.config.precision, model, self.device)
        # reading a term waits for an accelerator to finish its work
        self.checks_every_step = self.device.type == "cpu"
        self.objectives = objectives(model, self.config)
        self.learned = [one for one in self.objectives if isinstance(one, LearnedObjective)]
        divergences = {p for one in self.objectives for p in (*one.parameters, *one.buffers)}
        self.parameters = [p for p in model.parameters() if p not in divergences]
        # the gradients of shards are averaged in the backward pass
        self.replicated = [p for p in self.parameters if not is_sharded(p)]
        self.buffers = [b for b in model.buffers() if b not in divergences]
        self.outer = optimiser(self.config, self.parameters, self.config.rate)
        # divergences are in float32, so only the outer gradients need a scale
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        names, half = [one.name for one in self.objectives], HALVES.get(self.precision)
        inner = [one.inner_name for one in self.learned]
        columns = (*RESERVED, *names, *inner)
        self.average = Average(model, self.config.ema) if self.config.ema else None
        self.network, self.averaged = (
            Network(one, names, columns, augment, self.device, half)
            for one in (model, self.trained)
        )

    @property
    def trained(self) -> nn.Module:
        """The result of training so far: the model, or the moving average of its weights, whose
        batch normalisation has the moments of the last `finish_average`."""
        return self.model if self.average is None else self.average.module

    @property
    def optimisers(self) -> dict[str, Optimizer]:
        """The optimisers by name: `outer`, and `inner` of the only matching, or
        `inner-<matching>` of each of several."""
        inner = {"inner" if one.only else f"inner-{one.name}": one for one in self.learned}
        return {"outer": self.outer} | {name: one.optimiser for name, one in inner.items()}

    def step(
        self, batches: Sequence[Rows], decay: float = 1.0, done: float = 0.0
    ) -> dict[str, Tensor]:
        """One outer step, after its inner steps.

        Args:
            batches: the inner batches, in order, and last the outer batch; of several processes,
                the rows of this one; `Labelled` for a class-conditional model. Every inner batch
                is shown to the learned divergences that have inner steps left. Without inner
                batches, each learned divergence takes one inner step on its pair of the outer
                batch.
            decay: the factor of all learning rates in this step.
            done: the share of training that is done, in [0, 1], for the schedules of weights.

        Returns:
            The terms of the step, without graph: the model's own, each divergence by the name of
            its matching (unweighted), the last inner loss of each that is learned, and `loss`, the
            sum that was decreased. With several processes, the terms of the global batch are the
            means over the processes.

        Raises:
            FailedRun: for a term that is not finite, before it reaches the weights. On a GPU,
                where reading a term waits for the device, only at steps that are logged. Also
                where memory runs out.
        """
        *inner, outer = batches
        *inner_totals, total = global_sizes([len(x) for x in batches])
        if self.config.compile and self.device.type == "cuda":
            # from here on, graphs may overwrite what they returned in the last step
            torch.compiler.cudagraph_mark_step_begin()
        self.outer.param_groups[0]["lr"] = decay * self.config.rate
        for one in self.learned:
            one.optimiser.param_groups[0]["lr"] = decay * one.lr
        weights = {one.name: weight_of(one, self.position, done) for one in matchings(self.model)}
        wanted = {name for name, weight in weights.items() if weight > 0}
        logged: dict[str, Tensor] = {}
        # backward passes, too: a checkpointed layer draws there once more
        turn = alone_with_global_generators() if self.foreign else contextlib.nullcontext()
        running = running_out(self.position + 1, total, self.config.micro_batch)
        with recording(), outside_autocast(), turn, running, self._failing():
            for i, x in enumerate(inner):
                batch = self._batch(x, f"{self.position} inner {i}", inner_totals[i], wanted)
                with torch.no_grad(), frozen([], self.buffers):
                    pairs = passed(self.network, batch).pairs
                logged |= self._inner_step(self._unfinished(i), pairs, batch)
            batch = self._batch(outer, self.position, total, wanted)
            result = passed(self.network, batch)
            if not inner:
                logged |= self._inner_step(self.learned, result.pairs, batch)
            logged |= self._outer_step(result, batch, weights)
        self.position += 1
        if self.average is not None:
            self.average.update(self.model)
        return logged

    def finish_average(self, batches: Iterable[Rows]) -> None:
        """Makes the moving average, if there is one, fit for use: recomputes the moments of its
        batch normalisation from passes of training batches.

        It depends on the weights, the seed and the batches only. Every process must call it.

        Args:
            batches: of several processes, the rows of this one; evaluated lazily.
        """
        if self.average is None:
            return
        self.average.copy_buffers(self.model)
        named = (self._batch(x, f"average {i}") for i, x in enumerate(batches))
        with running_out(self.position, self.config.batch, self.config.micro_batch):
            recompute_moments(self.averaged, named)

    def _batch(
        self,
        x: Rows,
        step: int | str,
        total: int | None = None,
        wanted: Collection[str] | None = None,
    ) -> Batch:
        """The rows x of a batch of `total` samples, by default as many as all processes have."""
        rank, count = world()
        if total is None:
            (total,) = global_sizes([len(x)])
        draws = Draws(
            self.seed,
            step,
            total,
            rank=rank,
            world=count,
            device=self.device,
            foreign=self.foreign,
        )
        most = -(-total // count)
        return Batch(x, draws, -(-most // (self.config.micro_batch or most)), wanted)

    def _unfinished(self, index: int) -> list[LearnedObjective]:
        """The learned objectives that see inner batch number `index` of this step; those with the
        most inner steps see all."""
        counts = [inner_steps(self.config, self.position, one.steps) for one in self.learned]
        most = max(counts, default=0)
        return [one for one, n in zip(self.learned, counts) if index < n or n == most]

    def _inner_step(
        self, learned: Sequence[LearnedObjective], pairs: dict[str, Pair], batch: Batch
    ) -> dict[str, Tensor]:
        losses = {}
        for one in (one for one in learned if one.name in pairs):
            losses[one.inner_name] = one.inner_gradient(pairs[one.name], batch)
            self._check(losses)
            one.update()
        return losses

    def _outer_step(
        self, result: Passed, batch: Batch, weights: Mapping[str, float]
    ) -> dict[str, Tensor]:
        share = batch.share(len(batch.x))
        terms = {name: share * value.detach() for name, value in result.terms.items()}
        loss = sum(terms.values(), torch.zeros((), device=self.device))
        scale, gradients = 1.0, {}
        if self.scaler.is_enabled():
            scale = float(self.scaler.scale(torch.ones((), device=self.device)))
        for objective in (one for one in self.objectives if one.name in result.pairs):
            name, weight = objective.name, weights[objective.name]
            terms[name], gradient = objective.gradient(result.pairs[name], batch, weight)
            gradients[name] = [g if g is None else scale * g for g in gradient]
            loss = loss + weight * terms[name]
        terms["loss"] = loss
        self._check(terms)
        self.outer.zero_grad()
        result.backward(scale * share, gradients)
        average_gradients(self.replicated)
        self.scaler.unscale_(self.outer)
        if self.config.clip is not None:
            clip_grad_norm_([p for p in self.parameters if p.grad is not None], self.config.clip)
        self.scaler.step(self.outer)
        self.scaler.update()
        return terms

    def _check(self, terms: dict[str, Tensor]) -> None:
        logged = (self.position + 1) % self.config.log_every == 0
        if not (self.checks_every_step or logged):
            return
        for name, value in read(terms).items():
            if not math.isfinite(value):
                raise FailedRun(
                    f"step {self.position + 1}: the term {name!r} is {value}: {FIX_OF_DIVERGENCE}"
                )

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Turns an error about numbers that are not finite into a FailedRun: the input is valid,
        but training has diverged."""
        try:
            yield
        except FailedRun:
            raise
        except (ValueError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            named = self.model.named_parameters()
            bad = [name for name, weights in named if not torch.isfinite(weights).all()]
            if not bad and not isinstance(error, NotFinite):
                raise
            what = f"the weights {bad[0]!r} are not finite: " if bad else ""
            raise FailedRun(
                f"step {self.position + 1}: {what}{' '.join(str(error).split())}: "
                f"{FIX_OF_DIVERGENCE}"
            ) from None

    def state(self) -> dict[str, Tensor]:
        """Everything that resuming needs besides the weights of `trained`.

        These are the optimisers' tensors, named `<optimiser>.<parameter number>.<name>`, the last
        weights (`last.<name>`) where `trained` is an average, and the scale of fp16.
        """
        state = state_of(self.optimisers)
        if self.average is not None:
            state |= {f"last.{name}": value for name, value in self.model.state_dict().items()}
            state["average.n"] = torch.tensor(self.average.count)
        for name, value in self.scaler.state_dict().items():
            state[f"scaler.{name}"] = torch.tensor(value)
        return state

    def restore(self, weights: dict[str, Tensor], state: dict[str, Tensor], position: int) -> None:
        """Restores `trained.state_dict()` and `state()` as they were at step `position`.

        Raises:
            ValueError: for what is not of this model and its optimisers, or not finite.
        """
        refuse_infinite(state, "the checkpoint")
        last = {k.removeprefix("last."): v for k, v in state.items() if k.startswith("last.")}
        last, like = last or weights, self.model.state_dict()
        # a model may take names of an older version, which are not among its own
        whole = {k: sharded_like(last[k], like.get(k, last[k])) for k in sorted(last)}
        load_weights(self.model, whole, "the checkpoint")
        if self.average is not None:
            load_weights(self.average.module, weights, "the checkpoint")
            self.average.count = int(number_of(state, "average.n"))
        scaler = {name: number_of(state, f"scaler.{name}") for name in self.scaler.state_dict()}
        self.scaler.load_state_dict(scaler)
        load_state(self.optimisers, state)
        self.position = position
