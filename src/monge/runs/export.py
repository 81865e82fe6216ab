"""Trained models elsewhere: ONNX, `torch.export`, and folders as the Hugging Face hub has them.

An exported model is two files, since its encoder and its decoder are used apart. `model.onnx`
stands for `model.encoder.onnx` (x ↦ code, of a random encoder also log_variance) and
`model.decoder.onnx` (code ↦ sample); a generator has the decoder alone. Of a conditional model the
encoder also takes the mask `known`, and the decoder the sample `given` with its mask.
"""

import contextlib
import dataclasses
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from monge._core.errors import FailedRun, needs
from monge._core.files import write_all
from monge._core.version import __version__
from monge.config import DATA
from monge.data import as_floats
from monge.draws import generator
from monge.evaluation.measures import lines
from monge.models import AutoEncoder, ConditionalWAE, Model, evaluating
from monge.networks.codes import Normal
from monge.recipes import RECIPES
from monge.runs import Run
from monge.show import pictures

SUFFIXES = (".onnx", ".pt2")
CLOSE = 1e-5
"""Outputs may differ from PyTorch's by so much of their largest size, or of 1."""


class Encoder(nn.Module):
    r"""x (n, \*) to the mean code (n, dim), and of a random encoder to the log-variance."""

    def __init__(self, model: AutoEncoder):
        super().__init__()
        self.encoder = model.encoder

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        law = self.encoder(x)
        return (law.mean, law.log_variance) if isinstance(law, Normal) else (law,)


class ConditionalEncoder(Encoder):
    """x (n, c, h, w) with masks known (n, 1, h, w), 1 where known, to the same."""

    def forward(self, x: Tensor, known: Tensor) -> tuple[Tensor, ...]:
        return super().forward(torch.cat([x, known], 1))


class Decoder(nn.Module):
    r"""code (n, dim) to sample (n, \*)."""

    def __init__(self, model: Model):
        super().__init__()
        self.decoder = model.decoder

    def forward(self, code: Tensor) -> tuple[Tensor]:
        law = self.decoder(code)
        return (law.mean if isinstance(law, Normal) else law,)


class ConditionalDecoder(nn.Module):
    """code (n, dim), with samples given (n, c, h, w) and masks known (n, 1, h, w), to samples
    completed where they are not known."""

    def __init__(self, model: ConditionalWAE):
        super().__init__()
        self.summary, self.decoder = model.summary, model.decoder

    def forward(self, code: Tensor, given: Tensor, known: Tensor) -> tuple[Tensor]:
        phi = self.summary(torch.cat([known * given, known], 1))
        y = self.decoder(torch.cat([phi, code], 1))
        return (known * given + (1 - known) * y,)


@dataclasses.dataclass(frozen=True)
class Part:
    """A network to export, with inputs to trace and check it."""

    name: str
    network: nn.Module
    inputs: dict[str, Tensor]

    @property
    def outputs(self) -> list[Tensor]:
        """What PyTorch makes of the inputs."""
        with evaluating(self.network):
            return list(self.network(**self.inputs))

    @property
    def output_names(self) -> list[str]:
        """Of the graph."""
        if self.name == "decoder":
            return ["sample"]
        return ["code", "log_variance"][: len(self.outputs)]


def parts(run: Run, n: int = 16) -> list[Part]:
    """The encoder and the decoder of a run, with n test samples and their codes as inputs; of a
    generator its decoder, with draws of the prior."""
    model = run.model
    if not isinstance(model, AutoEncoder):
        codes = model.prior.sample(n, generator(0, "export"))
        return [Part("decoder", Decoder(model), {"code": codes})]
    test = run.source.test
    x = as_floats(test[torch.arange(n) % len(test)])
    with evaluating(model):
        codes = model.encode(x).mean
        if not isinstance(model, ConditionalWAE):
            return [
                Part("encoder", Encoder(model), {"x": x}),
                Part("decoder", Decoder(model), {"code": codes}),
            ]
        known = model.known(x).contiguous()
    return [
        Part("encoder", ConditionalEncoder(model), {"x": x, "known": known}),
        Part("decoder", ConditionalDecoder(model), {"code": codes, "given": x, "known": known}),
    ]


def export(run: Run, out: Path) -> list[Path]:
    """Writes encoder and decoder as `STEM.encoder.onnx` and `STEM.decoder.onnx`, or as `.pt2`.

    The number of samples is free. Each file is run on 16 samples before it is written, and must
    give what PyTorch gives.

    Raises:
        ValueError: for another suffix, a folder that cannot be written, or without the packages
            of the extra `export`.
        FailedRun: if a file does not give what PyTorch gives.
    """
    if out.suffix not in SUFFIXES:
        raise ValueError(f"`out` must end in {' or '.join(SUFFIXES)}, got {str(out)!r}")
    convert = onnx_file if out.suffix == ".onnx" else torch_file
    contents = {}
    for part in parts(run):
        with silence():
            content, again = convert(part)
        check(part, again)
        contents[f"{out.stem}.{part.name}{out.suffix}"] = content
    return write_all(out.parent, contents)


Again = Callable[[dict[str, Tensor]], list[Tensor]]


def onnx_file(part: Part) -> tuple[bytes, Again]:
    """A part as an ONNX file, and what onnxruntime makes of inputs with it."""
    with needs("export"):
        import onnxruntime
        import onnxscript  # noqa: F401 - torch.onnx needs it
    program = torch.onnx.export(
        part.network.eval(), (), kwargs=part.inputs, dynamo=True, verbose=False,
        dynamic_shapes=free(part), input_names=list(part.inputs), output_names=part.output_names,
    )  # fmt: skip
    assert program is not None
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def again(inputs: dict[str, Tensor]) -> list[Tensor]:
        found = session.run(None, {name: x.numpy() for name, x in inputs.items()})
        return [torch.from_numpy(y) for y in found]

    return content, again


def torch_file(part: Part) -> tuple[bytes, Again]:
    """A part as `torch.export` saves it, and what PyTorch makes of inputs with the file."""
    program = torch.export.export(
        part.network.eval(), (), part.inputs, dynamic_shapes=free(part)
    )  # fmt: skip
    file = io.BytesIO()
    torch.export.save(program, file)
    content = file.getvalue()
    loaded = torch.export.load(io.BytesIO(content)).module()

    def again(inputs: dict[str, Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return list(loaded(**inputs))

    return content, again


def free(part: Part) -> dict[str, Any]:
    """The first dimension of every input, free and one number."""
    n = torch.export.Dim("n", min=1, max=2**20)
    return {name: {0: n} for name in part.inputs}


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Inside, the exporters' remarks on their own insides are not shown."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def check(part: Part, again: Again) -> None:
    """Raises FailedRun where a file does not give what PyTorch gives."""
    for count in (len(next(iter(part.inputs.values()))), 1):
        some = Part(part.name, part.network, {k: x[:count] for k, x in part.inputs.items()})
        for expected, found in zip(some.outputs, again(some.inputs)):
            away = float((expected - found).abs().max())
            if not away <= CLOSE * max(1.0, float(expected.abs().max())):
                raise FailedRun(f"the exported {part.name} differs from PyTorch's by {away:.2g}")


def hub(run: Run, out: Path) -> Path:
    """Writes a folder as the Hugging Face hub has them, which `monge.load` reads back.

    It holds `model.safetensors`, `config.json`, a picture of samples and a model card with the
    evaluation, if there is one. Folders of this machine are not in it.

    Raises:
        ValueError: for a model of one's own, or a folder that exists or cannot be written.
    """
    config = run.config
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise ValueError(f"`hub` {str(out)!r} is not empty: give a new folder")
    data = config.data
    if data.name not in DATA:
        # to whoever loads it the samples are what an array in memory is: unknown
        data = dataclasses.replace(data, name="array")
    contents: dict[str, bytes] = {}
    if Path(config.known).is_file():
        contents["known.png"] = Path(config.known).read_bytes()
        config = dataclasses.replace(config, known="known.png")
    config = dataclasses.replace(config, data=dataclasses.replace(data, dir=None), device="cpu")
    drawn = run.sample(64 if run.source.kind == "image" else 16, generator(0, "sample"))
    picture = io.BytesIO()
    pictures.samples(drawn, run.source).save(picture, "PNG", optimize=True)
    state = {name: x.contiguous().clone() for name, x in run.model.state_dict().items()}
    contents |= {
        "model.safetensors": save_tensors(state, {"format": "pt"}),
        "config.json": config.to_json().encode(),
        "samples.png": picture.getvalue(),
        "README.md": card(run).encode(),
    }
    write_all(out, contents, "hub")
    return out


def card(run: Run) -> str:
    """The model card: what the model is, how it is loaded, what it was measured at."""
    config, source, model = run.config, run.source, run.model
    encodes = isinstance(model, AutoEncoder)
    shape = "×".join(map(str, source.shape))
    rows, found = run.metrics(), run.evaluation()
    steps = rows[-1]["step"] if rows else 0
    table = "Not evaluated: `monge evaluate RUN` measures a run."
    if found is not None:
        told = "; ".join(f"{name}: {value}" for name, value in found["protocol"].items())
        table = "\n".join([*lines(found), "", f"*{told}.*"])
    use = {
        "image": "# in [0, 1]",
        "cloud": "# in the unit sphere",
        "vector": "# in the units of the table",
    }[source.kind]
    sampled = (
        "model.complete(images, 5)" if isinstance(model, ConditionalWAE) else "model.sample(16)"
    )
    return CARD.format(
        name=run.name, recipe=config.recipe, line=RECIPES[config.recipe], data=source.name,
        kind=source.kind, shape=shape, steps=f"{steps:,}", batch=config.training.batch,
        latent=model.prior.dim, prior=config.prior, version=__version__, table=table,
        weight="" if config.weight is None else f", λ = {config.weight:g}", sampled=sampled,
        use=use, encode="\ncodes = model.encode(samples).mean" if encodes else "",
        minor=".".join(__version__.split(".")[:2]),
    )  # fmt: skip


CARD = """---
library_name: monge
tags:
- optimal-transport
- generative-model
- {recipe}
---

# {name}

`{recipe}`: {line}. Trained on {data}, {kind}s of shape {shape}, for {steps} steps
of {batch} samples with monge {version}; {latent} latent dimensions, prior {prior}{weight}.

![Samples](samples.png)

```python
import monge  # {minor}.*

model = monge.load("path/to/this/folder")
samples = {sampled}  {use}{encode}
```

The weights are safetensors and the settings JSON: nothing is unpickled.

## Evaluation

{table}
"""
