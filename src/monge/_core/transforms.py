"""Functions of plain tensors under the transforms of `torch.func`.

Solvers outside torch cannot read the tensors that `torch.func` wraps. A function becomes a single
operation with a derivative, which sees plain tensors.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from monge._core.results import Account, leaves, replaced, stacked

Tensors = dict[str, Tensor]


def transforms_are_active() -> bool:
    """Whether a transform of `torch.func` is under way; torch has no public name for it."""
    return bool(torch._C._are_functorch_transforms_active())  # pyright: ignore


def is_transformed(x: Tensor) -> bool:
    """Whether a transform of `torch.func` wraps x."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(x))  # pyright: ignore


def as_one_operation(
    function: Callable[[Tensors], Any], tensors: Tensors, generator: torch.Generator | None
) -> Any:
    """`function` of tensors that `torch.func` transforms, as one operation on plain ones."""
    names, source, results = list(tensors), generator or torch.default_generator, []
    start = source.get_state()

    def plain(*inputs: Tensor) -> list[Tensor]:
        # evaluated again for a derivative it must see the same draws, and leave none behind
        now = source.get_state()
        source.set_state(start)
        results.append(function(dict(zip(names, inputs))))
        if len(results) > 1:
            source.set_state(now)
        return leaves(results[-1])

    outputs = iter(_Operation.apply(plain, *tensors.values()))  # pyright: ignore
    # of several, as under vmap, an account is that of the worst
    result = stacked(results) if isinstance(results[-1], Account) else results[-1]
    return replaced(result, lambda _: next(outputs))


class _Operation(torch.autograd.Function):
    """A function of plain tensors, opaque to transforms. Its derivative is one again, so that
    transforms nest; a batch is worked off item by item."""

    @staticmethod
    def forward(function: Callable[..., Sequence[Tensor]], *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(z.detach() for z in function(*(x.detach() for x in inputs)))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.function, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *outers: Tensor) -> Any:
        function, count, needs = ctx.function, len(outers), ctx.needs_input_grad[1:]

        def pulled(*tensors: Tensor) -> list[Tensor]:
            outers, inputs = tensors[:count], tensors[count:]
            with torch.enable_grad():
                moved = [
                    x if x.requires_grad or not need else x.detach().requires_grad_()
                    for x, need in zip(inputs, needs)
                ]
                wanted = [x for x in moved if x.requires_grad]
                pairs = [(v, o) for v, o in zip(function(*moved), outers) if v.requires_grad]
                if not pairs:
                    return [torch.zeros_like(x) for x in inputs]
                gradients = torch.autograd.grad(
                    [value for value, _ in pairs],
                    wanted,
                    [outer for _, outer in pairs],
                    create_graph=any(z.requires_grad for z in tensors),
                    allow_unused=True,
                )
            found = dict(zip(map(id, wanted), gradients))
            of_inputs = [found.get(id(x)) for x in moved]
            return [torch.zeros_like(x) if g is None else g for g, x in zip(of_inputs, inputs)]

        return None, *_Operation.apply(pulled, *outers, *ctx.saved_tensors)  # pyright: ignore

    @staticmethod
    def vmap(info: Any, in_dims: Any, function: Any, *inputs: Tensor) -> Any:
        items = [
            [x if d is None else x.select(d, i) for x, d in zip(inputs, in_dims[1:])]
            for i in range(info.batch_size)
        ]
        results = zip(*(_Operation.apply(function, *item) for item in items))  # pyright: ignore
        outputs = tuple(torch.stack(result) for result in results)
        return outputs, (0,) * len(outputs)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError(
            "transport distances have reverse-mode derivatives only: use torch.func.grad or "
            "jacrev, and jacrev(jacrev(f)) for a Hessian"
        )
