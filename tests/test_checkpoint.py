"""Checkpoints: the same bits after a resume, every flipped bit seen, nothing unpickled."""

import dataclasses
import json
import pickle
import random
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from zoo import FLOWS, RECIPES

import monge
from monge._core.errors import FailedRun, Interrupted
from monge.config import Config, NetworkConfig, TrainingConfig, override
from monge.training import Trainer, checkpoint, loop

NETWORK = NetworkConfig(filters=(4, 8), hidden=(16,), critic=(16,))


def config(recipe="wae-gan", **changes) -> Config:
    own = Config.of(recipe)
    changes = {"batch": 300, "log_every": 2, **changes}
    training = dataclasses.replace(own.training, **changes)
    if getattr(own.options, "sharpen", None):  # from a share on that more epochs would move
        own = override(own, "sharpen_from", 0.0)
    latent = None if recipe in FLOWS else 3
    return dataclasses.replace(own, latent=latent, network=NETWORK, training=training)


def weights(run) -> bytes:
    return (checkpoint.newest_first(run / "checkpoints")[0] / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A short finished run."""
    path = tmp_path_factory.mktemp("runs") / "run"
    monge.fit("wae-gan", "digits", config(epochs=1), path, quiet=True)
    return path


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_epochs_and_two_more_are_four_bit_for_bit(recipe, tmp_path):
    """Weights, optimisers and the logged terms; the seconds are a clock's."""
    first = {"inner_first": (3, 4)} if recipe == "wgan" else {}
    monge.fit(recipe, "digits", config(recipe, **first, epochs=4), tmp_path / "whole", quiet=True)
    monge.fit(recipe, "digits", config(recipe, **first, epochs=2), tmp_path / "parts", quiet=True)
    assert weights(tmp_path / "parts") != weights(tmp_path / "whole")
    run = monge.fit(
        recipe,
        "digits",
        config(recipe, **first, epochs=4),
        tmp_path / "parts",
        resume=True,
        quiet=True,
    )
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    states = [
        (tmp_path / name / "checkpoints/step-20/training.safetensors").read_bytes()
        for name in ("whole", "parts")
    ]
    assert states[0] == states[1]
    rows = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in monge.runs.Run(p).metrics()]
        for p in (run.path, tmp_path / "whole")
    ]
    assert rows[0] == rows[1]
    assert [row["step"] for row in rows[0]] == list(range(2, 21, 2))


def test_the_seed_decides_every_bit(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        given = dataclasses.replace(config(steps=3), seed=seed)
        monge.fit("swae", "digits", given, tmp_path / name, quiet=True)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert weights(tmp_path / "a") != weights(tmp_path / "c")


def test_a_checkpoint_holds_tensors_and_json_only(finished, monkeypatch):
    folder = checkpoint.newest_first(finished / "checkpoints")[0]
    names = sorted(p.name for p in folder.iterdir())
    assert names == [
        "manifest.json",
        "model.safetensors",
        "training.json",
        "training.safetensors",
    ]
    for name in ("training.json", "manifest.json"):
        json.loads((folder / name).read_text())

    def refuse(*args, **kwargs):
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    monge.load(finished).sample(2)


def test_every_flipped_bit_is_seen(copy):
    """200 random bits over the checkpoint's files, and each kind of file among them."""
    folder = checkpoint.newest_first(copy / "checkpoints")[0]
    contents = {p: p.read_bytes() for p in folder.iterdir()}
    total = sum(map(len, contents.values()))
    chosen = random.Random(0)
    places = [(p, chosen.randrange(len(c))) for p, c in contents.items() for _ in range(10)]
    while len(places) < 200:
        at = chosen.randrange(total)
        for path, content in contents.items():
            if at < len(content):
                places.append((path, at))
                break
            at -= len(content)
    seen = 0
    for path, at in places:
        damaged = bytearray(contents[path])
        damaged[at] ^= 1 << chosen.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            checkpoint.verified(folder)
        seen += 1
        path.write_bytes(contents[path])
    assert seen == 200
    checkpoint.verified(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json", "training.json"])
@pytest.mark.parametrize("how", ["cut", "missing", "empty"])
def test_a_file_cut_short_or_missing_is_seen(copy, name, how):
    file = checkpoint.newest_first(copy / "checkpoints")[0] / name
    content = file.read_bytes()
    file.unlink()
    if how != "missing":
        file.write_bytes(content[: len(content) // 2] if how == "cut" else b"")
    with pytest.raises(ValueError, match="damaged"):
        monge.load(copy)


def test_resuming_falls_back_to_the_newest_checkpoint_that_verifies(tmp_path):
    """With the last checkpoint damaged, the run goes on from the one before to the same end."""
    path = tmp_path / "run"
    monge.fit("wae-mmd", "digits", config(steps=3), path, quiet=True)
    monge.fit("wae-mmd", "digits", config(steps=6), path, resume=True, quiet=True)
    end = weights(path)
    newest, before = checkpoint.newest_first(path / "checkpoints")
    assert (newest.name, before.name) == ("step-6", "step-3")
    damaged = bytearray(end)
    damaged[-1] ^= 1
    (newest / "model.safetensors").write_bytes(damaged)
    with pytest.warns(UserWarning, match="model.safetensors is damaged.*using step-3"):
        monge.fit("wae-mmd", "digits", config(steps=6), path, resume=True, quiet=True)
    assert weights(path) == end


def test_resuming_without_any_valid_checkpoint_starts_over_to_the_same_end(copy):
    end = weights(copy)
    for folder in checkpoint.newest_first(copy / "checkpoints"):
        (folder / "manifest.json").unlink()
    with pytest.warns(UserWarning, match="starting at step 0"):
        monge.fit("wae-gan", "digits", config(epochs=1), copy, resume=True, quiet=True)
    assert weights(copy) == end


def test_a_torn_last_line_of_the_metrics_is_cut_off(copy):
    rows = monge.runs.Run(copy).metrics()
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "epo')
    monge.fit("wae-gan", "digits", config(epochs=2), copy, resume=True, quiet=True)
    assert monge.runs.Run(copy).metrics()[: len(rows)] == rows


def test_resuming_a_finished_run_changes_nothing(copy):
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    monge.fit("wae-gan", "digits", config(epochs=1), copy, resume=True, quiet=True)
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("change", [{"seed": 1}, {"weight": 3.0}, {"latent": 4}])
def test_resuming_with_other_settings_is_refused(copy, change):
    [(name, value)] = change.items()
    given = override(config(epochs=1), name, value)
    with pytest.raises(ValueError, match=f"other settings of {next(iter(change))}"):
        monge.fit("wae-gan", "digits", given, copy, resume=True, quiet=True)


def test_weights_that_are_not_finite_do_not_replace_a_good_checkpoint(copy):
    model = monge.load(copy)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = float("nan")
    trainer = monge.training.Trainer(model)
    trainer.position = 99
    with pytest.raises(FailedRun, match="step 99: no checkpoint could be saved"):
        loop.save(trainer, copy, 0.0)
    assert [p.name for p in checkpoint.newest_first(copy / "checkpoints")] == ["step-5"]
    monge.load(copy)


def test_optimisers_that_are_not_finite_do_not_replace_a_good_checkpoint(copy):
    """An infinite second moment of Adam stops its weight, and no loss ever tells."""
    trainer = monge.training.Trainer(monge.load(copy))
    trainer.step([torch.rand(10, 1, 8, 8)])
    trainer.outer.state[trainer.parameters[2]]["exp_avg_sq"].view(-1)[0] = float("inf")
    with pytest.raises(FailedRun, match=r"numbers 'outer\.2\.exp_avg_sq' are not finite"):
        loop.save(trainer, copy, 0.0)
    assert [p.name for p in checkpoint.newest_first(copy / "checkpoints")] == ["step-5"]


@pytest.mark.parametrize("recipe", ["sinkhorn-ae", "vae-bernoulli"])
def test_what_is_refused_as_not_finite_ends_the_run_with_its_step(recipe):
    """Not as bad input, which it would be outside of a training."""
    from zoo import model

    trainer = monge.training.Trainer(model(recipe))
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(float("nan"))
    with pytest.raises(FailedRun, match=r"step 1: the weights 'encoder.* are not finite"):
        trainer.step([torch.rand(10, 1, 8, 8)])


def test_a_log_on_a_full_disk_ends_the_run_with_its_step(copy, tmp_path):
    said = r"step 7: no line could be logged: .*No space left on device; "
    for folder, rest in (
        (copy, "step-5 is intact"),
        (tmp_path / "new", "there is no checkpoint to go on from"),
    ):
        with (
            open("/dev/full", "ab", 0) as metrics,
            pytest.raises(FailedRun, match=said + rest),
        ):
            loop.log(metrics, {"step": 7}, folder)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(copy, monkeypatch):
    """A full disk in the middle of the write."""
    write = checkpoint.write_synced

    def full(path, content):
        if path.name == "training.json":
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(checkpoint, "write_synced", full)
    trainer = monge.training.Trainer(monge.load(copy))
    trainer.position = 99
    with pytest.raises(FailedRun, match="No space left on device; step-5 is intact"):
        loop.save(trainer, copy, 0.0)
    monge.load(copy)
    assert [file.name for file in (copy / "checkpoints").iterdir()] == ["step-5"]

    new = copy.with_name("new")
    with pytest.raises(FailedRun, match="there is no checkpoint to go on from"):
        loop.save(trainer, new, 0.0)
    assert list((new / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("last", ["step", "save"])
def test_a_signal_at_the_end_leaves_the_report_to_a_resumed_run(last, tmp_path, monkeypatch):
    """The report may take longer than a scheduler waits."""
    where = {"step": Trainer, "save": loop}[last]
    work = getattr(where, last)

    def told(*args, **options):
        done = work(*args, **options)
        signal.raise_signal(signal.SIGTERM)
        return done

    monkeypatch.setattr(where, last, told)
    config, out = Config(training=TrainingConfig(steps=1)), tmp_path / "run"
    with pytest.raises(Interrupted, match="saved step 1 of 1"):
        monge.fit("swae", config=config, out=out, quiet=True)
    assert not (out / "report.html").exists()
    monkeypatch.undo()
    assert monge.fit("swae", config=config, out=out, resume=True, quiet=True).report.exists()


def test_only_the_newest_two_checkpoints_are_kept(tmp_path):
    for step in (1, 2, 3, 10):
        checkpoint.save(tmp_path, step, {"w": torch.zeros(1)}, {}, {})
    assert [p.name for p in checkpoint.newest_first(tmp_path)] == ["step-10", "step-3"]


def test_a_loaded_model_is_the_trained_one(finished):
    model = monge.load(finished)
    assert not model.training
    again = monge.load(finished)
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    assert torch.equal(model.sample(4, generators[0]), again.sample(4, generators[1]))


def test_a_model_of_ones_own_is_trained_in_place(tmp_path):
    from zoo import model

    mine = model("wae-mmd")
    before = next(mine.parameters()).clone()
    run = monge.fit(mine, "digits", config(steps=2), tmp_path / "run", quiet=True)
    assert run.model is mine
    assert not torch.equal(next(mine.parameters()), before)
    with pytest.raises(ValueError, match="model of your own"):
        monge.load(tmp_path / "run")


def test_what_a_resumed_run_leaves_open_stays_as_it_was(tmp_path):
    """A weight that was set is kept, not replaced by the default."""
    given = override(config(steps=2), "weight", 5.0)
    monge.fit("wae-mmd", "digits", given, tmp_path / "run", quiet=True)
    run = monge.fit(
        "wae-mmd", "digits", config(steps=3), tmp_path / "run", resume=True, quiet=True
    )
    assert run.settled.weight == run.model.weight == 5.0


def test_resuming_on_other_data_is_refused_and_leaves_the_run_alone(tmp_path):
    table, random = tmp_path / "x.csv", np.random.default_rng(0)
    np.savetxt(table, random.normal(size=(400, 3)), delimiter=",")
    monge.fit("swae", table, config(steps=2), tmp_path / "run", quiet=True)
    cases = (
        ((400, 4), "vector 4 in place of vector 3"),
        ((500, 3), "added 100, removed 0, changed 400"),
    )
    for shape, named in cases:
        np.savetxt(table, random.normal(size=shape), delimiter=",")
        with pytest.raises(ValueError, match=f"differs from the data of the run .*: {named}"):
            monge.fit("swae", table, config(steps=3), tmp_path / "run", resume=True, quiet=True)
        assert monge.load(tmp_path / "run").sample(2).shape == (2, 3)


def test_a_run_cannot_be_resumed_to_an_earlier_step(copy):
    before = (copy / "config.json").read_text()
    with pytest.raises(ValueError, match=r"`steps` is 3, but .* has reached 5"):
        monge.fit("wae-gan", "digits", config(steps=3), copy, resume=True, quiet=True)
    assert (copy / "config.json").read_text() == before


def test_a_folder_of_other_things_is_no_run_to_resume(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds no run to resume"):
        monge.fit("vae", "digits", config(steps=1), tmp_path, resume=True, quiet=True)


def test_the_recipe_may_be_named_by_the_config_alone(tmp_path):
    given = dataclasses.replace(config(steps=1), recipe="vae")
    run = monge.fit(config=given, out=tmp_path / "run", quiet=True)
    assert run.config.recipe == "vae"


@pytest.mark.parametrize("n", [4, 12, 35, 55])
@pytest.mark.parametrize("shape", [(8, 8), (3,)])
def test_the_smallest_data_get_a_report(tmp_path, n, shape):
    array = np.random.default_rng(0).random((n, *shape), dtype=np.float32)
    run = monge.fit("wae-mmd", array, config(steps=2, batch=2), tmp_path / "run", quiet=True)
    assert run.report.exists()


def test_training_goes_on_outside_the_main_thread(tmp_path):
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(
            monge.fit, "swae", "digits", config(steps=2), tmp_path / "run", quiet=True
        )
    assert done.result().report.exists()
