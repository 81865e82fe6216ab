"""A run, described: frozen dataclasses without torch, from which everything is rebuilt."""

import dataclasses
import json
import math
import os
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from monge._core.version import __version__
from monge.recipes.rows import (
    ALIASES,
    GENERATORS,
    OWN,
    RECIPES,
    RELATIVE_WEIGHTS,
    TUNED,
    paper,
)

PUBLISHED = ("mnist", "fashion-mnist")

DATA = {
    "digits": "1,797 real 8×8 digits, embedded; the last 297 are the test part (scikit-learn)",
    "mnist": "70,000 digits, 28×28, read from --data-dir or downloaded",
    "fashion-mnist": "70,000 pieces of clothing, 28×28, read from --data-dir or downloaded",
    "eight-gaussians": "12,000 points of the plane: eight Gaussians on a circle",
    "rings": "12,000 points of the plane: two rings",
    "swiss-roll": "12,000 points of the plane: a spiral",
    "line": "12,000 points of the line: two Gaussians",
}

CLOUD_LATENT = 16
PLANE = ("ring", "disk", "swiss-roll")
PRIORS = ("gaussian", "uniform", "sphere", *PLANE)


@dataclass(frozen=True)
class DataConfig:
    """Where samples come from and how images are read."""

    name: str = "digits"
    """digits, mnist, fashion-mnist, a toy law, or a path: folder, zip or tar shards of images,
    folder of idx files or of clouds, .npy, .npz or .csv; or hf: and a data set of Hugging Face."""
    dir: str | None = None
    """Where mnist and fashion-mnist lie; the environment variable MONGE_DATA by default."""
    size: int | None = None
    """Side in pixels that images are resized to, after the crop."""
    crop: int | None = None
    """Side in pixels of the centre crop; the largest square when only `size` is given."""
    points: int | None = None
    """Points a cloud: a random part of those given; of a mesh, as many drawn from its faces."""
    classes: tuple[str, ...] = ()
    """Read the samples of some classes alone, by name."""
    turn: bool = False
    """Turn clouds at random about the upright axis, y, whenever they are trained on."""
    jitter: float = 0.0
    """Deviation of Gaussian noise on the points of clouds, whenever they are trained on."""
    channels: Literal["grey", "colour"] | None = None
    """Read images as grey or in colour; as they are by default."""
    cache: str | None = None
    """A folder where decoded images are kept, and mapped into memory in place of being held."""

    def __post_init__(self):
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
        _choices(self)
        _counts(self, "size", "crop", "points")
        _demand(self.jitter >= 0 and math.isfinite(self.jitter), "jitter", self.jitter,
                "at least 0 and finite")  # fmt: skip


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
    summary: int = 32
    """Numbers that a conditional WAE keeps of the known part."""

    def check(self) -> None:
        """A ValueError for values that cannot be."""
        _demand(len(self.filters) > 0, "filters", self.filters, "at least one number")
        _counts(self, "summary")
        for name in ("filters", "hidden", "critic", "points", "cloud"):
            sizes = getattr(self, name)
            _demand(all(size >= 1 for size in sizes), name, sizes, "numbers of at least 1")


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
    lr: float = 1e-3
    inner_lr: float = 5e-4
    """Learning rate of a learned divergence."""
    inner_steps: int = 1
    """Inner steps of a learned divergence before each outer step."""
    inner_first: tuple[int, int] = (0, 0)
    """(first, count): before each of the first outer steps, `count` inner steps instead."""
    betas: tuple[float, float] = (0.5, 0.999)
    schedule: Literal["constant", "drops", "smooth", "cosine", "step"] = "constant"
    """Rates over the training: constant; divided by 2, 5 and 10 after 30, 50 and 100 epochs; going
    smoothly to a hundredth at the end; along half a cosine to 0; or times 0.1 every `drop_every`
    epochs."""
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
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Precision of the networks; divergences are always in float32."""
    shard: bool = False
    """Keep a part of the networks and of their optimiser in each process, for networks that one
    does not hold."""
    compile: bool = False
    """Compile encoder and decoder, on a GPU to CUDA graphs; seconds to minutes at the start."""
    log_every: int = 10
    checkpoint_seconds: float = 50.0
    """Most seconds of work that a kill can lose."""

    def check(self) -> None:
        """A ValueError for values that cannot be."""
        _choices(self)
        _demand(self.pretrain >= 0, "pretrain", self.pretrain, "at least 0")
        _demand(self.pretrain_batch >= 2, "pretrain_batch", self.pretrain_batch, "at least 2")
        _demand(len(self.inner_first) == 2 and min(self.inner_first) >= 0, "inner_first",
                self.inner_first, "two numbers of at least 0")  # fmt: skip
        _counts(self, "epochs", "steps", "batch", "micro_batch", "inner_steps", "log_every",
                "drop_every", "patience")  # fmt: skip
        _demand(self.batch >= 2, "batch", self.batch, "at least 2: divergences compare samples")
        _demand(self.warmup >= 0, "warmup", self.warmup, "at least 0")
        _demand(0 <= self.ema < 1, "ema", self.ema, "in [0, 1): 0 is no average")
        _positive(self, "lr", "inner_lr", "clip", "checkpoint_seconds")
        _demand(self.epochs is None or self.steps is None, "epochs", self.epochs,
                "left out beside `steps`")  # fmt: skip
        betas = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        _demand(betas, "betas", self.betas, "two numbers in [0, 1)")
        _demand(not (self.compile and self.micro_batch), "compile", self.compile,
                "left out beside `micro_batch`")  # fmt: skip
        beside = [name for name in ("micro_batch", "patience", "pretrain", "ema", "compile")
                  if getattr(self, name)] + ["precision"] * (self.precision == "fp16")  # fmt: skip
        _demand(not (self.shard and beside), "shard", self.shard,
                f"left out beside `{'`, `'.join(beside)}`")  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Everything that rebuilds a run. Fields that are None are settled when data are known."""

    recipe: str = "wae-mmd"
    preset: Literal["small", "paper"] = "small"
    """Our small networks or the published ones; `Config.of` also sets what belongs to them."""
    seed: int = 0
    latent: int | None = None
    """Dimension of the codes; by default 8 for small images, 64 for large ones."""
    prior: Literal["gaussian", "uniform", "sphere", "ring", "disk", "swiss-roll"] = "gaussian"
    """The last three are laws in the plane, for 2 codes."""
    scale: float = 1.0
    """s in a WAE's cost s Σ (x - x')², or s N times a mean over the N points of a cloud."""
    cost: Literal["chamfer", "earth-mover", "sinkhorn", "sliced", "elementwise"] = "chamfer"
    """Of clouds of points: the last, which sees their order, makes blobs."""
    weight: float | None = None
    """λ in units of the cost; by default proportional to the root of the data's dimension."""
    kernel: Literal["imq", "rbf"] = "imq"
    """Of an MMD: seven inverse multiquadratics, or one Gaussian as wide as the root mean squared
    distance of two draws of the prior (or of the data)."""
    directions: int = 64
    """Random directions a batch, for sliced divergences."""
    encoder: Literal["deterministic", "random"] = "deterministic"
    """Whether codes are a point or a Gaussian law of each sample; a VAE's are always random."""
    noise: float = 0.0
    """Deviation of the truncated Gaussian noise on what the encoder of a WAE sees in training."""
    known: str = "top"
    """Part that a conditional WAE completes images from: top, bottom, left, right, surround (all
    but a centre box), random (all but a random box), or a mask image, white where known."""
    beta: float = 1.0
    """Weight of a VAE's KL term."""
    sigma: float | None = None
    """Standard deviation of a Gaussian decoder: of a VAE learned by default, of a WAE 0."""
    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    device: str = "cpu"
    threads: int | None = None
    kind: Literal["image", "vector", "cloud"] | None = None
    """What the data are; read from them."""
    shape: tuple[int, ...] | None = None
    """Shape of one sample; read from the data."""
    samples: int | None = None
    """How many training samples there are; read from the data."""
    spread: float | None = None
    """E‖x - x'‖² of two training samples, a table's in standard units; read from the data."""
    version: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "recipe", ALIASES.get(self.recipe, self.recipe))
        if os.path.isfile(self.known):
            object.__setattr__(self, "known", os.path.abspath(self.known))

    def check(self) -> "Config":
        """Itself, or a ValueError that names the field, the value and the way out."""
        _demand(self.recipe in (*RECIPES, "custom"), "recipe", self.recipe, f"one of {names()}")
        _demand(self.prior not in PLANE or self.latent in (None, 2), "latent", self.latent,
                f"2 for the prior {self.prior}")  # fmt: skip
        _demand(self.noise >= 0 and math.isfinite(self.noise), "noise", self.noise,
                "at least 0 and finite")  # fmt: skip
        _demand(self.device.split(":")[0] in ("cpu", "cuda", "mps"), "device", self.device,
                "cpu, cuda, cuda:1, … or mps")  # fmt: skip
        weighted = self.recipe in RELATIVE_WEIGHTS or self.recipe == "custom"
        _demand(weighted or self.weight is None, "weight", self.weight,
                f"left out for {self.recipe}, which has no divergence")  # fmt: skip
        _choices(self)
        _counts(self, "latent", "directions", "threads")
        _positive(self, "weight", "beta", "sigma", "scale")
        self.data.check()
        self.network.check()
        self.training.check()
        return self

    @classmethod
    def of(cls, recipe: str, preset: str = "small", data: str = "digits") -> "Config":
        """The configuration of a recipe, with what its source sets.

        Arguments:
            recipe: its name.
            preset: small, or paper for networks, rates, schedules and weights as published.
            data: a name or path; for mnist and fashion-mnist the small settings of some recipes
                are tuned, and the paper's are those of MNIST; for anything else the paper's are
                those of CelebA, at 64×64.
        """
        config = cls(recipe=recipe)
        settings = OWN.get(config.recipe, {})
        if data in PUBLISHED:
            settings = settings | TUNED.get(config.recipe, {})
        if preset == "paper":
            if data in DATA and data not in PUBLISHED:
                raise ValueError(
                    f"`preset` paper is for {', '.join(PUBLISHED)} and folders or zips of faces, "
                    f"got data {data!r}: use the preset small"
                )
            settings = paper(config.recipe, "mnist" if data in PUBLISHED else "celeba")
        settings = {"preset": preset, "data.name": data, **settings}
        for path, value in settings.items():
            config = override(config, path, value)
        return config

    def settled(
        self, kind: str, shape: tuple[int, ...], samples: int, spread: float | None = None
    ) -> "Config":
        """With everything filled in that depends on the data: `samples` of `shape` to train on,
        with E‖x - x'‖² = `spread`."""
        d = math.prod(shape)
        latent = self.latent
        if latent is None:
            large = d > 1024 or self.recipe in GENERATORS
            latent = max(2, min(8, d // 2)) if kind == "vector" else 64 if large else 8
            latent = CLOUD_LATENT if kind == "cloud" else latent
            latent = 2 if self.prior in PLANE else latent
        weight = self.weight
        if weight is None and self.recipe in RELATIVE_WEIGHTS:
            weight = round(self.scale * RELATIVE_WEIGHTS[self.recipe] * math.sqrt(d), 3)
        t = self.training
        if t.epochs is None and t.steps is None:
            t = dataclasses.replace(t, steps=3000)
        data = self.data
        if data.name in PUBLISHED and data.dir is None:
            data = dataclasses.replace(data, dir=os.environ.get("MONGE_DATA"))
        return dataclasses.replace(
            self, kind=kind, shape=shape, samples=samples, latent=latent, weight=weight,
            data=data, training=t, version=__version__,
            spread=spread if self.spread is None else self.spread,
        )  # fmt: skip

    def to_json(self) -> str:
        """The config as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """The inverse of `to_json`; a ValueError for anything else."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON: {error}") from None
        return _build(cls, values, "config")


def names() -> str:
    """The recipes, in a line."""
    return ", ".join([*RECIPES, *ALIASES])


def _demand(ok: bool, name: str, value: Any, wanted: str) -> None:
    if not ok:
        raise ValueError(f"`{name}` must be {wanted}, got {value!r}")


def _choices(config: Any) -> None:
    """Whether the fields that have a list of values have one of it."""
    for name, kind in typing.get_type_hints(type(config)).items():
        parts = (kind, *typing.get_args(kind))
        known = [typing.get_args(part) for part in parts if typing.get_origin(part) is Literal]
        value = getattr(config, name)
        if known and not (value is None and type(None) in parts):
            _demand(value in known[0], name, value, f"one of {', '.join(known[0])}")


def _counts(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _demand(value is None or value >= 1, name, value, "at least 1")


def _positive(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        good = value is None or (value > 0 and math.isfinite(value))
        _demand(good, name, value, "positive and finite")


def _build(cls, values: Any, where: str):
    known = {f.name: f for f in dataclasses.fields(cls)}
    if not isinstance(values, dict) or (unknown := set(values) - set(known)):
        what = sorted(unknown) if isinstance(values, dict) else values
        raise ValueError(f"`{where}` does not know {what!r}")
    types = typing.get_type_hints(cls)
    for name, value in values.items():
        if dataclasses.is_dataclass(types[name]):
            values[name] = _build(types[name], value, f"{where}.{name}")
        elif isinstance(value, list):
            values[name] = tuple(value)
    return cls(**values)


def override(config: Config, path: str, value: Any) -> Config:
    """`config` with the dotted field `path` set, e.g. `training.batch`.

    A string is read as the field's type, as `--set a.b=c` gives it.
    """
    head, _, rest = path.partition(".")
    known = {f.name for f in dataclasses.fields(config)}
    if head not in known:
        raise ValueError(f"`{head}` is no field of the configuration: one of {sorted(known)}")
    old = getattr(config, head)
    if dataclasses.is_dataclass(old) != bool(rest):
        raise ValueError(f"`{path}` does not name a single value of the configuration")
    if rest:
        value = override(typing.cast(Any, old), rest, value)
    elif isinstance(value, str):
        value = _read(value, typing.get_type_hints(type(config))[head], path)
    return dataclasses.replace(config, **{head: value})


def _read(text: str, kind: Any, path: str) -> Any:
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        if text in arguments:
            return text
        raise ValueError(f"`{path}` must be one of {arguments}, got {text!r}")
    if type(None) in arguments:
        if text.lower() == "none":
            return None
        return _read(text, next(a for a in arguments if a is not type(None)), path)
    try:
        if typing.get_origin(kind) is tuple:
            return tuple(arguments[0](part) for part in text.strip("()").split(",") if part)
        return kind(text)
    except ValueError:
        raise ValueError(f"`{path}` must be a {kind.__name__}, got {text!r}") from None
