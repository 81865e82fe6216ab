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
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.checks import rows
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

    def __post_init__(self):
        rows(self.memory, "memory")


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
    advance = partial(_choose_step(minima, symmetric), minima)
    memory = 0 if acceleration is None else acceleration.memory
    return accelerated(advance, start, memory, tolerance, most)


def accelerated(
    advance: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    memory: int,
    tolerance: float,
    most: int,
) -> tuple[Tensor, float, int]:
    """`iterate` for any iteration of a vector, h -> (T(h), the error of h)."""
    h, best, best_image, extrapolated = start, math.inf, start, False
    least, nearest = math.inf, start
    images: list[Tensor] = []
    residuals: list[Tensor] = []
    for iteration in range(1, most + 1):
        image, error = advance(h)
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
    steps, moves = torch.stack(residuals).diff(dim=0), torch.stack(images).diff(dim=0)
    gram = steps @ steps.T
    ridge = 1e-12 * gram.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    gamma = unchecked_solve(gram + ridge * eye, steps @ residuals[-1])
    # residuals that are (nearly) 0 or (nearly) equal leave nothing to combine
    return images[-1] - gamma @ moves if torch.isfinite(gamma).all() else images[-1]


class State(NamedTuple):
    """Where an iteration is, on the device; that of a batch, whose dimension comes first."""

    h: Tensor
    size: Tensor
    """The marginal error of the iterate before h, or of h once it is `done`."""
    iteration: Tensor
    done: Tensor
    best: Tensor
    best_image: Tensor
    image: Tensor
    """The image of the iterate before h."""
    residual: Tensor
    moves: Tensor
    """The differences of successive images, (memory, n), the last one last."""
    steps: Tensor
    """Those of their residuals."""
    known: Tensor
    """The number of images since the others were forgotten."""
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
    none = h.new_zeros(*batch, memory, h.shape[-1])
    no = torch.zeros(batch, dtype=torch.bool, device=place)
    infinite = torch.full(batch, math.inf, dtype=h.dtype, device=place)
    count = torch.zeros(batch, dtype=torch.int64, device=place)
    return State(h, infinite, count, no, infinite, h, h, h, none, none, count, no, h, infinite)


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
    residual, combined = image - state.h, image
    moves, steps, extrapolated = state.moves, state.steps, state.extrapolated
    if steps.shape[-2] > 0:
        # differences from what is forgotten may be infinite, and are 0
        extrapolated = ~overshot & (state.known > 0)
        follows = extrapolated[..., None]
        moves = _appended(moves, torch.where(follows, image - state.image, 0.0))
        steps = _appended(steps, torch.where(follows, residual - state.residual, 0.0))
        combined = _combined(image, residual, moves, steps, state.known)
    moved = torch.where(overshot[..., None], best_image, combined)
    return State(
        h=torch.where(done[..., None], here, moved),
        size=torch.where(state.done, state.size, size),
        iteration=state.iteration + ~state.done,
        done=done,
        best=torch.where(overshot, math.inf, torch.where(better, error, state.best)),
        best_image=best_image,
        image=image,
        residual=residual,
        moves=moves,
        steps=steps,
        known=torch.where(overshot, 0, state.known + 1),
        extrapolated=extrapolated,
        nearest=nearest,
        least=least,
    )


def _appended(rows: Tensor, new: Tensor) -> Tensor:
    """Rows (*, k, n) without the first, and a new last one (*, n)."""
    return torch.cat([rows[..., 1:, :], new[..., None, :]], -2)


def _combined(
    image: Tensor, residual: Tensor, moves: Tensor, steps: Tensor, known: Tensor
) -> Tensor:
    """`_extrapolated` of the last `known` (*) of moves and steps (*, k, n), without reading a
    number."""
    count = steps.shape[-2]
    counts = torch.arange(count, 0, -1, device=steps.device) <= known[..., None]
    gram = torch.where(counts[..., None] & counts[..., None, :], steps @ steps.mT, 0.0)
    target = torch.where(counts, (steps * residual[..., None, :]).sum(-1), 0.0)
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    trace, positive = diagonal.sum(-1), (diagonal > 0).sum(-1).clamp_min(1)
    ridge = 1e-12 * (trace / positive).clamp_min(torch.finfo(torch.float64).tiny)
    eye = torch.eye(count, dtype=gram.dtype, device=gram.device)
    gamma = unchecked_solve(gram + ridge[..., None, None] * eye, target)
    combined = image - (gamma[..., None] * moves).sum(-2)
    return torch.where(torch.isfinite(gamma).all(-1, keepdim=True), combined, image)
