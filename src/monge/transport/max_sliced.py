r"""Max-sliced Wasserstein distances: the slice on which two samples differ most.

    maxSW_p(μ, ν) = max_{‖θ‖ = 1} W_p(θ_# μ, θ_# ν),    θ_# the projection x ↦ θ·x.

At a frozen matching W_p^p is convex in θ, but it is a minimum over matchings and has many local
maxima, most of which fit the noise of a finite sample. The search starts in directions along which
moments of the samples differ, and in independent components of each; it ascends from the best of
them and narrows down.

Source: Deshpande et al., "Max-sliced Wasserstein distance and its use for GANs", 2019; Kolouri et
al., "Generalized sliced Wasserstein distances", 2019; Hyvärinen, "Fast and robust fixed-point
algorithms for independent component analysis", 1999.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.checks import dimension, given_weights, instance, points
from monge._core.numerics import centred, envelope, root
from monge._core.promotion import WEIGHTS, promoted
from monge._core.typed import eigh
from monge.transport.directions import uniform_directions
from monge.transport.line import merged, power_1d, power_with_slopes
from monge.transport.sliced import is_projection_resolved, of_slices
from monge.transport.slicers import Slicer

SEARCHED = 2000
"""Most points a side among which starts are compared."""
NARROWED = 5
"""Ascent steps after which the better half of the directions goes on."""
ALIKE = 0.99
"""|cos| of the angle between two directions above which one of them is dropped."""
MOST_DIMENSIONS = 128
"""Dimension up to which starts are derived from moments, whose eigenvectors take d³."""
EXTREMES = 4
"""Eigenvectors that are taken from either end of a spectrum."""
COMPONENTS = 32
"""Most independent components of a sample."""
RESOLVED_ORDER = 6
"""Order up to which the p-th power of a gap that float32 resolves does not vanish."""


class _Samples(NamedTuple):
    """Two samples (n, d) and (m, d), their weights, and the order of the distance."""

    x: Tensor
    y: Tensor
    a: Tensor | None
    b: Tensor | None
    p: float


class _Front(NamedTuple):
    """Directions (k, d) on their ascent."""

    theta: Tensor
    powers: Tensor
    """W_p^p on each direction, (k,)."""
    slope: Tensor
    """Its gradient in the direction as a unit vector, (k, d)."""
    length: Tensor
    """Step lengths (k,): at 1 a step goes all the way to the gradient."""


@promoted(x=2, y=2, a=WEIGHTS, b=WEIGHTS)
def max_sliced_wasserstein(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    p: float = 2,
    starts: int = 64,
    kept: int = 16,
    iterations: int = 100,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """The max-sliced distance max_θ W_p(θ_# x, θ_# y), with the root, and the direction.

    The search starts from random directions and the difference of means; in at most 128 dimensions
    also from coordinate axes, directions in which variances differ most, and independent
    components of either sample. The `kept` best ascend; after every five steps the better half of
    the distinct ones is kept. Starts are compared on at most 2,000 points a side; the last steps
    use all points.

    The result is the distance along one direction, a lower bound of the maximum. A direction along
    which only higher moments differ may be missed unless n is well above d² / 2.

    Args:
        x: points (n, d).
        y: points (m, d).
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        p: order, at least 1.
        starts: the number of random starting directions.
        kept: the number of directions that ascend at first.
        iterations: the limit of ascent steps.
        generator: draws the random directions and the points they are compared on, on the CPU.

    Returns:
        (distance, direction (d,)). The distance is differentiable once in the points and weights,
        at the frozen direction; by the envelope theorem this is the gradient where the maximum and
        the matching there are unique. Between few points the maximum is often where two
        matchings tie, and the gradient is that of one of them. The direction has no gradient.

    Raises:
        ValueError: for an empty sample, NaN or infinity, different dimensions, p < 1, or
            invalid weights.
    """
    samples = _checked(x, y, a, b, p)
    theta = uniform_directions(
        dimension("starts", starts), samples.x.shape[1], generator=generator
    )
    limits = dimension("kept", kept), dimension("iterations", iterations)
    fixed = _fixed(samples, theta)
    direction, power = _worst_direction(fixed, theta, *limits, generator)
    if not is_projection_resolved(power, p, fixed.x, fixed.y):
        fixed = _fixed(samples._replace(x=samples.x.double(), y=samples.y.double()), theta)
        direction, _ = _worst_direction(fixed, theta, *limits, generator)

    def distance(x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None) -> Tensor:
        # the scale times a slope may be beyond float32 though the gradient is not
        u, v, scale = centred(x.double(), y.double())
        u, v = u @ direction.double(), v @ direction.double()
        return scale * _distances(u, v, a, b, p)

    return _at_optimum(distance, samples), direction.to(samples.x)


@promoted(x=2, y=2, a=WEIGHTS, b=WEIGHTS)
def max_generalized_sliced_wasserstein(
    x: Tensor,
    y: Tensor,
    slicer: Slicer,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    p: float = 2,
    iterations: int = 200,
    lr: float = 0.05,
) -> Tensor:
    """The largest W_p over the slicer's slices, each optimised by Adam from its present state;
    with the root.

    The slicer keeps the slices of the step with the largest value. They are local maxima: with
    `Linear`, `max_sliced_wasserstein` searches more widely and in less time.

    Args:
        x: points (n, d).
        y: points (m, d).
        slicer: maps points to their slices; its parameters are changed in place.
        a: weights (n,), at least 0 with sum 1; uniform by default.
        b: weights (m,).
        p: order, at least 1.
        iterations: steps of Adam.
        lr: its learning rate, which falls linearly to a hundredth.

    Returns:
        The distance, differentiable once in the points, the weights and the slices, at the frozen
        worst slice.

    Raises:
        ValueError: as `sliced_wasserstein`, and for points that the slicer does not take.
    """
    samples = _checked(x, y, a, b, p)
    fixed_x, fixed_y, fixed_a, fixed_b = (None if z is None else z.detach() for z in samples[:4])
    instance("slicer", slicer, torch.nn.Module, "Circular(dim)")
    parameters = _ascending(slicer)
    optimiser = torch.optim.Adam(parameters, lr)
    fade = torch.optim.lr_scheduler.LinearLR(
        optimiser, 1.0, 0.01, dimension("iterations", iterations)
    )
    best, kept = -1.0, slicer.state_dict()
    for _ in range(iterations):
        with torch.enable_grad():
            values = _distances(slicer(fixed_x).T, slicer(fixed_y).T, fixed_a, fixed_b, p)
            largest = values.max().detach()
            # in units of the largest, since Adam ignores gradients below a fixed size
            loss = -(values / largest.clamp(min=torch.finfo(largest.dtype).tiny)).sum()
        if largest > best:
            best = float(largest)
            kept = {name: value.clone() for name, value in slicer.state_dict().items()}
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters)):
            parameter.grad = gradient
        optimiser.step()  # pyright: ignore[reportUnknownMemberType]
        fade.step()
        slicer.project_()
    optimiser.zero_grad()
    slicer.load_state_dict(kept)

    def distance(x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None) -> Tensor:
        return of_slices(lambda u, v: _distances(u, v, a, b, p).max(), slicer, x, y, 1)

    return _at_optimum(distance, samples, parameters)


def _checked(x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None, p: float) -> _Samples:
    x, y = points(x, y, p)
    a, b = given_weights("a", a, len(x)), given_weights("b", b, len(y))
    return _Samples(x, y, a, b, p)


def _ascending(slicer: Slicer) -> list[torch.nn.Parameter]:
    """The parameters of a slicer that an ascent moves."""
    every = list(slicer.parameters())
    if any(parameter.is_inference() for parameter in every):
        raise ValueError(
            "`slicer` was made in inference mode, where its slices cannot be optimised: make it "
            "outside"
        )
    parameters = [parameter for parameter in every if parameter.requires_grad]
    if not parameters:
        raise ValueError(
            "`slicer` has no parameters that require gradients, so its slices cannot be "
            "optimised: call slicer.requires_grad_(), or use generalized_sliced_wasserstein"
        )
    return parameters


# Distances on slices


def _distances(u: Tensor, v: Tensor, a: Tensor | None, b: Tensor | None, p: float) -> Tensor:
    """W_p of the rows u (l, n) and v (l, m), with the root, at every magnitude and order."""
    unit = _unit(u.detach(), v.detach(), a, b, p)
    return unit * root(power_1d(u / unit, v / unit, a, b, p=p), p)


def _unit(u: Tensor, v: Tensor, a: Tensor | None, b: Tensor | None, p: float) -> float:
    """A unit of length in which p-th powers of the gaps between rows neither overflow nor vanish:
    the largest value, and for high orders the largest gap."""
    largest = max(float(z.abs().max()) for z in (u, v))
    if p > RESOLVED_ORDER and largest:
        a, b = (None if w is None else w.detach() for w in (a, b))
        widths, u, v = merged(u / largest, v / largest, a, b)
        largest *= float(((u - v).abs() * (widths > 0)).max())
    return largest or 1.0


def _at_optimum(
    distance: Callable[..., Tensor], samples: _Samples, parameters: Sequence[Tensor] = ()
) -> Tensor:
    """distance(x, y, a, b) with first derivatives alone: the best slice moves with the samples."""
    inputs = samples[:4]
    if not torch.is_grad_enabled():
        return distance(*inputs)
    fixed = [None if z is None else z.detach().requires_grad_(z.requires_grad) for z in inputs]
    pairs = [
        (z, leaf) for z, leaf in zip(inputs, fixed) if leaf is not None and leaf.requires_grad
    ]
    pairs += [(parameter, parameter) for parameter in parameters if parameter.requires_grad]
    value = distance(*fixed)
    if not pairs:
        return value
    slopes = torch.autograd.grad(value, [leaf for _, leaf in pairs])
    return envelope(value, *((z, slope) for (z, _), slope in zip(pairs, slopes)), linear=False)


# The search for a direction


def _fixed(samples: _Samples, theta: Tensor) -> _Samples:
    """The samples without graph, in units in which powers on the directions theta are good
    numbers."""
    a, b = (None if w is None else w.detach() for w in (samples.a, samples.b))
    x, y, _ = centred(samples.x.detach(), samples.y.detach())
    if samples.p > RESOLVED_ORDER:
        theta = theta.to(x)
        unit = _unit(theta @ x.T, theta @ y.T, a, b, samples.p)
        x, y = x / unit, y / unit
    return _Samples(x, y, a, b, samples.p)


def _worst_direction(
    samples: _Samples,
    theta: Tensor,
    kept: int,
    iterations: int,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """A direction (d,) on which W_p is as large as can be found from the random theta (l, d), and
    W_p^p there."""
    few = _subsample(samples, generator)
    theta = _starts(few, theta.to(samples.x))
    powers, _ = power_with_slopes(theta @ few.x.T, theta @ few.y.T, *few[2:], (False, False))
    front = _front(theta[_leading(theta, powers, kept)], few)
    on, left = few, iterations
    while left > 0:
        last = on is samples and len(front.theta) == 1
        steps = left if last else min(left, NARROWED)
        front = _climbed(front, on, steps)
        left -= steps
        if last:
            break
        best = _leading(front.theta, front.powers, max(1, len(front.theta) // 2))
        front = _Front(*(z[best] for z in front))
        if on is not samples:
            front, on = _front(front.theta, samples), samples
    best = front.powers.argmax()
    return front.theta[best], front.powers[best]


def _subsample(samples: _Samples, generator: torch.Generator | None) -> _Samples:
    """At most `SEARCHED` points a side, drawn without replacement."""
    x, y, a, b, p = samples
    (x, a), (y, b) = (_drawn(z, w, generator) for z, w in ((x, a), (y, b)))
    return _Samples(x, y, a, b, p) if (x is not samples.x or y is not samples.y) else samples


def _drawn(
    x: Tensor, w: Tensor | None, generator: torch.Generator | None
) -> tuple[Tensor, Tensor | None]:
    if len(x) <= SEARCHED:
        return x, w
    if w is None:
        return x[
            torch.randperm(len(x), generator=generator, device="cpu")[:SEARCHED].to(x.device)
        ], None
    # points are drawn in proportion to their weights, and then weigh the same
    chosen = torch.multinomial(w.cpu().double(), SEARCHED, replacement=True, generator=generator)
    return x[chosen.to(x.device)], None


def _starts(samples: _Samples, theta: Tensor) -> Tensor:
    """Unit directions (k, d) along which the samples may differ, the random theta among them."""
    x, y, a, b, _ = samples
    dim = x.shape[1]
    mean_x, mean_y = _shares(x, a) @ x, _shares(y, b) @ y
    found = [theta, (mean_x - mean_y)[None]]
    if dim <= MOST_DIMENSIONS:
        found.append(torch.eye(dim).to(x))
    # fewer points than dimensions have no covariance to speak of
    if dim <= MOST_DIMENSIONS and dim < min(len(x), len(y)):
        x, y = x - mean_x, y - mean_y
        cov_x, cov_y = ((_shares(z, w)[:, None] * z).T @ z for z, w in ((x, a), (y, b)))
        tiny = torch.finfo(x.dtype).tiny
        least = (1e-6 * (cov_x.trace() + cov_y.trace())).clamp(min=tiny)
        white_x, white_y = _whitening(cov_x, least), _whitening(cov_y, least)
        found += [
            _extremes(cov_x - cov_y),
            # where the ratio of variances is extreme
            _extremes(white_x.T @ cov_y @ white_x) @ white_x.T,
            _components(theta[:COMPONENTS], x @ white_x, _shares(x, a)) @ white_x.T,
            _components(theta[:COMPONENTS], y @ white_y, _shares(y, b)) @ white_y.T,
        ]
    theta = _units(torch.cat(found))
    return theta[theta.any(1)]


def _shares(x: Tensor, w: Tensor | None) -> Tensor:
    return torch.full_like(x[:, 0], 1 / len(x)) if w is None else w.to(x)


def _whitening(cov: Tensor, least: Tensor) -> Tensor:
    """W with Wᵀ Σ W = I, but for variances below `least`."""
    values, vectors = eigh(cov)
    return vectors / torch.maximum(values, least).sqrt()


def _extremes(matrix: Tensor) -> Tensor:
    """The eigenvectors of the least and of the largest eigenvalues, as rows."""
    _, vectors = eigh(matrix)
    return torch.cat([vectors.T[:EXTREMES], vectors.T[-EXTREMES:]])


def _components(theta: Tensor, x: Tensor, shares: Tensor) -> Tensor:
    """Directions in which white points x (n, d) are least Gaussian, ascended from theta (k, d).

    FastICA without decorrelation: θ ← E[tanh(θ·x) x] - E[tanh'(θ·x)] θ. A random θ is almost
    orthogonal to each component, and the more so in higher dimension, which takes more steps.
    """
    weighted = shares[:, None] * x
    for _ in range(min(4 + x.shape[1] // 2, 24)):
        # the sigmoid is several times as fast as tanh
        tanh = torch.sigmoid(2 * theta @ x.T).mul_(2).sub_(1)
        flat = 1 - tanh.square() @ shares
        theta = _units(tanh @ weighted - flat[:, None] * theta)
    return theta


def _leading(theta: Tensor, powers: Tensor, count: int) -> Tensor:
    """Indices of the best `count` directions of which no two are alike."""
    order = powers.argsort(descending=True)
    alike = (theta[order] @ theta[order].T).abs() > ALIKE
    return order[~alike.tril(-1).any(1)][:count]


def _front(theta: Tensor, samples: _Samples) -> _Front:
    """Directions at the start of their ascent."""
    x, y, a, b, p = samples
    powers, (of_x, of_y) = power_with_slopes(theta @ x.T, theta @ y.T, a, b, p, (True, True))
    assert of_x is not None
    assert of_y is not None
    return _Front(theta, powers, _units(of_x @ x + of_y @ y), torch.ones_like(theta[:, 0]))


def _climbed(front: _Front, samples: _Samples, steps: int) -> _Front:
    """The directions after `steps` steps of the power method, or after fewer if they settle.

    θ ← ∇ / ‖∇‖ increases W_p^p at a frozen matching. Where the matching changes on the way, the
    step is halved until the value rises.
    """
    for _ in range(steps):
        theta, powers, slope, length = front
        moved = _front(_units(torch.lerp(theta, slope, length[:, None])), samples)
        better = moved.powers > powers
        front = _Front(
            torch.where(better[:, None], moved.theta, theta),
            torch.where(better, moved.powers, powers),
            torch.where(better[:, None], moved.slope, slope),
            torch.where(better, (2 * length).clamp(max=1), length / 2),
        )
        settled = ((moved.powers - powers).abs() <= 1e-6 * powers.max()).all()
        if settled or front.length.max() < 1e-6:
            break
    return front


def _units(rows: Tensor) -> Tensor:
    """Rows divided by their length, of whatever magnitude; zeros stay."""
    largest = rows.abs().amax(1, keepdim=True)
    rows = rows / largest.masked_fill(largest == 0, 1.0)
    return torch.nn.functional.normalize(rows, dim=1)
