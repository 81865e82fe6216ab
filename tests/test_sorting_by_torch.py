"""What a GPU sorts by torch, forced on the CPU, is what NumPy sorts there; ties included."""

import pytest
import torch

from monge.transport import line, sliced, sliced_wasserstein, uniform_directions
from monge.transport.sorting import Sort, _torch_values_, _torch_with_order


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 17), (63, 63), (130, 63), (1030, 1030)])
@pytest.mark.parametrize("weighted", [False, True])
def test_sliced_distances(monkeypatch, n, m, p, dtype, weighted):
    x, y = (torch.randn(k, 3, dtype=dtype) for k in (n, m))
    x[:1] *= 1e3  # far from all others
    x[n // 2 :] = x[: n - n // 2].flip(0).clone()  # every point twice
    theta = uniform_directions(24, 3)
    laws = [torch.rand(k, dtype=torch.float64) for k in (n, m)]
    laws[0][n // 3 : n // 2] = 0
    laws = [w / w.sum() for w in laws] if weighted else []
    x, y = x.requires_grad_(), y.requires_grad_()

    def everything():
        value = sliced_wasserstein(x, y, *laws, p=p, directions=theta)
        of_x, of_y = torch.autograd.grad(value, [x, y])
        # equal points share their slopes in any order
        return value.detach(), of_x + of_x.flip(0), of_y

    expected = everything()
    by_torch = Sort(_torch_values_, _torch_with_order)
    for name in ("sort_", "sorted_with_order"):
        at = {"sort_": by_torch.values_, "sorted_with_order": by_torch.with_order}[name]
        monkeypatch.setattr(line, name, lambda *z, at=at: at(*(one.detach() for one in z)))
    monkeypatch.setattr(sliced, "_rows", lambda x, y: 5)
    found = everything()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-11
    for one, other in zip(found, expected):
        size = float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * size)
