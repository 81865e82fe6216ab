"""The command line: thin verbs over `monge.fit`, `monge.load` and the pictures.

Nothing here imports torch until a verb needs it, so that help is instant. Exit codes: 0 done,
1 the run failed, 2 bad arguments or bad input (one line on stderr), and 128 + its number after a
signal that ended a training (SIGHUP 129, SIGINT 130, SIGTERM 143), with the run saved.
"""

import contextlib
import errno
import io
import itertools
import os
import re
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any, TextIO, Union, get_type_hints

import tyro

from monge._core.errors import FailedRun, Interrupted
from monge._core.files import write_all
from monge._core.spelling import meant
from monge._core.version import __version__
from monge._core.visible import visible
from monge.cli import shells
from monge.cli.common import first
from monge.cli.distance import Distance
from monge.cli.draw import Complete, Interpolate, Reconstruct, Sample, Traverse
from monge.cli.help import explained
from monge.cli.judge import Compare, Evaluate, Explore, Export
from monge.cli.lists import Data, Info, Recipes, Runs
from monge.cli.streams import lost, protect
from monge.cli.train import SEVERAL, Train, recipe_name, verb
from monge.cli.transfer import Transfer

VERBS = (
    Train,
    Sample,
    Reconstruct,
    Complete,
    Interpolate,
    Traverse,
    Evaluate,
    Compare,
    Explore,
    Export,
    Recipes,
    Data,
    Distance,
    Transfer,
    Runs,
    Info,
)
NAMES = {one.__name__.lower(): one for one in VERBS}
"""The verbs as they are typed."""
CONFIG = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff)
"""How tyro reads the flags of verbs."""
NARROWEST = 20
"""The fewest columns that a terminal is taken to have: in one column tyro folds help forever."""


def parse(argv: list[str]) -> Any:
    """The verb that the arguments name; tyro's boxed messages become one line and exit code 2."""
    argv = [re.sub("^(--[a-z][a-z-]*=)?~(?=/|$)", _with_home, one) for one in argv]
    train = verb(argv[1:]) if argv[:1] == ["train"] else Train
    _refuse_unknown(argv, train)
    _refuse_empty(argv)
    verbs = {**NAMES, "train": train}
    # of all, where completions are printed or written for a shell
    shell = shells.shell_of(argv)
    named = verbs if shell else verbs.keys() & argv[:1]
    verbs |= {name: explained(verbs[name]) for name in named}
    complaint, script = io.StringIO(), io.StringIO()
    printed = contextlib.redirect_stdout(script) if shell else contextlib.nullcontext()
    try:
        with contextlib.redirect_stderr(complaint), printed:
            return tyro.cli(  # pyright: ignore[reportCallIssue]
                Union[*verbs.values()],  # pyright: ignore[reportArgumentType]
                prog="monge",
                args=["--tyro-print-completion", shell] if shell else argv or ["--help"],
                description="Optimal-transport generative modelling.",
                config=CONFIG,
            )
    except SystemExit as stop:
        if not stop.code:
            if shell:
                _save_completion(script.getvalue(), argv[2] if "write" in argv[0] else "-")
            if error := lost():  # of the help
                raise FailedRun(f"not all of the output could be written: {error}") from None
            raise
        # a title, with or without a box around, then the reason up to the next rule
        lines = [line.strip("│| \n") for line in complaint.getvalue().splitlines()[1:]]
        rest = itertools.dropwhile(_is_rule, lines)
        reason = " ".join(itertools.takewhile(lambda line: not _is_rule(line), rest))
        command = f"monge {argv[0]}" if argv[0].isalpha() else "monge"
        command += f" {name}" if train is not Train and (name := recipe_name(argv[1:])) else ""
        reason = _in_words(" ".join(reason.split()).partition(" Got errors")[0])
        raise ValueError(f"{reason}: see {command} --help") from None


def _save_completion(script: str, place: str) -> None:
    """Writes the script by which a shell completes to a file; to standard output for -."""
    from monge.recipes import names

    common = {flag for one in _options_of(Train) for flag in one["flags"]}
    recipes = {
        name: [one for one in _options_of(verb([name])) if not common.issuperset(one["flags"])]
        for name in names()
    }
    script = shells.completed(script, recipes)
    if place == "-":
        print(script, end="")
    else:
        write_all(Path(place).parent, {Path(place).name: script}, "--tyro-write-completion")


def _options_of(train: type[Train]) -> list[dict[str, Any]]:
    """The flags of `train` for a recipe, as scripts for shells hold them."""
    script = io.StringIO()
    with contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
        tyro.cli(explained(train), args=["--tyro-print-completion", "bash"], config=CONFIG)
    return shells.options(script.getvalue())


def _with_home(tilde: re.Match[str]) -> str:
    """The home folder, which a shell does not write for ~ in --out=~/x."""
    return (tilde[1] or "") + os.path.expanduser("~")


def _in_words(reason: str) -> str:
    """Why a flag does not take a value, without the words of a parser."""
    found = re.fullmatch(
        r"Error parsing (\S+): (?:no type matching (\S+) could be instantiated from \[(.*)\]\."
        r"|invalid literal for (int)\(\) with base 10: (.*)"
        r"|could not convert string to (float): (.*))",
        reason,
    )
    if found is None:
        return reason
    flag, kind = found[1].split("/")[-1], found[2] or found[4] or found[6]
    what = "a number" if "float" in kind.lower() else "an integer"
    return f"`{flag}` must be {what}, got {found[3] or found[5] or found[7]}"


def _refuse_unknown(argv: list[str], train: type) -> None:
    """Refuses what is neither a verb nor one of its flags, and names what may have been meant.

    tyro would first name the missing flag, which a mistyped one is."""
    if not argv or argv[0].startswith("-"):
        return
    if argv[0] not in NAMES:
        near = meant(argv[0], NAMES) or f": it is one of {', '.join(NAMES)}"
        raise ValueError(f"`monge {argv[0]}` is not a command{near}")
    flags = _flags(train if argv[0] == "train" else NAMES[argv[0]])
    recipe = recipe_name(argv[1:]) if argv[0] == "train" else ""
    command = f"monge {argv[0]} {recipe}".strip()
    for typed in itertools.takewhile(lambda one: one != "--", argv[1:]):
        flag = typed.partition("=")[0]
        if re.match("--[a-z]", flag) and flag.replace("_", "-") not in flags:
            near = meant(flag, flags) or f": see {command} --help"
            raise ValueError(f"`{flag}` is not a flag of {command}{near}")


def _flags(verb_: type) -> list[str]:
    """The flags of a verb."""
    names = ["help"]
    for name, kind in get_type_hints(verb_, include_extras=True).items():
        named = (getattr(one, "name", None) for one in getattr(kind, "__metadata__", ()))
        names.append(next(filter(None, named), name))
    return ["--" + name.replace("_", "-") for name in names]


def _refuse_empty(argv: list[str]) -> None:
    """Refuses a flag for several values that has none, which tyro takes for one not given."""
    for flag, following in itertools.pairwise([*argv, "--"]):
        if flag in ("--class", *SEVERAL) and re.match(r"--|-[a-z]", following):
            raise ValueError(f"`{flag}` is given without a value: give one, or leave it out")


def _is_rule(line: str) -> bool:
    return re.fullmatch(r"[─╰╯+-]*", line) is not None


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning in one line, in place of `warnings.showwarning`."""
    print(visible(f"monge: warning: {' '.join(str(message).split())}"), file=sys.stderr)


def main() -> None:
    """The console script."""
    protect()
    warnings.showwarning = _warn
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if sys.argv[1:] in (["--version"], ["-V"]):
        print(f"monge {__version__}")
        sys.exit(0 if lost() is None else 1)
    if shutil.get_terminal_size().columns < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)
    code, complaint = 0, None
    try:
        asked = parse(sys.argv[1:])
        asked.run()
        # a training leaves what it was for in its folder, the other verbs may only print it
        if not isinstance(asked, Train) and (error := lost()):
            raise FailedRun(f"not all of the output could be written: {error}")
    except ValueError as error:
        code, complaint = 2, f"error: {error}"
    except FailedRun as error:
        code, complaint = 1, f"error: {error}"
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG)
        code, complaint = 1 if full else 2, f"error: {error}"
    except (MemoryError, RuntimeError) as error:
        from monge.training.memory import is_out_of_memory, reason_of

        if not is_out_of_memory(error):
            raise
        code = 1
        complaint = f"error: out of memory{reason_of(error)}: ask for fewer samples at a time"
    except Interrupted as error:
        code, complaint = 128 + error.number, str(error)
    except KeyboardInterrupt:
        code, complaint = 130, "interrupted"
    # all processes see the same invalid input, but a failure may be seen by a single one
    if complaint and (code == 1 or first()):
        print(visible(f"monge: {' '.join(complaint.split())}"), file=sys.stderr)
    elif complaint:
        time.sleep(1)  # torchrun ends all as soon as one has ended, and the first is to be heard
    if "torch.distributed" in sys.modules and os.environ.get("WORLD_SIZE", "1") != "1":
        # threads of gloo that are still running can abort an interpreter that cleans up
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
