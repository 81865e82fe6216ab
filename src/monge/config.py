"""A run, described: frozen dataclasses without torch, from which everything is rebuilt."""

import dataclasses
import json
import math
import os
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from monge import __version__

RECIPES = {
    "wae-mmd": "Wasserstein auto-encoder, codes matched to the prior by MMD (multi-scale IMQ)",
    "wae-gan": "Wasserstein auto-encoder, codes matched by a latent critic (Jensen-Shannon)",
    "swae": "Wasserstein auto-encoder, codes matched by the sliced Wasserstein distance",
    "vae": "variational auto-encoder, Gaussian decoder with learned variance",
}
ALIASES = {"aae": "wae-gan"}

PUBLISHED = ("mnist", "fashion-mnist")

DATA = {
    "digits": "1,797 real 8×8 digits, embedded; the last 297 are the test part (scikit-learn)",
    "mnist": "70,000 digits, 28×28, read from --data-dir or downloaded",
    "fashion-mnist": "70,000 pieces of clothing, 28×28, read from --data-dir or downloaded",
}

# λ = relative · √d for data of d elements, in units of c = Σ squared error on [0, 1].
RELATIVE_WEIGHTS = {"wae-mmd": 7.0, "wae-gan": 0.18, "swae": 3.6}


@dataclass(frozen=True)
class DataConfig:
    """Where samples come from and how images are read."""

    name: str = "digits"
    """digits, mnist, fashion-mnist, or a path: folder or zip of images, folder of idx files,
    .npy, .npz or .csv."""
    dir: str | None = None
    """Where mnist and fashion-mnist lie; the environment variable MONGE_DATA by default."""
    size: int | None = None
    """Side in pixels that images are resized to, after the crop."""
    crop: int | None = None
    """Side in pixels of the centre crop; the largest square when only `size` is given."""
    channels: Literal["grey", "colour"] | None = None
    """Read images as grey or in colour; as they are by default."""

    def __post_init__(self):
        # a run is found again from wherever it is opened
        if self.name not in (*DATA, "array", ""):
            object.__setattr__(self, "name", os.path.abspath(os.path.expanduser(self.name)))
        if self.dir is not None:
            object.__setattr__(self, "dir", os.path.abspath(os.path.expanduser(self.dir)))


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the networks."""

    filters: tuple[int, ...] = (32, 64, 128)
    """Convolutional blocks of the encoder; the decoder mirrors them. For images."""
    hidden: tuple[int, ...] = (256, 256)
    """Hidden layers of encoder and decoder. For vectors."""
    critic: tuple[int, ...] = (256, 256, 256)
    """Hidden layers of a latent critic."""


@dataclass(frozen=True)
class TrainingConfig:
    """Optimisation of a run."""

    batch: int = 100
    epochs: int | None = None
    """Passes over the training data; `steps` decides when it is not given."""
    steps: int | None = None
    """Outer steps; 3,000 when neither is given."""
    lr: float = 1e-3
    inner_lr: float = 5e-4
    """Learning rate of a learned divergence."""
    inner_steps: int = 1
    """Inner steps of a learned divergence before each outer step."""
    betas: tuple[float, float] = (0.5, 0.999)
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the networks; divergences are always in float32."""
    log_every: int = 10
    checkpoint_seconds: float = 50.0
    """Most seconds of work that a kill can lose."""


@dataclass(frozen=True)
class Config:
    """Everything that rebuilds a run. Fields that are None are settled when data are known."""

    recipe: str = "wae-mmd"
    preset: Literal["small"] = "small"
    seed: int = 0
    latent: int | None = None
    """Dimension of the codes; by default 8 for small images, 64 for large ones."""
    prior: Literal["gaussian", "uniform", "sphere"] = "gaussian"
    weight: float | None = None
    """λ in units of the cost; by default proportional to the root of the data's dimension."""
    directions: int = 64
    """Random directions a batch, for sliced divergences."""
    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    device: str = "cpu"
    threads: int | None = None
    kind: Literal["image", "vector"] | None = None
    """What the data are; read from them."""
    shape: tuple[int, ...] | None = None
    """Shape of one sample; read from the data."""
    samples: int | None = None
    """How many training samples there are; read from the data."""
    version: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "recipe", ALIASES.get(self.recipe, self.recipe))

    def check(self) -> "Config":
        """Itself, or a ValueError that names the field, the value and the way out."""
        t = self.training
        _demand(self.recipe in (*RECIPES, "custom"), "recipe", self.recipe, f"one of {names()}")
        _demand(self.preset == "small", "preset", self.preset, "small")
        _demand(self.prior in ("gaussian", "uniform", "sphere"), "prior", self.prior,
                "gaussian, uniform or sphere")  # fmt: skip
        _demand(t.precision in ("fp32", "bf16"), "precision", t.precision, "fp32 or bf16")
        _demand(self.data.channels in (None, "grey", "colour"), "channels", self.data.channels,
                "grey or colour")  # fmt: skip
        for name, value in (
            ("latent", self.latent), ("epochs", t.epochs), ("steps", t.steps), ("batch", t.batch),
            ("inner-steps", t.inner_steps), ("directions", self.directions),
            ("threads", self.threads), ("size", self.data.size), ("crop", self.data.crop),
            ("log_every", t.log_every),
        ):  # fmt: skip
            _demand(value is None or value >= 1, name, value, "at least 1")
        _demand(t.batch >= 2, "batch", t.batch, "at least 2: divergences compare samples")
        for name, value in (
            ("lr", t.lr),
            ("inner_lr", t.inner_lr),
            ("checkpoint_seconds", t.checkpoint_seconds),
        ):
            _demand(value > 0 and math.isfinite(value), name, value, "positive and finite")
        _demand(t.epochs is None or t.steps is None, "epochs", t.epochs, "left out beside `steps`")
        betas = len(t.betas) == 2 and all(0 <= beta < 1 for beta in t.betas)
        _demand(betas, "betas", t.betas, "two numbers in [0, 1)")
        net = self.network
        _demand(len(net.filters) > 0, "filters", net.filters, "at least one number")
        for name, sizes in (
            ("filters", net.filters),
            ("hidden", net.hidden),
            ("critic", net.critic),
        ):
            _demand(all(size >= 1 for size in sizes), name, sizes, "numbers of at least 1")
        _demand(self.device.split(":")[0] in ("cpu", "cuda", "mps"), "device", self.device,
                "cpu, cuda, cuda:1, … or mps")  # fmt: skip
        weighted = self.recipe in RELATIVE_WEIGHTS or self.recipe == "custom"
        _demand(weighted or self.weight is None, "weight", self.weight,
                f"left out for {self.recipe}, which has no divergence")  # fmt: skip
        _demand(self.weight is None or (self.weight >= 0 and math.isfinite(self.weight)),
                "weight", self.weight, "at least 0 and finite")  # fmt: skip
        return self

    def settled(self, kind: str, shape: tuple[int, ...], samples: int) -> "Config":
        """With everything filled in that depends on the data: `samples` of `shape` to train on."""
        d = math.prod(shape)
        latent = self.latent
        if latent is None:
            latent = max(2, min(8, d // 2)) if kind == "vector" else 8 if d <= 1024 else 64
        weight = self.weight
        if weight is None and self.recipe in RELATIVE_WEIGHTS:
            weight = round(RELATIVE_WEIGHTS[self.recipe] * math.sqrt(d), 3)
        t = self.training
        if t.epochs is None and t.steps is None:
            t = dataclasses.replace(t, steps=3000)
        data = self.data
        if data.name in PUBLISHED and data.dir is None:
            data = dataclasses.replace(data, dir=os.environ.get("MONGE_DATA"))
        return dataclasses.replace(
            self, kind=kind, shape=shape, samples=samples, latent=latent, weight=weight,
            data=data, training=t, version=__version__,
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
