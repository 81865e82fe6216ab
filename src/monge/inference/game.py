r"""The game of generative adversarial networks, at its optimum.

The discriminator D(x) ∈ (0, 1) and the generator, with density f_g, play on data of density f for

    V(D, G) = E_f log D(X) + E_{f_g} log(1 - D(X)) = ∫ f log D + f_g log(1 - D).

u ↦ a log u + b log(1 - u) is largest at u = a / (a + b), so that for a given generator

    D* = f / (f + f_g),    V(D*, G) = -log 4 + 2 JS(f, f_g),

with JS = ½ KL(f ‖ m) + ½ KL(f_g ‖ m), m = ½ (f + f_g) (some texts define it without the halves).
V(D*, G) ≥ -log 4, with equality exactly for f_g = f.

For labels Y (1 real, 0 fake, each with probability ½) the discriminator's loss is half of -V: a
cross-entropy, and as such the entropy of the labels plus a Kullback-Leibler divergence,

    -½ V(D, G) = H(Y | X) + E KL(D*(X) ‖ D(X)).

Source: Goodfellow et al., "Generative adversarial nets", 2014, proposition 1 and theorem 1.
"""

import math
from collections.abc import Callable
from typing import Any, overload

import torch
from scipy.integrate import quad
from torch import Tensor

from monge._core.checks import finite, weights
from monge._core.promotion import ANY, as_tensor, as_weights, promoted

Density = Callable[[Tensor], Tensor]


@overload
def optimal_discriminator(f: Tensor, f_g: Tensor) -> Tensor: ...
@overload
def optimal_discriminator(f: Density, f_g: Density) -> Density: ...
def optimal_discriminator(f: Tensor | Density, f_g: Tensor | Density) -> Tensor | Density:
    r"""D* = f / (f + f_g), elementwise.

    Args:
        f: densities of the data, or masses, at least 0, of any shape; or a density, a function.
        f_g: those of the generator at the same places; or a density.

    Returns:
        Values in [0, 1], ½ where both are 0, since there nothing is lost by any answer; of two
        functions the function x ↦ D*(x).

    Raises:
        ValueError: for negative values, NaN, or shapes that differ.
    """
    if callable(f) and callable(f_g):
        return lambda x: _ratio(f(x), f_g(x))
    if callable(f) or callable(f_g):
        raise ValueError("`f` and `f_g` must be both tensors or both functions")
    return _ratio(f, f_g)


@promoted(f=ANY, f_g=ANY)
def _ratio(f: Tensor, f_g: Tensor) -> Tensor:
    """f / (f + f_g)."""
    for name, value in (("f", f), ("f_g", f_g)):
        if (finite(name, value) < 0).any():
            raise ValueError(f"`{name}` must be at least 0, got {float(value.min()):.3g}")
    if f.shape != f_g.shape:
        raise ValueError(
            f"`f` and `f_g` must be taken at the same places, got shapes {tuple(f.shape)} and "
            f"{tuple(f_g.shape)}"
        )
    # in units of the larger, so that neither tails nor peaks leave the range of numbers
    most = torch.maximum(f, f_g)
    unit = torch.where(most == 0, 1.0, most)
    real, fake = f / unit, f_g / unit
    return torch.where(most == 0, 0.5, real / torch.where(most == 0, 1.0, real + fake))


def game_value(
    f: Tensor | Density,
    f_g: Tensor | Density,
    discriminator: Tensor | Density | None = None,
    *,
    support: tuple[float, float] = (-math.inf, math.inf),
) -> Tensor:
    r"""V(D, G), for the optimal discriminator by default; in nats.

    Args:
        f: the distribution of the data: masses (\*, k) on a finite support, or a density on the
            line, a function of a scalar tensor.
        f_g: that of the generator, of the same kind; masses broadcast against those of `f`.
        discriminator: D, as values (\*, k) in [0, 1] on the support, or as a function.
        support: of densities, the interval that is integrated over, by adaptive quadrature.

    Returns:
        (\*) for masses, a scalar for densities; between -log 4 and 0 at the optimum.

    Raises:
        ValueError: for masses that do not sum to 1, or densities that do not integrate to 1 over
            the support to four digits: a peak was missed, or the support is too small.

    >>> game_value(torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.5]))  # -log 4
    """
    functions = [callable(one) for one in (f, f_g, discriminator) if one is not None]
    if not any(functions):
        return _of_masses(f, f_g, discriminator)
    if not all(functions):
        raise ValueError("`f`, `f_g` and `discriminator` must be all tensors or all functions")

    def at(function: Any, x: float) -> Tensor:
        return torch.as_tensor(function(torch.tensor(x, dtype=torch.float64))).double()

    def integrand(x: float) -> float:
        given = at(discriminator, x) if discriminator else None
        return float(_pointwise(at(f, x), at(f_g, x), given))

    for name, density in (("f", f), ("f_g", f_g)):
        mass, _ = quad(lambda x, g=density: float(at(g, x)), *support, limit=200)
        if not abs(mass - 1) < 1e-4:
            raise ValueError(
                f"`{name}` integrates to {mass:.4g} over `support` {support}, not to 1: "
                "give the interval that holds both distributions"
            )
    return torch.tensor(quad(integrand, *support, limit=200)[0], dtype=torch.float64)


def _of_masses(f: Any, f_g: Any, discriminator: Any) -> Tensor:
    """V(D, G) of masses (..., k), in their dtype."""
    given = [as_tensor("f", f), as_tensor("f_g", f_g)]
    dtype = torch.promote_types(given[0].dtype, given[1].dtype)
    masses = [as_weights("f", f), as_weights("f_g", f_g)]
    count = masses[0].shape[-1] if masses[0].ndim else 0
    for name, w in zip(("f", "f_g"), masses):
        weights(name, w, count)
    try:
        masses = torch.broadcast_tensors(*masses)
    except RuntimeError:
        raise ValueError(
            "`f` and `f_g` must have batch dimensions that broadcast, got shapes "
            f"{tuple(masses[0].shape)} and {tuple(masses[1].shape)}"
        ) from None
    # derivatives are those in each mass by itself, as of a function of masses
    p, q = (w.double() / w.detach().double().sum(-1, keepdim=True) for w in masses)
    if discriminator is None:
        return _pointwise(p, q, None).sum(-1).to(dtype)
    values = as_tensor("discriminator", discriminator)
    if values.shape not in (p.shape, p.shape[-1:]) or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(
            f"`discriminator` must be values in [0, 1] on the support of `f`, {tuple(p.shape)}, "
            f"got shape {tuple(values.shape)}"
        )
    return _pointwise(p, q, values.double()).sum(-1).to(dtype)


def _pointwise(f: Tensor, f_g: Tensor, discriminator: Tensor | None) -> Tensor:
    """f log D + f_g log(1 - D)."""
    if discriminator is not None:
        return torch.xlogy(f, discriminator) + torch.xlogy(f_g, 1 - discriminator)
    # 1 - D* by its own ratio: the difference is 0 where D* rounds to 1
    real, fake = _ratio(f, f_g), _ratio(f_g, f)
    return _xlog(f, real) + _xlog(f_g, fake)


def _xlog(x: Tensor, y: Tensor) -> Tensor:
    """x log y, 0 with gradient 0 where x is 0."""
    return torch.where(x == 0, 0.0, x) * y.masked_fill(x == 0, 1.0).log()
