"""Export: the files give what PyTorch gives, for every recipe, and the hub's folder loads back."""

import json
import sys
import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from zoo import AUTOENCODERS, CONDITIONAL

import monge
from monge import cli
from monge._core.defaults import float32_on_cpu
from monge._core.errors import FailedRun
from monge.builders import build, settle
from monge.config import Config, DataConfig, NetworkConfig, TrainingConfig, override
from monge.data import load
from monge.draws import generator, standard_normal
from monge.models import ConditionalWAE, evaluating
from monge.models.solvers import Euler
from monge.runs import Run, export
from monge.show import card

NETWORK = NetworkConfig(filters=(4, 8), critic=(16,), hidden=(16,), points=(8, 8), cloud=(16,))


class Built:
    """A run that was never trained, whose batch norms have seen something."""

    def __init__(self, recipe: str, data: str = "digits", **settings):
        self.provenance = {"checkpoint": "none"}
        self.source = load(DataConfig(name=data))
        self.config = Config(recipe=recipe, network=NETWORK)
        for name, value in settings.items():
            self.config = override(self.config, name, value)
        self.settled = settle(self.config, self.source)
        self.model = build(self.config, self.settled).eval()
        self.defaults = float32_on_cpu
        for name, x in self.model.named_buffers():
            if name.endswith("running_mean"):
                x.normal_(0, 0.1)
            elif name.endswith("running_var"):
                x.uniform_(0.5, 2)


@pytest.fixture
def clouds(tmp_path):
    """A file of clouds."""
    drawn = torch.randn(120, 32, 3, generator=generator(0, "clouds"))
    np.save(tmp_path / "clouds.npy", drawn.numpy())
    return str(tmp_path / "clouds.npy")


def agree(run, folder) -> None:
    """Both files of a run give to 1e-5 what PyTorch gives on 100 inputs."""
    files = export.export(run, folder / "deep" / "model.onnx")
    checked = export.networks_of(run, 100)
    assert [file.name for file in files] == [f"model.{part.name}.onnx" for part in checked]
    for file, part in zip(files, checked):
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        for count in (100, 1, 7):
            inputs = {name: x[:count].numpy() for name, x in part.inputs.items()}
            found = session.run(part.output_names, inputs)
            for expected, one in zip(part.outputs, found):
                assert one.shape[0] == count
                np.testing.assert_allclose(one, expected[:count].numpy(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("recipe", [*AUTOENCODERS, *CONDITIONAL])
def test_onnxruntime_gives_what_pytorch_gives(recipe, tmp_path):
    """Of every auto-encoder recipe, encoder and decoder, for any number of samples."""
    agree(Built(recipe, latent=5), tmp_path)


@pytest.mark.parametrize("recipe", ["wae-gan", "vae", "gan"])
def test_a_class_conditional_model_takes_labels(recipe, tmp_path):
    """As an input `label` of both files, on which what they return depends."""
    run = Built(recipe, latent=5, condition="labels")
    agree(run, tmp_path)
    decoder = onnxruntime.InferenceSession(tmp_path / "deep" / "model.decoder.onnx")
    code = np.zeros((2, 5), np.float32)
    one, two = decoder.run(None, {"code": code, "label": np.array([3, 7])})[0]
    assert abs(one - two).max() > 1e-3


@pytest.mark.parametrize("data", ["digits", "rings"])
def test_a_flow_is_exported_as_its_velocity(data, tmp_path):
    """Samples by a loop over the file are those of the model."""
    run = Built("flow-matching", data)
    agree(run, tmp_path)
    paths = (tmp_path / "deep" / f"model.{name}.onnx" for name in ("velocity", "units"))
    velocity, units = (onnxruntime.InferenceSession(path) for path in paths)
    run.model.solver = Euler(5)
    expected = run.model.sample(3, generator(0, "flow"))
    x = standard_normal((3, *run.settled.shape), generator(0, "flow")).numpy()
    for k in range(5):
        t = np.full(3, k / 5, np.float32)
        x = x + velocity.run(None, {"x": x, "t": t})[0] / 5
    np.testing.assert_allclose(units.run(None, {"x": x})[0], expected, atol=1e-5, rtol=1e-5)


def test_a_class_conditional_flow_takes_labels_and_guidance(tmp_path):
    run = Built("flow-matching", condition="labels", guidance=2.0, label_dropout=0.1)
    agree(run, tmp_path)
    assert list(export.networks_of(run)[0].inputs) == ["x", "t", "label"]


def test_clouds_and_tables_are_exported_too(clouds, tmp_path):
    """A PointNet, and networks between doors that standardise columns."""
    agree(Built("pointcloud-wae", clouds, latent=5), tmp_path / "clouds")
    agree(Built("swae", "swiss-roll"), tmp_path / "table")


def test_parts_are_the_models_methods(tmp_path):
    """The exported networks are encode, decode and, of a conditional model, complete."""
    run = Built("vae", latent=5)
    encoder, decoder = export.networks_of(run, 9)
    with evaluating(run.model):
        law = run.model.encode(encoder.inputs["x"])
        assert torch.equal(encoder.outputs[0], law.mean)
        assert torch.equal(encoder.outputs[1], law.log_variance)
        assert torch.equal(decoder.outputs[0], run.model.decode(law.mean))
    run = Built("conditional-wae", latent=5, known="random", summary=4)
    assert isinstance(run.model, ConditionalWAE)
    encoder, decoder = export.networks_of(run, 9)
    x, known = encoder.inputs["x"], encoder.inputs["known"]
    with evaluating(run.model):
        assert torch.equal(encoder.outputs[0], run.model.encode(x, known).mean)
        completed = run.model.reconstruct(x, known)
    torch.testing.assert_close(decoder.outputs[0], completed)


def test_a_random_decoder_and_a_generator_export_their_means(tmp_path):
    """A GaussianDecoder gives its mean; a generator has no encoder."""
    agree(Built("wae-mmd", latent=5, sigma=0.1, encoder="random"), tmp_path / "random")
    agree(Built("swg", latent=5), tmp_path / "generator")
    assert not (tmp_path / "generator" / "deep" / "model.encoder.onnx").exists()


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("wae-mmd", {}),
        ("vae", {}),
        ("conditional-wae", {}),
        *((name, {"condition": "labels"}) for name in ("wae-mmd", "alpha-gan", "swg")),
    ],
)
def test_torch_export_gives_what_pytorch_gives(recipe, settings, tmp_path):
    """The .pt2 files load with torch alone, for any number of samples."""
    run = Built(recipe, latent=5, **settings)
    files = export.export(run, tmp_path / "model.pt2")
    for file, part in zip(files, export.networks_of(run, 100)):
        found = torch.export.load(file).module()(**part.inputs)
        for one, expected in zip(found, part.outputs):
            torch.testing.assert_close(one, expected, atol=1e-5, rtol=1e-5)


def test_a_file_that_differs_is_not_written(monkeypatch, tmp_path):
    """The check at export fails on another network's output, before anything is written."""
    real = export.torch_file

    def wrong(part, provenance):
        content, run_exported = real(part, provenance)
        return content, lambda inputs: [y + 1e-3 for y in run_exported(inputs)]

    monkeypatch.setattr(export, "torch_file", wrong)
    with pytest.raises(FailedRun, match="encoder differs"):
        export.export(Built("swae", latent=2), tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    """A small finished, evaluated run of a conditional model with a mask from a file."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("runs")
    mask = np.zeros((8, 8), np.uint8)
    mask[:, :3] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    training = TrainingConfig(batch=300, steps=10)
    config = Config(recipe="conditional-wae", latent=3, network=NETWORK, training=training)
    config = override(override(config, "known", str(folder / "mask.png")), "summary", 4)
    run = monge.fit("conditional-wae", "digits", config, folder / "run", quiet=True)
    run.evaluate(50, metrics=("sliced",))
    return Run(run.path)


def test_the_hubs_folder_loads_back(trained, tmp_path):
    """monge.load of the folder completes as the run does, also without the run; the card has the
    evaluation and a picture, and no folder of this machine is told."""
    folder = card.write(trained, tmp_path / "hub")
    assert {file.name for file in folder.iterdir()} == {
        "config.json",
        "known.png",
        "model.safetensors",
        "README.md",
        "samples.png",
    }
    model, x = monge.load(folder), trained.source.test[:4].float()
    assert not model.training
    for one, two in zip(
        model.complete(x, 3, generator(0, "a")), trained.model.complete(x, 3, generator(0, "a"))
    ):
        assert torch.equal(one, two)
    text = (folder / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: monge\n")
    assert "| pixel SW |" in text
    assert "](samples.png)" in text
    for file in ("README.md", "config.json"):
        assert str(trained.path.parent) not in (folder / file).read_text()
    names = set(load_file(folder / "model.safetensors"))
    assert names == set(trained.model.state_dict())


def test_a_damaged_hubs_folder_is_one_line(trained, tmp_path):
    """Cut weights, or those of another model, are a ValueError that names the file."""
    folder = card.write(trained, tmp_path / "hub")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        monge.load(folder)
    weights.write_bytes(whole)
    config = json.loads((folder / "config.json").read_text())
    config["settled"]["latent"] = 4
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="of another model"):
        monge.load(folder)


def test_the_command_line(trained, tmp_path, capsys, monkeypatch):
    """`monge export` prints what it wrote; what it cannot do is one line and exit code 2."""

    def monge_(*argv) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["monge", "export", *map(str, argv)])
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, *capsys.readouterr()

    path, out = trained.path, tmp_path / "m.onnx"
    code, text, err = monge_(path, "--out", out, "--hub", tmp_path / "hub")
    assert (code, err) == (0, "")
    assert text.split() == [
        str(tmp_path / name) for name in ("m.encoder.onnx", "m.decoder.onnx", "hub")
    ]
    for argv, name in (
        ((path,), "`out`"),
        ((path, "--out", tmp_path / "m.bin"), "`out`"),
        ((path, "--hub", tmp_path / "hub"), "`hub`"),
        ((tmp_path / "nowhere", "--out", out), "`run`"),
        ((path, "--out", trained.path / "config.json" / "m.onnx"), "`out`"),
    ):
        code, _, err = monge_(*argv)
        assert code == 2
        assert err.startswith("monge: error: ")
        assert name in err
        assert err.count("\n") == 1
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    code, _, err = monge_(path, "--out", out)
    assert code == 2
    assert "pip install 'monge[export]'" in err
