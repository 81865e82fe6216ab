"""The requested configuration of a run: one frozen record, from which everything is rebuilt."""

import dataclasses
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from monge._core.fields import (
    at_least,
    bounded,
    choices,
    demand,
    from_text,
    idle,
    of_types,
    positive,
)
from monge._core.seeds import SEEDS, is_seed
from monge._core.spelling import meant
from monge.config.settings import DATA, DataConfig, NetworkConfig, TrainingConfig
from monge.recipes import Recipe, canonical, find
from monge.recipes.options import NoOptions

CUSTOM = "custom"
"""Stands in the place of a recipe for a model of your own."""
PLANE = ("ring", "disk", "swiss-roll")
"""Priors in the plane."""
MOST_THREADS = 1024
"""A process cannot have any number, and OpenMP ends one that asks for more than it can have."""
PARAMETERS = {
    "prior_scale": ("gaussian", "mixture", "swiss-roll"),
    "prior_radius": ("uniform", "mixture"),
    "prior_inner": ("ring",),
    "prior_components": ("mixture",),
}
"""The priors that each parameter of priors is for."""
GUIDED = ("label_dropout", "guidance")
"""Options of recipes that only a class-conditional run uses."""


@dataclass(frozen=True)
class Config:
    """The requested configuration of a run; None where the data decide."""

    recipe: str = "wae-mmd"
    preset: str = "small"
    """small networks, or another preset of the recipe: `Config.of` sets what belongs to it."""
    seed: int = 0
    latent: int | None = None
    """Dimension of the codes; by default 8 for small images, 64 for large ones."""
    prior: Literal["gaussian", "uniform", "sphere", "mixture", "ring", "disk", "swiss-roll"] = (
        "gaussian"
    )
    """The last three are distributions in the plane, for 2 codes; a mixture is of Gaussians whose
    means lie evenly on a circle of the first two codes."""
    prior_scale: float | None = None
    """σ of the prior gaussian (1 by default), of a mixture's components (0.1), or of the noise of
    swiss-roll (0.02)."""
    prior_radius: float | None = None
    """Half the side of the cube uniform, or radius of the circle of a mixture's means; 1 by
    default."""
    prior_inner: float | None = None
    """Inner radius of the ring, whose outer one is 1; 0.8 by default."""
    prior_components: int | None = None
    """Components of a mixture; 10 by default."""
    condition: Literal["labels", "clusters"] | None = None
    """What the model is conditioned on: labels, the classes of labelled data, so that samples can
    be drawn class by class; clusters, in which k-means divides the training part; or nothing."""
    clusters: int | None = None
    """How many clusters; by default one for every 200 training samples, from 2 to 50."""
    options: Any = None
    """Options that only this recipe has, a record of the type `find(recipe).options`."""
    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, … or mps. auto is the GPU where there is one that CUDA reaches,
    otherwise the CPU; it is never mps, which has no float64."""
    threads: int | None = None

    def __post_init__(self):
        object.__setattr__(self, "recipe", canonical(self.recipe))
        if is_seed(self.seed):
            object.__setattr__(self, "seed", int(self.seed))  # of NumPy it is no JSON
        kind = NoOptions if self.recipe == CUSTOM else find(self.recipe).options
        names = {one.name for one in dataclasses.fields(kind)}
        if taken := sorted(names & {one.name for one in dataclasses.fields(self)}):
            raise ValueError(
                f"`options` of the recipe {self.recipe} has {taken[0]!r}, which every run has: "
                "give it another name"
            )
        if type(self.options) is not kind:
            object.__setattr__(self, "options", _carried(self.options, kind, self.recipe))

    def check(self) -> "Config":
        """Itself, or a ValueError that names the field, the value and the fix."""
        of_types(self)
        demand(
            self.prior not in PLANE or self.latent in (None, 2),
            "latent",
            self.latent,
            f"2 for the prior {self.prior}",
        )
        demand(
            self.prior != "mixture" or self.latent != 1,
            "latent",
            self.latent,
            "at least 2 for the prior mixture",
        )
        for name, priors in PARAMETERS.items():
            value = getattr(self, name)
            if value is not None and self.prior not in priors:
                wanted = f"left out for the prior {self.prior}: it is for {', '.join(priors)}"
                demand(False, name, value, wanted)
        if self.recipe != CUSTOM and find(self.recipe).family == "flow":
            names = ("latent", "prior", *PARAMETERS)
            idle(self, False, f"for {self.recipe}, which has no codes", *names)
        guided = [name for name in GUIDED if hasattr(self.options, name)]
        idle(self.options, self.condition is not None, "without --condition labels", *guided)
        positive(self, "prior_scale", "prior_radius")
        bounded(self, "prior_scale", "prior_radius")
        given = self.condition == "clusters"
        idle(self, given, "without --condition clusters", "clusters")
        demand(self.clusters is None or self.clusters > 1, "clusters", self.clusters, "at least 2")
        inner = self.prior_inner
        demand(inner is None or 0 <= inner < 1, "prior_inner", inner, "in [0, 1)")
        demand(
            re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device) is not None,
            "device",
            self.device,
            "auto, cpu, cuda, cuda:1, … or mps",
        )
        presets = ["small", *({} if self.recipe == CUSTOM else find(self.recipe).presets)]
        demand(self.preset in presets, "preset", self.preset, f"one of {', '.join(presets)}")
        demand(is_seed(self.seed), "seed", self.seed, SEEDS)
        choices(self)
        at_least(self, 1, "latent", "threads", "prior_components")
        few = self.threads is None or self.threads <= MOST_THREADS
        demand(few, "threads", self.threads, f"at most {MOST_THREADS}")
        of_types(self.options)
        choices(self.options)
        for record in (self.options, self.data, self.network, self.training):
            if hasattr(record, "check"):  # a stranger's options need not have it
                record.check()
        return self

    @classmethod
    def of(
        cls, recipe: str, preset: str = "small", data: str = "digits", **settings: Any
    ) -> "Config":
        """The configuration of a recipe, with what its source sets.

        Args:
            recipe: its name, or `package.module:name`.
            preset: small, or paper for networks, rates, schedules and weights as published.
            data: a name or path; for mnist and fashion-mnist the paper's settings are those of
                MNIST, for images in files those of CelebA, at 64×64.
            settings: any others that are set by a single name, e.g. `weight=5.0` or `seed=1`.

        Raises:
            ValueError: for an unknown recipe or preset, or a row that sets what there is not.
        """
        row = find(recipe)
        config = override(override(cls(recipe=recipe), "preset", preset), "data.name", data)
        for name, value in _settings(row, preset, data).items():
            try:
                config = override(config, name, value)
            except ValueError as error:
                raise ValueError(f"`recipe` {recipe!r} sets {name!r}: {error}") from None
        for name, value in settings.items():
            config = override(config, name, value)
        return config


def _settings(row: Recipe, preset: str, data: str) -> Mapping[str, Any]:
    """What a row sets under a preset, for data by name or path."""
    if preset == "small":
        return row.settings
    if preset not in row.presets:
        known = ", ".join(["small", *row.presets])
        raise ValueError(f"`preset` must be one of {known} for {row.name}, got {preset!r}")
    cases = row.presets[preset]
    for case in (data, *([] if data in DATA else ["images", "files"]), "any"):
        if case in cases:
            return {**row.settings, **cases[case]}
    raise ValueError(
        f"`preset` {preset} is for {', '.join(cases)}, got data {data!r}: use the preset small"
    )


def _carried(options: Any, kind: type, recipe: str) -> Any:
    """The options of another recipe as those of this one.

    Raises:
        ValueError: for an option with a value of its own that this recipe does not have.
    """
    if options is None:
        return kind()
    demand(dataclasses.is_dataclass(options), "options", options, f"a {kind.__name__} or None")
    known = {field.name for field in dataclasses.fields(kind)}
    values = {}
    for one in dataclasses.fields(options):
        value = getattr(options, one.name)
        if value == one.default:
            continue  # this recipe may have another default
        if one.name in known:
            values[one.name] = value
        else:
            raise ValueError(f"`{one.name}` is {value!r}, but {recipe} has no such option")
    return kind(**values)


def override(config: Config, path: str, value: Any) -> Config:
    """`config` with the dotted field `path` set, e.g. `training.batch`, or an option by its name.

    A string is read as the field's type, as `--set a.b=c` gives it.

    Raises:
        ValueError: for a path that names no single value, or a text of another type.
    """
    options = [one.name for one in dataclasses.fields(config.options)]
    if path in options:
        path = f"options.{path}"
    return _overridden(config, path, value, path)


def _overridden(record: Any, rest: str, value: Any, path: str) -> Any:
    head, _, rest = rest.partition(".")
    known = {one.name for one in dataclasses.fields(record)}
    if head not in known:
        if isinstance(record, Config):
            known |= {one.name for one in dataclasses.fields(record.options)}
        before = path.removesuffix(f"{head}.{rest}" if rest else head)
        near = meant(path, [before + name for name in known])
        known = f": one of {', '.join(sorted(known))}"
        raise ValueError(f"`{path}` is not a setting of the configuration{near or known}")
    old = getattr(record, head)
    if dataclasses.is_dataclass(old) != bool(rest):
        raise ValueError(f"`{path}` does not name a single value of the configuration")
    if rest:
        value = _overridden(old, rest, value, path)
    elif isinstance(value, str):
        value = from_text(value, typing.get_type_hints(type(record))[head], path)
    return dataclasses.replace(record, **{head: value})
