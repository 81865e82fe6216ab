r"""Numerical building blocks that several modules share.

Most values of this library are optima: of a plan, of potentials, of a matching. By the envelope
theorem the gradient of an optimum is the partial gradient at the optimal plan or potentials, which
are held fixed. `with_gradient` is the one place where such a gradient meets autograd: value and
gradient are computed together in the forward pass, and nothing of the solver is recorded.
`envelope` is its short form for gradients that are already known.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from monge._core.errors import NotFinite
from monge._core.typed import from_numpy, to_numpy

Gradients = Sequence[Tensor | None]


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        fast: Callable[..., tuple[Tensor, Gradients]],
        plain: Callable[..., Tensor] | None,
        *inputs: Tensor,
    ) -> Tensor:
        value, gradients = fast(*inputs, ctx.needs_input_grad[2:])
        ctx.plain = plain
        gradients = [
            gradient if need else None
            for gradient, need in zip(gradients, ctx.needs_input_grad[2:])
        ]
        ctx.save_for_backward(*inputs, *gradients)
        return value

    @staticmethod
    def backward(ctx: Any, *outers: Tensor) -> tuple[Tensor | None, ...]:
        (outer,) = outers
        saved = ctx.saved_tensors  # unpacked anew by each access
        inputs, gradients = saved[: len(saved) // 2], list(saved[len(saved) // 2 :])
        if not torch.is_grad_enabled():
            return None, None, *_scaled(outer, gradients, inputs)
        # the gradients will be differentiated themselves
        wanted = [i for i, gradient in enumerate(gradients) if gradient is not None]
        if ctx.plain is not None:
            moved = torch.autograd.grad(
                ctx.plain(*inputs), [inputs[i] for i in wanted], outer, create_graph=True
            )
        else:
            with torch.no_grad():
                scaled = _scaled(outer, gradients, inputs)
            moved = [_FirstOnly.apply(scaled[i], outer, *inputs) for i in wanted]
        for i, gradient in zip(wanted, moved):
            gradients[i] = gradient
        return None, None, *gradients


class _FirstOnly(torch.autograd.Function):
    """A gradient that depends on `others` in a way that is not known: it refuses a derivative."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *others: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *outers: Tensor) -> Any:
        raise RuntimeError(
            "this value has first derivatives only: they are taken at a fixed optimum, whose own "
            "derivative is not computed"
        )


def _scaled(
    outer: Tensor, gradients: Sequence[Tensor | None], inputs: Sequence[Tensor]
) -> list[Tensor | None]:
    """The gradients times the gradient in the value, in the dtypes of the inputs."""
    shape = outer.shape
    return [
        None
        if gradient is None
        else (outer.view(shape + (1,) * (gradient.ndim - len(shape))) if shape else outer)
        .mul(gradient)
        .to(x.dtype)
        for gradient, x in zip(gradients, inputs)
    ]


def with_gradient(
    fast: Callable[..., tuple[Tensor, Gradients]],
    plain: Callable[..., Tensor] | None,
    *inputs: Tensor,
) -> Tensor:
    r"""The value of `fast`, which computes its gradient in the same pass and needs no graph.

    Args:
        fast: called as `fast(*inputs, wanted)` without graph; returns the value, shape (\*), and
            for each input that is `wanted` the gradient of the value's sum, shape (\*, …) if the
            value has batch dimensions, else None. It owns what it returns: neither the value nor
            a gradient may share memory with an input or with work space that is used again.
        plain: the same value with a graph, `plain(*inputs)`, used where second derivatives are
            asked for. Without it (None) they raise a RuntimeError.
        inputs: the tensors that take gradients.
    """
    return _WithGradient.apply(fast, plain, *inputs)  # pyright: ignore


def at_least_zero(value: Tensor, equal: Tensor | bool) -> Tensor:
    """A divergence that only an inexact solution leaves below 0, or off it where samples are
    `equal`, moved to 0 with its derivatives."""
    found = value.detach()
    if isinstance(equal, bool):
        equal = torch.full((), equal, device=value.device)
    return value - torch.where(equal, found, found.clamp(max=0))


def rounding_of_masses(dtype: torch.dtype, mass: float, count: int) -> float:
    """A bound in L1 on how far `count` numbers that are at least 0, of the sum `mass`, are moved
    by rounding them to a dtype of half precision; 0 for other dtypes."""
    limits = torch.finfo(dtype)
    if limits.bits >= 32:
        return 0.0
    # to the nearest: relative to a number, or below the smallest normal one absolute
    below = count * limits.smallest_normal * limits.eps / 2
    return limits.eps / 2 * mass + min(below, mass)


def envelope(value: Tensor, *terms: tuple[Tensor | None, Tensor], linear: bool) -> Tensor:
    """An optimal value with its known gradients: the envelope theorem.

    Args:
        value: the optimum, as a number.
        terms: pairs of an input and of the gradient in it at the optimum; an input that is None
            or takes no gradient is skipped.
        linear: whether the value is locally linear in the inputs, as that of a linear programme
            is. Its second derivatives are then 0; otherwise they raise a RuntimeError.
    """
    inputs, slopes = [], []
    for x, slope in terms:
        if x is not None and x.requires_grad:
            inputs.append(x)
            slopes.append(slope.detach())
    value = value.detach()

    def fast(*arguments: Any) -> tuple[Tensor, Gradients]:
        wanted = arguments[-1]
        return value.clone(), [slope if need else None for slope, need in zip(slopes, wanted)]

    def plain(*inputs: Tensor) -> Tensor:
        moves = [(slope * (x - x.detach())).sum() for x, slope in zip(inputs, slopes)]
        return value + sum(moves, torch.zeros_like(value))

    return with_gradient(fast, plain if linear else None, *inputs) if inputs else value.clone()


def on_host(*numbers: Tensor) -> list[float]:
    """Numbers without graph, in one copy to the host."""
    if numbers[0].is_cpu:
        return [float(z) for z in numbers]
    return torch.stack([z.double() for z in numbers]).cpu().tolist()


def absolute_power(x: Tensor, p: float) -> Tensor:
    """|x|^p for p ≥ 1, with both derivatives; one that has a pole at 0 is 0 there."""
    if p == 2:
        return x.square()
    if p == 1:
        return x.abs()
    zero = x == 0
    return torch.where(zero, 1.0, x).abs().pow(p).masked_fill(zero, 0.0)


def xlog_ratio(x: Tensor, y: Tensor) -> Tensor:
    """x log (x / y), 0 where x is 0 and infinite where y alone is; with finite derivatives."""
    empty, infinite = x == 0, (x > 0) & (y == 0)
    x, y = (z.masked_fill(empty | infinite, 1.0) for z in (x, y))
    return (x * (x.log() - y.log())).masked_fill(infinite, torch.inf)


def power_of_squared(squared: Tensor, p: float) -> Tensor:
    """‖·‖^p of squared lengths, with both derivatives."""
    return squared if p == 2 else absolute_power(root(squared), p)


def root(value: Tensor, p: float = 2) -> Tensor:
    """value^{1/p} of values ≥ 0, with gradient 0 where the value is 0."""
    if p == 1:
        return value

    def fast(value: Tensor, _: Sequence[bool]) -> tuple[Tensor, list[Tensor | None]]:
        power = value.pow(1 / p)
        return power, [(power / (p * value)).masked_fill_(value == 0, 0.0)]

    def plain(value: Tensor) -> Tensor:
        zero = value == 0
        return torch.where(zero, 1.0, value).pow(1 / p).masked_fill(zero, 0.0)

    return with_gradient(fast, plain, value)


Power = Callable[[Tensor, Tensor, float], Tensor]
r"""(x, y, q) -> W_q^q of samples, (\*), or another mean of q-th powers of differences."""


def rooted(power: Power, x: Tensor, y: Tensor, p: float) -> Tensor:
    """power(x, y, p)^{1/p}.

    Where the p-th power overflows or vanishes, it is taken in float64 and in units of the distance
    itself: a common offset, or a far point that both samples share, says nothing of that. The
    distance is then float64, and cast by whoever promoted the samples.
    """
    value = power(x, y, p)
    if value.numel() == 0:
        return value
    low, high = on_host(*value.detach().aminmax())
    if low > torch.finfo(value.dtype).tiny / torch.finfo(value.dtype).eps and math.isfinite(high):
        return root(value, p)
    wide = x.double(), y.double()
    unit = unit_of_power(power, *wide, p)
    x, y = (z / unit[..., None] for z in wide)
    return unit * root(power(x, y, p), p)


@torch.no_grad()
def unit_of_power(power: Power, x: Tensor, y: Tensor, p: float) -> Tensor:
    r"""power(x, y, p)^{1/p} of samples in float64, rounded to a power of 2, by which they are
    divided without rounding; 1 where it is 0. It is shaped like the power, (\*).

    W_1, W_2, W_4, … are each the unit of the next. In units of W_q the 2q-th power of W_2q lies
    between 1 and the inverse of the least mass, so that it neither overflows nor vanishes.
    """
    unit, q = torch.full((), unit_of_length(x, y), dtype=torch.float64, device=x.device), 1.0
    while True:
        scaled = power(x / unit[..., None], y / unit[..., None], q)
        unit = unit * torch.where(scaled > 0, scaled, 1.0).pow(1 / q).log2().floor().exp2()
        if q == p:
            return unit
        q = min(2 * q, p)


def unvanished(power: Tensor, squares: Callable[[], Tensor], p: float) -> Tensor:
    """Powers of order p, if none of them is 0 where the squares are not."""
    zero = power.detach() == 0
    if bool(zero.any()) and bool((zero & (squares().detach() > 0)).any()):
        raise NotFinite(
            f"`p` {p:g} has powers of distances that vanish beside the extent of the samples: "
            "lower it, or leave out points that are far from all others"
        )
    return power


def unit_of_length(x: Tensor, y: Tensor) -> float:
    """About the largest difference of coordinates of two samples, or 1 if there is none: a power
    of 2, by which they are divided without rounding."""
    x, y = x.detach(), y.detach()
    extent = max(float(x.max()), float(y.max())) - min(float(x.min()), float(y.min()))
    return power_of_two(extent) if math.isfinite(extent) else 1.0


def power_of_two(size: float) -> float:
    """The largest power of 2 of at most `size`, by which one divides without rounding; 1 for 0."""
    return math.ldexp(1.0, math.frexp(size or 1.0)[1] - 1)


def centred(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, float]:
    """Samples (n, d) and (m, d) about a common centre, in units of a scale: (x, y, scale).

    For functions that do not change with a translation. Close points far from the origin keep all
    digits: the scale is a power of two, and the centre is a median, on which outliers have no
    influence. Gradients pass through; the centre is a constant.
    """
    largest = max(float(z.detach().abs().max()) for z in (x, y))
    # at most 2; the bounds keep the scale a normal number of its dtype
    most = 120 if x.dtype == torch.float32 else 1000
    scale = 2.0 ** min(max(math.frexp(largest)[1] - 1, -most), most)
    x, y = x / scale, y / scale
    centre = x.detach()[:: len(x) // 100 + 1].median(0).values
    return x - centre, y - centre, scale


class _Distances(torch.autograd.Function):
    """torch.cdist by differences, whose own gradient has no derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        value = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
        ctx.save_for_backward(x, y, value)
        return value

    @staticmethod
    def backward(ctx: Any, *outers: Tensor) -> Any:
        (outer,), (x, y, value) = outers, ctx.saved_tensors
        if torch.is_grad_enabled():
            plain = root(squared_by_differences(x, y))
            wanted = [z for z, need in zip((x, y), ctx.needs_input_grad) if need]
            gradients = iter(torch.autograd.grad(plain, wanted, outer, create_graph=True))
            return tuple(next(gradients) if need else None for need in ctx.needs_input_grad)
        return (
            _cdist_backward(outer, x, y, value) if ctx.needs_input_grad[0] else None,
            _cdist_backward(outer.mT, y, x, value.mT) if ctx.needs_input_grad[1] else None,
        )


def _cdist_backward(outer: Tensor, x: Tensor, y: Tensor, value: Tensor) -> Tensor:
    backward: Any = torch.ops.aten._cdist_backward
    return backward(outer.contiguous(), x.contiguous(), y.contiguous(), 2.0, value.contiguous())


def distances(x: Tensor, y: Tensor) -> Tensor:
    """‖x_i - y_j‖ as (n, m) from (n, d) and (m, d), exact at 0 and with gradient 0 there.

    Differences are taken before squaring. The expansion ‖x‖² + ‖y‖² - 2x·y loses half of the
    digits of small distances, which a square root then makes visible. Points whose squares would
    leave the range of their dtype are measured in another unit.
    """
    for name, points in (("x", x), ("y", y)):
        if not isinstance(points, Tensor):
            raise ValueError(f"`{name}` must be a tensor of points, got {type(points).__name__}")
    scale = unit_of_length(x, y) if x.numel() and y.numel() else 1.0
    if not 1e-9 < scale < 1e15 and math.isfinite(scale):
        return scale * _Distances.apply(x / scale, y / scale)  # pyright: ignore
    return _Distances.apply(x, y)  # pyright: ignore


def squared_by_differences(x: Tensor, y: Tensor) -> Tensor:
    """‖x_i - y_j‖² (n, m), differentiable twice, with n m d numbers in memory."""
    return (x[:, None] - y).square().sum(-1)


def weighted_differences(w: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_j w_ij (x_i - y_j), (n, d), and Σ_i w_ij (y_j - x_i), (m, d), without graph.

    Coordinate by coordinate, since Σ_j w_ij x_i - Σ_j w_ij y_j loses the digits of close points
    that are far from the origin.
    """
    moves = [w * (x[:, c, None] - y[:, c]) for c in range(x.shape[1])]
    of_x = torch.stack([move.sum(1) for move in moves], 1)
    return of_x, torch.stack([-move.sum(0) for move in moves], 1)


RESOLVED = {torch.float32: 1e-4, torch.float64: 1e-10}
"""The relative error that is allowed in the least squared distance; sums over many pairs are
accurate far beyond it."""


class Norms(NamedTuple):
    """A sample (n, d) with the squared norms of its rows, from which a product makes distances."""

    rows: Tensor
    squared: Tensor

    def part(self, rows: slice) -> "Norms":
        return Norms(self.rows[rows], self.squared[rows])

    def double(self) -> "Norms":
        return norms(self.rows.double())


def norms(x: Tensor) -> Norms:
    """A sample (n, d) beside the squared norms of its rows."""
    return Norms(x, x.square().sum(1))


def squared_by_product(x: Norms, y: Norms) -> Tensor:
    """‖x_i - y_j‖² (n, m) as one matrix product, at least 0.

    It has the accuracy of the largest squared norms, with which `is_resolved` compares it.
    """
    squared = torch.addmm(y.squared, x.rows, y.rows.T, alpha=-2)
    return squared.add_(x.squared[:, None]).clamp_(min=0)


def is_resolved(least: Tensor, x: Norms, y: Norms, accuracy: float) -> bool:
    """Whether the squared distances that a product gave are right to `accuracy`, the least of
    them too, and so far inside the range of their dtype that a scale outside of it is negligible
    or vast."""
    info, largest = torch.finfo(least.dtype), x.squared.amax() + y.squared.amax()
    rounding = info.eps * largest + info.tiny / info.eps
    return bool((least * accuracy > rounding) & (largest < info.eps * info.max))


def first_least(block: Tensor) -> Tensor:
    """The column (n,) of the least entry of each row of block (n, m), the first of equal ones.

    On a CPU NumPy looks for it: its search is vectorised, and several times as fast as PyTorch's.
    """
    if block.device.type == "cpu":
        return from_numpy(to_numpy(block).argmin(1))
    return block.argmin(1)


def drawn(weights: Tensor, u: Tensor) -> Tensor:
    """An index (k,) for each row of weights (k, n), of any sum, by inversion of its distribution
    function at u (k,) in [0, 1). Nothing of weight 0 is drawn."""
    levels = weights.cumsum(1, dtype=torch.float64)
    total = levels[:, -1]
    level = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(levels, level[:, None], right=True)[:, 0]
