"""Small numerical parts that several modules share."""

import torch
from torch import Tensor


def root(value: Tensor, p: float = 2) -> Tensor:
    """value^{1/p} of values ≥ 0, with gradient 0 where the value is 0."""
    if p == 1:
        return value
    zero = value == 0
    return torch.where(zero, 1.0, value).pow(1 / p).masked_fill(zero, 0.0)
