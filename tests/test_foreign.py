"""Models of your own go through every verb, or are refused by name of what they lack."""

import json
import sys
import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from explored import client_of, serving
from foreign import (
    BareGenerator,
    ModelGenerator,
    Series,
    SeriesAutoEncoder,
    TensorAutoEncoder,
    TopCompleter,
    TupleEncoder,
)

import monge
from monge import cli
from monge.config import Config, TrainingConfig
from monge.divergences import SlicedWasserstein
from monge.draws import Draws, generator
from monge.models import ImplicitGenerator, checked, protocols, sampling
from monge.priors import Gaussian
from monge.runs import Run, export
from monge.show import card, comparison
from monge.show.explore.server import opened

NAMES = {"auto": "foreign:TensorAutoEncoder", "generator": "foreign:BareGenerator"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of each of the two models."""
    folder = tmp_path_factory.mktemp("foreign")
    config = Config(training=TrainingConfig(batch=100, steps=20))
    runs = {}
    for name, model in (("auto", TensorAutoEncoder()), ("generator", BareGenerator())):
        run = monge.fit(model, "digits", config, folder / name, quiet=True)
        runs[name] = Run(run.path, NAMES[name])
    return runs


def test_a_report_has_the_pictures_that_the_model_can_fill(trained):
    """Both have samples and curves; only the auto-encoder has what needs codes."""
    pictures = {
        name: {file.stem for file in (run.path / "pictures").iterdir()}
        for name, run in trained.items()
    }
    both = {"samples", "neighbours", "curves"}
    codes = {"reconstructions", "interpolations", "traversals", "latent_map"}
    assert pictures == {"auto": both | codes, "generator": both}
    assert "a model of your own" in trained["auto"].report.read_text()


def test_a_summary_has_the_numbers_that_the_model_can_give(trained):
    """Reconstruction needs codes, and their MMD² a prior as well."""
    auto, bare = (trained[name].summary() for name in ("auto", "generator"))
    x = trained["auto"].source.test.float() / 16
    assert "MMD² of codes" not in auto
    assert "test reconstruction" not in bare
    model = trained["auto"].model
    x = monge.data.as_floats(trained["auto"].source.test)
    with torch.no_grad():
        expected = (x - model.decode(model.encode(x))).square().flatten(1).sum(1).mean()
    assert auto["test reconstruction"] == pytest.approx(float(expected), rel=1e-5)


def test_they_are_evaluated_and_compared(trained, tmp_path):
    """Samples are measured as those of monge's models; a comparison shows what both can do."""
    auto, bare = (trained[name].evaluate(100) for name in ("auto", "generator"))
    assert set(bare["figures"]) < set(auto["figures"])
    assert set(auto["figures"]) - set(bare["figures"]) == {"test reconstruction"}
    assert auto["protocol"]["recipe"] == "custom"
    files = comparison.write(list(trained.values()), tmp_path / "out")
    assert [file.name for file in files] == ["compare.png", "compare.md", "compare.json"]
    rows = json.loads(files[2].read_text())
    assert [row["recipe"] for row in rows] == ["custom", "custom"]


def test_a_mixture_is_fitted_to_codes_of_ones_own(trained):
    """And samples from it are decoded; a model without `encode` is refused."""
    auto = trained["auto"]
    drawn = auto.sample(5, generator(0, "a"), auto.mixture())
    assert drawn.shape == (5, 1, 8, 8)
    with pytest.raises(ValueError, match="BareGenerator has no method `encode`, which the mix"):
        trained["generator"].mixture()


def test_they_are_exported_as_far_as_they_have_methods(trained, tmp_path):
    """ONNX gives what `encode` and `decode` give; a generator without `decode` is refused."""
    run = trained["auto"]
    encoder, decoder = export.export(run, tmp_path / "model.onnx")
    x = monge.data.as_floats(run.source.test[:7])
    with torch.no_grad():
        codes = run.model.encode(x)
        expected = run.model.decode(codes)
    for file, given, made in ((encoder, {"x": x}, codes), (decoder, {"code": codes}, expected)):
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        found = session.run(None, {name: value.numpy() for name, value in given.items()})[0]
        np.testing.assert_allclose(found, made.numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="BareGenerator has no method `decode`, which export"):
        export.export(trained["generator"], tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="a model of your own, which a folder of the hub"):
        card.write(run, tmp_path / "hub")


def test_the_explorer_has_the_views_that_they_can_fill(trained):
    """The auto-encoder is mapped and steered without a prior; both are sampled."""
    explorers = opened(list(trained.values()))
    with serving(explorers) as address, client_of(address) as client:
        listed = {run["id"]: run for run in client.get("/api/runs").json()}
        assert listed["generator"]["views"] == ["sample", "run"]
        assert {"map", "traverse", "reconstruct", "compare"} <= set(listed["auto"]["views"])
        assert (listed["auto"]["latent"], listed["auto"]["prior"]) == (3, None)
        assert listed["generator"]["latent"] is None
        for name in listed:
            path = f"/api/runs/{name}/sample"
            assert client.post(path, json={"count": 4}).json()["shape"] == [4, 1, 8, 8]
            warm = client.post(path, json={"count": 4, "temperature": 2})
            assert (warm.status_code, "no `prior`" in warm.json()["message"]) == (422, True)
            assert client.get(f"/api/runs/{name}/progress").status_code == 200
            assert client.post(f"/api/runs/{name}/reload", json={}).status_code == 200
        pick = {"sample": {"index": 3}}
        auto = "/api/runs/auto"
        assert len(client.get(f"{auto}/map/principal").json()["codes"]) > 100
        assert len(client.get(f"{auto}/directions").json()["deviations"]) == 3
        reconstructed = client.post(f"{auto}/reconstruct", json=pick).json()
        assert reconstructed["longer_than"] is None
        assert client.post(f"{auto}/decode", json={"codes": [[0, 0, 0]]}).status_code == 200
        for path, missing in (
            ("/api/runs/auto/map/worst", "prior"),
            ("/api/runs/generator/map/principal", "encode"),
        ):
            answer = client.get(path)
            assert (answer.status_code, missing in answer.json()["message"]) == (422, True)
        for path, body, missing in (
            ("auto/codes", {"count": 2}, "`prior`"),
            ("auto/complete", pick, "`complete`"),
            ("generator/reconstruct", pick, "`encode`"),
            ("generator/encode", pick, "`encode`"),
            ("generator/decode", {"codes": [[0.0]]}, "`encode`"),
        ):
            answer = client.post(f"/api/runs/{path}", json=body)
            assert answer.status_code == 422, path
            assert missing in answer.json()["message"]


def test_the_command_line_takes_their_models(trained, tmp_path, capsys, monkeypatch):
    """With --model every verb works, or refuses in one line that names the missing method."""

    def monge_(*argv) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["monge", *map(str, argv)])
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code or 0, *capsys.readouterr()
        return 0, *capsys.readouterr()

    auto, bare = trained["auto"].path, trained["generator"].path
    one, two = (("--model", name) for name in NAMES.values())
    out = tmp_path / "a.npy"
    for argv in (
        ("sample", auto, "--out", out, *one),
        ("sample", bare, "--out", tmp_path / "b.png", *two),
        ("sample", auto, "--out", out, "--sampler", "mixture", *one),
        ("reconstruct", auto, "--out", tmp_path / "c.png", *one),
        ("interpolate", auto, "--out", tmp_path / "d.gif", *one),
        ("traverse", auto, "--out", tmp_path / "e.png", *one),
        ("evaluate", bare, "-n", 50, "--metrics", "sliced", *two),
        ("compare", auto, auto, "--out", tmp_path / "f", *one),
        ("export", auto, "--out", tmp_path / "g.pt2", *one),
    ):
        code, _, err = monge_(*argv)
        assert code == 0, err
    for argv, reason in (
        (("reconstruct", bare, "--out", out, *two), "has no method `encode`"),
        (("interpolate", bare, "--out", out, *two), "has no method `encode`"),
        (("traverse", bare, "--out", out, *two), "has no method `encode`"),
        (("complete", auto, "--out", out, *one), "has no method `complete`"),
        (("export", bare, "--out", tmp_path / "h.onnx", *two), "has no method `decode`"),
        (("sample", auto, "--out", out), "--model package.module:name"),
        (("sample", auto, "--out", out, "--model", "foreign:Absent"), "has no 'Absent'"),
        (("sample", auto, "--out", out, *two), "is of another model"),
    ):
        code, _, err = monge_(*argv)
        assert code == 2
        assert reason in err
        assert err.count("\n") == 1


def test_runs_opened_with_one_instance_keep_their_own_weights(trained, tmp_path):
    """An instance is copied: neither the run opened next nor a reload changes a loaded model."""
    given = TensorAutoEncoder()
    before = given.down.weight.detach().clone()
    config = Config(training=TrainingConfig(batch=100, steps=3))
    other = monge.fit(TensorAutoEncoder(), "digits", config, tmp_path / "run", quiet=True)
    first, second = Run(trained["auto"].path, given), Run(other.path, given)
    assert torch.equal(first.model.down.weight, trained["auto"].model.down.weight)
    assert torch.equal(second.model.down.weight, other.model.down.weight)
    assert not torch.equal(first.model.down.weight, second.model.down.weight)
    assert second.fresh().model is not second.model
    assert monge.load(other.path, given) is not monge.load(other.path, given)
    assert torch.equal(given.down.weight, before)


def test_a_run_that_was_just_fitted_can_be_opened_afresh(tmp_path):
    """Its model stands in for `model`; the fresh one has a copy with the newest weights."""
    config = Config(training=TrainingConfig(batch=100, steps=2))
    run = monge.fit(TensorAutoEncoder(), "digits", config, tmp_path / "run", quiet=True)
    weights = run.model.down.weight.detach().clone()
    with torch.no_grad():
        run.model.down.weight.zero_()
    fresh = run.fresh()
    assert torch.equal(fresh.model.down.weight, weights)
    assert not run.model.down.weight.any()
    assert torch.equal(fresh.fresh().model.down.weight, weights)


def test_a_model_may_have_only_a_sample_of_its_own(tmp_path):
    """A subclass of `Model` without decoder and prior is trained, sampled and measured."""
    config = Config(training=TrainingConfig(batch=100, steps=2))
    run = monge.fit(ModelGenerator(), "digits", config, tmp_path / "run", quiet=True)
    assert torch.equal(run.sample(3, generator(0)), run.model.sample(3, generator(0)))
    assert run.evaluate(50, metrics=["sliced"])["figures"]
    assert not protocols.has(run.model, "decode")
    (explorer,) = opened([run]).values()
    assert explorer.views == ["sample", "run"]
    with pytest.raises(ValueError, match="ModelGenerator has no method `decode`, which sampling"):
        run.sample(3, prior=Gaussian(3))


def test_a_method_that_a_model_overrides_is_the_one_that_is_called():
    """Also where `Model` has one that combines other methods."""

    class Doubled(ImplicitGenerator):
        def sample(self, n, generator=None, prior=None):
            return 2 * super().sample(n, generator, prior)

    model = Doubled(torch.nn.Linear(2, 4), Gaussian(2), SlicedWasserstein(4))
    drawn = torch.cat(list(sampling.samples(model, 700, generator(0))))
    torch.testing.assert_close(drawn, model.sample(700, generator(0)))
    torch.testing.assert_close(drawn, 2 * model.decode(model.prior.sample(700, generator(0))))


def test_what_training_cannot_call_is_refused():
    """In one line each: no module, no or another `forward`, a result that is no `Pass`."""

    class NoDraws(torch.nn.Module):
        def forward(self, x):
            return x

    class Absent(torch.nn.Module):
        pass

    for model, reason in (
        ("wae", "must be a torch.nn.Module, got str"),
        (NoDraws(), r"NoDraws has forward\(x\): training calls forward\(x, draws\)"),
        (Absent(), "Absent has no method `forward`, which training needs"),
    ):
        with pytest.raises(ValueError, match=reason) as caught:
            protocols.trainable(model)
        assert "\n" not in str(caught.value)
    model = TensorAutoEncoder()
    assert protocols.trainable(model) is model
    made = model(torch.rand(2, 1, 8, 8), Draws(0, 0, 2))
    assert checked(model, made) is made
    with pytest.raises(ValueError, match="TensorAutoEncoder returns a tuple from `forward`"):
        checked(model, tuple(made))


def test_codes_of_another_type_are_named():
    """A pair of mean and log-variance is not a distribution."""
    with pytest.raises(ValueError, match="TupleEncoder encodes samples as a tuple"):
        protocols.mean_codes(TupleEncoder(), torch.rand(2, 1, 8, 8))
    with pytest.raises(ValueError, match="has no method `sample`, which sampling needs"):
        list(sampling.samples(torch.nn.Identity(), 3))


def test_a_completer_needs_only_its_methods(tmp_path):
    """Completions are drawn, measured and shown; what needs codes is refused."""
    config = Config(training=TrainingConfig(batch=100, steps=5))
    run = monge.fit(TopCompleter(), "digits", config, tmp_path / "run", quiet=True)
    assert {"completions", "samples"} <= {file.stem for file in (run.path / "pictures").iterdir()}
    figures = run.evaluate(60, metrics=["sliced"])["figures"]
    assert {"best of 10", "diversity", "energy score", "class agreement"} <= set(figures)
    assert "test reconstruction" not in figures
    (explorer,) = opened([run]).values()
    assert {"complete", "sample"} <= set(explorer.views)
    x = explorer.test([3])
    assert torch.equal(
        explorer.complete(x, explorer.mask(), 2, 0)[:, :, :4], x[0, :, :4].expand(2, 1, 4, 8)
    )
    assert explorer.decode(torch.zeros(2, 3)).shape == (2, 1, 8, 8)
    with pytest.raises(ValueError, match="TopCompleter has no method `encode`, which export"):
        export.export(run, tmp_path / "model.onnx")


def test_another_kind_of_data_goes_the_same_way(tmp_path):
    """Samples of a kind that monge does not know are measured and drawn as vectors; the prior is
    decoded where a model has no `sample`."""
    x = torch.randn(120, 6, 2, generator=generator(0, "series"))
    source = monge.data.Source("waves", Series(), x[:90], x[90:])
    config = Config(training=TrainingConfig(batch=30, steps=20))
    run = monge.fit(SeriesAutoEncoder(), source, config, tmp_path / "run", quiet=True)
    names = {file.stem for file in (run.path / "pictures").iterdir()}
    assert names == {"samples", "reconstructions", "interpolations", "latent_map", "curves"}
    figures = run.evaluate(30)["figures"]
    assert {"FD", "W2 exact", "test reconstruction", "MMD² of codes"} <= set(figures)
    explorers = opened([run])
    with serving(explorers) as address, client_of(address) as client:
        (listed,) = client.get("/api/runs").json()
        assert (listed["kind"], listed["shape"], listed["prior"]) == ("vector", [6, 2], "Gaussian")
        drawn = client.post("/api/runs/run/sample", json={"count": 4, "temperature": 0.5})
        assert drawn.json()["shape"] == [4, 6, 2]
        sample = client.get("/api/runs/run/test").json()["samples"]["data"]
        answer = client.post("/api/runs/run/reconstruct", json={"sample": {"data": sample}})
        assert answer.status_code == 200, answer.text
        assert client.get("/api/runs/run/map/worst").status_code == 200
    with pytest.raises(ValueError, match="compare runs of images or clouds"):
        comparison.write([run, run], tmp_path / "out")
