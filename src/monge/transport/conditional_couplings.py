r"""Couplings within labels, for flows that are conditioned on them.

A coupling of a whole batch pairs noise with the data that are near, whatever their labels. Given
the label, the noise is then no longer the noise that the flow starts from when it is sampled, and
the flow is biased. Here noise is dealt to the labels without being looked at, and each label has
a coupling of its own.

Source: Cheng, Schwing, "The curse of conditions: analyzing and improving optimal transport for
conditional flow-based generation", 2025.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from monge._core.checks import cpu_generator, instance
from monge._core.promotion import as_tensor
from monge.transport.couplings import Coupling, Pairs, Semidiscrete, refuse_shapes
from monge.transport.semidiscrete import Sampler, SemidiscretePlan, solve_semidiscrete


class PerLabel(Coupling):
    """A coupling within each label, for flows that are conditioned on it.

    Given the label, both marginals are kept as `coupling` keeps them.

    Args:
        coupling: the coupling within each label.

    Example:
        >>> i, j = PerLabel(Exact())(noise, data, labels1=labels)
        >>> velocity, condition = data[j] - noise[i], labels[j]
    """

    def __init__(self, coupling: Coupling):
        self.coupling = instance("coupling", coupling, Coupling, "Exact()")
        if isinstance(coupling, PerLabel):
            raise ValueError(
                f"`coupling` {coupling!r} is one within labels already: give {coupling.coupling!r}"
            )
        if isinstance(coupling, (Semidiscrete, SemidiscretePerLabel)):
            raise ValueError(
                f"`coupling` must pair the samples of a batch, got {type(coupling).__name__}, "
                "which has a data set: use SemidiscretePerLabel.fit(source, data, labels)"
            )

    def __call__(
        self,
        x0: Tensor,
        x1: Tensor,
        generator: torch.Generator | None = None,
        labels0: Tensor | None = None,
        labels1: Tensor | None = None,
    ) -> Pairs:
        r"""The indices of the pairs, in the order of the data.

        Args:
            x0: noise (n, \*).
            x1: data (m, \*).
            generator: a CPU generator, for couplings that draw.
            labels0: the label (n,) that each of the noise is dealt to, chosen without regard to
                it. By default noise i has the label of data i, which needs n = m.
            labels1: the labels (m,) of the data, integers.

        Raises:
            ValueError: for missing labels, or for labels of data that no noise has.
        """
        cpu_generator(generator)
        x0, x1 = torch.as_tensor(x0), torch.as_tensor(x1)
        refuse_shapes(x0, x1)
        labels1 = _labels("labels1", labels1, len(x1))
        if labels0 is None and len(x0) != len(x1):
            raise ValueError(
                f"`labels0` must be given for {len(x0)} samples of noise and {len(x1)} of data: "
                "draw them as the data's are distributed, without regard to the noise"
            )
        labels0 = labels1 if labels0 is None else _labels("labels0", labels0, len(x0))
        found: list[Pairs] = []
        of_noise = _rows(labels0)
        for label, columns in _rows(labels1).items():
            if label not in of_noise:
                raise ValueError(f"`labels0` must have each label of the data, got no {label}")
            rows = of_noise[label]
            i, j = self.coupling(x0[rows], x1[columns], generator)
            found.append((rows[i], columns[j]))
        i, j = (torch.cat(indices) for indices in zip(*found))
        in_order = j.argsort(stable=True)
        return i[in_order], j[in_order]


class SemidiscretePerLabel(Coupling):
    r"""`Semidiscrete` within each label, for flows that are conditioned on it.

    Each label has a plan between all of the noise's distribution and its own data, so that given
    the label both marginals are kept: that of the noise exactly, that of the data up to the error
    of the plan.

    Args:
        data: the data set (m, \*).
        labels: its labels (m,), integers.
        plans: for each label the plan of its data, in their order.

    Example:
        >>> coupling = SemidiscretePerLabel.fit(Gaussian(2).sample, data, labels)
        >>> drawn = labels[torch.randint(len(labels), (256,))]  # without regard to the noise
        >>> i, j = coupling(torch.randn(256, 2), labels0=drawn)
    """

    def __init__(self, data: Tensor, labels: Tensor, plans: Mapping[int, SemidiscretePlan]):
        self.data = as_tensor("data", data)
        self.labels = _labels("labels", labels, len(self.data))
        example = "SemidiscretePerLabel.fit(source, data, labels)"
        for plan in instance("plans", plans, Mapping, example).values():
            instance("plans", plan, SemidiscretePlan, example)
        self.plans, self.rows = dict(plans), _rows(self.labels)
        counts = {label: len(rows) for label, rows in self.rows.items()}
        fitted = {label: len(plan) for label, plan in self.plans.items()}
        if counts != fitted:
            raise ValueError(
                f"`plans` must be those of the data of each label, {counts}, got {fitted}"
            )

    @classmethod
    def fit(
        cls,
        source: Sampler,
        data: Tensor,
        labels: Tensor,
        *,
        tolerance: float = 0.25,
        draws: int = 128,
        generator: torch.Generator | None = None,
    ) -> "SemidiscretePerLabel":
        """Fits a plan for each label; arguments are those of `solve_semidiscrete`."""
        data = as_tensor("data", data)
        plans = {
            label: solve_semidiscrete(
                source, data[rows], tolerance=tolerance, draws=draws, generator=generator
            )
            for label, rows in _rows(_labels("labels", labels, len(data))).items()
        }
        return cls(data, labels, plans)

    def __call__(
        self,
        x0: Tensor,
        x1: Tensor | None = None,
        generator: torch.Generator | None = None,
        labels0: Tensor | None = None,
        labels1: Tensor | None = None,
    ) -> Pairs:
        """The indices of the pairs (x0[i], data[j]); a batch of data and its labels are not
        looked at. `labels0` (n,) are the labels that the noise is dealt to."""
        x0 = torch.as_tensor(x0)
        j = torch.empty(len(x0), dtype=torch.int64, device=x0.device)
        for label, rows in _rows(_labels("labels0", labels0, len(x0))).items():
            if label not in self.plans:
                raise ValueError(f"`labels0` must be labels of the data, got {label}")
            j[rows] = self.rows[label][self.plans[label].assign(x0[rows], generator)]
        return torch.arange(len(j), device=j.device), j

    def _shown(self) -> list[str]:
        return [f"labels={list(self.plans)}"]


def _labels(name: str, labels: Tensor | None, count: int) -> Tensor:
    if labels is None:
        raise ValueError(f"`{name}` must be {count} integers, got None")
    try:
        labels = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"`{name}` must be {count} integers, got {labels!r}") from None
    if labels.shape != (count,) or labels.is_floating_point():
        raise ValueError(
            f"`{name}` must be {count} integers, got {labels.dtype} {tuple(labels.shape)}"
        )
    return labels


def _rows(labels: Tensor) -> dict[int, Tensor]:
    """The rows of each label, in ascending order of labels."""
    rows = torch.arange(len(labels), device=labels.device)
    found = sorted({int(label) for label in labels.cpu()})
    return {label: rows[labels == label] for label in found}
