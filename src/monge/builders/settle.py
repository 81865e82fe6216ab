"""Derives the facts of a run from its configuration and its data."""

import dataclasses
import math
import re
from pathlib import Path

import torch

from monge._core.fields import leaves
from monge._core.visible import counted
from monge.config import CUSTOM, DATA, PLANE, Config, Schema, Settled, override
from monge.data.kind import Kind
from monge.data.kinds import kind_named
from monge.data.source import Source
from monge.models.masks import is_mask_name
from monge.recipes import find

MOST_CLUSTERS, SAMPLES_A_CLUSTER = 50, 200
"""Clusters by default: as many as there are this many training samples for, up to 50. Of alpha-gan
on MNIST without its last 10,000 training images the Fréchet distance of samples to those is 8.7
without clusters and 6.4, 4.5 and 3.7 with 10, 30 and 50."""
TUNED_ON = 28 * 28
"""Values of an image of MNIST."""
SMALL = (16, 40)
"""The sides in pixels of images that are like those of MNIST, on which recipes are tuned."""
OF_CRITIC = ("sharpen_lr", "network.details")
"""What is tuned for a critic of samples under jensen-shannon."""
LEAST_OF_CLASS = 2
"""Training samples of each class of a class-conditional run."""
MASK = "known.png"
"""The file of a run that holds the mask image it was trained with, whatever its format."""


def with_kept_mask(config: Config, run: Path) -> Config:
    """A configuration whose mask image is the one that a run, or a folder of the hub, keeps.

    Raises:
        ValueError: if it keeps none: what its config.json names may be any file.
    """
    known = getattr(config.options, "known", None)
    if known is None or is_mask_name(known) or re.fullmatch(r"[\d\s,]+", known):
        return config
    if not (run / MASK).is_file():
        raise ValueError(
            f"`run` {str(run)!r} was trained with the mask image {known!r}, of which it keeps no "
            f"copy: put it into the run as {MASK}, if you have it"
        )
    return override(config, "known", str(run.absolute() / MASK))


def with_tuned(config: Config, kind: Kind | str, shape: tuple[int, ...]) -> Config:
    """A configuration with rates, a schedule, and what its recipe is tuned to for images of the
    size of these, where nothing else was asked for."""
    training = config.training
    values = {
        "training.lr": training.rate,
        "training.inner_lr": training.inner_rate,
        "training.schedule": "constant",
    }
    if config.recipe != CUSTOM and config.preset == "small" and _are_small_images(kind, shape):
        values |= find(config.recipe).tuned
        if "weight" in values:
            scale = getattr(config.options, "scale", 1.0)
            values["weight"] *= scale * math.sqrt(math.prod(shape) / TUNED_ON)
    if config.prior in PLANE:
        values.pop("latent", None)
    if getattr(config.options, "sigma", None) is not None:
        values.pop("cost", None)  # the bound of a random decoder holds for squared errors only
    if getattr(config.options, "sharpen", None) != "jensen-shannon":
        for name in OF_CRITIC:  # of samples, which is another one or none
            values.pop(name, None)
    asked = leaves(config)
    for name, value in values.items():
        if asked[name if name in asked else f"options.{name}"] is None:
            config = override(config, name, value)
    return config


def _are_small_images(kind: Kind | str, shape: tuple[int, ...]) -> bool:
    sides = shape[-2:]
    return kind_named(kind).grid and SMALL[0] <= min(sides) and max(sides) <= SMALL[1]


def settle(config: Config, source: Source) -> Settled:
    """The facts of a run with a configuration on data.

    Raises:
        ValueError: for a preset that is for images where the data are not.
    """
    _refuse_preset(config, source)
    moments = source.moments()
    facts = settled(
        config,
        source.kind,
        source.shape,
        samples=len(source.train),
        spread=source.spread(),
        float64=source.train.dtype == torch.float64,
        schema=source.schema,
        moments=None
        if moments is None
        else (tuple(moments[0].tolist()), tuple(moments[1].tolist())),
    )
    if config.condition == "labels":
        facts = dataclasses.replace(facts, **classes(source))
    fingerprint = source.identity.fingerprint
    return dataclasses.replace(facts, fingerprint=fingerprint, order=source.order)


def clusters(config: Config, samples: int) -> tuple[str, ...]:
    """The names of the clusters of `samples` training samples, if a model is conditioned on
    them."""
    if config.condition != "clusters":
        return ()
    by_default = min(MOST_CLUSTERS, max(2, samples // SAMPLES_A_CLUSTER))
    return tuple(f"cluster {k}" for k in range(config.clusters or by_default))


def classes(source: Source) -> dict[str, tuple]:
    """The names and the shares of the classes on which a model of the data is conditioned.

    Raises:
        ValueError: for samples without labels, labels that no class has, and a class of which
            there are too few samples to learn from.
    """
    if source.train_labels is None or source.test_labels is None:
        raise ValueError(
            f"`condition` is labels, and {source.name!r} has none: give folders by class, idx "
            "files or .npz with labels, or a table with a column label or class"
        )
    both = torch.cat([source.train_labels, source.test_labels])
    names = source.classes or tuple(map(str, range(int(both.max()) + 1)))
    if int(both.min()) < 0 or int(both.max()) >= len(names):
        raise ValueError(
            f"`data` {source.name!r} has labels from {int(both.min())} to {int(both.max())}, and "
            f"its {len(names)} classes are 0 to {len(names) - 1}"
        )
    counts = torch.bincount(source.train_labels, minlength=len(names)).tolist()
    if len(names) < 2:
        raise ValueError(
            f"`condition` is labels, and {source.name!r} has only one class: leave it out, or "
            "give data with several"
        )
    for name, count in zip(names, counts):
        if count < LEAST_OF_CLASS:
            raise ValueError(
                f"`condition` is labels, and class {name!r} of {source.name!r} has "
                f"{counted(count, 'training sample')}: at least {LEAST_OF_CLASS} are "
                "needed, or leave it out with --classes"
            )
    return {"classes": names, "shares": tuple(n / sum(counts) for n in counts)}


def _refuse_preset(config: Config, source: Source) -> None:
    if config.recipe == CUSTOM or config.data.name in DATA or source.kind.grid:
        return
    if "images" in find(config.recipe).presets.get(config.preset, {}):
        raise ValueError(
            f"`preset` {config.preset} of {config.recipe} is for images, and {source.name!r} "
            f"holds {source.kind.name}s: use the preset small"
        )


def settled(
    config: Config,
    kind: Kind | str,
    shape: tuple[int, ...],
    *,
    samples: int,
    spread: float | None = None,
    float64: bool = False,
    schema: Schema | None = None,
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
) -> Settled:
    """The facts of a run on data of which only these are known: `samples` of `shape` to train on,
    with E‖x - x'‖² = `spread`, kept in float64 or in float32, which are
    the rows of a table with this schema."""
    kind = kind_named(kind)
    row = None if config.recipe == CUSTOM else find(config.recipe)
    latent = config.latent
    if latent is None:
        generator = row is not None and row.family == "generator"
        latent = 2 if config.prior in PLANE else kind.latent(shape, generator)
    weight = getattr(config.options, "weight", None)
    if weight is None and row is not None and row.weight is not None:
        scale = getattr(config.options, "scale", 1.0)
        weight = scale * round(row.weight * math.sqrt(math.prod(shape)), 3)
    return Settled(
        kind.reference,
        shape,
        samples,
        latent,
        weight=weight,
        spread=spread,
        moments=moments,
        float64=float64,
        classes=clusters(config, samples),
        schema=schema,
    )
