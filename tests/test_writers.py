"""The log beside metrics.jsonl: what TensorBoard, Weights & Biases and MLflow are told."""

import importlib.machinery
import json
import sys
import types

import pytest
from explored import NETWORK

import monge
from monge import cli
from monge.config import Config, TrainingConfig, override
from monge.training import writers
from monge.training.loop import read_metrics
from monge.training.writers import Writer


def config(**settings) -> Config:
    made = Config(recipe="swae", network=NETWORK, training=TrainingConfig(steps=6, log_every=2))
    for name, value in settings.items():
        made = override(made, name, value)
    return made


class Kept(Writer):
    """Keeps what it is told; fails from a step on."""

    def __init__(self, fails: int = 1000):
        self.rows, self.closed, self.fails = [], 0, fails

    def write(self, step, values):
        if step >= self.fails:
            raise ConnectionError("the server is gone")
        self.rows.append((step, dict(values)))

    def close(self):
        self.closed += 1


def test_a_writer_is_told_every_logged_step(tmp_path):
    """The terms of metrics.jsonl, in order, once; it is closed, also by a resumed run."""
    kept = Kept()
    run = monge.fit("swae", "digits", config(), tmp_path / "run", quiet=True, log_to=[kept])
    rows = read_metrics(run.path)
    assert [step for step, _ in kept.rows] == [row["step"] for row in rows] == [2, 4, 6]
    for (_, values), row in zip(kept.rows, rows):
        assert values == {k: v for k, v in row.items() if k not in ("step", "epoch", "seconds")}
    assert kept.closed == 1
    more = config(**{"training.steps": 8})
    kept = Kept()
    monge.fit("swae", None, more, run.path, quiet=True, resume=True, log_to=[kept])
    assert [step for step, _ in kept.rows] == [8]


def test_a_writer_that_fails_ends_and_the_training_goes_on(tmp_path):
    """Its weights are those of a training without it, and another writer is told the rest."""
    broken, kept = Kept(fails=4), Kept()
    with pytest.warns(UserWarning, match="Kept failed .*: the server is gone"):
        run = monge.fit(
            "swae", "digits", config(), tmp_path / "one", quiet=True, log_to=[broken, kept]
        )
    assert ([step for step, _ in broken.rows], broken.closed) == ([2], 0)
    assert ([step for step, _ in kept.rows], kept.closed) == ([2, 4, 6], 1)
    other = monge.fit("swae", "digits", config(), tmp_path / "two", quiet=True)
    assert run.provenance["weights"] == other.provenance["weights"]


def module(monkeypatch, name: str, **members) -> types.ModuleType:
    """A package in place of one that is not installed."""
    made = types.ModuleType(name)
    made.__spec__ = importlib.machinery.ModuleSpec(name, None)
    for key, value in members.items():
        setattr(made, key, value)
    monkeypatch.setitem(sys.modules, name, made)
    return made


def test_weights_and_biases_go_on_with_a_resumed_run(tmp_path, monkeypatch):
    """One run of the service for one of monge, with its settings and no folder of this machine."""
    calls: list = []

    class Opened:
        id = "abc123"

        def log(self, values, step):
            calls.append((step, values))

        def finish(self):
            calls.append("finished")

    begun: list = []
    module(monkeypatch, "wandb", init=lambda **given: begun.append(given) or Opened())
    run = monge.fit("swae", "digits", config(), tmp_path / "a", quiet=True, log_to=["wandb"])
    assert [one[0] for one in calls[:-1]] == [2, 4, 6]
    assert calls[-1] == "finished"
    more = config(**{"training.steps": 8})
    monge.fit("swae", None, more, run.path, quiet=True, resume=True, log_to=["wandb"])
    assert [one["id"] for one in begun] == [None, "abc123"]
    assert (begun[0]["project"], begun[0]["name"]) == ("monge", "a")
    assert begun[0]["config"]["training.steps"] == 6
    assert json.loads((run.path / "log.json").read_text()) == {"wandb": "abc123"}


def test_mlflow_goes_on_with_a_resumed_run(tmp_path, monkeypatch):
    told: list = []

    class Client:
        def get_experiment_by_name(self, name):
            return None

        def create_experiment(self, name):
            return f"experiment of {name}"

        def create_run(self, experiment, run_name):
            told.append(("run", experiment, run_name))
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id="42"))

        def log_param(self, run, name, value):
            told.append((run, name, value))

        def log_metric(self, run, name, value, step):
            told.append((run, name, step))

        def set_terminated(self, run):
            told.append((run, "end"))

    module(monkeypatch, "mlflow", MlflowClient=Client)
    run = monge.fit("swae", "digits", config(), tmp_path / "a", quiet=True, log_to=["mlflow"])
    assert told[0] == ("run", "experiment of monge", "a")
    assert ("42", "training.steps", 6) in told
    assert ("42", "reconstruction", 4) in told
    assert told[-1] == ("42", "end")
    more = config(**{"training.steps": 8})
    monge.fit("swae", None, more, run.path, quiet=True, resume=True, log_to=["mlflow"])
    assert sum(one[0] == "run" for one in told) == 1
    assert ("42", "loss", 8) in told


def test_settings_name_no_folder():
    made = config(**{"data.name": "/home/someone/faces", "data.dir": "/data/sets"})
    found = writers.settings(made)
    assert (found["data.name"], found["data.dir"]) == ("faces", "sets")
    assert found["recipe"] == "swae"


def test_tensorboard_reads_what_is_written(tmp_path):
    """Its own reader finds the terms of each step; those after a kill take the place of older."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = monge.fit("swae", "digits", config(), tmp_path / "a", quiet=True, log_to=["tensorboard"])
    found = EventAccumulator(str(run.path / "tensorboard")).Reload()
    rows = read_metrics(run.path)
    told = [(one.step, one.value) for one in found.Scalars("reconstruction")]
    assert told == [(row["step"], pytest.approx(row["reconstruction"])) for row in rows]


@pytest.mark.parametrize(
    ("log_to", "said"),
    [
        ("tensorboard", r"`log_to` must be a list, as \['tensorboard'\], got 'tensorboard'"),
        (["tensorbord"], "`log_to` has 'tensorbord': give some of tensorboard, wandb, mlflow"),
        ([3], "`log_to` has 3"),
    ],
)
def test_what_is_no_writer_is_refused_before_anything_is_written(log_to, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        monge.fit("swae", "digits", config(), tmp_path / "run", log_to=log_to)
    assert not (tmp_path / "run").exists()


def test_a_package_that_is_missing_is_named_before_anything_is_written(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(writers.importlib.util, "find_spec", lambda name: None)
    out = tmp_path / "run"
    argv = ["monge", "train", "swae", "--steps", "2", "--out", str(out), "--log-to", "wandb"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    said = "monge: error: `log_to` wandb needs the package wandb: pip install 'monge[wandb]'\n"
    assert capsys.readouterr().err == said
    assert not out.exists()
