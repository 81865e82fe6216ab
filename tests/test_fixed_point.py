"""Sinkhorn's iteration that does not wait for the host takes the steps of the one that does."""

import dataclasses
import math

import pytest
import torch

from monge._core import tuning
from monge.transport import fixed_point, gibbs, potentials, sinkhorn, sinkhorn_divergence
from monge.transport.fixed_point import Anderson, iterate, iterate_in_chunks
from monge.transport.gibbs import Stored, Streamed
from monge.transport.ground import Points


def problem(n, m, d, spread=1.0, stored=True):
    torch.manual_seed(n + m)
    x, y = torch.randn(n, d).double() * spread, torch.randn(m, d).double() + 0.5
    a, b = torch.rand(n).double(), torch.rand(m).double()
    a[0] = 0
    cost, a, b = Points(x, y, 2.0), a / a.sum(), b / b.sum()
    if stored:
        return Stored(cost, a, b, torch.empty(n * m, dtype=torch.float64))
    return Streamed(cost, a, b)


def solved(iteration, minima, epsilon, acceleration, tolerance, most=10_000):
    zero = torch.zeros_like(minima.b)
    minima.begin(torch.zeros_like(minima.a), zero, epsilon)
    return iteration(minima, False, zero, acceleration, tolerance, most)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("acceleration", [None, Anderson(0), Anderson(1), Anderson(5)])
@pytest.mark.parametrize("epsilon", [3.0, 0.3, 0.05])
def test_chunks_end_where_single_iterations_end(monkeypatch, epsilon, acceleration, stored):
    monkeypatch.setattr(fixed_point, "tuning", lambda _: tuning.ACCELERATOR)
    arguments = (epsilon, acceleration, 1e-6, 400)
    h, error, count = solved(iterate, problem(40, 31, 3, stored=stored), *arguments)
    other = solved(iterate_in_chunks, problem(40, 31, 3, stored=stored), *arguments)
    assert other[2] == count
    assert other[1] == pytest.approx(error, rel=0.2)
    torch.testing.assert_close(other[0], h, rtol=0, atol=1e-5 * epsilon)


@pytest.mark.parametrize("most", [1, 2, 7, 8, 9, 16])
def test_chunks_stop_at_the_limit(monkeypatch, most):
    monkeypatch.setattr(fixed_point, "tuning", lambda _: tuning.ACCELERATOR)
    arguments = (0.05, Anderson(5), 1e-12, most)
    h, error, count = solved(iterate, problem(30, 30, 2), *arguments)
    assert count == most
    other = solved(iterate_in_chunks, problem(30, 30, 2), *arguments)
    assert other[2] == most
    assert other[1] == pytest.approx(error, rel=1e-6)
    torch.testing.assert_close(other[0], h, rtol=0, atol=1e-9)


def test_a_kernel_whose_range_is_left_is_computed_anew(monkeypatch):
    """Costs of 10⁴ ε: at the start all entries of the Gibbs kernel are 0."""
    monkeypatch.setattr(fixed_point, "tuning", lambda _: tuning.ACCELERATOR)
    begun = []
    begin = Stored.begin
    monkeypatch.setattr(Stored, "begin", lambda *a: (begun.append(a), begin(*a))[1])
    arguments = (0.02, Anderson(5), 1e-4)
    h, error, _ = solved(iterate_in_chunks, problem(40, 40, 3, spread=6.0), *arguments)
    assert len(begun) > 1
    assert error <= 1e-4
    streamed = problem(40, 40, 3, spread=6.0, stored=False)
    streamed.begin(torch.zeros_like(streamed.a), h, 0.02)
    _, its_error = fixed_point.step(streamed, h)
    assert float(its_error) == pytest.approx(error, rel=1e-3)


def test_the_device_is_read_once_a_chunk(monkeypatch):
    monkeypatch.setattr(fixed_point, "tuning", lambda _: tuning.ACCELERATOR)
    minima = problem(40, 31, 3)
    zero = torch.zeros_like(minima.b)
    minima.begin(torch.zeros_like(minima.a), zero, 0.3)
    reads = []
    for name in ("tolist", "item", "__bool__", "__float__", "__int__", "numpy", "cpu"):
        read = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda *a, read=read, name=name: (reads.append(name), read(*a))[1]
        )
    _, _, count = iterate_in_chunks(minima, False, zero, Anderson(5), 1e-6, 10_000)
    monkeypatch.undo()
    assert count > 8
    # five numbers in one copy, which on a CPU are read one by one
    assert reads == ["__float__"] * 5 * math.ceil(count / 8)


@pytest.mark.parametrize("p", [1, 2])
def test_plans_and_divergences_of_an_accelerator_are_those_of_a_cpu(monkeypatch, p):
    torch.manual_seed(0)
    x, y = torch.randn(60, 3).double().requires_grad_(), torch.randn(50, 3).double()
    settings = {"epsilon": 0.1, "p": p, "tolerance": 1e-10}
    found = []
    for values in (tuning.CPU, dataclasses.replace(tuning.ACCELERATOR, gibbs_range=5.0)):
        for module in (fixed_point, gibbs, potentials):
            monkeypatch.setattr(module, "tuning", lambda _, values=values: values)
        plan = sinkhorn(x, y, **settings)
        divergence = sinkhorn_divergence(x, y, **settings)
        (gradient,) = torch.autograd.grad(divergence + plan.value, x)
        found.append((plan.plan, plan.value_linear, divergence, gradient))
        assert plan.converged
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
