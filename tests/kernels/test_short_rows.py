"""Rows that a program sorts in registers are matched as sorted rows are."""

import pytest
import torch

from monge.divergences import SlicedWasserstein
from monge.gpu.launch import is_usable
from monge.transport import line, sliced_wasserstein, uniform_directions, wasserstein_1d
from monge.transport.line import _matched, choose_matching


@pytest.mark.parametrize(
    ("n", "p"), [(n, p) for n in (1, 2, 3, 17, 64) for p in (1, 2, 3, 1.5)] + [(130, 2)]
)
def test_powers_and_slopes(kernel_device, n, p):
    u, v = torch.randn(5, n), torch.randn(5, n) * 3
    u[0], v[1] = u[0].round(), 0  # ties
    v[2] = u[2].flip(0)  # the same law
    u[3] *= 1e-20
    u, v = u.to(kernel_device), v.to(kernel_device)
    kernel = choose_matching(u)
    assert kernel is not _matched
    assert choose_matching(u.double()) is _matched
    # the interpreter is slow
    others = [(True, False), (False, True), (False, False)] if n < 20 else []
    for wanted in [(True, True), *others]:
        powers, slopes = kernel(u, v, p, wanted)
        right, of_rows = _matched(u.double(), v.double(), p, wanted)
        torch.testing.assert_close(powers, right, rtol=3e-6, atol=1e-30)
        for one, other in zip(slopes, of_rows):
            assert (one is None) == (other is None)
            if one is None:
                continue
            # the slopes of equal values may be shared out in another order
            for row in (1, 3, 4):
                other_row = other[row].sort().values
                torch.testing.assert_close(
                    one[row].sort().values.double(), other_row, rtol=1e-5, atol=1e-6
                )
            torch.testing.assert_close(one[4].double(), other[4], rtol=1e-5, atol=1e-6)
    assert float(kernel(u, v, p, (False, False))[0][2]) == 0


def test_values_that_order_by_sign_and_size(kernel_device):
    values = [0.0, -0.0, 1e-40, -1e-40, 3e38, -3e38, 1.0, -1.0, 1.0000001, -2.0, 1e-38]
    u = torch.tensor([values]).to(kernel_device)
    v = torch.zeros_like(u)
    _, (slopes, _) = choose_matching(u)(u, v, 1, (True, False))
    right = u.sign() / len(values)
    torch.testing.assert_close(slopes, right)


def test_rows_longer_than_a_program_are_sorted_at_once(kernel_device):
    assert choose_matching(torch.zeros(2, 1024, device=kernel_device)) is not _matched
    assert choose_matching(torch.zeros(2, 1025, device=kernel_device)) is _matched


@pytest.mark.parametrize("p", [1, 2])
def test_sliced_distances_end_to_end(kernel_device, monkeypatch, p):
    x = torch.randn(40, 5).to(kernel_device).requires_grad_()
    y = torch.randn(40, 5).to(kernel_device).requires_grad_()
    theta = uniform_directions(8, 5).to(kernel_device)
    divergence = SlicedWasserstein(8, p=p)

    def everything():
        torch.manual_seed(0)
        value = sliced_wasserstein(x, y, p=p, directions=theta) + divergence(x, y)
        value = value + wasserstein_1d(x.T, y.T, p=p).sum()
        return value.detach(), *torch.autograd.grad(value, [x, y])

    assert is_usable(kernel_device)
    kernels = everything()
    monkeypatch.setattr(line, "is_usable", lambda _: False)
    for one, other in zip(kernels, everything()):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
