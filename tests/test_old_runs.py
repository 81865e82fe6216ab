"""Runs that monge 0.1 wrote, committed as they were: read, sampled and resumed by this version.

They are of tiny networks after 20 steps; `samples.npy` is what monge 0.1 drew with seed 0.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import monge
from monge.config import from_json, read_config, to_json
from monge.runs import Run

FOLDER = Path(__file__).with_name("old_runs")
RUNS = [path for path in sorted(FOLDER.iterdir()) if (path / "checkpoints").is_dir()]


def named(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.name)


@named(RUNS)
def test_an_old_run_samples_what_it_did(path):
    run = Run(path)
    drawn = run.sample(4, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(drawn.numpy(), np.load(path / "samples.npy"), rtol=1e-5, atol=1e-6)


@named(RUNS)
def test_what_was_asked_and_what_was_found_are_apart(path):
    old = json.loads((path / "config.json").read_text())
    config, settled = read_config(path)
    assert (config.recipe, config.seed) == (old["recipe"], old["seed"])
    assert (settled.kind, list(settled.shape)) == (old["kind"], old["shape"])
    assert (settled.samples, settled.latent) == (old["samples"], old["latent"])
    assert settled.version == old["version"]
    new = json.loads(to_json(config, settled))
    assert set(new) == {"format", "config", "settled"}
    assert not {"kind", "shape", "samples", "spread", "version"} & set(new["config"])
    assert from_json(to_json(config, settled)) == (config, settled)


@named([path for path in RUNS if path.name != "clouds"])  # whose data were an array
def test_an_old_run_goes_on_as_if_it_had_not_stopped(path, tmp_path):
    """Its losses are those of a run that this version made from the start, to the rounding of
    another number of threads."""
    old = tmp_path / "old"
    shutil.copytree(path, old)
    config, _ = read_config(old)
    config = monge.config.override(config, "training.steps", 30)
    resumed = monge.fit(config=config, out=old, resume=True, quiet=True)
    whole = monge.fit(config=config, out=tmp_path / "new", quiet=True)
    assert json.loads((old / "config.json").read_text())["format"] == 2
    for one, two in zip(resumed.metrics()[-2:], whole.metrics()[-2:], strict=True):
        assert one["step"] == two["step"]
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-3)


def test_an_old_folder_of_the_hub_is_read():
    model = monge.load(FOLDER / "hub-wae-gan")
    assert model.sample(3).shape == (3, 1, 8, 8)


def test_a_format_that_is_not_known_is_refused(tmp_path):
    text = (RUNS[0] / "config.json").read_text()
    for old, new in (('"version": "0.1.0"', '"version": "0.0.3"'), ("{", '{"format": 99,')):
        (tmp_path / "config.json").write_text(text.replace(old, new, 1))
        with pytest.raises(ValueError, match="install"):
            read_config(tmp_path)


def test_an_image_run_says_nothing_about_chamfer(tmp_path):
    run = monge.fit("wae-mmd", "digits", _short("wae-mmd"), out=tmp_path / "run", quiet=True)
    assert "chamfer" not in (run.path / "config.json").read_text()


def _short(recipe):
    return monge.config.override(monge.Config.of(recipe), "training.steps", 2)
