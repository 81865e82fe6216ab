"""`monge train`: flags laid over a configuration, with those of the recipe's own options."""

import dataclasses
import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args, get_type_hints

from tyro.conf import Positional, arg

from monge._core.errors import Interrupted
from monge._core.names import WriterName
from monge.cli.common import Float, Int, Place, Text, first, tell
from monge.cli.help import documented

if TYPE_CHECKING:
    from monge.config import Config

FIELDS = {
    "data": "data.name",
    "data_dir": "data.dir",
    "size": "data.size",
    "crop": "data.crop",
    "channels": "data.channels",
    "cache": "data.cache",
    "points": "data.points",
    "classes": "data.classes",
    "condition": "condition",
    "clusters": "clusters",
    "turn": "data.turn",
    "jitter": "data.jitter",
    "categorical": "data.categorical",
    "leave_out": "data.leave_out",
    "missing": "data.missing",
    "seed": "seed",
    "preset": "preset",
    "latent": "latent",
    "prior": "prior",
    "prior_scale": "prior_scale",
    "prior_radius": "prior_radius",
    "prior_inner": "prior_inner",
    "prior_components": "prior_components",
    "epochs": "training.epochs",
    "steps": "training.steps",
    "batch": "training.batch",
    "lr": "training.lr",
    "inner_steps": "training.inner_steps",
    "precision": "training.precision",
    "micro_batch": "training.micro_batch",
    "compile": "training.compile",
    "device": "device",
    "threads": "threads",
}
"""The setting of the configuration that each flag sets."""


@dataclass(frozen=True)
class Train:
    """Train a recipe on data; writes a run directory with a report. `monge train RECIPE --help`
    also lists the options of that recipe."""

    options: ClassVar[tuple[str, ...]] = ()
    """The names of the recipe's own options, which are flags as well."""

    recipe: Positional[Text] = None
    """The recipe, or package.module:name of your own; `monge recipes` lists them. Can be omitted
    with --resume."""
    data: Text = None
    """digits (default), glyphs, mnist, fashion-mnist, or a path: folder, zip or tar shards of
    images, folder of idx files or of clouds (.ply, .obj, .off, …), .npy, .npz, .csv; or
    hf:DATASET."""
    data_dir: Text = None
    """The folder of mnist and fashion-mnist; MONGE_DATA by default."""
    out: Place = None
    """The run directory; a new one under runs/ by default."""
    epochs: Int = None
    """Passes over the training data."""
    steps: Int = None
    """Outer steps, instead of epochs; 3,000 by default."""
    seed: Int = None
    """Seed of weights, draws and order; 0 by default."""
    preset: Text = None
    """small (default), or paper: networks, rates and weights as published, for mnist and faces."""
    quiet: bool = False
    """Hide progress; print only the path of the report."""
    dry_run: bool = False
    """Print what would be trained, and its time and memory, estimated from a few steps; write
    nothing."""
    log_to: tuple[WriterName, ...] = ()
    """Where the log goes besides metrics.jsonl: tensorboard, wandb, mlflow."""
    resume: bool = False
    """Continue the run in --out from its newest valid checkpoint."""
    data_changed: bool = False
    """With --resume: continue although the data have changed, and record this in the run."""
    trust_data: bool = False
    """With --resume: open the data that the run names, although this account has not sealed the
    run."""
    size: Int = None
    """Resize images to this side in pixels, after a centre crop."""
    crop: Int = None
    """Side in pixels of the centre crop; the largest square by default."""
    channels: Literal["grey", "colour"] | None = None
    """Convert images to grey or colour; unchanged by default."""
    cache: Text = None
    """Keep decoded images in this folder, memory-mapped instead of held in memory."""
    points: Int = None
    """Points per cloud, a random subset; all by default, 2,048 for clouds in files."""
    classes: tuple[str, ...] = ()
    """Train on these classes only, by name."""
    condition: Literal["labels", "clusters", "none"] | None = None
    """Condition the model on the classes of labelled data (labels), so that `monge sample --class`
    draws from one of them, or on clusters of data, which need no labels."""
    clusters: Int = None
    """With --condition clusters: how many; 50 by default, fewer for less than 10,000 samples."""
    turn: bool = False
    """Rotate clouds randomly about the upright axis, y, each time they are used."""
    jitter: Float = None
    """Standard deviation of Gaussian noise added to the points of clouds each time they are used;
    0 by default."""
    categorical: tuple[str, ...] = ()
    """Columns of a table to treat as categories although they hold numbers; text columns always
    are. Name `label` or `class` here to model that column, too."""
    leave_out: tuple[str, ...] = ()
    """Columns of a table to leave out."""
    missing: Literal["refuse", "indicator"] | None = None
    """Missing cells of a table: refuse (default), or indicator, which models where cells are
    missing, so that samples have missing cells as well."""
    batch: Int = None
    """Samples per step; 100 by default."""
    micro_batch: Int = None
    """Samples processed at once, for batches larger than memory; the gradient is the same."""
    latent: Int = None
    """Dimension of the codes; 8 for small images, 64 for large ones by default."""
    prior: (
        Literal["gaussian", "uniform", "sphere", "mixture", "ring", "disk", "swiss-roll"] | None
    ) = None
    """Distribution of the codes, gaussian by default; mixture: Gaussians whose means lie evenly on
    a circle of the first two codes; ring, disk and swiss-roll: in the plane, for 2 codes."""
    prior_scale: Float = None
    """σ of the prior gaussian (1 by default), of the components of mixture (0.1), or of the noise
    of swiss-roll (0.02)."""
    prior_radius: Float = None
    """Half the side of the cube uniform, or radius of the circle of mixture; 1 by default."""
    prior_inner: Float = None
    """Inner radius of the prior ring, whose outer one is 1; 0.8 by default."""
    prior_components: Int = None
    """Components of the prior mixture; 10 by default."""
    lr: Float = None
    """Learning rate; 0.001, or what the recipe is tuned to for small images, by default."""
    inner_steps: Int = None
    """Steps of a critic before each step of the model; 1 by default."""
    device: Text = None
    """auto (default): a GPU if CUDA finds one, otherwise the CPU; or cpu, cuda, cuda:1, …, mps."""
    precision: Literal["fp32", "bf16", "fp16", "auto"] | None = None
    """Precision of the networks; divergences are always in fp32. auto: bf16 for convolutions on
    Ampere and newer GPUs, otherwise fp32; auto by default."""
    compile: bool = False
    """Compile encoder and decoder, on a GPU to CUDA graphs; this takes up to minutes at the
    start."""
    threads: Int = None
    """CPU threads."""
    set: tuple[str, ...] = ()
    """Any other setting, as a.b=c; the config.json of a run lists them all."""

    def run(self) -> None:
        config = self._config()
        if self.dry_run:
            self._plan(config)
            return
        from monge.api import fit

        try:
            run = fit(
                config.recipe,
                config=config,
                out=self.out,
                resume=self.resume,
                data_changed=self.data_changed,
                trust_data=self.trust_data,
                quiet=self.quiet,
                log_to=self.log_to,
            )
        except Interrupted as stop:
            stop.args = (f"{stop}; to continue, repeat the command with --out RUN --resume",)
            raise
        if first():
            tell(f"report: {run.report}")

    def _plan(self, config: "Config") -> None:
        """Prints what the training would be."""
        from monge.training.planned import planned

        if self.resume:
            raise ValueError("`dry-run` estimates a training from its start: leave out --resume")
        if self.out is not None and os.path.lexists(self.out):
            raise ValueError(f"`out` {str(self.out)!r} exists already: choose another")
        for name, text in planned(config).lines.items():
            tell(f"{name:10}{text}")
        tell("nothing was written: leave out --dry-run to train")

    def _config(self) -> "Config":
        """The default or, with --resume, the stored configuration with the flags laid over it."""
        from monge._core.spelling import meant
        from monge.config import CUSTOM, DATA, Config, override, read_sealed
        from monge.config.trust import refuse_paths
        from monge.recipes import names

        stored = None
        if self.resume and self.out and os.path.lexists(self.out / "config.json"):
            stored, _, foreign = read_sealed(self.out)
            typed = {"name": self.data, "dir": self.data_dir, "cache": self.cache}
            left = {name: path for name, path in foreign.items() if typed[name] is None}
            refuse_paths(self.out, {} if self.trust_data else left)
            if stored.recipe == CUSTOM:
                raise ValueError(
                    f"`out` {str(self.out)!r} is a run of a model of your own: resume it with "
                    "monge.fit(model, ..., resume=True)"
                )
        if self.recipe is None and stored is None:
            known = f"`recipe` is missing: give one of {', '.join(names())}"
            unknown = self.data not in (None, *DATA) and not os.path.exists(self.data or "")
            if unknown and (near := meant(Path(self.data or "").name, DATA)):
                known += f"; `data` {self.data!r} is neither a file nor a folder{near}"
            raise ValueError(known)
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
        for option in self.options:
            if (value := getattr(self, option)) is not None:
                config = override(config, option, value)
        for setting in self.set:
            path, equals, value = setting.partition("=")
            if not equals:
                raise ValueError(f"`set` must look like a.b=c, got {setting!r}")
            config = override(config, path, value)
        return config


def verb(arguments: Sequence[str]) -> type[Train]:
    """`Train` with a flag for each option of the recipe that the arguments name."""
    from monge.config import Config
    from monge.recipes import find

    typed = recipe_name(arguments)
    name = typed or _resumed(arguments)
    if not name:
        return Train
    # code from the current folder only for a recipe that was typed, not for one that is stored
    row = find(name, beside=os.getcwd() if typed else None)
    if taken := sorted(name for name in row.option_names if hasattr(Train, name)):
        raise ValueError(
            f"`options` of the recipe {name} has {taken[0]!r}, which is a flag of every recipe: "
            "give it another name"
        )
    config = Config.of(name)
    texts, kinds = documented(row.options), get_type_hints(row.options)
    fields = [
        _flag(name, kinds[name], texts.get(name, ""), getattr(config.options, name))
        for name in row.option_names
    ]
    texts, kinds = documented(Train), get_type_hints(Train)
    for flag, setting in FIELDS.items():
        if setting.startswith("training.") and getattr(Train, flag) is None:
            value = getattr(config.training, setting.removeprefix("training."))
            text = texts[flag]
            if value is not None:
                text = re.sub(r"; [^;]* by default\.$", ".", text)
            fields.append(_flag(flag, kinds[flag], text, value))
    made = dataclasses.make_dataclass(
        "Train",
        fields,
        bases=(Train,),
        frozen=True,
        namespace={"__doc__": f"Train {row.name}, {row.line}."},
    )
    made.options = tuple(row.option_names)  # pyright: ignore[reportAttributeAccessIssue]
    return made


def _flag(name: str, kind: Any, text: str, default: Any) -> tuple[str, Any, Any]:
    """A field of `Train` for a setting, whose help tells its default under the recipe."""
    members = [one for one in (get_args(kind) or (kind,)) if one is not type(None)]
    names = {int: "INT", float: "FLOAT", str: "TEXT"}
    metavar = names.get(members[0]) if len(members) == 1 else None
    if default is not None:
        text = f"{text} Default: {default}."
    shown = arg(help=text.strip(), help_behavior_hint="", metavar=metavar)
    return name, Annotated[kind | None, shown], dataclasses.field(default=None)


VALUELESS = (
    *("--resume", "--data-changed", "--trust-data", "--turn", "--compile"),
    *("--quiet", "--dry-run", "--dry_run", "--help", "-h"),
)
SEVERAL = (
    "--set",
    "--classes",
    "--categorical",
    "--leave-out",
    "--leave_out",
    "--log-to",
    "--log_to",
)


def recipe_name(arguments: Sequence[str]) -> str:
    """The recipe's name: the first argument that is neither a flag nor the value of one."""
    flag = ""  # of which the next argument is a value
    for argument in arguments:
        if argument.startswith("-"):
            flag = "" if "=" in argument or argument in VALUELESS else argument
        elif not flag:
            return argument
        elif flag not in SEVERAL:
            flag = ""
    return ""


def _resumed(arguments: Sequence[str]) -> str:
    """The recipe of the run that arguments without one resume."""
    from monge.config import CUSTOM, read_config

    places = [b for a, b in itertools.pairwise(arguments) if a == "--out"]
    places += [a.removeprefix("--out=") for a in arguments if a.startswith("--out=")]
    if "--resume" in arguments and places and os.path.lexists(Path(places[0]) / "config.json"):
        stored, _ = read_config(Path(places[0]))
        return "" if stored.recipe == CUSTOM else stored.recipe
    return ""
