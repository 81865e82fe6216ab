"""What machines do to a run: SIGKILL at random moments, SIGTERM, Ctrl-C; a short part of the
fault programme, of which `python tests/faults` is the whole."""

import hashlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults import changed, corrupt, disks, killed, nonfinite

from monge.training import checkpoint

pytestmark = [pytest.mark.faults, pytest.mark.slow]
STEPS = 700


def command(out, *more, steps=STEPS):
    return [
        sys.executable,
        "-m",
        "monge",
        "train",
        "wae-gan",
        "--out",
        str(out),
        "--steps",
        str(steps),
        "--threads",
        "1",
        "--set",
        "training.checkpoint_seconds=0.2",
        "network.filters=4,8",
        *more,
    ]


def sha256(out, steps=STEPS):
    folder = checkpoint.newest_first(out / "checkpoints")[0]
    assert folder.name == f"step-{steps}"
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def steps(out):
    found = checkpoint.newest_first(out / "checkpoints")
    return int(found[0].name.removeprefix("step-")) if found else 0


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The sha256 of the weights of the run that nothing happened to."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    subprocess.run(command(out), check=True, capture_output=True)
    return sha256(out)


def test_killed_five_times_and_resumed_ends_with_the_same_bits(uninterrupted, tmp_path):
    """SIGKILL at random moments, in imports, steps and checkpoint writes alike."""
    out, moments = tmp_path / "killed", random.Random(0)
    reached = []
    for _ in range(5):
        process = subprocess.Popen(command(out, "--resume"), stdout=subprocess.DEVNULL)
        while steps(out) <= (reached[-1] if reached else 0) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
        reached.append(steps(out))
    assert 0 < reached[0] < reached[-1] < STEPS
    subprocess.run(command(out, "--resume"), check=True, capture_output=True)
    assert sha256(out) == uninterrupted


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGHUP, 129)],
)
def test_a_signal_saves_says_how_to_go_on_and_the_run_ends_with_the_same_bits(
    uninterrupted, tmp_path, number, code
):
    out = tmp_path / "stopped"
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
    process = subprocess.Popen(command(out), stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGHUP, before)
    while steps(out) == 0:
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert len(err.splitlines()) == 1
    assert f"saved step {steps(out)} of {STEPS}" in err
    assert "--resume" in err
    subprocess.run(command(out, "--resume"), check=True, capture_output=True)
    assert sha256(out) == uninterrupted


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_a_killed_rank_ends_the_others_and_the_restart_goes_on_with_the_same_bits(tmp_path):
    """Under elastic restart the run ends as one that nothing happened to."""
    tally = killed.elastic(tmp_path, short=True)
    assert tally.faults == 1
    assert tally.failures == []


@pytest.mark.parametrize(
    ("kind", "least"),
    [
        (disks.torn, 40),
        (disks.flips, 40),
        (nonfinite.run, 40),
        (corrupt.run, 40),
        (changed.run, 8),
    ],
    ids=lambda kind: getattr(kind, "__module__", None),
)
def test_the_fault_programme_in_short(kind, least, tmp_path):
    tally = kind(tmp_path, short=True)
    assert tally.faults >= least
    assert tally.failures == []


def test_the_fault_programme_sees_what_is_not_survived(tmp_path, monkeypatch):
    """Here checkpoints that are believed whatever they hold."""
    monkeypatch.setattr(
        checkpoint,
        "verified",
        lambda folder: {file.name: file.read_bytes() for file in folder.iterdir()},
    )
    tally = disks.flips(tmp_path, short=True)
    assert tally.survived == 0 < tally.faults
