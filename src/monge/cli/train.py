"""`monge train`: flags laid over a configuration."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from monge._core.errors import Interrupted
from monge.cli.common import Float, Int, Place, Text, first
from monge.config import Config, override
from monge.recipes import RECIPES

FIELDS = {
    "data": "data.name", "data_dir": "data.dir", "size": "data.size", "crop": "data.crop",
    "channels": "data.channels", "cache": "data.cache", "points": "data.points",
    "classes": "data.classes",
    "turn": "data.turn", "jitter": "data.jitter", "seed": "seed", "preset": "preset",
    "latent": "latent",
    "weight": "weight", "epochs": "training.epochs", "steps": "training.steps",
    "batch": "training.batch", "lr": "training.lr", "inner_steps": "training.inner_steps",
    "known": "known", "precision": "training.precision", "micro_batch": "training.micro_batch",
    "device": "device", "threads": "threads",
}  # fmt: skip
"""Which field of the configuration each flag sets."""


@dataclass(frozen=True)
class Train:
    """Train a recipe on data; writes a run directory with a report."""

    recipe: Positional[Text] = None
    """Which recipe; `monge recipes` lists them. May be left out with --resume."""
    data: Text = None
    """digits (default), mnist, fashion-mnist, or a path: folder, zip or tar shards of images,
    folder of idx files or of clouds (.ply, .xyz, .off), .npy, .npz, .csv; or hf:DATASET."""
    data_dir: Text = None
    """Where mnist and fashion-mnist lie; MONGE_DATA by default."""
    out: Place = None
    """The run directory; a new one under runs/ by default."""
    epochs: Int = None
    """Passes over the training data."""
    steps: Int = None
    """Outer steps, in place of epochs; 3,000 by default."""
    seed: Int = None
    """Seed of weights, draws and order; 0 by default."""
    preset: Text = None
    """small (default), or paper: networks, rates and weights as published, for mnist and faces."""
    resume: bool = False
    """Go on with the run in --out from its newest valid checkpoint."""
    size: Int = None
    """Resize images to this side in pixels, after a centre crop."""
    crop: Int = None
    """Side in pixels of the centre crop; the largest square by default."""
    channels: Literal["grey", "colour"] | None = None
    """Read images as grey or in colour; as they are by default."""
    cache: Text = None
    """Keep decoded images in this folder, and map them into memory in place of holding them."""
    points: Int = None
    """Points a cloud, a random part of those given; all by default, 2,048 of a file."""
    classes: tuple[str, ...] = ()
    """Train on some classes of the data alone, by name."""
    turn: bool = False
    """Turn clouds at random about the upright axis, y, whenever they are seen."""
    jitter: Float = None
    """Deviation of Gaussian noise on the points of clouds whenever they are seen; 0 by default."""
    batch: Int = None
    """Samples a step; 100 by default."""
    micro_batch: Int = None
    """Samples that pass at once, for batches that memory does not hold: the same gradient."""
    latent: Int = None
    """Dimension of the codes; 8 for small images, 64 for large ones by default."""
    weight: Float = None
    """λ, the weight of the divergence, in units of the cost."""
    lr: Float = None
    """Learning rate; 0.001 by default."""
    known: Text = None
    """For conditional-wae, the part that it completes images from: top (default), bottom, left,
    right, surround, random, or a mask image, white where known."""
    inner_steps: Int = None
    """Steps of a critic before each step of the model; 1 by default."""
    device: Text = None
    """cpu (default), cuda, …"""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Precision of the networks; divergences are always in fp32."""
    threads: Int = None
    """CPU threads."""
    set: tuple[str, ...] = ()
    """Any other setting, as a.b=c; config.json of a run shows them all."""

    def run(self) -> None:
        from monge.training.fit import fit

        config = self._config()
        try:
            run = fit(config.recipe, config=config, out=self.out, resume=self.resume)
        except Interrupted as stop:
            stop.args = (f"{stop}; the same command with --out RUN --resume goes on",)
            raise
        if first():
            print(f"report: {run.report}")

    def _config(self) -> Config:
        """The default or, with --resume, the stored configuration with the flags laid over it."""
        stored = None
        if self.resume and self.out and (self.out / "config.json").exists():
            from monge.runs import read_config

            stored = read_config(self.out)
        if self.recipe is None and stored is None:
            raise ValueError(f"`recipe` is missing: give one of {', '.join(RECIPES)}")
        config = stored or Config.of(
            self.recipe or "", self.preset or "small", self.data or "digits"
        )
        if self.recipe is not None:
            config = dataclasses.replace(config, recipe=self.recipe)
        if self.epochs is not None or self.steps is not None:
            config = override(config, "training.epochs", None)
            config = override(config, "training.steps", None)
        for flag, path in FIELDS.items():
            value = getattr(self, flag)
            if not (value is None or value is False or value == ()):
                config = override(config, path, value)
        for setting in self.set:
            path, equals, value = setting.partition("=")
            if not equals:
                raise ValueError(f"`set` must look like a.b=c, got {setting!r}")
            config = override(config, path, value)
        return config
