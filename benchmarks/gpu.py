"""What monge does on a GPU, measured in six minutes at most.

    python benchmarks/gpu.py                  # on a machine with a GPU; make gpu
    python benchmarks/gpu.py --tiny           # end to end with small sizes, also on a CPU
    python benchmarks/gpu.py --section sums   # one section, or several
    python benchmarks/gpu.py --write          # the table of docs/performance.md from gpu.json

Each section is a process of its own with a time limit, so that none ends another. It writes each
figure to gpu.json when it has it (`--out` names another file); one that fails leaves the last line
of its traceback there. Other libraries are compared with where they can be imported:
gpu-setup.sh installs them without a network. What is called by hand in torch is in the sections'
files, benchmarks/gpu_*.py.
"""

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SECTIONS = {
    "device": 20,
    "tests": 80,
    "transport": 120,
    "sums": 40,
    "training": 65,
    "memory": 35,
}
"""Seconds of each section; together six minutes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="small sizes, also on a CPU")
    parser.add_argument("--section", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--out", type=Path, default=HERE / "gpu.json")
    parser.add_argument("--write", action="store_true", help="only the table of the docs")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write:
        from gpu_table import write

        write(given.out)
    elif given.inside:
        inside(given.section[0], given.out, given.tiny)
    else:
        from torch.cuda import is_available

        if not given.tiny and not is_available():
            parser.error("there is no GPU here: add `--tiny` for a trial on the CPU")
        if problem := unusable(given.out):
            parser.error(f"`--out` {str(given.out)!r} {problem}: name another file")
        for name in given.section:
            outside(name, given.out, given.tiny)


def unusable(out: Path) -> str | None:
    """Why no figures can be added to a file, if so."""
    if not out.parent.is_dir():
        return "is in no folder"
    try:
        found = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    except (OSError, ValueError) as error:
        return f"is not readable as JSON ({error})"
    return None if isinstance(found, dict) else "holds no figures of sections"


def inside(section: str, out: Path, tiny: bool) -> None:
    """Measures one section in this process."""
    import torch
    from gpu_measured import Record

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # the rates of float32 are those of true products, here and of the libraries compared with
    torch.set_float32_matmul_precision("highest")
    importlib.import_module(f"gpu_{section}").run(
        Record(out, section, SECTIONS[section]), device, tiny
    )


def outside(section: str, out: Path, tiny: bool) -> None:
    """Runs a section in a process of its own and records how it ended."""
    from gpu_measured import Record

    record = Record(out, section, SECTIONS[section])
    record.forget()
    command = [sys.executable, __file__, "--inside", "--section", section, "--out", str(out)]
    paths = [str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    process = subprocess.Popen(
        command + ["--tiny"] * tiny,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=SECTIONS[section])
        lines = said.strip().splitlines()
        ended = "whole" if process.returncode == 0 else f"failed: {' '.join(lines[-1:])[:300]}"
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as end:
        # its own children too, which would hold the pipe
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(end, KeyboardInterrupt):
            raise
        ended = f"cut after {SECTIONS[section]} s"
    record.write("ended", ended)


if __name__ == "__main__":
    main()
