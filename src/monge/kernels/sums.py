"""Sums of a kernel over all pairs of samples, with their gradients, without the matrix.

`choose_pair_sum` picks the implementation: blocks of matrix products, or one kernel on a GPU for
kernels that are sums of the terms it has.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from monge._core.checks import instance
from monge._core.numerics import (
    RESOLVED,
    Gradients,
    Norms,
    distances,
    is_resolved,
    norms,
    squared_by_differences,
    squared_by_product,
    weighted_differences,
    with_gradient,
)
from monge._core.promotion import as_tensor
from monge._core.tuning import tuning
from monge.gpu.launch import is_usable
from monge.gpu.terms import Term, TermKind
from monge.kernels.radial import (
    IMQ,
    RBF,
    Compiled,
    Constant,
    Energy,
    Kernel,
    Laplace,
    Product,
    RationalQuadratic,
    Sum,
    squarable,
)


def pair_sum(kernel: Kernel, x: Tensor, y: Tensor | None = None) -> Tensor:
    """Σ_ij k(x_i, y_j) of samples (n, d) and (m, d), or Σ_{i≠j} k(x_i, x_j) of one sample.

    Equal to `kernel(x, y).sum()`, without the matrix: memory is O((n + m) d). The value is
    float64. The gradient is computed with it; second derivatives need the matrix.
    """
    instance("kernel", kernel, Kernel, "RBF(1.0)")
    x, y = as_tensor("x", x), None if y is None else as_tensor("y", y)
    squarable(x, x if y is None else y)
    sums = choose_pair_sum(kernel, x)
    if y is None:

        def within(x: Tensor) -> Tensor:
            k = kernel.of_squared(_squared_graph(x, x, same=True))
            return k.sum(dtype=torch.float64) - k.diagonal().sum(dtype=torch.float64)

        def fast_within(x: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Gradients]:
            value, (of_x, _) = sums(x, None, (wanted[0], False))
            return value, [of_x]

        return with_gradient(fast_within, within, x)

    def across(x: Tensor, y: Tensor) -> Tensor:
        return kernel.of_squared(_squared_graph(x, y, same=False)).sum(dtype=torch.float64)

    def fast_across(x: Tensor, y: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, Gradients]:
        return sums(x, y, (wanted[0], wanted[1]))

    return with_gradient(fast_across, across, x, y)


def _squared_graph(x: Tensor, y: Tensor, same: bool) -> Tensor:
    """‖x_i - y_j‖², differentiable twice: by a product where that resolves it."""
    centre = x.detach().mean(0)
    near_x, near_y = x - centre, y - centre
    of_x, of_y = norms(near_x), norms(near_y)
    squared = torch.addmm(of_y.squared, near_x, near_y.T, alpha=-2) + of_x.squared[:, None]
    off = squared.detach().clone()
    least = (off.fill_diagonal_(torch.inf) if same else off).amin()
    if is_resolved(least, of_x, of_y, RESOLVED[x.dtype]):
        return squared - torch.diag(squared.diagonal()) if same else squared
    return squared_by_differences(x.double(), y.double())


Wanted = tuple[bool, bool]
"""Whether the gradients in x and in y are wanted."""
PairSum = Callable[
    [Tensor, Tensor | None, Wanted], tuple[Tensor, tuple[Tensor | None, Tensor | None]]
]
"""(x, y or None for x with itself, wanted) -> the sum in float64, and its gradients."""


def choose_pair_sum(kernel: Kernel, x: Tensor) -> PairSum:
    """Picks how a kernel is summed over all pairs of samples on the device of x (n, d).

    The rule: on a GPU with Triton sums of the package's kernels are computed in one pass over
    tiles, with all their terms; other kernels, and all kernels on other devices, by blocks of
    matrix products.
    """
    instance("kernel", kernel, Kernel, "RBF(1.0)")
    if is_usable(instance("x", x, Tensor, "torch.randn(100, dim)").device):
        terms = terms_of(kernel)
        if terms is not None:
            from monge.gpu.pair_sums import sum_terms

            return functools.partial(sum_terms, terms)
    return functools.partial(_by_blocks, kernel)


def terms_of(kernel: Kernel) -> tuple[Term, ...] | None:
    """The terms that a kernel is the sum of; None for products of two kernels that are not
    constant, and for kernels that others have written."""
    # no `isinstance`: a class derived from one of these may compute something else
    if type(kernel) is Compiled:
        return terms_of(kernel.kernel)
    if type(kernel) is Sum:
        parts = [terms_of(part) for part in kernel.parts()]
        return None if None in parts else tuple(itertools.chain.from_iterable(filter(None, parts)))
    if type(kernel) is Product:
        constants = [part for part in kernel.parts() if type(part) is Constant]
        weight = math.prod(part.value for part in constants)
        rest = [part for part in kernel.parts() if type(part) is not Constant]
        terms = terms_of(rest[0] if rest else Constant(1.0)) if len(rest) < 2 else None
        return terms and tuple(term._replace(weight=weight * term.weight) for term in terms)
    if type(kernel) is Constant:
        return (Term(TermKind.CONSTANT, float(kernel.value)),)
    if type(kernel) is RBF:
        return (Term(TermKind.GAUSSIAN, 1.0, 0.5 / kernel.s / kernel.s),)
    if type(kernel) is IMQ:
        return (Term(TermKind.INVERSE, 1.0, 1 / kernel.c),)
    if type(kernel) is Laplace:
        return (Term(TermKind.EXPONENTIAL, 1.0, 1 / kernel.s),)
    if type(kernel) is RationalQuadratic:
        rate = 0.5 / kernel.alpha / kernel.s / kernel.s
        return (Term(TermKind.RATIONAL, 1.0, rate, kernel.alpha),)
    if type(kernel) is Energy:
        return (Term(TermKind.DISTANCE, -1.0),)
    return None


def _by_blocks(
    kernel: Kernel, x: Tensor, y: Tensor | None, wanted: Wanted
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
    """A `PairSum`: with w = dk/d(squared distance) the gradient is 2 Σ_j w_ij (x_i - y_j)."""
    # far from the origin x_i Σ w - Σ w y would lose its digits
    centre, size = x.double().mean(0), tuning(x.device).kernel_rows
    a = norms(x - centre.to(x.dtype))
    b = a if y is None else norms(y - centre.to(x.dtype))
    # of one sample, what its points contribute as rows and as columns adds up in one gradient
    gx = torch.zeros_like(a.rows)
    gy = gx if y is None else torch.zeros_like(b.rows)
    sides = (wanted[0], wanted[0]) if y is None else wanted
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for i in range(0, len(a.rows), size):
        for j in range(i if y is None else 0, len(b.rows), size):
            rows, columns = slice(i, i + size), slice(j, j + size)
            times = 2 if y is None and j > i else 1
            pair, same = (a.part(rows), b.part(columns)), y is None and i == j
            block = _block(kernel, *pair, same, sides, RESOLVED[x.dtype])
            if block is None:
                wide = x[rows], (x if y is None else y)[columns]
                block = _block_in_double(kernel, wide, centre, same, sides, RESOLVED[x.dtype])
            value, of_x, of_y = block
            total += times * value
            if of_x is not None:
                gx[rows] += times * of_x
            if of_y is not None:
                gy[columns] += times * of_y
    if y is None:
        total -= len(x) * kernel.of_squared(x.new_zeros(1, dtype=torch.float64)).sum()
    return total, (gx if wanted[0] else None, gy if wanted[1] else None)


Block = tuple[Tensor, Tensor | None, Tensor | None]
"""The sum of k over a block of pairs, and its gradients in x and y."""


def _block(
    kernel: Kernel, one: Norms, two: Norms, same: bool, wanted: Wanted, accuracy: float
) -> Block | None:
    """A block by a matrix product, or None where close points lie too far from the centre to be
    told apart by it, or where the kernel leaves the range of the dtype."""
    x, y = one.rows, two.rows
    squared = squared_by_product(one, two)
    least = (squared.fill_diagonal_(torch.inf) if same else squared).amin()
    if not is_resolved(least, one, two, accuracy):
        return None
    if same:
        squared.fill_diagonal_(0)
    of_x = of_y = None
    if any(wanted):
        k, w = kernel.with_slope(squared)
        value, w = k.sum(), w.mul_(2)
        if wanted[0]:
            of_x = torch.addmm(w.sum(1, keepdim=True) * x, w, y, alpha=-1)
        if wanted[1]:
            of_y = torch.addmm(w.sum(0)[:, None] * y, w.T, x, alpha=-1)
    else:
        value = kernel.of_squared(squared).sum()
    total = sum((part.sum() for part in (of_x, of_y) if part is not None), value)
    return (value, of_x, of_y) if math.isfinite(float(total)) else None


def _block_in_double(
    kernel: Kernel,
    points: tuple[Tensor, Tensor],
    centre: Tensor,
    same: bool,
    wanted: Wanted,
    accuracy: float,
) -> Block:
    """A block in float64: by a product, or by differences if that does not resolve it either."""
    x, y = (z.double() - centre for z in points)
    block = _block(kernel, norms(x), norms(y), same, wanted, accuracy)
    if block is not None:
        return block
    x, y = (z.double() for z in points)
    squared = distances(x, y).square_()
    if not any(wanted):
        return kernel.of_squared(squared).sum(), None, None
    k, w = kernel.with_slope(squared)
    of_x, of_y = weighted_differences(w.mul_(2), x, y)
    return k.sum(), of_x if wanted[0] else None, of_y if wanted[1] else None
