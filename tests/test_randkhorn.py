"""Randkhorn: its extrapolation is taken, it saves passes, and its limit is the plain one."""

import pytest
import torch

from monge.transport import Randkhorn, sinkhorn
from monge.transport.gibbs import Stored


def law(n):
    w = torch.rand(n, dtype=torch.float64) + 0.1
    return w / w.sum()


def _hard(n=300, m=250):
    """d = 3, blur 0.05: ε far below the mean cost."""
    random = torch.Generator().manual_seed(3)
    x, y = (torch.rand(k, 3, generator=random).double() for k in (n, m))
    return x, 0.9 * y + 0.1, 0.005


def _passes(monkeypatch, **settings):
    """The plan, and (potential, its soft minimum) of each pass over the cost."""
    seen = []
    soft_minima = {name: getattr(Stored, name) for name in ("rows", "columns")}

    def counted(name):
        def soft_minimum(self, other):
            image = soft_minima[name](self, other)
            seen.append((other.clone(), image.clone()))
            return image

        return soft_minimum

    for name in soft_minima:
        monkeypatch.setattr(Stored, name, counted(name))
    x, y, epsilon = _hard()
    plan = sinkhorn(x, y, epsilon=epsilon, **settings)
    monkeypatch.undo()
    return plan, seen


@pytest.mark.parametrize("tolerance", [1e-5, 1e-7])
def test_randkhorn_takes_a_third_of_the_plain_passes(monkeypatch, tolerance):
    plain, slow = _passes(monkeypatch, tolerance=tolerance, acceleration=None)
    for seed in range(3):
        plan, fast = _passes(monkeypatch, tolerance=tolerance, acceleration=Randkhorn(seed))
        assert plan.converged
        assert plan.marginal_error <= tolerance
        assert 3 * len(fast) < len(slow)
        # an iteration takes two passes, as one of the plain algorithm
        assert abs(2 * plan.iterations - len(fast)) <= abs(2 * plain.iterations - len(slow)) + 2


def test_randkhorn_takes_its_extrapolation(monkeypatch):
    """Most iterations start at potentials that no soft minimum gave."""
    plan, passes = _passes(monkeypatch, tolerance=1e-5, acceleration=Randkhorn())
    images = [image for _, image in passes]
    extrapolated = sum(
        not any(z.shape == w.shape and torch.equal(z, w) for w in images) for z, _ in passes
    )
    assert plan.iterations > 20
    assert extrapolated >= 0.8 * plan.iterations


def test_randkhorn_has_the_fixed_point_of_the_plain_algorithm():
    x, y, epsilon = _hard(60, 50)
    a, b = law(60), law(50)
    a[:3], b[-2:] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    x, y, a, b = (z.requires_grad_() for z in (x, y, a, b))
    found = []
    for acceleration in (None, Randkhorn(0), Randkhorn(1)):
        plan = sinkhorn(x, y, a, b, epsilon=epsilon, tolerance=1e-11, acceleration=acceleration)
        assert plan.converged
        assert plan.marginal_error <= 1e-11
        f, g = (z.detach() for z in plan.potentials)
        gradients = torch.autograd.grad(plan.value, (x, y, a, b))
        found.append((plan.value.detach(), plan.plan, f + g[5], g - g[5], *gradients))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-8)
    assert not torch.equal(found[1][3], found[2][3])


def test_randkhorn_in_float32_and_at_its_limit():
    x, y, epsilon = _hard()
    plan = sinkhorn(
        x.float(), y.float(), epsilon=epsilon, tolerance=1e-5, acceleration=Randkhorn()
    )
    exact = sinkhorn(x, y, epsilon=epsilon, tolerance=1e-9)
    assert plan.converged
    assert float(plan.value) == pytest.approx(float(exact.value), rel=1e-4)
    with pytest.warns(UserWarning, match="stopped after 5 iterations"):
        short = sinkhorn(
            x[:20], y, epsilon=1.0, tolerance=1e-14, max_iterations=5, acceleration=Randkhorn()
        )
    assert not short.converged
