"""The settings of a run besides its recipe: data, networks and training; without torch."""

import os
from dataclasses import dataclass
from typing import Literal

from monge._core.fields import LARGEST, at_least, bounded, choices, demand, of_types, positive

PUBLISHED = ("mnist", "fashion-mnist")
MOST_LAYERS = 100

DATA = {
    "digits": "1,797 real 8×8 digits, embedded; the last 297 are the test part (scikit-learn)",
    "mnist": "70,000 digits, 28×28, read from --data-dir or downloaded",
    "fashion-mnist": "70,000 pieces of clothing, 28×28, read from --data-dir or downloaded",
    "glyphs": "20,000 letters and digits, 28×28, 45 classes, drawn from fonts and kept",
    "eight-gaussians": "12,000 points of the plane: eight Gaussians on a circle",
    "rings": "12,000 points of the plane: two rings",
    "swiss-roll": "12,000 points of the plane: a spiral",
    "line": "12,000 points of the line: two Gaussians",
}


@dataclass(frozen=True)
class DataConfig:
    """Where samples come from and how images are read."""

    name: str = "digits"
    """digits, glyphs, mnist, fashion-mnist, a toy distribution, or a path: folder, zip or tar
    shards of images, folder of idx files or of clouds, .npy, .npz or .csv; or hf: and a data set
    of Hugging Face."""
    dir: str | None = None
    """Where mnist and fashion-mnist lie; the environment variable MONGE_DATA by default."""
    size: int | None = None
    """Side in pixels that images are resized to, after the crop."""
    crop: int | None = None
    """Side in pixels of the centre crop; the largest square when only `size` is given."""
    points: int | None = None
    """Points a cloud: a random part of those given; of a mesh, as many drawn from its faces."""
    classes: tuple[str, ...] = ()
    """Read only the samples of some classes, by name."""
    turn: bool = False
    """Turn clouds at random about the upright axis, y, whenever they are trained on."""
    jitter: float = 0.0
    """Deviation of Gaussian noise on the points of clouds, whenever they are trained on."""
    channels: Literal["grey", "colour"] | None = None
    """Read images as grey or in colour; as they are by default."""
    cache: str | None = None
    """A folder where decoded images are kept, to be mapped into memory instead of held there."""
    split: Literal["content", "position"] | None = None
    """By what a tenth is held out of data without a test part: by the content of each sample
    (default), so that to add or remove one moves no other, or by position, as in runs of 0.1."""
    kind: str | None = None
    """What the samples of an array are: image, vector, cloud, or `module:Class` of a kind of your
    own; by default what their shape says."""
    categorical: tuple[str, ...] = ()
    """Columns of a table that are categories though they hold numbers, or a header does not name
    them; `label` or `class` is then modelled, too."""
    leave_out: tuple[str, ...] = ()
    """Columns of a table that are left out."""
    missing: Literal["refuse", "indicator"] = "refuse"
    """Missing cells of a table: refused, or modelled by an indicator beside the column's mean."""

    def __post_init__(self):
        self.check()
        # a run is found again from wherever it is opened
        if self.name.startswith("hf:"):
            path = os.path.expanduser(self.name.removeprefix("hf:"))
            if os.path.exists(path):
                object.__setattr__(self, "name", f"hf:{os.path.abspath(path)}")
        elif self.name not in (*DATA, "array", ""):
            object.__setattr__(self, "name", os.path.abspath(os.path.expanduser(self.name)))
        for field_ in ("dir", "cache"):
            if (path := getattr(self, field_)) is not None:
                object.__setattr__(self, field_, os.path.abspath(os.path.expanduser(path)))

    def check(self) -> None:
        """A ValueError for values that cannot be."""
        of_types(self)
        choices(self)
        at_least(self, 1, "size", "crop", "points")
        at_least(self, 0, "jitter")
        bounded(self, "jitter")


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the networks."""

    filters: tuple[int, ...] = (32, 64, 128)
    """Convolutional blocks of the encoder; the decoder mirrors them. For images."""
    hidden: tuple[int, ...] = (256, 256)
    """Hidden layers of encoder and decoder, for vectors."""
    cloud: tuple[int, ...] = (512, 1024)
    """Hidden layers of the decoder of clouds."""
    points: tuple[int, ...] = (64, 128, 128, 256, 128)
    """Layers of the perceptron that an encoder of clouds applies to each point."""
    critic: tuple[int, ...] = (256, 256, 256)
    """Hidden layers of a latent critic."""
    details: float | None = None
    """Gain of the details that the critic of samples of `sharpen` sees beside images; 0 for a
    critic that sees the images only. The default is 0, or what the recipe is tuned to."""
    published: bool = False
    """The networks of the WAE paper, for images (1, 28, 28) and (3, 64, 64)."""

    def check(self) -> None:
        """A ValueError for values that cannot be."""
        of_types(self)
        demand(len(self.filters) > 0, "filters", self.filters, "at least one number")
        for name in ("filters", "hidden", "critic", "points", "cloud"):
            sizes = getattr(self, name)
            demand(
                len(sizes) <= MOST_LAYERS, name, f"{len(sizes)} numbers", f"{MOST_LAYERS} at most"
            )
            each = all(1 <= size <= LARGEST for size in sizes)
            demand(each, name, sizes, f"numbers from 1 to {LARGEST:,}")
        details = self.details or 0
        demand(0 <= details <= 100, "details", details, "from 0 to 100")


@dataclass(frozen=True)
class TrainingConfig:
    """Optimisation of a run."""

    batch: int = 100
    micro_batch: int | None = None
    """Samples that pass at once, in each process; by default all. The gradient is that of the
    whole batch in the memory of a part, for two passes and more (`monge.training.passes`)."""
    optimiser: Literal["adam", "rmsprop"] = "adam"
    epochs: int | None = None
    """Passes over the training data; `steps` decides when it is not given."""
    steps: int | None = None
    """Outer steps; 3,000 when neither is given."""
    lr: float | None = None
    """Learning rate; by default 1e-3, or what the recipe is tuned to for small images."""
    inner_lr: float | None = None
    """Learning rate of a learned divergence; by default 5e-4, or what the recipe is tuned to."""
    inner_steps: int = 1
    """Inner steps of a learned divergence before each outer step."""
    inner_first: tuple[int, int] = (0, 0)
    """(first, count): before each of the first outer steps, `count` inner steps instead."""
    betas: tuple[float, float] = (0.5, 0.999)
    schedule: Literal["constant", "drops", "smooth", "cosine", "step"] | None = None
    """Rates over the training: constant, the default unless the recipe is tuned to another for
    small images; divided by 2, 5 and 10 after 30, 50 and 100 epochs; going smoothly to a hundredth
    at the end; along half a cosine to 0; or times 0.1 every `drop_every` epochs."""
    drop_every: int = 30
    warmup: int = 0
    """Steps over which rates first rise from 0, linearly."""
    clip: float | None = None
    """Largest norm of the outer gradient; a longer one is shortened to it."""
    ema: float = 0.0
    """Decay a step of a moving average of the weights, which is then the trained model."""
    patience: int | None = None
    """Epochs without a better validation figure after which training ends, with the best model; a
    tenth of the training part is then held apart."""
    pretrain: int = 0
    """Steps at most that first match mean and covariance of the codes to the prior's, with the
    encoder alone; they stop when the loss is under 0.1."""
    pretrain_batch: int = 1000
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "auto"
    """Precision of the networks; divergences are always in float32. auto is bf16 for convolutional
    networks on GPUs of compute capability 8.0 (Ampere) and newer, otherwise fp32."""
    shard: bool = False
    """Keep a part of the networks and of their optimiser in each process, for networks that one
    does not hold."""
    compile: bool = False
    """Compile encoder and decoder, on a GPU to CUDA graphs. It takes seconds to minutes at the
    start, and pays where a step is bound by the launch of many small kernels."""
    log_every: int = 10
    checkpoint_seconds: float = 50.0
    """Most seconds of work that a kill can lose."""

    @property
    def rate(self) -> float:
        """`lr`, or its default."""
        return 1e-3 if self.lr is None else self.lr

    @property
    def inner_rate(self) -> float:
        """`inner_lr`, or its default."""
        return 5e-4 if self.inner_lr is None else self.inner_lr

    def check(self) -> None:
        """A ValueError for values that cannot be."""
        of_types(self)
        choices(self)
        demand(self.pretrain >= 0, "pretrain", self.pretrain, "at least 0")
        demand(self.pretrain_batch >= 2, "pretrain_batch", self.pretrain_batch, "at least 2")
        demand(
            len(self.inner_first) == 2 and min(self.inner_first) >= 0,
            "inner_first",
            self.inner_first,
            "two numbers of at least 0",
        )
        at_least(
            self,
            1,
            "epochs",
            "steps",
            "batch",
            "micro_batch",
            "inner_steps",
            "log_every",
            "drop_every",
            "patience",
        )
        demand(self.batch >= 2, "batch", self.batch, "at least 2: divergences compare samples")
        demand(self.warmup >= 0, "warmup", self.warmup, "at least 0")
        demand(0 <= self.ema < 1, "ema", self.ema, "in [0, 1): 0 is no average")
        positive(self, "lr", "inner_lr", "clip", "checkpoint_seconds")
        demand(
            self.epochs is None or self.steps is None,
            "epochs",
            self.epochs,
            "left out beside `steps`",
        )
        betas = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        demand(betas, "betas", self.betas, "two numbers in [0, 1)")
        demand(
            not (self.compile and self.micro_batch),
            "compile",
            self.compile,
            "left out beside `micro_batch`",
        )
        beside = [
            name
            for name in ("micro_batch", "patience", "pretrain", "ema", "compile")
            if getattr(self, name)
        ] + ["precision"] * (self.precision == "fp16")
        demand(
            not (self.shard and beside),
            "shard",
            self.shard,
            f"left out beside `{'`, `'.join(beside)}`",
        )
