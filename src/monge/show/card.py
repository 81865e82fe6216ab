"""Folders in the layout of the Hugging Face hub, with a model card."""

import dataclasses
import json
import re
from pathlib import Path

from safetensors.torch import save as save_tensors

from monge._core.files import write_all
from monge._core.version import __version__
from monge._core.visible import markdown, visible
from monge.builders.settle import MASK, with_kept_mask
from monge.config import CUSTOM, DATA, Config, override, to_json
from monge.data.kinds import kind_named
from monge.draws import generator
from monge.evaluation.figures import lines, shown_protocol, verdict
from monge.models.protocols import Completer, has, prior_of
from monge.runs import Run
from monge.show.drawn import shown_columns, shown_labels
from monge.show.pictures import pictures_of
from monge.show.stamped import png, written

PLAIN = re.compile(r"[a-z][\w.-]*", re.ASCII)
"""What YAML takes for a text without quotes."""


def write(run: Run, out: Path) -> Path:
    """Writes a folder in the layout of the Hugging Face hub, which `monge.load` reads back.

    It holds `model.safetensors`, `config.json`, a picture of samples and a model card, with the
    evaluation if there is one. It names no folder of this machine.

    Raises:
        ValueError: for a model of your own, or a folder that exists or cannot be written.
    """
    if run.config.recipe == CUSTOM:
        raise ValueError(
            f"`run` {str(run.path)!r} was fitted to a model of your own, which a folder of the "
            "hub cannot rebuild: publish its model.safetensors with the code of the model"
        )
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise ValueError(f"`hub` {str(out)!r} is not empty: give a new folder")
    contents: dict[str, str | bytes] = {}
    config = dataclasses.replace(run.config, device="auto")
    known = getattr(with_kept_mask(config, run.path).options, "known", None)
    if known is not None and Path(known).is_file():
        contents[MASK] = Path(known).read_bytes()
        config = override(config, "known", MASK)
    contents |= _picture(run)
    state = {name: x.contiguous().clone() for name, x in run.model.state_dict().items()}
    contents |= {
        "model.safetensors": save_tensors(state, {"format": "pt"}),
        "config.json": to_json(_anonymous(config), run.settled),
        "README.md": card(run, "samples.png" in contents),
    }
    write_all(out, contents, "hub")
    return out


def _picture(run: Run) -> dict[str, bytes]:
    """A picture of samples, which needs no data; the report's of completions, if there is one, for
    a model that completes samples."""
    if isinstance(run.model, Completer):
        drawn = run.path / "pictures" / "completions.png"
        fresh = drawn.is_file() and written(drawn).get("weights") == run.provenance["weights"]
        return {"samples.png": drawn.read_bytes()} if fresh else {}
    kind = kind_named(run.settled.kind)
    labels = shown_labels(run)
    count = len(labels) if labels is not None else 64 if kind.grid else 16
    samples = run.sample(count, generator(0, "sample"), labels=labels)
    picture = pictures_of(kind).samples(samples, columns=shown_columns(labels))
    return {"samples.png": png(picture, run.provenance)}


def _anonymous(config: Config) -> Config:
    """A configuration without the names of files: whoever loads it does not have the data, as with
    an array in memory."""
    name = config.data.name if config.data.name in DATA else "array"
    data = dataclasses.replace(config.data, name=name, dir=None, cache=None)
    return dataclasses.replace(config, data=data)


def card(run: Run, pictured: bool = True) -> str:
    """The model card: what the model is, how to load it, and the evaluation of its weights."""
    config, settled, model = run.config, run.settled, run.model
    evaluation, kind = run.evaluation(), kind_named(settled.kind)
    table = "Not evaluated: `monge evaluate RUN` measures a run."
    if evaluation is not None and (outdated := run.outdated(evaluation)):
        table = f"The evaluation is left out: {markdown(outdated)}."
    elif evaluation is not None:
        protocol = "; ".join(
            f"{key}: {value}" for key, value in shown_protocol(evaluation).items()
        )
        best = verdict(evaluation)
        said = [] if best is None else ["", f"The {markdown(best)}."]
        table = "\n".join([*lines(evaluation), *said, "", f"*{markdown(protocol)}.*"])
    prior = prior_of(model)
    latent = "" if prior is None else f"; {prior.dim} latent dimensions, prior {config.prior}"
    sampled, encoded = "model.sample(16)", "model.encode(samples)"
    if isinstance(model, Completer):
        sampled = "model.complete(images, 5)"
    elif settled.classes:
        sampled, encoded = "model.sample(16, labels=0)", "model.encode(samples, labels)"
    names = ", ".join(settled.classes[:20]) + ", …" * (len(settled.classes) > 20)
    return CARD.format(
        name=markdown(run.name),
        tag=config.recipe if PLAIN.fullmatch(config.recipe) else json.dumps(config.recipe),
        recipe=visible(config.recipe).replace("`", "'"),
        line=run.line,
        data=markdown(Path(config.data.name).stem),
        kind=kind.name,
        shape="×".join(map(str, settled.shape)),
        provenance=markdown(
            "; ".join(f"{name} {value}" for name, value in run.provenance.items())
            + "".join(f"; data changed {change}" for change in settled.changes)
        ),
        picture="![Samples](samples.png)\n\n" if pictured else "",
        steps=f"{run.steps:,}",
        batch=run.batch,
        latent=latent,
        weight="" if settled.weight is None else f", λ = {settled.weight:g}",
        classes=f". Class-conditional, on {markdown(names)}" if settled.classes else "",
        sampled=sampled,
        use=f"# {kind.values}",
        encode=f"\ncodes = {encoded}.mean" if has(model, "encode") else "",
        table=table,
        version=__version__,
        minor=".".join(__version__.split(".")[:2]),
    )


CARD = """---
library_name: monge
tags:
- optimal-transport
- generative-model
- {tag}
---

# {name}

`{recipe}`: {line}. Trained on {data}, {kind}s of shape {shape}, for {steps} steps
of {batch} samples with monge {version}{latent}{weight}{classes}.

{picture}```python
import monge  # {minor}.*

model = monge.load("path/to/this/folder")
samples = {sampled}  {use}{encode}
```

The weights are safetensors and the settings JSON: nothing is unpickled. Made of {provenance}.

## Evaluation

{table}
"""
