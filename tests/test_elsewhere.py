"""Nothing is made on the wrong device: functions run on a device that only pretends.

A tensor that lies `Elsewhere` says that it is on torch's device meta, but has its values beside
it, on the CPU: every operation is carried out on these. One that mixes both kinds is an error, as
on a GPU, so that this needs none.
"""

import numpy as np
import pytest
import torch
from test_devices import LAWS, pair
from test_edges import OTHERS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from zoo import DIVERGENCES

CROSSING = ("aten._to_copy", "aten.copy_", "aten.index", "aten._index", "aten._unsafe_index")
"""Operations that a GPU carries out with tensors of the CPU too."""
BEYOND = {
    "divergence exact": "those of new_tensor are too",
    "divergence exact-1": "those of new_tensor are too",
}


class Elsewhere(torch.Tensor):
    """A tensor on the device meta with values."""

    values: torch.Tensor

    @staticmethod
    def __new__(cls, values):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            dtype=values.dtype,
            device=torch.device("meta"),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
        )
        made.values = values
        return made

    def __init__(self, values):
        super().__init__()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return carried_out(function, args, kwargs or {})


class Pretence(TorchDispatchMode):
    """Inside, tensors that are made on the device meta have values."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return carried_out(function, args, kwargs or {})


def values_of(x):
    return x.values if isinstance(x, Elsewhere) else x


def carried_out(function, args, kwargs):
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    there = [x for x in tensors if isinstance(x, Elsewhere)]
    here = [x for x in tensors if not isinstance(x, Elsewhere) and x.ndim]
    name, wrapped = str(function), bool(there)
    if there and here and not name.startswith(CROSSING):
        raise RuntimeError(f"{name}: a tensor {tuple(here[0].shape)} is left on the CPU")
    if kwargs.get("device") is not None:
        wrapped = torch.device(kwargs["device"]).type == "meta"
        kwargs = kwargs | {"device": torch.device("cpu")}
    if name.startswith("aten.copy_"):
        wrapped = isinstance(args[0], Elsewhere)
    made = function(*tree_map(values_of, args), **tree_map(values_of, kwargs))
    known = {id(x.values): x for x in there}

    def placed(x):
        if not isinstance(x, torch.Tensor):
            return x
        return known[id(x)] if id(x) in known else Elsewhere(x)

    return tree_map(placed, made) if wrapped else made


def moved(module):
    """A module whose parameters and buffers lie elsewhere."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = torch.nn.Parameter(Elsewhere(value.detach().clone()))
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = Elsewhere(value.clone())
    return module


def of_distance(name):
    return lambda x, y: LAWS[name].value(x, y, 1.0)


def of_divergence(name):
    def value(x, y):
        torch.manual_seed(3)
        divergence = DIVERGENCES[name].make().double()
        return (moved(divergence) if isinstance(x, Elsewhere) else divergence)(x, y)

    return value


CASES = {
    **{
        f"distance {name}": lambda x, y, law=law: law.value(x, y, 1.0)
        for name, law in LAWS.items()
    },
    **{f"divergence {name}": of_divergence(name) for name in DIVERGENCES},
    **{f"other {name}": value for name, value in OTHERS.items()},
}


@pytest.mark.parametrize("name", CASES)
def test_a_function_stays_on_the_device_of_its_samples(name):
    """Its value and its gradient, and both are those of the CPU."""
    if name in BEYOND:
        pytest.skip(BEYOND[name])
    x, y = pair(9, 9, torch.float64)
    expected = with_gradient(CASES[name], x.clone().requires_grad_(), y)
    with Pretence():
        u = Elsewhere(x.clone()).requires_grad_()
        found = with_gradient(CASES[name], u, Elsewhere(y.clone()))
    for ours, theirs in zip(found, expected):
        assert isinstance(ours, Elsewhere)
        np.testing.assert_allclose(ours.values.numpy(), theirs.numpy(), rtol=1e-9, atol=1e-12)


def with_gradient(value, x, y):
    torch.manual_seed(1)
    made = value(x, y)
    (gradient,) = torch.autograd.grad(made.sum(), x, allow_unused=True)
    return [made.detach()] if gradient is None else [made.detach(), gradient.detach()]


def test_the_pretence_finds_a_tensor_that_is_left_behind():
    with Pretence(), pytest.raises(RuntimeError, match=r"\(3,\) is left on the CPU"):
        Elsewhere(torch.ones(2, 3)) + torch.ones(3)
    with Pretence():
        assert isinstance(torch.ones(3, device="meta"), Elsewhere)
        assert float(Elsewhere(torch.ones(2, 3)).sum()) == 6
