"""A critic of samples and data that is at chance: its own loss tells when it has lost track of
the decoder, which it then gives no direction."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from monge.adversarial import JensenShannon, Relativistic
from monge.divergences import Divergence
from monge.models import matchings
from monge.models.base import SAMPLES

NEAR = 0.01
"""The largest distance of the loss from its value at chance."""


def inner_at_chance(divergence: Divergence) -> float | None:
    """The inner loss of a critic that cannot tell two samples apart, if it is known."""
    if isinstance(divergence, JensenShannon):
        return 2 * math.log(2)
    return math.log(2) if isinstance(divergence, Relativistic) else None


class ChanceWatch:
    """Follows the logged loss of the critic of a model's second matching, of samples and data.

    Codes may match their prior, and leave their critic at chance; samples never match data.

    Args:
        model: the model.
        rows: what has been logged before.
    """

    def __init__(self, model: nn.Module, rows: Iterable[Mapping[str, Any]] = ()):
        named = {one.name: one.divergence for one in matchings(model)}
        self.level = inner_at_chance(named[SAMPLES]) if SAMPLES in named else None
        self.name = "inner" if len(named) == 1 else f"{SAMPLES} inner"
        self.since: float | None = None
        self.remark: str | None = None
        for row in rows:
            self.follow(row)

    def follow(self, row: Mapping[str, Any]) -> bool:
        """Whether the loss, with this row, has been at chance for a whole epoch for the first
        time; `remark` says so from then on."""
        value = row.get(self.name)
        if self.level is None or value is None or self.remark is not None or "stage" in row:
            return False
        if not abs(value - self.level) <= NEAR:
            self.since = None
            return False
        self.since = row["epoch"] if self.since is None else self.since
        if row["epoch"] - self.since < 1:
            return False
        self.remark = (
            f"From epoch {self.since:.3g} to {row['epoch']:.3g} `{self.name}` stayed within "
            f"{NEAR} of {self.level:.3f}, its value at chance: the critic did not tell samples "
            "from data, and gave the decoder no direction. Try a larger --sharpen-lr or "
            "--sharpen-steps, or another divergence for --sharpen."
        )
        return True
