"""A recipe: one row that holds every fact about a named method, without torch."""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from monge._core.fields import readable
from monge._core.references import is_reference
from monge.recipes.options import NoOptions

FAMILIES = ("auto-encoder", "generator", "flow")
NEEDS = {
    "ordered": "samples whose elements correspond, as images and tables, and not point clouds:"
    " use pointcloud-wae or another WAE",
    "bounded": "images, whose values are in [0, 1]",
    "unordered": "point clouds: give an array (n, N, 3), or a folder of .ply, .xyz or .off files",
    "grid": "images",
}
"""What a recipe may require of a kind of data: attributes of `monge.data.Kind`, in words."""

Settings = Mapping[str, Any]
"""Values by their dotted names in a configuration, e.g. `training.lr`, or an option's name."""


@dataclass(frozen=True)
class Recipe:
    """A named method of the literature, as a composition of parts.

    A row inside the package and a stranger's are alike: `monge train my_package.recipes:my_wae`
    trains any `Recipe` that can be imported, and the entry-point group `monge.recipes` gives one
    a name of its own.
    """

    name: str
    build: str
    """`module:function`, called with `monge.builders.Parts`, returns the untrained model."""
    line: str
    """A description in one line, as `monge recipes` lists it."""
    paper: str = ""
    """The source: authors, title, year."""
    family: Literal["auto-encoder", "generator", "flow"] = "auto-encoder"
    options: type = NoOptions
    """A frozen dataclass of the options that this recipe has, with defaults; its fields are flags
    of `monge train NAME` and the keys of `options` in config.json."""
    settings: Settings = field(default_factory=dict)
    """Settings in place of the defaults."""
    weight: float | None = None
    """λ / √d for data of d elements, in units of c = Σ squared error on [0, 1]."""
    tuned: Settings = field(default_factory=dict)
    """What the preset `small` sets for small images where nothing else was asked for, tuned on
    MNIST; `weight` is that of 28×28 values."""
    presets: Mapping[str, Mapping[str, Settings]] = field(default_factory=dict)
    """What other presets set over `settings`: by their names, then by the name of a data set, or
    `images` for other images, or `files` for whatever is named by a path, or `any`."""
    needs: tuple[str, ...] = ()
    """Requirements on the kind of data: some of `bounded`, `ordered`, `unordered`, `grid`."""
    aliases: tuple[str, ...] = ()

    def __post_init__(self):
        if self.family not in FAMILIES:
            raise ValueError(
                f"`family` of the recipe {self.name!r} must be one of {', '.join(FAMILIES)}, got "
                f"{self.family!r}"
            )
        if unknown := [need for need in self.needs if need not in NEEDS]:
            raise ValueError(
                f"`needs` of the recipe {self.name!r} knows no {unknown[0]!r}: give some of "
                f"{', '.join(NEEDS)}"
            )
        if not is_reference(self.build):
            raise ValueError(
                f"`build` of the recipe {self.name!r} must look like module:function, got "
                f"{self.build!r}"
            )
        if not (isinstance(self.options, type) and dataclasses.is_dataclass(self.options)):
            raise ValueError(
                f"`options` of the recipe {self.name!r} must be a dataclass, got {self.options!r}"
            )
        types = typing.get_type_hints(self.options)
        for one in dataclasses.fields(self.options):
            if not readable(types[one.name]) or one.default is dataclasses.MISSING:
                raise ValueError(
                    f"`options` of the recipe {self.name!r} has {one.name!r}, which must have a "
                    "default and be a bool, int, float, str, Literal, or a tuple of numbers or "
                    "texts, or None"
                )
        if isinstance(self.needs, str) or not all(
            isinstance(case, Mapping) for cases in self.presets.values() for case in cases.values()
        ):
            raise ValueError(
                f"`presets` and `needs` of the recipe {self.name!r} must be settings by preset "
                "and data set, and a tuple of names"
            )
        if not (self.weight is None or self.weight > 0):
            raise ValueError(
                f"`weight` of the recipe {self.name!r} must be positive, got {self.weight!r}"
            )

    def __repr__(self) -> str:
        return f"Recipe({self.name!r}: {self.line})"

    @property
    def option_names(self) -> list[str]:
        """The names of its options."""
        return [one.name for one in dataclasses.fields(self.options)]
