"""Values with their gradients: derivatives of both orders, and who owns the memory."""

import pytest
import torch

from monge._core.numerics import envelope, with_gradient
from monge.kernels import IMQ, pair_sum
from monge.transport import sinkhorn, sinkhorn_divergence, solve, wasserstein_1d


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def test_an_envelope_has_the_gradients_that_it_is_given():
    x, y = doubles(3).requires_grad_(), doubles(2, 2).requires_grad_()
    of_x, of_y = doubles(3), doubles(2, 2)
    value = envelope(torch.tensor(1.5).double(), (x, of_x), (None, of_y), (y, of_y), linear=True)
    assert value == 1.5
    first, second = torch.autograd.grad(3 * value, [x, y])
    torch.testing.assert_close(first, 3 * of_x)
    torch.testing.assert_close(second, 3 * of_y)


def test_second_derivatives_of_a_linear_programme_are_those_of_a_linear_function():
    u = doubles(4, 3).requires_grad_()

    def value(u):
        return solve(u.square()).value

    assert torch.autograd.gradcheck(value, u)
    assert torch.autograd.gradgradcheck(value, u)


def test_second_derivatives_that_are_not_known_are_refused_where_they_are_asked_for():
    """A plan whose weights and cost both move: the potentials' own derivative is not computed."""
    x = doubles(4).requires_grad_()
    value = envelope(x.detach().square().sum(), (x, 2 * x.detach()), linear=False)
    (first,) = torch.autograd.grad(value, x, create_graph=True)
    torch.testing.assert_close(first, 2 * x)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(first.sum(), x)


def test_a_gradient_has_the_dtype_of_its_input():
    x = torch.randn(3, requires_grad=True)
    value = with_gradient(lambda x, wanted: (x.double().sum(), [torch.ones(3).double()]), None, x)
    assert value.dtype == torch.float64
    assert torch.autograd.grad(value, x)[0].dtype == torch.float32


def storages(*tensors):
    return [z.untyped_storage().data_ptr() for z in tensors]


@pytest.mark.parametrize("sizes", [(5, 5), (5, 4)])
def test_no_two_gradients_share_memory(sizes):
    n, m = sizes
    for value, x, y in (
        (lambda x, y: pair_sum(IMQ(1.0), x, y), doubles(n, 2), doubles(m, 2)),
        (wasserstein_1d, doubles(n), doubles(m)),
        (lambda x, y: sinkhorn(x, y, epsilon=1.0).value, doubles(n, 2), doubles(m, 2)),
    ):
        x.requires_grad_()
        y.requires_grad_()
        gradients = torch.autograd.grad(value(x, y), [x, y])
        assert len(set(storages(x, y, *gradients))) == 4


def test_a_plan_outlives_the_memory_in_which_it_was_solved():
    """The second problem is solved where the first one's kernel was, if that is free."""
    x, y = torch.randn(20, 2), torch.randn(20, 2) + 1
    first = sinkhorn(x, y, epsilon=0.5)
    before = first.value.clone(), *(f.clone() for f in first.potentials)
    sinkhorn_divergence(torch.randn(20, 2), y, epsilon=0.1)
    for one, two in zip((first.value, *first.potentials), before):
        assert torch.equal(one, two)
    sums = first.plan.sum(1), first.plan.sum(0)
    for marginal in sums:
        torch.testing.assert_close(marginal, torch.full((20,), 0.05), atol=1e-3, rtol=0)
