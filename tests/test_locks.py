"""One writer a run directory: the second process is told who writes, and a killed one never
blocks. `tests/faults` starts two hundred pairs of trainings at once."""

import contextlib
import errno
import fcntl
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch

import monge
from monge import cli
from monge._core import locks
from monge._core.locks import NotWritable, alone
from monge.config import Config, NetworkConfig, TrainingConfig
from monge.runs import Run
from monge.show import report

ROOT = Path(__file__).parents[1]
HOLD = """
import sys
from pathlib import Path
from monge._core.locks import alone
with alone(Path(sys.argv[1]), "run"):
    print(flush=True)
    sys.stdin.read()
"""


def config(steps: int = 4) -> Config:
    training = TrainingConfig(batch=300, steps=steps)
    network = NetworkConfig(filters=(4, 8))
    return Config("vae", latent=3, network=network, training=training)


@contextlib.contextmanager
def holder(folder: Path):
    """Another process that writes into a folder until it is killed, or the block is left."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    monge.fit("vae", "digits", config(), path, quiet=True)
    return path


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


VERBS = {
    "resume": ["train", "--out", "RUN", "--resume", "--steps", "8"],
    "train": ["train", "vae", "--out", "RUN"],
    "evaluate": ["evaluate", "RUN", "-n", "100"],
    "export inside": ["export", "RUN", "--hub", "RUN/hub"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_second_writer_is_told_in_one_line_who_writes_since_when(run, verb, monkeypatch, capsys):
    argv = ["monge", *(part.replace("RUN", str(run)) for part in VERBS[verb])]
    monkeypatch.setattr(sys, "argv", argv)
    with holder(run) as process:
        before = contents(run)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert contents(run) == before
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(said.splitlines()) == 1
    assert said.startswith("monge: error: `")
    since = time.strftime("since %Y-%m-%d %H:")
    for part in (f"{str(run)!r} is being written by process {process.pid} on ", since, str(run)):
        assert part in said
    assert repr(socket.gethostname()) in said


def test_a_run_that_another_process_writes_is_read_all_the_same(run, tmp_path, monkeypatch):
    with holder(run):
        before = contents(run)
        opened = Run(run)
        assert opened.sample(3).shape == (3, 1, 8, 8)
        mixture = opened.mixture(2)
        assert contents(run) == before  # the mixture is not kept
        for argv in (
            ["sample", str(run), "--sampler", "mixture", "--out", str(tmp_path / "x.npy")],
            ["compare", str(run), "--out", str(tmp_path / "comparison")],
            ["export", str(run), "--hub", str(tmp_path / "hub")],
        ):
            monkeypatch.setattr(sys, "argv", ["monge", *argv])
            with pytest.raises(SystemExit) as stop:
                cli.main()
            assert stop.value.code == 0
        assert contents(run) == before
    assert not {p.name for p in (tmp_path / "hub").iterdir()} & {locks.LOCK, locks.HOLDER}
    kept = Run(run).mixture(2)
    assert (run / "sampler-mixture.safetensors").exists()
    assert torch.equal(mixture.means, kept.means)


def test_a_killed_writer_blocks_nobody(run):
    with holder(run) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert {locks.LOCK, locks.HOLDER} <= {p.name for p in run.iterdir()}
        again = monge.fit(config=config(steps=6), out=run, resume=True, quiet=True)
    assert again.metrics()[-1]["step"] == 6
    assert not {locks.LOCK, locks.HOLDER} & {p.name for p in run.iterdir()}


def test_a_directory_in_which_a_training_was_killed_at_once_is_free(tmp_path):
    with holder(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        monge.fit("vae", "digits", config(), tmp_path, quiet=True)
    names = {p.name for p in tmp_path.iterdir()}
    kept = {"config.json", "identity.npy", "metrics.jsonl", "checkpoints", "pictures"}
    assert names == {*kept, "report.html"}


def test_a_holder_that_has_not_signed_yet_is_not_mistaken_for_a_killed_one(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.05)
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    old = {"pid": ended.pid, "host": socket.gethostname(), "command": "x", "since": 0.0}
    with (tmp_path / locks.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for text in (json.dumps(old), "", "{", "[]", '{"pid": 1e400}', "[" * 9000):
            (tmp_path / locks.HOLDER).write_text(text)
            with (
                pytest.raises(NotWritable, match="is being written by another process"),
                alone(tmp_path, "run"),
            ):
                pass
        (tmp_path / locks.HOLDER).write_text(json.dumps(old | {"host": "far", "command": "\x1b"}))
        with pytest.raises(NotWritable, match=r"on 'far' \('\\x1b'\) since 19"):
            locks._acquired(tmp_path, str(tmp_path), "run")


def test_a_thread_may_ask_again_and_another_may_not(tmp_path):
    refused = []

    def ask():
        try:
            with alone(tmp_path, "run"):
                pass
        except NotWritable as error:
            refused.append(str(error))

    with alone(tmp_path, "run"):
        with alone(tmp_path, "run"):
            pass
        other = threading.Thread(target=ask)
        other.start()
        other.join()
    assert f"process {os.getpid()} " in refused[0]
    assert not list(tmp_path.iterdir())
    ask()
    assert len(refused) == 1


def test_a_lock_that_its_last_holder_removed_is_not_one(tmp_path, monkeypatch):
    """A process that had opened the file before then locks a file without a name."""
    acquire, calls = locks.FileLock.acquire, itertools.count()

    def late(self, *args, **kwargs):
        found = acquire(self, *args, **kwargs)
        if next(calls) < 2:
            (tmp_path / locks.LOCK).rename(tmp_path / "removed")
        return found

    monkeypatch.setattr(locks.FileLock, "acquire", late)
    with alone(tmp_path, "run"), (tmp_path / locks.LOCK).open() as file:
        assert next(calls) == 3
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("number", locks.MISSING, ids=errno.errorcode.get)
def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, number):
    def flock(handle, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="has no locks"), alone(tmp_path, "run"):
        pass


def test_links_in_a_strangers_run_are_not_followed(tmp_path):
    other = tmp_path / "other"
    other.write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    (run / locks.HOLDER).symlink_to(other)
    with alone(run, "run"):
        assert not (run / locks.HOLDER).is_symlink()
    (run / locks.LOCK).symlink_to(other)
    with pytest.raises(NotWritable, match="cannot be written"), alone(run, "run"):
        pass
    assert other.read_text() == "mine"


@pytest.fixture
def read_only(trained):
    """A run that this user may read and not write; root is nobody meanwhile."""
    with tempfile.TemporaryDirectory() as place:
        run = Path(shutil.copytree(trained, Path(place) / "run"))
        Path(place).chmod(0o755)
        for path in (run, *run.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield run
        finally:
            if root:
                os.seteuid(0)
            for path in (run, *(p for p in run.rglob("*") if p.is_dir())):
                path.chmod(0o755)


def test_a_read_only_run_is_read_and_says_that_it_cannot_be_evaluated(read_only):
    before = contents(read_only)
    opened = Run(read_only)
    assert opened.sample(3).shape == (3, 1, 8, 8)
    assert opened.mixture(2).sample(3).shape == (3, 3)
    for write in (lambda: opened.evaluate(100), lambda: report.write(opened)):
        with pytest.raises(ValueError, match=r"`run` .* cannot be written: .*ermission denied"):
            write()
    with pytest.raises(ValueError, match=r"`out` .* cannot be written"):
        monge.fit(config=config(6), out=read_only, resume=True, quiet=True)
    assert contents(read_only) == before


def test_a_finished_run_that_is_read_only_is_resumed_without_a_word(read_only, monkeypatch):
    """There is nothing to write: as on a writable disk, it is done."""
    before, finished = contents(read_only), Run(read_only)
    resumed = monge.fit(config=config(), out=read_only, resume=True, quiet=True)
    assert resumed.steps == finished.steps
    drawn = [one.sample(3, torch.Generator().manual_seed(0)) for one in (resumed, finished)]
    assert torch.equal(*drawn)
    argv = ["monge", "train", "--resume", "--out", str(read_only)]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert contents(read_only) == before
    with pytest.raises(ValueError, match=r"`out` .* cannot be written"):
        monge.fit(config=config(6), out=read_only, resume=True, quiet=True)
    with pytest.raises(ValueError, match=r"`out` .* exists already"):
        monge.fit(config=config(), out=read_only, quiet=True)
    assert contents(read_only) == before


@pytest.mark.parametrize("out", ["a/b/c", "empty", None])
def test_a_run_that_does_not_begin_leaves_no_directory(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="nothing-there"):
        monge.fit("vae", "nothing-there", config(), out, quiet=True)
    assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]


def test_default_names_count_on_over_whatever_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "vae-digits").write_text("a file")
    (tmp_path / "runs" / "vae-digits-2").mkdir()
    assert monge.fit("vae", "digits", config(), quiet=True).name == "vae-digits-3"


def test_writers_that_start_at_once_are_told_apart():
    """A handful of the fault programme: pairs into one directory, fours with default names."""
    command = [sys.executable, str(ROOT / "tests" / "faults"), "writers", "--short"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_of_several_processes_the_first_one_asks_and_all_end(run):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "monge", "evaluate", str(run), "-n", "100"]
    with holder(run) as process:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = [line for line in done.stderr.splitlines() if line.startswith("monge: ")]
    assert done.returncode != 0
    assert len(said) == 1
    assert f"is being written by process {process.pid} on " in said[0]
