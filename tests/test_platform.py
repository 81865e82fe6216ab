"""What differs between machines: encodings, standard streams that are closed or break, terminals
that hang up, disks that are full."""

import ast
import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import monge
from monge._core import typed
from monge._core.errors import FailedRun, Interrupted
from monge._core.files import write_whole
from monge.config import Config, TrainingConfig
from monge.training import checkpoint
from monge.training.progress import Display, say
from monge.training.signals import Signals

SOURCES = Path(monge.__file__).parent
OTHER_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""Under which Python takes ASCII for the encoding of files, names and output."""
ONE_STEP = Config(training=TrainingConfig(steps=1))
BINARY_OPENERS = ("Image", "os", "tarfile", "webbrowser")
READERS_OF_TEXT = ("genfromtxt", "loadtxt", "savetxt", "TextIOWrapper")


@pytest.fixture(autouse=True)
def _hang_ups():
    """SIGHUP as it is without nohup, under which these tests may run."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def text_without_encoding(source: str) -> list[int]:
    """The lines of calls that read or write text in the encoding of the machine."""
    return [
        call.lineno
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call) and _is_text(call) and not _has_encoding(call)
    ]


def _called(call: ast.Call) -> tuple[str, str]:
    """The name before the last point of what is called, and the name after it."""
    if isinstance(call.func, ast.Attribute):
        before = call.func.value
        return (before.id if isinstance(before, ast.Name) else "?", call.func.attr)
    return "", call.func.id if isinstance(call.func, ast.Name) else "?"


def _is_text(call: ast.Call) -> bool:
    before, name = _called(call)
    given = {word.arg: word.value for word in call.keywords}
    if name in ("open", "fdopen", "NamedTemporaryFile", "TemporaryFile"):
        if before in BINARY_OPENERS and name == "open":
            return False
        method = name == "open" and before not in ("", "gzip", "bz2", "lzma", "io", "codecs")
        at = 0 if method or name.endswith("File") else 1
        mode = given.get("mode", call.args[at] if len(call.args) > at else None)
        if mode is None:  # binary by default: temporary files, compressed files
            return not name.endswith("File") and before not in ("gzip", "bz2", "lzma")
        if not isinstance(mode, ast.Constant):
            return not method  # of an archive: the name of a member
        return "b" not in str(mode.value)
    if name in ("run", "Popen", "check_output"):
        return "text" in given or "universal_newlines" in given
    return name in ("read_text", "write_text", *READERS_OF_TEXT)


def _has_encoding(call: ast.Call) -> bool:
    _, name = _called(call)
    at = {"read_text": 0, "write_text": 1}.get(name, 99)
    return any(word.arg == "encoding" for word in call.keywords) or len(call.args) > at


@pytest.mark.parametrize(
    "line",
    [
        "open(p)",
        "open(p, 'a')",
        "open(p, mode=mode)",
        "p.open()",
        "(a / b).open('w')",
        "io.open(p, 'r')",
        "gzip.open(p, 'rt')",
        "os.fdopen(n)",
        "p.read_text()",
        "p.write_text(t)",
        "subprocess.run(c, text=True)",
        "NamedTemporaryFile('w')",
        "np.loadtxt(p)",
    ],
)
def test_text_in_the_encoding_of_the_machine_is_found(line):
    assert text_without_encoding(line) == [1]
    assert text_without_encoding(f"{line[:-1]}, encoding='utf-8')".replace("(, ", "(")) == []


@pytest.mark.parametrize(
    "line",
    [
        "open(p, 'rb')",
        "p.open('wb')",
        "Image.open(p)",
        "gzip.open(p)",
        "archive.open(name)",
        "subprocess.run(c)",
        "p.read_text('utf-8')",
        "TemporaryFile()",
    ],
)
def test_bytes_need_no_encoding(line):
    assert text_without_encoding(line) == []


def test_every_text_is_read_and_written_in_utf_8():
    found = {
        str(file.relative_to(SOURCES)): lines
        for file in SOURCES.rglob("*.py")
        if (lines := text_without_encoding(file.read_text("utf-8")))
    }
    assert found == {}


def test_names_that_are_not_in_the_encoding_of_the_machine_keep_their_bytes(tmp_path):
    file = tmp_path / "page"
    write_whole(file, "café " + os.fsdecode(b"caf\xe9"))
    assert file.read_bytes() == "café ".encode() + b"caf\xe9"


# standard streams and signals, in this process


class Broken:
    """An output whose reader has gone, or a terminal that is closed."""

    closed = False

    def __init__(self, terminal: bool):
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str):
        number = errno.EIO if self.terminal else errno.EPIPE
        raise OSError(number, os.strerror(number))

    flush = isatty


@pytest.mark.parametrize("terminal", [False, True])
def test_training_from_python_goes_on_when_its_output_breaks(terminal, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Broken(terminal))
    run = monge.fit("swae", config=ONE_STEP, out=tmp_path / "run")
    assert run.metrics()[-1]["step"] == 1


def test_training_from_python_goes_on_without_any_output(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    run = monge.fit("swae", config=ONE_STEP, out=tmp_path / "run")
    assert run.metrics()[-1]["step"] == 1


def test_lines_are_shown_on_an_output_that_is_sound(capsys):
    say("one")
    with Display(0, 2, 10) as display:
        display.update(2, 50.0, {"loss": 1.0})
    first, second = capsys.readouterr().out.splitlines()
    assert first == "one"
    assert second.startswith("step 2/2")


def test_a_hang_up_is_recorded_and_a_second_one_does_not_kill():
    with Signals() as signals:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert signals.received == signal.SIGHUP
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_a_hang_up_after_another_signal_does_not_kill():
    """As systemd sends them, one right after the other."""
    with Signals() as signals:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
    assert signals.received == signal.SIGTERM


def test_under_nohup_a_hang_up_ends_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            signal.raise_signal(signal.SIGHUP)
        assert signals.received is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_hang_up_saves_as_the_other_signals_do(tmp_path, monkeypatch):
    step = monge.training.Trainer.step

    def hung_up(*given, **named):
        terms = step(*given, **named)
        signal.raise_signal(signal.SIGHUP)
        return terms

    monkeypatch.setattr(monge.training.Trainer, "step", hung_up)
    config = Config(training=TrainingConfig(steps=5))
    with pytest.raises(Interrupted, match="SIGHUP: saved step 1 of 5") as stop:
        monge.fit("swae", config=config, out=tmp_path / "run", quiet=True)
    assert 128 + stop.value.number == 129
    assert (tmp_path / "run" / "checkpoints" / "step-1").is_dir()


def test_a_report_that_cannot_be_written_does_not_hide_that_the_training_is_saved(
    tmp_path, monkeypatch
):
    from monge.show import report

    def full(run):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(report, "write", full)
        with pytest.raises(
            FailedRun, match=r"is done and saved in .*run.* No space left .*resume"
        ):
            monge.fit("swae", config=ONE_STEP, out=out, quiet=True)
    assert monge.fit("swae", config=ONE_STEP, out=out, resume=True, quiet=True).report.exists()


# what training says of its data


def folder_of_images(folder: Path, names=("café", "naïve")) -> Path:
    """Ten images of each of some classes, a hidden file and one of no known kind."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8)).astype(np.uint8)
    for i, one in enumerate(pixels):
        place = folder / names[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(one).save(place / f"é{i}.png")
    (folder / ".hidden").touch()
    (folder / "notes.xyzzy").write_bytes(b"\0\1\2")
    return folder


def test_what_was_read_and_left_out_is_said_below_the_device(tmp_path, capsys):
    data = folder_of_images(tmp_path / "images")
    config = Config(training=TrainingConfig(steps=1, batch=5))
    run = monge.fit("swae", data, config, tmp_path / "run")
    device, read, *_ = capsys.readouterr().out.splitlines()
    assert device.startswith("device: ")
    assert read == f"data: {run.source.summary}"
    assert read.startswith("data: read 20 images of 2 classes; left out 1 ")
    assert "1 hidden" in read


def test_data_of_a_name_need_no_such_line(tmp_path, capsys):
    monge.fit("swae", config=ONE_STEP, out=tmp_path / "run")
    assert "data: " not in capsys.readouterr().out


# the command line, in processes of its own


def shell(line: str, **more: str) -> subprocess.CompletedProcess[str]:
    """What a line of bash does, in which `$monge` is the command line."""
    return subprocess.run(
        ["bash", "-c", line],
        env={**os.environ, "monge": f"{sys.executable} -m monge", "OMP_NUM_THREADS": "1", **more},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )


def train(out: Path, steps: int = 3, *more: str) -> str:
    return (
        f"$monge train swae --data rings --steps {steps} --threads 1 --out {out} {' '.join(more)}"
    )


def steps(out: Path) -> int:
    """The step of the newest checkpoint that is whole."""
    newest = checkpoint.newest(out / "checkpoints")
    return int(newest[0].name.removeprefix("step-")) if newest else 0


def test_streams_that_are_closed_do_not_become_files_of_the_run(tmp_path):
    """The next file to be opened would have their number, and C prints to that."""
    code = (
        "from monge.cli.streams import protect; import sys; protect(); print(1, flush=True); "
        f"print(open({str(tmp_path / 'file')!r}, 'wb').fileno(), file=sys.stderr)"
    )
    done = shell(f'{sys.executable} -c "{code}" <&- >&-')
    assert (done.returncode, int(done.stderr) > 2) == (0, True)


def test_a_reader_that_goes_away_stops_no_other_verb():
    done = shell("{ $monge recipes; echo $? >&2; } | head -1")
    assert (done.stdout.count("\n"), done.stderr) == (1, "0\n")


def test_a_result_that_cannot_be_written_is_a_failure():
    done = shell("$monge distance --help > /dev/null; $monge recipes > /dev/full")
    assert done.returncode == 1
    said = "monge: error: not all of the output could be written: "
    assert done.stderr == said + "[Errno 28] No space left on device\n"
    done = shell("$monge --help > /dev/full")
    assert (done.returncode, done.stderr.startswith(said)) == (1, True)
    assert shell("$monge --version > /dev/full").returncode == 1


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize(
    "line",
    [
        "{} >&-",
        "{} >&- 2>&- <&-",
        "{} > /dev/full",
        "set -o pipefail; {} | head -1",
        "set -o pipefail; {} | true",
        "set -o pipefail; {} 2>&1 | true",
    ],
)
def test_training_goes_on_when_its_output_is_closed_or_breaks(line, tmp_path):
    out = tmp_path / "run"
    done = shell(line.format(train(out, 30, "--set training.log_every=1")))
    assert (done.returncode, done.stderr) == (0, "")
    assert steps(out) == 30
    assert (out / "report.html").exists()


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("line", ["{} >&-", "set -o pipefail; {} | true"])
def test_a_run_that_fails_keeps_its_exit_code_when_its_output_is_gone(line, tmp_path):
    done = shell(line.format(train(tmp_path / "run", 3, "--lr 1e30 --steps 200")))
    assert done.returncode == 1
    assert done.stderr.startswith("monge: error: step ")


@pytest.mark.slow
@pytest.mark.faults
def test_a_terminal_that_is_closed_leaves_the_run_saved(tmp_path):
    """The terminal is gone when the run says so: what it prints is lost, its exit code is not."""
    out, (ours, theirs) = tmp_path / "run", os.openpty()
    command = train(out, 10**6, "--set training.log_every=1").replace("$monge", "-m monge")
    process = subprocess.Popen(
        [sys.executable, *command.split()],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=lambda: os.login_tty(0),
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    log = out / "metrics.jsonl"
    while not (log.exists() and log.stat().st_size):
        assert process.poll() is None
        with contextlib.suppress(BlockingIOError):
            os.read(ours, 10**6)
        time.sleep(0.05)
    assert steps(out) == 0
    os.close(ours)  # the kernel sends SIGHUP
    assert process.wait(60) == 129
    assert steps(out) > 0


@pytest.mark.slow
@pytest.mark.faults
def test_a_first_checkpoint_that_does_not_fit_says_so_and_leaves_no_part(tmp_path):
    out = tmp_path / "run"
    done = shell(f"ulimit -f 128; {train(out)}")
    assert done.returncode == 1
    assert done.stderr == (
        "monge: error: step 3: no checkpoint could be saved: [Errno 27] File too large; "
        "there is no checkpoint to go on from\n"
    )
    assert list((out / "checkpoints").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("output", ["", "gbk:strict"])
def test_a_run_under_another_locale_is_the_same(output, tmp_path):
    """Classes, columns, files and runs have names that are not ASCII."""
    more = {**OTHER_LOCALE, **({"PYTHONIOENCODING": output} if output else {})}
    data, out = folder_of_images(tmp_path / "bilder-ä"), tmp_path / "lauf-ö"
    made = [tmp_path / "münze.npy", tmp_path / "vergleich-ü", tmp_path / "hub-ß"]
    missing = "no figures of samples, which monge evaluate RUN adds to this table"
    lines = {
        f"$monge train wae-mmd --data {data} --batch 5 --steps 2 --threads 1 --out {out}": "",
        f"$monge sample {out} -n 4 --out {made[0]}": "",
        f"$monge compare {out} {out} --out {made[1]}": f"lauf-\\xf6 has {missing}\n",
        f"$monge export {out} --hub {made[2]}": "",
    }
    for line, said in lines.items():
        done = shell(f"{line} > /dev/null", **more)
        assert (done.returncode, done.stderr) == (0, said)
    assert all(path.exists() for path in made)
    assert "lauf-ö</h1>" in (out / "report.html").read_text("utf-8")
    assert "lauf-ö" in (made[1] / "compare.md").read_text("utf-8")
    assert monge.load(out).eval() is not None


@pytest.mark.slow
def test_a_table_under_another_locale_keeps_the_names_of_its_columns(tmp_path):
    values = np.random.default_rng(0).normal(size=(60, 2))
    rows = "\n".join(f"{a:.3f};{b:.3f}".replace(".", ",") for a, b in values)
    table, out = tmp_path / "größen.csv", tmp_path / "lauf"
    table.write_text(f"größe;température\n{rows}\n", encoding="utf-8")
    line = f"$monge train swae --data {table} --batch 10 --steps 2 --threads 1 --out {out}"
    done = shell(line, **OTHER_LOCALE)
    assert (done.returncode, done.stderr) == (0, "")
    assert "data: read 60 rows of 2 columns below a header" in done.stdout


def test_what_python_says_of_pot_as_it_compiles_it_is_not_shown(tmp_path, monkeypatch):
    (tmp_path / "ot.py").write_text('"""\\d"""\n', encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "ot", sys)  # as it was before afterwards
    del sys.modules["ot"]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        typed.pot.__wrapped__()
    assert not said
