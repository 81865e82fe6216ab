"""How often a GPU's results are waited for: reads of tensors that lie elsewhere are counted."""

import pytest
import test_elsewhere
import torch
from test_elsewhere import Elsewhere, Pretence, carried_out

from monge._core.numerics import rooted
from monge.transport import sliced_wasserstein, uniform_directions
from monge.transport.line import power_1d
from monge.transport.sliced import is_projection_resolved, sliced_power


@pytest.fixture
def reads(monkeypatch):
    """The operations that copy to the host, in their order."""
    seen = []

    def noted(function, args, kwargs):
        made = carried_out(function, args, kwargs)
        tensors = isinstance(args[0], Elsewhere) if args else False
        to_host = isinstance(made, torch.Tensor) and not isinstance(made, Elsewhere)
        if tensors and (to_host or str(function).startswith("aten._local_scalar_dense")):
            seen.append(str(function))
        return made

    monkeypatch.setattr(test_elsewhere, "carried_out", noted)
    return seen


def elsewhere(*shape):
    return Elsewhere(torch.randn(*shape)).requires_grad_()


def law(n):
    return Elsewhere(torch.rand(n).double().softmax(0))


def test_reads_are_counted(reads):
    with Pretence():
        x = elsewhere(3)
        float(x.detach().sum())
        bool((x > 0).all())
        x.detach().cpu()
    assert len(reads) == 3


@pytest.mark.parametrize("p", [1, 2, 1.5])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("m", [9, 7])
def test_a_sliced_power_is_read_once(reads, m, weighted, p):
    x, y = elsewhere(9, 3), elsewhere(m, 3)
    theta = Elsewhere(uniform_directions(20, 3))
    a, b = (law(9), law(m)) if weighted else (None, None)
    with Pretence():
        sliced_power(x, y, theta, a, b, p=p).backward()
    assert len(reads) == 1


@pytest.mark.parametrize("m", [9, 7])
def test_a_sliced_distance_is_read_once_and_its_samples_and_directions_are(reads, m):
    x, y = elsewhere(9, 3), elsewhere(m, 3)
    with Pretence():
        sliced_wasserstein(x, y, directions=20).backward()
        assert len(reads) == 2  # what is drawn is not checked
        sliced_wasserstein(x, y, directions=Elsewhere(uniform_directions(20, 3))).backward()
        assert len(reads) == 2 + 3
        # a weight is checked by one read
        sliced_wasserstein(x, y, law(9), law(m), directions=20)
    assert len(reads) == 2 + 3 + 4


def test_roots_and_resolution_are_read_once(reads):
    u, v = elsewhere(4, 9), elsewhere(4, 9)
    with Pretence():
        rooted(lambda u, v, p: power_1d(u, v, p=p), u, v, 2).sum().backward()
        assert len(reads) == 1
        is_projection_resolved(Elsewhere(torch.tensor(1.0)), 2, u, v)
    assert len(reads) == 2
