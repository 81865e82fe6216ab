"""What it takes to read files, in a process of its own: `python spent.py PATH …` prints a line of
JSON for each path, {"seconds" of a processor, "memory" in MiB, "refusal"}."""

import json
import subprocess
import sys
import time
import warnings
from pathlib import Path


def spent(*paths: Path, **settings) -> list[dict]:
    """Seconds, MiB and refusal of each of some files or folders."""
    command = [sys.executable, __file__, json.dumps(settings), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def _status(field: str) -> float:
    """MiB of this process in a field of Linux's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def main() -> None:
    import importlib

    from monge.config import DataConfig
    from monge.data import load

    for name in ("polars", "plyfile"):  # which readers import as they need them
        importlib.import_module(name)
    warnings.simplefilter("ignore")
    settings = json.loads(sys.argv[1])
    for path in sys.argv[2:]:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before, began, refusal = _status("VmRSS"), time.process_time(), None
        try:
            load(DataConfig(path, **settings))
        except ValueError as error:
            refusal = str(error)
        memory = _status("VmHWM") - before
        seconds = time.process_time() - began
        print(json.dumps({"seconds": seconds, "memory": memory, "refusal": refusal}))


if __name__ == "__main__":
    main()
