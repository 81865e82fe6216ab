"""The map of codes: what is drawn of it, whatever draws it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from monge._core.visible import visible
from monge.evaluation.latent import density, principal_plane, window

COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#8c00f0",
    "#783c14",
    "#b4b464",
    "#3c5050",
)
"""The colours of classes: those of Okabe and Ito, "Color universal design", 2008, then four that a
search has put as far from them and from each other as possible. Seen with normal vision or without
one kind of cones, any two are at least 16 apart in CIELAB. Marks differ as well, so that no class
rests on colour. The explorer has the same, in draw.js."""
HIGHLIGHTED = 6
"""How many of more than ten classes are in colour at first."""
CELLS, MOST_LETTERS = 64, 700


class CodeMap(NamedTuple):
    """Codes in the plane of their first two principal directions, over the prior."""

    places: Tensor
    """(n, 2)."""
    labels: Tensor | None
    """(n,)."""
    names: tuple[str, ...]
    """What the classes are called."""
    extent: tuple[float, float, float, float]
    """The window: least a, most a, least b, most b."""
    density: Tensor | None
    """The density of the prior, in [0, 1], (CELLS, CELLS), the row of the largest b first."""

    @property
    def letters(self) -> bool:
        """Whether the names of the classes are characters, which are drawn as the marks."""
        return bool(self.names) and all(len(one) == 1 and one.isalnum() for one in self.names)

    def colours(self) -> dict[int, str]:
        """The colours of the classes that are in colour at first, by label: all of at most ten,
        else a few over the whole range."""
        count = len(self.names)
        if count <= len(COLOURS):
            return dict(enumerate(COLOURS[:count]))
        chosen = torch.linspace(0, count - 1, HIGHLIGHTED).round().long().tolist()
        return dict(zip(chosen, COLOURS))


def code_map(
    codes: Tensor, prior: Tensor | None, labels: Tensor | None = None, names: Sequence[str] = ()
) -> CodeMap:
    """The map of codes (n, dim) of classes `labels` (n,), over draws of the prior (m, dim), if
    there is one."""
    mean, plane = principal_plane(codes)
    places = (codes - mean) @ plane
    drawn = places[:0] if prior is None else (prior - mean) @ plane
    extent = window(torch.cat([drawn[:5000], places]))
    if labels is not None:
        known = int(labels.max()) + 1 if len(labels) else 0
        names = names if len(names) >= known else [str(k) for k in range(known)]
    shown = CodeMap(
        places,
        labels,
        tuple(visible(name) for name in names) if labels is not None else (),
        extent,
        density(drawn, extent, CELLS) if len(drawn) else None,
    )
    if shown.letters and len(places) > MOST_LETTERS:  # more of them would hide each other
        some = torch.linspace(0, len(places) - 1, MOST_LETTERS).long()
        shown = shown._replace(places=places[some], labels=shown.labels[some])  # type: ignore[index]
    return shown
