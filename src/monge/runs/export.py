"""Trained models as files for other programs: ONNX and `torch.export`.

An exported model is two files, because encoders and decoders are used separately. `model.onnx`
stands for `model.encoder.onnx` (x ↦ code, and log_variance for a random encoder) and
`model.decoder.onnx` (code ↦ sample). A model without `encode` has only the decoder, and one
without `decode` only the encoder. For a class-conditional model both take the classes `label` as
well, int64 (n,), numbered as `settled.classes` of config.json. Where a model completes samples,
its encoder also takes the mask `known`, and its decoder the sample `given` with its mask. A flow
has a `velocity` ((x, t) ↦ dx/dt, in standard units), which a loop of a few lines integrates from
noise at t = 0, and `units` (x at t = 1 ↦ sample). The data of the run are not needed.
"""

import copy
import dataclasses
import inspect
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monge._core.errors import FailedRun, needs, silence
from monge._core.files import write_all
from monge.draws import generator, standard_normal
from monge.models import FlowMatching, evaluating
from monge.models.protocols import (
    Completer,
    classes_of,
    generates,
    has,
    mean_codes,
    prior_of,
    require,
    rows_for,
)
from monge.models.sampling import samples
from monge.runs.run import Run

SUFFIXES = (".onnx", ".pt2")
CLOSE = 1e-5
"""The largest difference from PyTorch's outputs, relative to their largest size, or to 1."""


class Graph(nn.Module):
    """A method of a model as a network of its own.

    Args:
        model: the model.
    """

    model: Any

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model


class EncoderGraph(Graph):
    r"""x (n, \*) to the mean code (n, dim), and its log-variance where the encoder is random."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return _outputs(self.model.encode(x))


class LabelledEncoderGraph(Graph):
    r"""x (n, \*) with their classes label, int64 (n,), to the mean code and its log-variance."""

    def forward(self, x: Tensor, label: Tensor) -> tuple[Tensor, ...]:
        return _outputs(self.model.encode(x, label))


class LabelledDecoderGraph(Graph):
    r"""code (n, dim) with the classes label, int64 (n,), to samples (n, \*) of those classes."""

    def forward(self, code: Tensor, label: Tensor) -> tuple[Tensor]:
        return (self.model.decode(code, label),)


class VelocityGraph(Graph):
    r"""x (n, \*) in standard units at times t (n,) to the velocity (n, \*) of a flow."""

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor]:
        return (self.model.velocity(x, t),)


class LabelledVelocityGraph(Graph):
    r"""x (n, \*) in standard units at times t (n,), with their classes label, int64 (n,), to the
    velocity (n, \*) of a flow, under the guidance it is sampled with."""

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> tuple[Tensor]:
        return (self.model.velocity(x, t, label),)


class UnitsGraph(Graph):
    r"""x (n, \*) in standard units to samples of a flow in units of the data."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.model.in_units_of_data(x),)


class ConditionalEncoderGraph(Graph):
    """x (n, c, h, w) with masks known (n, 1, h, w), 1 where known, to the mean code and its
    log-variance."""

    def forward(self, x: Tensor, known: Tensor) -> tuple[Tensor, ...]:
        return _outputs(self.model.encode(x, known))


class DecoderGraph(Graph):
    r"""code (n, dim) to sample (n, \*)."""

    def forward(self, code: Tensor) -> tuple[Tensor]:
        return (self.model.decode(code),)


class ConditionalDecoderGraph(Graph):
    """code (n, dim), with samples given (n, c, h, w) and masks known (n, 1, h, w), to samples
    completed where they are not known."""

    def forward(self, code: Tensor, given: Tensor, known: Tensor) -> tuple[Tensor]:
        return (self.model.decode(code, given, known),)


def _outputs(q: Any) -> tuple[Tensor, ...]:
    if isinstance(q, Tensor):
        return (q,)
    log_variance = getattr(q, "log_variance", None)
    return (q.mean,) if log_variance is None else (q.mean, log_variance)


@dataclasses.dataclass(frozen=True)
class ExportedNetwork:
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
        """The names of the outputs in the graph."""
        if self.name == "encoder":
            return ["code", "log_variance"][: len(self.outputs)]
        return ["velocity" if self.name == "velocity" else "sample"]


def networks_of(run: Run, n: int = 16) -> list[ExportedNetwork]:
    """The encoder and the decoder of a run, as far as its model has them, or the velocity and the
    units of a flow, with inputs.

    The inputs are n samples of the model and their codes, or draws of the prior for a model
    without `encode`.

    Raises:
        ValueError: for a model without `encode` and `decode`, or whose codes are not known.
    """
    model: Any = run.model
    if isinstance(model, Completer):
        return _conditional_networks(model, _inputs(run, n))
    label, encoder_graph, decoder_graph = {}, EncoderGraph, DecoderGraph
    if (classes := classes_of(model)) is not None:
        label = {"label": torch.arange(n) % classes}
        encoder_graph, decoder_graph = LabelledEncoderGraph, LabelledDecoderGraph
    if isinstance(model, FlowMatching):
        return _flow_networks(model, label, n)
    if not has(model, "encode"):
        require(model, "decode", "export")
        prior = prior_of(model)
        if prior is None:
            require(model, "encode", "export of a decoder without a prior")
        assert prior is not None, "a model without `encode` and prior has been refused"
        codes = prior.sample(n, generator(0, "export"))
        return [ExportedNetwork("decoder", decoder_graph(model), {"code": codes, **label})]
    x = _inputs(run, n)
    encoder = ExportedNetwork("encoder", encoder_graph(model), {"x": x, **label})
    if not has(model, "decode"):
        return [encoder]
    with evaluating(model):
        codes = mean_codes(model, rows_for(model, x, label.get("label")))
    return [encoder, ExportedNetwork("decoder", decoder_graph(model), {"code": codes, **label})]


def _inputs(run: Run, n: int) -> Tensor:
    """n samples of the run's shape: draws of the model, or of noise in [0, 1], a table's in its
    units, for a model that draws none without data."""
    drawn, settled = generator(0, "export"), run.settled
    if generates(run.model) and not isinstance(run.model, Completer):
        return torch.cat(list(samples(run.model, n, drawn)))
    noise = torch.rand(n, *settled.shape, generator=drawn, dtype=torch.float32, device="cpu")
    if settled.moments is None:
        return noise
    mean, deviation = map(torch.tensor, settled.moments)
    return mean + deviation * noise


def _flow_networks(model: FlowMatching, label: dict[str, Tensor], n: int) -> list[ExportedNetwork]:
    """The velocity of a flow and its units, with n draws of noise at times from 0 to 1."""
    x, t = standard_normal((n, *model.shape), generator(0, "export")), torch.linspace(0, 1, n)
    graph = LabelledVelocityGraph if label else VelocityGraph
    return [
        ExportedNetwork("velocity", graph(model), {"x": x, "t": t, **label}),
        ExportedNetwork("units", UnitsGraph(model), {"x": x}),
    ]


def _conditional_networks(model: Any, x: Tensor) -> list[ExportedNetwork]:
    """The networks of a model that completes samples.

    Raises:
        ValueError: for a model whose methods take no masks, which the graphs have as inputs.
    """
    for method in ("encode", "decode"):
        require(model, method, "export")
        if "known" not in inspect.signature(getattr(model, method)).parameters:
            raise ValueError(
                f"`model` {type(model).__name__} completes samples, but its method `{method}` "
                "has no argument `known`, which export needs"
            )
    with evaluating(model):
        known = model.known(x).contiguous()
        codes = mean_codes(model, x)
    inputs = {"code": codes, "given": x, "known": known}
    return [
        ExportedNetwork("encoder", ConditionalEncoderGraph(model), {"x": x, "known": known}),
        ExportedNetwork("decoder", ConditionalDecoderGraph(model), inputs),
    ]


def export(run: Run, out: Path) -> list[Path]:
    """Writes encoder and decoder as `STEM.encoder.onnx` and `STEM.decoder.onnx`, or as `.pt2`; a
    flow as `STEM.velocity.onnx` and `STEM.units.onnx`.

    The number of samples a call is free. Each file is run on 16 samples before it is written, and
    its outputs must be those of PyTorch.

    Raises:
        ValueError: for another suffix, a folder that cannot be written, a model without
            `encode` and `decode`, or without the packages of the extra `export`.
        FailedRun: if the outputs of a file differ from PyTorch's.
    """
    if out.suffix not in SUFFIXES:
        raise ValueError(f"`out` must end in {' or '.join(SUFFIXES)}, got {str(out)!r}")
    convert = onnx_file if out.suffix == ".onnx" else torch_file
    contents = {}
    with run.defaults():
        for exported in networks_of(run):
            with silence:
                content, run_exported = convert(exported, run.provenance)
            check(exported, run_exported)
            contents[f"{out.stem}.{exported.name}{out.suffix}"] = content
    return write_all(out.parent, contents)


RunExported = Callable[[dict[str, Tensor]], list[Tensor]]
"""Runs an exported file: inputs by name to outputs."""


def onnx_file(
    exported: ExportedNetwork, provenance: Mapping[str, str]
) -> tuple[bytes, RunExported]:
    """A network as an ONNX file, whose metadata hold `Run.provenance`, and what onnxruntime makes
    of inputs with it."""
    with needs("export"):
        import onnxruntime
        import onnxscript  # noqa: F401 - torch.onnx needs it
    program = torch.onnx.export(
        exported.network.eval(),
        (),
        kwargs=exported.inputs,
        dynamo=True,
        verbose=False,
        dynamic_shapes=free(exported),
        input_names=list(exported.inputs),
        output_names=exported.output_names,
    )
    assert program is not None
    proto = program.model_proto
    for name, value in provenance.items():
        proto.metadata_props.add(key=f"monge {name}", value=value)
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run_exported(inputs: dict[str, Tensor]) -> list[Tensor]:
        outputs = session.run(None, {name: x.numpy() for name, x in inputs.items()})
        return [torch.from_numpy(y) for y in outputs]

    return content, run_exported


def torch_file(
    exported: ExportedNetwork, provenance: Mapping[str, str]
) -> tuple[bytes, RunExported]:
    """A network as `torch.export` saves it, with `Run.provenance` as its extra file
    provenance.json, and what PyTorch makes of inputs with the file."""
    program = _traced(exported.network.eval(), exported)
    if unused := _unused(program):
        # the file would hold their weights too
        program = _traced(_without(exported.network, unused), exported)
    file = io.BytesIO()
    extra = {"provenance.json": json.dumps(dict(provenance))}
    torch.export.save(program, file, extra_files=extra)
    content = file.getvalue()
    loaded = torch.export.load(io.BytesIO(content)).module()

    def run_exported(inputs: dict[str, Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return list(loaded(**inputs))

    return content, run_exported


def _traced(network: nn.Module, exported: ExportedNetwork) -> torch.export.ExportedProgram:
    return torch.export.export(network, (), exported.inputs, dynamic_shapes=free(exported))


def _unused(program: torch.export.ExportedProgram) -> list[str]:
    """The names of the weights and buffers that a program holds and does not use."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    return [names[node.name] for node in placeholders if node.name in names and not node.users]


def _without(network: nn.Module, names: list[str]) -> nn.Module:
    """A copy of a network without some of its weights and buffers."""
    lean = copy.deepcopy(network)
    for name in names:
        path, _, leaf = name.rpartition(".")
        delattr(lean.get_submodule(path), leaf)
    return lean


def free(exported: ExportedNetwork) -> dict[str, Any]:
    """The first dimension of every input, free and one number."""
    n = torch.export.Dim("n", min=1, max=2**20)
    return {name: {0: n} for name in exported.inputs}


def check(exported: ExportedNetwork, run_exported: RunExported) -> None:
    """Raises FailedRun if the outputs of a file differ from PyTorch's."""
    for count in (len(next(iter(exported.inputs.values()))), 1):
        some = ExportedNetwork(
            exported.name, exported.network, {k: x[:count] for k, x in exported.inputs.items()}
        )
        for expected, output in zip(some.outputs, run_exported(some.inputs)):
            away = float((expected - output).abs().max())
            if not away <= CLOSE * max(1.0, float(expected.abs().max())):
                raise FailedRun(
                    f"the exported {exported.name} differs from PyTorch's by {away:.2g}"
                )
