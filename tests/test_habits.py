"""What a person expects of a command: near misses are named, and there is a list of runs."""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

import monge
from monge import cli
from monge._core.spelling import meant
from monge.config import Config, NetworkConfig, TrainingConfig
from monge.runs import Run
from monge.training.planned import clock


@pytest.fixture
def monge_(capsys, monkeypatch):
    def run(*argv):
        monkeypatch.setattr(sys, "argv", ["monge", *map(str, argv)])
        warnings = sys.modules["warnings"]
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("command", "near"),
    [
        ("trian wae-mmd", "train"),
        ("exploer runs/demo", "explore"),
        ("train wae-mdm", "wae-mmd"),
        ("train AAE2", "aae"),
        ("train wae-mmd --data mnsit", "mnist"),
        ("train wae-mmd --data glyhps", "glyphs"),
        ("train wae-mmd --setps 3", "--steps"),
        ("train alpha-gan --sharpen-form 0.5", "--sharpen-from"),
        ("train wae-mmd --leave_outt a", "--leave-out"),
        ("sample run --otu x.png", "--out"),
        ("distance a.npy b.npy --metod sliced", "--method"),
        ("train wae-mmd --set trainig.lr=1", "training"),
        ("train wae-mmd --set training.lrr=1", "training.lr"),
        ("train wae-gan --set sharpen_form=1", "sharpen_from"),
    ],
)
def test_what_was_mistyped_is_answered_by_what_may_have_been_meant(
    monge_, command, near, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, out, err = monge_(*command.split())
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"monge: error: .*: did you mean {near}\?\n", err), err
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("sample run -n 1e3 --out x.npy", "`--n` must be an integer, got '1e3'"),
        ("sample run --seed x --out x.npy", "`--seed` must be an integer, got 'x'"),
        ("distance a.npy b.npy --p two", "`--p` must be a number, got 'two'"),
        ("train vae --lr fast", "`--lr` must be a number, got 'fast'"),
        ("train vae --set network.filters=x", "`network.filters` must be an integer, got 'x'"),
        (f"sample run -n {10**30} --out x.npy", "`run` 'run' is not a run directory"),
    ],
)
def test_a_number_that_is_none_is_named(monge_, command, message):
    code, out, err = monge_(*command.split())
    assert (code, out) == (2, "")
    assert err.startswith(f"monge: error: {message}")
    assert len(err.splitlines()) == 1


def test_the_home_folder_is_meant_where_no_shell_writes_it(tmp_path, monkeypatch):
    """In quotes, and after the = of a flag; from Python as well."""
    monkeypatch.setenv("HOME", str(tmp_path))
    made = cli.parse(["sample", "~/run", "--out=~/x.npy", "--class=~"])
    assert str(made.out) == f"{tmp_path}/x.npy"
    with pytest.raises(ValueError, match=rf"`run` '{tmp_path}/run' is not a run directory"):
        monge.load("~/run")


def test_what_is_near_nothing_is_answered_by_what_there_is(monge_):
    assert meant("zzzz", ["train", "sample"]) == ""
    assert "it is one of train, sample" in monge_("frobnicate")[2]
    assert "see monge sample --help" in monge_("sample", "run", "--zzzz")[2]


def test_every_flag_of_every_verb_is_known(monge_):
    """The check that comes before tyro's refuses none of tyro's flags."""
    for name, verb in cli.NAMES.items():
        code, out, _ = monge_(name, "--help")
        flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", out)) - {"--help"}
        assert code == 0
        shown = {flag for flag in flags if re.search(rf"│ (-\w, )?{flag}", out)}
        assert shown <= set(cli._flags(verb)), name


@pytest.mark.parametrize("command", [*cli.NAMES, "train alpha-gan"])
def test_help_says_nothing_that_is_only_a_type_and_fills_its_lines(monge_, command, monkeypatch):
    """No default that says nothing, no choice None, and no line that ends before the next word
    would not fit."""
    monkeypatch.setenv("COLUMNS", "90")
    out = monge_(*command.split(), "--help")[1]
    for nothing in ("(default: )", "None", "TEXT\n", "PATH\n"):
        assert nothing not in out.replace(" │", "")
    if command in ("sample", "evaluate", "export"):
        assert re.search(r"^usage: .* RUN\b", out, re.MULTILINE)
    text = [line.strip("│ ") for line in out.splitlines() if line.startswith("│   ")]
    width = max(map(len, text), default=0)
    for line, following in itertools.pairwise(text):
        if following[:1].islower() and not line.endswith((".", ")")):
            assert len(f"{line} {following.split()[0]}") > width - 3, line


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_what_may_be_chosen(shell, monge_):
    """None, which stands for a flag that was left out, is nothing to type."""
    code, out, _ = monge_("--tyro-print-completion", shell)
    offered = re.findall(r"'choices': \[(.*?)\]", out)
    assert not code
    assert {"'flow'", "'all'"} <= {one for row in offered for one in row.split(", ")}
    assert not any("None" in row for row in offered)
    for told in (
        "TRAIN['subcommands'][recipe]",
        "return [one for one in recipes",
        "'__TYRO_COMPLETE_FILES__']",
    ):
        assert told in out
    assert "compgen -f" not in out  # which takes a name with a blank for two
    assert "5 % of" in out


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not there")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("ev",), ["evaluate"]),
        (("train", "max-g"), ["max-gswae"]),
        (("train", "--data", "mnist", "max-g"), ["max-gswae"]),
        (("train", "wae-mmd", "--ker"), ["--kernel"]),
        (("train", "vae", "--ker"), []),
        (("train", "wae-mmd", "--lat"), ["--latent"]),
        (("train", "flow-matching", "--epochs", "3", "--coupling", "e"), ["exact"]),
        (("sample", "my run", "--sampler", "m"), ["mixture"]),
        (("train", "vae", "--channels", "g"), ["grey"]),
        # names of files are readline's, which quotes their blanks
        (("evaluate", "my"), []),
        (("sample", "my run", "--out", "my"), []),
    ],
)
def test_bash_completes(words, offered, monge_, tmp_path):
    script = tmp_path / "script"
    assert monge_("--tyro-write-completion", "bash", script) == (None, "", "")
    asked = f"""source {shlex.quote(str(script))}
        COMP_WORDS=({shlex.join(["monge", *words])}) COMP_CWORD={len(words)}
        _tyro_monge
        printf '%s\\n' "${{COMPREPLY[@]}}"
        complete -p monge"""
    command = ["bash", "-c", asked]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    *found, registered = done.stdout.splitlines()
    assert [one for one in found if one] == offered
    assert "-o default" in registered


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("--tyro-print-completion", "csh"), "must be one of bash, zsh, fish, got 'csh'"),
        (("--tyro-print-completion",), "must be one of bash, zsh, fish, got ''"),
        (("--tyro_write_completion", "zsh"), "`--tyro-write-completion` zsh has no file to wri"),
    ],
)
def test_a_shell_that_is_not_known_is_refused(argv, reason, monge_):
    code, out, err = monge_(*argv)
    assert (code, out) == (2, "")
    assert reason in err


def tiny(**training) -> Config:
    return Config(
        latent=3,
        network=NetworkConfig(filters=(4, 8)),
        training=TrainingConfig(**{"batch": 300, "steps": 2, **training}),
    )


def test_quiet_prints_where_the_report_is_alone(monge_, tmp_path):
    out = tmp_path / "run"
    argv = ("train", "wae-mmd", "--quiet", "--steps", 2, "--latent", 3, "--out", out)
    assert monge_(*argv) == (0, f"report: {out / 'report.html'}\n", "")


def test_latest_is_the_run_that_was_begun_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    latest = tmp_path / "runs" / "latest"
    first = monge.fit("wae-mmd", "digits", tiny(), quiet=True)
    assert latest.resolve() == first.path.resolve()
    monge.fit("swae", "digits", tiny(), "runs/second", quiet=True)
    assert os.readlink(latest) == "second"
    # what does not begin changes nothing, and runs elsewhere are nobody's latest
    with pytest.raises(ValueError, match="neither a file"):
        monge.fit("swae", "nowhere", tiny(), "runs/third", quiet=True)
    assert os.readlink(latest) == "second"
    monge.fit("swae", "digits", tiny(), "other/fourth", quiet=True)
    assert not os.path.lexists(tmp_path / "other" / "latest")
    assert len(monge.load("runs/latest").sample(2)) == 2
    monge.fit(None, None, tiny(steps=3), "runs/wae-mmd-digits", resume=True, quiet=True)
    assert os.readlink(latest) == "wae-mmd-digits"
    # a folder of one's own stays
    latest.unlink()
    latest.mkdir()
    monge.fit("swae", "digits", tiny(), quiet=True)
    assert not latest.is_symlink()


def test_a_first_run_that_does_not_begin_leaves_no_link(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="neither a file"):
        monge.fit("swae", "nowhere", tiny(), quiet=True)
    assert not os.path.lexists("runs/latest")


def test_runs_are_listed_with_what_they_are(monge_, tmp_path):
    folder = tmp_path / "runs"
    run = monge.fit("wae-mmd", "digits", tiny(), folder / "one", quiet=True)
    monge.fit("swae", "rings", tiny(steps=3), folder / "two", quiet=True)
    run.evaluate(100, metrics=("frechet",))
    (folder / "two").rename(tmp_path / "moved")
    (folder / "two").symlink_to(tmp_path / "moved")  # as to another disk
    (folder / "again").symlink_to("one")  # as latest is
    (folder / "broken").mkdir()
    (folder / "broken" / "config.json").write_text("{}")
    (folder / "no run").mkdir()
    code, text, err = monge_("runs", folder, "--json")
    assert (code, err) == (0, "")
    rows = {row["run"]: row for row in map(json.loads, text.splitlines())}
    assert rows.keys() == {"one", "two", "broken"}
    assert "cannot be used" in rows["broken"]["error"]
    assert (rows["one"]["recipe"], rows["one"]["data"], rows["one"]["step"]) == (
        "wae-mmd",
        "digits",
        2,
    )
    assert rows["two"]["step"] == 3
    sizes = (file.stat().st_size for file in (folder / "one").rglob("*") if file.is_file())
    assert rows["one"]["bytes"] == sum(sizes)
    figure = rows["one"]["figures"]["LeNet-FD"]
    assert figure["value"] > figure["floor"] > 0
    code, text, err = monge_("runs", folder)
    assert text.startswith("run ")
    assert len(text.splitlines()) == 4
    monge_("export", folder / "one", "--hub", folder / "published")
    assert json.loads(monge_("runs", folder, "--json")[1].splitlines()[0])["step"] is None
    assert " –  " in next(
        line for line in monge_("runs", folder)[1].splitlines() if line.startswith("published")
    )
    assert f"LeNet-FD {figure['value']:.3g} ({figure['floor']:.3g})" in text
    assert monge_("runs", tmp_path / "nowhere")[0] == 2
    assert "no runs in" in monge_("runs", folder / "no run")[1]


@pytest.mark.parametrize(
    "command",
    [
        "train alpha-gan --data digits --clusters 3 --steps 8",
        "train wae-gan --sharpen mmd --sharpen-from 0.5 --epochs 1 --condition labels",
        "train flow-matching --data rings --coupling exact --steps 9",
        "train pointcloud-wae --data clouds.npy --steps 7 --batch 4",
        "train wgan --steps 8 --set training.inner_first=2,9",
        "train wae-mmd --data rings --steps 9 --set training.pretrain=5 --micro-batch 30",
    ],
)
def test_a_dry_run_says_what_a_run_would_be_and_writes_nothing(
    monge_, command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    np.save("clouds.npy", np.random.default_rng(0).normal(size=(20, 16, 3)).astype(np.float32))
    code, text, err = monge_(*command.split(), "--dry-run", "--out", "run")
    assert (code, err) == (0, "")
    lines = dict(re.match(r"(\w+) +(.*)", line).groups() for line in text.splitlines()[:-1])
    assert [*lines] == ["recipe", "data", "model", "training", "device", "time", "memory"]
    assert re.match(r"about \d+ (s|min|h)", lines["time"])
    assert os.listdir() == ["clouds.npy"]
    # what it says is what a run is
    assert monge_(*command.split(), "--out", "run", "--quiet")[0] == 0
    run = Run(tmp_path / "run")
    parameters = sum(p.numel() for p in run.model.parameters())
    assert lines["model"].startswith(f"{parameters:,} parameters")
    assert lines["training"].startswith(f"{run.steps:,} steps of {run.settled.batch} samples")
    assert monge_(*command.split(), "--dry-run", "--out", "run")[0] == 2


def test_a_dry_run_of_small_images_is_of_what_the_recipe_is_tuned_to(monge_, tmp_path):
    images = np.random.default_rng(0).random((120, 20, 20), dtype=np.float32)
    np.save(tmp_path / "letters.npy", images)
    text = monge_("train", "wae-mmd", "--data", str(tmp_path / "letters.npy"), "--dry-run")[1]
    assert "codes of 10 numbers" in text


def test_a_dry_run_refuses_what_a_run_refuses(monge_):
    assert "`dry-run`" in monge_("train", "vae", "--dry-run", "--resume", "--out", "x")[2]
    assert "`classes`" in monge_("train", "vae", "--dry-run", "--classes", "none")[2]
    assert (
        "would begin after"
        in monge_(
            *(
                "train",
                "wae-gan",
                "--sharpen",
                "mmd",
                "--sharpen-from",
                0.9,
                "--steps",
                2,
                "--dry-run",
            )
        )[2]
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (59, "59 s"), (61, "1 min 0 s"), (3599, "60 min 0 s"), (9000, "2 h 30 min")],
)
def test_times_are_as_exact_as_estimates_are(seconds, text):
    assert clock(seconds) == f"about {text}"


def test_info_says_what_a_report_of_a_fault_needs(monge_):
    code, text, err = monge_("info")
    assert (code, err) == (0, "")
    names = ("monge", "python", "system", "packages", "cpu", "gpu", "cache", "environment")
    assert [line.split()[0] for line in text.splitlines()][:2] == ["monge", "python"]
    found = json.loads(monge_("info", "--json")[1])
    assert set(names) <= found.keys()
    assert f"torch {sys.modules['torch'].__version__}".split("+")[0] in found["packages"]
    assert "missing" not in found["packages"]


def test_info_is_printed_where_no_home_folder_is_known(monge_, monkeypatch):
    for name in ("MONGE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    code, text, _ = monge_("info")
    assert code == 0
    assert re.search("^cache +none: `MONGE_CACHE` is None", text, re.MULTILINE)


@pytest.mark.parametrize("columns", ["1", "5", "no number"])
def test_help_is_folded_into_any_terminal(monge_, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    code, text, _ = monge_("runs", "--help")
    assert not code
    assert "folder" in text.lower()


def test_no_color_leaves_no_escapes():
    """Help is coloured on a terminal unless NO_COLOR is set."""
    command = [sys.executable, "-m", "monge", "--help"]
    environment = {**os.environ, "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}
    environment.pop("NO_COLOR", None)
    plain = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**environment, "NO_COLOR": "1"}
    )
    assert "\x1b[3" not in plain.stdout
