"""A run, described: frozen dataclasses without torch, from which everything is rebuilt."""

import dataclasses
import json
import math
import os
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from monge import __version__
from monge.presets import GENERATORS, OWN, RELATIVE_WEIGHTS, TUNED, paper

RECIPES = {
    "wae-mmd": "WAE, MMD of codes with seven inverse multiquadratics (Tolstikhin et al. 2018)",
    "wae-gan": "WAE, latent critic, Jensen-Shannon (Tolstikhin et al. 2018; Makhzani et al. 2015)",
    "wae-wgan-gp": "WAE, W_1 of codes by a critic with a penalty (Gulrajani et al. 2017)",
    "swae": "WAE, sliced W_2² of codes (Kolouri et al. 2019)",
    "max-swae": "WAE, W_2² of codes on a learned worst slice (Deshpande et al. 2019)",
    "gswae": "WAE, sliced W_2² of codes along circles (Kolouri et al. 2019, generalized)",
    "max-gswae": "WAE, W_2² of codes on learned worst circles (Kolouri et al. 2019, generalized)",
    "sinkhorn-ae": "WAE, Sinkhorn divergence of codes (Patrini et al. 2019)",
    "energy-ae": "WAE, energy distance of codes (Székely, Rizzo 2013)",
    "vae": "VAE: E KL + Gaussian likelihood, σ learned or given (Kingma, Welling 2014)",
    "vae-bernoulli": "VAE: E KL + cross-entropy, data in [0, 1] (Kingma, Welling 2014)",
    "pointcloud-wae": "WAE of clouds of points, MMD of codes, Chamfer (Achlioptas et al. 2018)",
    "conditional-wae": "WAE of images given a part, critic of joint codes (Makhzani et al. 2015)",
    "gan": "generator, Jensen-Shannon by a critic, non-saturating (Goodfellow et al. 2014)",
    "wgan": "generator, W_1 by a critic with clipped weights (Arjovsky et al. 2017)",
    "wgan-gp": "generator, W_1 by a critic with a gradient penalty (Gulrajani et al. 2017)",
    "swg": "generator, sliced W_2² of the data themselves (Deshpande et al. 2018)",
    "swgan": "generator, sliced W_2² of a discriminator's features (Deshpande et al. 2018)",
    "max-swg": "generator, W_2² on a learned worst slice (Deshpande et al. 2019)",
    "mmd-generator": "generator, MMD with seven inverse multiquadratics (Li et al. 2015)",
    "sinkhorn-generator": "generator, Sinkhorn divergence (Genevay et al. 2018)",
}
ALIASES = {"aae": "wae-gan"}

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


@dataclass(frozen=True)
class TrainingConfig:
    """Optimisation of a run."""

    batch: int = 100
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
    schedule: Literal["constant", "drops", "smooth"] = "constant"
    """Rates over the training: constant; divided by 2, 5 and 10 after 30, 50 and 100 epochs;
    or going smoothly to a hundredth at the end."""
    pretrain: int = 0
    """Steps at most that first match mean and covariance of the codes to the prior's, with the
    encoder alone; they stop when the loss is under 0.1."""
    pretrain_batch: int = 1000
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the networks; divergences are always in float32."""
    log_every: int = 10
    checkpoint_seconds: float = 50.0
    """Most seconds of work that a kill can lose."""


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
        t = self.training
        _demand(self.recipe in (*RECIPES, "custom"), "recipe", self.recipe, f"one of {names()}")
        _demand(self.preset in ("small", "paper"), "preset", self.preset, "small or paper")
        _demand(self.encoder in ("deterministic", "random"), "encoder", self.encoder,
                "deterministic or random")  # fmt: skip
        _demand(self.noise >= 0 and math.isfinite(self.noise), "noise", self.noise,
                "at least 0 and finite")  # fmt: skip
        _demand(t.schedule in ("constant", "drops", "smooth"), "schedule", t.schedule,
                "constant, drops or smooth")  # fmt: skip
        _demand(t.pretrain >= 0, "pretrain", t.pretrain, "at least 0")
        _demand(t.pretrain_batch >= 2, "pretrain_batch", t.pretrain_batch, "at least 2")
        _demand(self.prior in PRIORS, "prior", self.prior, f"one of {', '.join(PRIORS)}")
        costs = typing.get_args(typing.get_type_hints(Config)["cost"])
        _demand(self.cost in costs, "cost", self.cost, f"one of {', '.join(costs)}")
        _demand(self.kernel in ("imq", "rbf"), "kernel", self.kernel, "imq or rbf")
        _demand(self.prior not in PLANE or self.latent in (None, 2), "latent", self.latent,
                f"2 for the prior {self.prior}")  # fmt: skip
        _demand(t.optimiser in ("adam", "rmsprop"), "optimiser", t.optimiser, "adam or rmsprop")
        _demand(len(t.inner_first) == 2 and min(t.inner_first) >= 0, "inner_first", t.inner_first,
                "two numbers of at least 0")  # fmt: skip
        _demand(t.precision in ("fp32", "bf16"), "precision", t.precision, "fp32 or bf16")
        _demand(self.data.channels in (None, "grey", "colour"), "channels", self.data.channels,
                "grey or colour")  # fmt: skip
        for name, value in (
            ("latent", self.latent), ("epochs", t.epochs), ("steps", t.steps), ("batch", t.batch),
            ("inner-steps", t.inner_steps), ("directions", self.directions),
            ("threads", self.threads), ("size", self.data.size), ("crop", self.data.crop),
            ("points", self.data.points),
            ("log_every", t.log_every), ("summary", self.network.summary),
        ):  # fmt: skip
            _demand(value is None or value >= 1, name, value, "at least 1")
        _demand(t.batch >= 2, "batch", t.batch, "at least 2: divergences compare samples")
        for name, value in (
            ("lr", t.lr), ("inner_lr", t.inner_lr), ("checkpoint_seconds", t.checkpoint_seconds),
            ("beta", self.beta), ("sigma", self.sigma), ("scale", self.scale),
        ):  # fmt: skip
            good = value is None or (value > 0 and math.isfinite(value))
            _demand(good, name, value, "positive and finite")
        _demand(self.data.jitter >= 0 and math.isfinite(self.data.jitter), "jitter",
                self.data.jitter, "at least 0 and finite")  # fmt: skip
        _demand(t.epochs is None or t.steps is None, "epochs", t.epochs, "left out beside `steps`")
        betas = len(t.betas) == 2 and all(0 <= beta < 1 for beta in t.betas)
        _demand(betas, "betas", t.betas, "two numbers in [0, 1)")
        net = self.network
        _demand(len(net.filters) > 0, "filters", net.filters, "at least one number")
        for name, sizes in (
            ("filters", net.filters),
            ("hidden", net.hidden),
            ("critic", net.critic),
            ("points", net.points),
            ("cloud", net.cloud),
        ):
            _demand(all(size >= 1 for size in sizes), name, sizes, "numbers of at least 1")
        _demand(self.device.split(":")[0] in ("cpu", "cuda", "mps"), "device", self.device,
                "cpu, cuda, cuda:1, … or mps")  # fmt: skip
        weighted = self.recipe in RELATIVE_WEIGHTS or self.recipe == "custom"
        _demand(weighted or self.weight is None, "weight", self.weight,
                f"left out for {self.recipe}, which has no divergence")  # fmt: skip
        _demand(self.weight is None or (self.weight > 0 and math.isfinite(self.weight)),
                "weight", self.weight, "positive and finite")  # fmt: skip
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
