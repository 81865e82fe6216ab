"""One program takes the steps that the host takes, and stops where it stops."""

import dataclasses

import pytest
import torch

from monge._core import tuning
from monge.transport import fixed_point, gibbs, sinkhorn
from monge.transport.fixed_point import Anderson, iterate, iterate_in_one_program
from monge.transport.gibbs import Streamed, is_small
from monge.transport.ground import Matrix, Points


def problem(n, m, epsilon, symmetric, dtype, device):
    torch.manual_seed(n)
    x, y = torch.randn(n, 3).double(), torch.randn(m, 3).double() + 0.5
    a, b = torch.rand(n).double(), torch.rand(m).double()
    if min(n, m) > 2:
        a[0] = b[1] = 0
    (x, a), (y, b) = ((z.to(device), (w / w.sum()).to(device)) for z, w in ((x, a), (y, b)))
    minima = Streamed(Points(x, x if symmetric else y, 2, dtype), a, a if symmetric else b)
    minima.begin(torch.zeros_like(minima.a), torch.zeros_like(minima.b), epsilon)
    return minima


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("acceleration", [None, Anderson(1), Anderson(5), Anderson(9)])
@pytest.mark.parametrize(
    ("n", "m", "epsilon"), [(1, 1, 1.0), (1, 4, 0.3), (4, 1, 0.3), (17, 33, 0.5), (70, 40, 3.0)]
)
def test_the_iterate_its_error_and_their_number(
    kernel_device, n, m, epsilon, acceleration, symmetric
):
    minima = problem(n, m, epsilon, symmetric, torch.float64, kernel_device)
    start = torch.zeros_like(minima.b)
    arguments = minima, symmetric, start, acceleration, 1e-6, 60
    h, error, count = iterate(*arguments)
    other = iterate_in_one_program(*arguments)
    assert other[2] == count
    assert other[1] == pytest.approx(error, rel=0.05, abs=1e-14)
    torch.testing.assert_close(other[0], h, rtol=0, atol=1e-7)


@pytest.mark.parametrize("most", [1, 2, 5])
def test_the_limit(kernel_device, most):
    minima = problem(17, 33, 0.1, False, torch.float64, kernel_device)
    arguments = minima, False, torch.zeros_like(minima.b), Anderson(5), 1e-12, most
    h, error, count = iterate(*arguments)
    other = iterate_in_one_program(*arguments)
    assert count == other[2] == most
    assert other[1] == pytest.approx(error, rel=1e-9)
    torch.testing.assert_close(other[0], h, rtol=0, atol=1e-9)


def test_single_precision_is_accurate_to_its_digits(kernel_device):
    minima = problem(40, 30, 0.5, False, torch.float32, kernel_device)
    start = torch.zeros_like(minima.b)
    h, error, count = iterate_in_one_program(minima, False, start, Anderson(5), 1e-5, 100)
    exact = problem(40, 30, 0.5, False, torch.float64, kernel_device)
    _, its_error = fixed_point.step(exact, h)
    assert count < 100
    assert float(its_error) == pytest.approx(error, abs=3e-6)


def test_which_problems_are_small(kernel_device, monkeypatch):
    values = dataclasses.replace(tuning.ACCELERATOR, program_points=10)
    monkeypatch.setattr(gibbs, "tuning", lambda _: values)
    for shape, small in (((10, 10), True), ((11, 3), False), ((3, 11), False)):
        cost = Matrix(torch.rand(shape, device=kernel_device))
        assert is_small(cost) == small
        chosen = fixed_point.choose_iteration(cost)
        assert (chosen is iterate_in_one_program) == small


def test_a_plan_of_a_small_problem(kernel_device, monkeypatch):
    monkeypatch.setattr(gibbs, "tuning", lambda _: tuning.ACCELERATOR)
    x, y = torch.randn(20, 2).to(kernel_device), torch.randn(30, 2).to(kernel_device)
    plan = sinkhorn(x, y, epsilon=0.02, tolerance=1e-5)
    assert plan.converged
    assert plan.iterations > 5
    total = plan.plan.sum(0)
    torch.testing.assert_close(total, torch.full_like(total, 1 / 30), rtol=0, atol=1e-5)
