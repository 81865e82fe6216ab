r"""The coupling of a flow's noise with its whole training set, which is fitted before training."""

from collections.abc import Mapping

import torch
from torch import Tensor

from monge._core.untrusted import memory
from monge.draws import generator
from monge.transport.conditional_couplings import SemidiscretePerLabel
from monge.transport.couplings import Coupling, Pairs, Semidiscrete
from monge.transport.semidiscrete import SemidiscretePlan, solve_semidiscrete

COPIES = 8
"""How many copies of the data in float32 a fit holds at a time, at most."""


class WholeSet(Coupling):
    """`Semidiscrete` between N(0, I) and a training set, or `SemidiscretePerLabel` where samples
    have labels. A trained flow is sampled without it."""

    fitted: Coupling | None = None

    @property
    def data(self) -> Tensor | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The training set in standard units, once the plans are there."""
        return None if self.fitted is None else self.fitted.data

    def __call__(
        self,
        x0: Tensor,
        x1: Tensor | None = None,
        generator: torch.Generator | None = None,
        **labels: Tensor,
    ) -> Pairs:
        """The indices of the pairs (x0[i], data[j]); a batch of data is not looked at.

        Raises:
            ValueError: if no plans have been set.
        """
        if self.fitted is None:
            raise ValueError(
                "`coupling` WholeSet() has not been fitted to a training set: call "
                "coupling.set(data, labels, fitted(data, labels, seed))"
            )
        return self.fitted(x0, x0 if x1 is None else x1, generator, **labels)

    def set(self, data: Tensor, labels: Tensor | None, stored: Mapping[str, Tensor]) -> float:
        r"""Takes the plans that `fitted` has made.

        Args:
            data: the training set (n, \*) in standard units, on the device of training.
            labels: its labels (n,), if the flow is class-conditional.
            stored: the tensors of the plans.

        Returns:
            The largest marginal error of a plan; see `SemidiscretePlan.marginal_error`.

        Raises:
            ValueError: for plans of other data.
        """
        plans: dict[int, SemidiscretePlan] = {}
        for label, rows in _groups(data, labels).items():
            prefix = f"{label}."
            own = {k.removeprefix(prefix): x for k, x in stored.items() if k.startswith(prefix)}
            if "potentials" not in own:
                raise ValueError(f"`stored` has no plan for the label {label}")
            plans[label] = SemidiscretePlan.from_tensors(data[rows], own)
        if labels is None:
            self.fitted = Semidiscrete(data, plans[0])
        else:
            self.fitted = SemidiscretePerLabel(data, labels.to(data.device), plans)
        return max(plan.marginal_error for plan in plans.values())


def fitted(data: Tensor, labels: Tensor | None, seed: int) -> dict[str, Tensor]:
    r"""The plans between N(0, I) and a training set, one for each label, as tensors on the CPU.

    Args:
        data: (n, \*), in standard units.
        labels: (n,), if there are any.
        seed: of the draws.

    Raises:
        ValueError: for more data than half of this machine's memory holds eight times.
    """
    needed = COPIES * data.numel() * 4
    if 2 * needed > memory():
        raise ValueError(
            f"`coupling` semidiscrete needs about {needed / 1e9:,.0f} GB for {len(data):,} "
            f"samples, more than half of the {memory() / 1e9:,.0f} GB of this machine: use exact "
            "or sinkhorn"
        )

    def noise(n: int, random: torch.Generator | None) -> Tensor:
        return torch.randn(n, *data.shape[1:], generator=random, dtype=torch.float32, device="cpu")

    found: dict[str, Tensor] = {}
    for label, rows in _groups(data, labels).items():
        drawn = generator(seed, "semidiscrete", label)
        plan = solve_semidiscrete(noise, data[rows], generator=drawn)
        found |= {f"{label}.{name}": x.cpu().contiguous() for name, x in plan.tensors().items()}
    return found


def _groups(data: Tensor, labels: Tensor | None) -> dict[int, Tensor]:
    """The rows of each label; all of them under 0 without labels."""
    every = torch.arange(len(data), device=data.device)
    if labels is None:
        return {0: every}
    labels = labels.to(data.device)
    return {label: every[labels == label] for label in sorted({int(one) for one in labels.cpu()})}
