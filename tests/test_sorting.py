"""The vectorised sort is torch's: values, permutations, gradients of first and second order."""

import pytest
import torch

from monge.transport.sorting import sort, sort_, sorted_with_order

SHAPES = pytest.mark.parametrize("shape", [(1,), (7,), (3, 50), (2, 3, 1000), (5, 40_000)])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def awkward(shape, dtype):
    """Duplicates, zeros of both signs, and magnitudes from 1e-38 to 1e38."""
    x = torch.randn(shape, dtype=dtype) * 10.0 ** torch.randint(-38, 38, shape).to(dtype)
    x = torch.where(torch.rand(shape) < 0.2, x.flatten()[0], x)
    return torch.where(torch.rand(shape) < 0.2, torch.zeros(()).to(dtype).copysign(x), x)


@SHAPES
@DTYPES
def test_values_and_permutation(shape, dtype):
    x = awkward(shape, dtype)
    before = x.clone()
    expected = torch.sort(x, -1).values
    assert torch.equal(sort_(x.clone())[0], expected)
    values, order = sorted_with_order(x)
    assert torch.equal(values, expected)
    assert torch.equal(x.gather(-1, order), expected)
    assert torch.equal(order.sort(-1).values, torch.arange(shape[-1]).expand(shape))
    assert torch.equal(x, before)


def test_rows_that_are_not_contiguous():
    x = torch.randn(50, 6).T
    assert torch.equal(sort_(x.clone())[0], torch.sort(x, -1).values)
    assert torch.equal(sorted_with_order(x)[1], torch.sort(x, -1).indices)


@DTYPES
def test_gradient_goes_back_to_where_the_values_came_from(dtype):
    x, weights = torch.randn(4, 30, dtype=dtype, requires_grad=True), torch.randn(4, 30).to(dtype)
    (ours,) = torch.autograd.grad((sort(x)[0] * weights).sum(), x)
    (theirs,) = torch.autograd.grad((x.sort(-1).values * weights).sum(), x)
    assert torch.equal(ours, theirs)


def test_second_derivatives():
    x = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: sort(x)[0].pow(3), (x,))


@DTYPES
@pytest.mark.parametrize(
    "sizes", [[(1, 40_000)], [(1, 40_000), (1, 30_000)], [(5, 9_000), (2, 9)]]
)
def test_several_tensors_share_the_threads(sizes, dtype):
    tensors = [torch.randn(size, dtype=dtype) for size in sizes]
    expected = [x.sort(-1).values for x in tensors]
    assert all(map(torch.equal, sort_(*tensors), expected))
    assert all(map(torch.equal, tensors, expected))
