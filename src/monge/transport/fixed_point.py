r"""The fixed point h = T(h) of Sinkhorn's iteration, with Anderson's acceleration.

The next iterate is the combination of the images of the last ones whose residuals cancel best.
Where the marginal error grows, the iteration starts again from the best plain iterate.

`iterate` looks at the error after every iteration. On a GPU that would cost more than an
iteration; `iterate_in_chunks` takes the same decisions on the device, and reads once in several
iterations whether they are over. `iterate_in_one_program` has a kernel do all iterations of a
small problem, whose launches would cost more than they do. `choose_iteration` picks one of them.

Source: Anderson, "Iterative procedures for nonlinear integral equations", 1965; Walker, Ni,
"Anderson acceleration for fixed-point iterations", 2011.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.numerics import on_host
from monge._core.tuning import tuning
from monge._core.typed import unchecked_solve
from monge.transport.gibbs import Minima, Stored, Streamed, choose_deferred, is_small
from monge.transport.ground import GroundCost
from monge.transport.penalties import CONSTRAINTS, Penalties, translation

Step = Callable[[Minima, Tensor], tuple[Tensor, Tensor]]
"""(minima, h) -> (T(h), the marginal error of h)."""
Iteration = Callable[
    [Streamed, bool, Tensor, "Anderson | None", float, int], tuple[Tensor, float, int]
]
"""(minima, whether a sample is matched with itself, start, acceleration, tolerance, most) -> (h,
its marginal error, the number of iterations, at most `most`)."""


@dataclass(frozen=True)
class Anderson:
    """Anderson acceleration of the fixed point iteration, over the last `memory` iterates.

    The next iterate is the combination of the last ones whose residuals cancel best; when the
    marginal error grows, it starts again from the best plain iterate.

    Source: Anderson, "Iterative procedures for nonlinear integral equations", 1965; Walker, Ni,
    "Anderson acceleration for fixed-point iterations", 2011.
    """

    memory: int = 5


def choose_iteration(cost: GroundCost, penalties: Penalties = CONSTRAINTS) -> Iteration:
    """Picks how the fixed point is iterated for.

    The rule: on a CPU the error is read after every iteration; on a GPU small problems are
    iterated by one program (`monge.transport.gibbs.is_small`) if their marginals are constraints,
    others in chunks.
    """
    if tuning(cost.device).iterations_per_read == 1 and not is_small(cost):
        return iterate
    by_one = is_small(cost) and penalties is CONSTRAINTS
    return iterate_in_one_program if by_one else iterate_in_chunks


def _choose_step(minima: Minima, symmetric: bool) -> Step:
    if symmetric:
        return symmetric_step
    return step if minima.penalties is CONSTRAINTS else translated_step


def step(minima: Minima, g: Tensor) -> tuple[Tensor, Tensor]:
    """S_a(S_b(g)), and the marginal error of (S_b(g), g)."""
    image = minima.columns(minima.rows(g))
    return image, (minima.b * ((g - image) / minima.epsilon).expm1().abs()).sum()


def translated_step(minima: Minima, g: Tensor) -> tuple[Tensor, Tensor]:
    """`step` beside penalties on the marginals, and the best translation of its potentials.

    The error is the larger one of both moves."""
    sides, epsilon = minima.penalties, minima.epsilon
    image = minima.columns(minima.rows(g))
    shift = translation(sides, minima.a, minima.b, minima.soft_f, minima.soft_g, epsilon)
    moved = sides[1].potential(minima.soft_g - shift, epsilon)
    changes = (g - torch.stack([image, moved])) / epsilon
    return moved, (changes.expm1_().abs_() @ minima.b).amax()


def symmetric_step(minima: Minima, f: Tensor) -> tuple[Tensor, Tensor]:
    """½ (f + S_a(f)) and its marginal error, the averaged update between a sample and itself: it
    has no oscillation to damp."""
    image = minima.rows(f)
    return (f + image) / 2, (minima.a * ((f - image) / minima.epsilon).expm1().abs()).sum()


def iterate(
    minima: Minima,
    symmetric: bool,
    start: Tensor,
    acceleration: Anderson | None,
    tolerance: float,
    most: int,
) -> tuple[Tensor, float, int]:
    """Finds h = T(h), and looks at the error after every iteration."""
    advance = _choose_step(minima, symmetric)
    memory = 0 if acceleration is None else acceleration.memory
    h, best, best_image, extrapolated = start, math.inf, start, False
    least, nearest = math.inf, start
    images: list[Tensor] = []
    residuals: list[Tensor] = []
    for iteration in range(1, most + 1):
        image, error = advance(minima, h)
        size = float(error)
        if size < least:
            least, nearest = size, h
        if size <= tolerance:
            return h, size, iteration
        if iteration == most:
            return nearest, least, iteration
        if extrapolated and not size <= 2 * best:
            # the extrapolation overshot: return to the best plain iterate
            h, images, residuals, best, extrapolated = best_image, [], [], math.inf, False
            continue
        if size < best:
            best, best_image = size, image
        images, residuals = [*images, image][-memory - 1 :], [*residuals, image - h][-memory - 1 :]
        extrapolated = memory > 0 and len(images) > 1
        h = _extrapolated(images, residuals) if extrapolated else image
    raise AssertionError("unreachable: the last iteration returns")


def _extrapolated(images: list[Tensor], residuals: list[Tensor]) -> Tensor:
    """The image of the combination of iterates with the smallest residual."""
    steps = torch.stack([b - a for a, b in pairwise(residuals)])
    moves = torch.stack([b - a for a, b in pairwise(images)])
    gram = steps @ steps.T
    ridge = 1e-12 * gram.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    gamma = unchecked_solve(gram + ridge * eye, steps @ residuals[-1])
    # residuals that are (nearly) 0 or (nearly) equal leave nothing to combine
    return images[-1] - gamma @ moves if torch.isfinite(gamma).all() else images[-1]


class State(NamedTuple):
    """Where an iteration is, on the device; that of a batch, where every field has the batch's
    dimension before its last one, or as its only one."""

    h: Tensor
    size: Tensor
    """The marginal error of the iterate before h, or of h once it is `done`."""
    iteration: Tensor
    done: Tensor
    best: Tensor
    best_image: Tensor
    images: Tensor
    """The images of the last iterates, (memory + 1, n); of fewer, the first is repeated."""
    residuals: Tensor
    empty: Tensor
    """Whether the next image is the first."""
    extrapolated: Tensor
    """Whether h is."""
    nearest: Tensor
    """The iterate with the smallest error so far, where the last iteration ends."""
    least: Tensor


def iterate_in_chunks(
    minima: Streamed,
    symmetric: bool,
    start: Tensor,
    acceleration: Anderson | None,
    tolerance: float,
    most: int,
) -> tuple[Tensor, float, int]:
    """`iterate`, with one copy to the host in `Tuning.iterations_per_read` iterations.

    A chunk that has left the range of the Gibbs kernel is iterated again in the log domain.
    """
    state = started(start, 0 if acceleration is None else acceleration.memory)
    chunk, used = tuning(start.device).iterations_per_read, 0
    advance = _choose_step(minima, symmetric)
    stored = minima if isinstance(minima, Stored) else None
    log_domain = None if stored else minima
    while True:
        deferred = choose_deferred(stored) if stored and log_domain is None else None
        ahead = state
        for index in range(used, min(used + chunk, most)):
            image, error = advance(deferred or log_domain or minima, ahead.h)
            ahead = advanced(ahead, image, error, tolerance, index + 1 == most)
        doubts = deferred.doubts() if deferred else ()
        done, size, iteration, *doubts = on_host(ahead.done, ahead.size, ahead.iteration, *doubts)
        if doubts and doubts[0]:
            log_domain = minima.in_log_domain()
            continue
        if done:
            return ahead.h, size, int(iteration)
        state, used = ahead, used + chunk
        if deferred and doubts[1] > deferred.stored.reach:
            minima.begin(deferred.f, state.h, minima.epsilon)
        elif stored and log_domain:
            stored.begin(log_domain.f0, state.h, minima.epsilon)
            log_domain = None


def iterate_in_one_program(
    minima: Streamed,
    symmetric: bool,
    start: Tensor,
    acceleration: Anderson | None,
    tolerance: float,
    most: int,
) -> tuple[Tensor, float, int]:
    """`iterate`, by a kernel that does all iterations of a small problem."""
    from monge.gpu import small_sinkhorn

    h, report = small_sinkhorn.fixed_point(
        minima.cost.whole(),
        (minima.a, minima.b),
        (minima.log_a, minima.log_b),
        start,
        minima.epsilon,
        tolerance,
        most,
        memory=0 if acceleration is None else acceleration.memory,
        symmetric=symmetric,
        dtype=minima.cost.dtype,
    )
    error, iterations = on_host(*report)
    return h, error, int(iterations)


def started(h: Tensor, memory: int) -> State:
    """The state before the first image of h (*, n)."""
    batch, place = h.shape[:-1], h.device
    history = h.expand(memory + 1, *h.shape)
    no = torch.zeros(batch, dtype=torch.bool, device=place)
    infinite = torch.full(batch, math.inf, dtype=h.dtype, device=place)
    count = torch.zeros(batch, dtype=torch.int64, device=place)
    return State(h, infinite, count, no, infinite, h, history, history, ~no, no, h, infinite)


def advanced(state: State, image: Tensor, error: Tensor, tolerance: float, last: bool) -> State:
    """The state after h's image and error are known, decided without reading them."""
    done, nearer = state.done | (error <= tolerance), error < state.least
    nearest = torch.where(nearer[..., None], state.h, state.nearest)
    least = torch.where(nearer, error, state.least)
    here, size = state.h, error
    if last:
        here = torch.where(done[..., None], here, nearest)
        size = torch.where(done, size, least)
        done = torch.ones_like(done)
    # an extrapolation that overshot: return to the best plain iterate, and forget the others
    overshot = state.extrapolated & ~(error <= 2 * state.best)
    better = error < state.best
    best_image = torch.where((better & ~overshot)[..., None], image, state.best_image)
    images, residuals = (
        torch.where(state.empty[..., None], new, torch.cat([old[1:], new[None]]))
        for old, new in ((state.images, image), (state.residuals, image - state.h))
    )
    combined = _combined(images, residuals) if len(images) > 1 else image
    moved = torch.where(overshot[..., None], best_image, combined)
    return State(
        h=torch.where(done[..., None], here, moved),
        size=torch.where(state.done, state.size, size),
        iteration=state.iteration + ~state.done,
        done=done,
        best=torch.where(overshot, math.inf, torch.where(better, error, state.best)),
        best_image=best_image,
        images=images,
        residuals=residuals,
        empty=overshot,
        extrapolated=~(overshot | state.empty) if len(images) > 1 else state.extrapolated,
        nearest=nearest,
        least=least,
    )


def _combined(images: Tensor, residuals: Tensor) -> Tensor:
    """`_extrapolated` of stacked images (k, *, n), without reading a number; repeated ones count
    nothing."""
    steps, moves = (z.diff(dim=0).movedim(0, -2) for z in (residuals, images))
    gram = steps @ steps.mT
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    trace, count = diagonal.sum(-1), (diagonal > 0).sum(-1).clamp_min(1)
    ridge = 1e-12 * (trace / count).clamp_min(torch.finfo(torch.float64).tiny)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    target = (steps @ residuals[-1][..., None])[..., 0]
    gamma = unchecked_solve(gram + ridge[..., None, None] * eye, target)
    combined = images[-1] - (gamma[..., None, :] @ moves)[..., 0, :]
    return torch.where(torch.isfinite(gamma).all(-1, keepdim=True), combined, images[-1])
