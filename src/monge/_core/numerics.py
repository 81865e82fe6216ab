"""Small numerical parts that several modules share."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, fast: Callable, plain: Callable, *inputs: Tensor) -> Tensor:
        value, gradients = fast(*inputs, ctx.needs_input_grad[2:])
        ctx.plain = plain
        ctx.save_for_backward(*inputs, *gradients)
        return value

    @staticmethod
    def backward(ctx, outer: Tensor):
        half = len(ctx.saved_tensors) // 2
        inputs, gradients = ctx.saved_tensors[:half], list(ctx.saved_tensors[half:])
        if torch.is_grad_enabled():
            # the gradient will be differentiated itself
            wanted = [i for i, g in enumerate(gradients) if g is not None]
            found = torch.autograd.grad(
                ctx.plain(*inputs), [inputs[i] for i in wanted], outer, create_graph=True
            )
            for i, gradient in zip(wanted, found):
                gradients[i] = gradient
            return None, None, *gradients
        shape = outer.shape
        return (
            None,
            None,
            *(
                None if g is None else outer.view(shape + (1,) * (g.ndim - len(shape))) * g
                for g in gradients
            ),
        )


def with_gradient(
    fast: Callable[..., tuple[Tensor, Sequence[Tensor | None]]],
    plain: Callable[..., Tensor],
    *inputs: Tensor,
) -> Tensor:
    r"""The value of `fast`, which makes its gradient along with it and so needs no graph.

    Arguments:
        fast: called as `fast(*inputs, wanted)` without graph; returns the value, shape (\*), and
            for each input that is `wanted` the gradient of the value's sum, shape (\*, …) if the
            value has batch dimensions, else None.
        plain: the same value with a graph, `plain(*inputs)`, taken where second derivatives are
            asked for.
        inputs: the tensors that take gradients.
    """
    return _WithGradient.apply(fast, plain, *inputs)  # pyright: ignore


def root(value: Tensor, p: float = 2) -> Tensor:
    """value^{1/p} of values ≥ 0, with gradient 0 where the value is 0."""
    if p == 1:
        return value

    def fast(value: Tensor, _) -> tuple[Tensor, list[Tensor | None]]:
        power = value.pow(1 / p)
        return power, [(power / (p * value)).masked_fill_(value == 0, 0.0)]

    def plain(value: Tensor) -> Tensor:
        zero = value == 0
        return torch.where(zero, 1.0, value).pow(1 / p).masked_fill(zero, 0.0)

    return with_gradient(fast, plain, value)


def rooted(power: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, p: float) -> Tensor:
    """power(x, y)^{1/p} of a power that is homogeneous of degree p.

    Where the p-th power has no number, the samples are taken in units of their largest value.
    """
    value = power(x, y)
    found, least = value.detach(), torch.finfo(value.dtype).tiny / torch.finfo(value.dtype).eps
    if torch.isfinite(found).all() and (found > least).all():
        return root(value, p)
    scale = max(float(z.detach().abs().max()) for z in (x, y)) or 1.0
    return scale * root(power(x / scale, y / scale), p)
