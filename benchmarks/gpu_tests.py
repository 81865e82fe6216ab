"""Section `tests` of gpu.py: tests that are parametrised over devices, and those of kernels."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from gpu_measured import Record, importable

ROOT = Path(__file__).parents[1]
TINY = "moments or line-3 or sliced-2"
OUTCOME = re.compile(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL)\b", re.MULTILINE)


def run(record: Record, device: torch.device, tiny: bool) -> None:
    if not importable("pytest"):
        record.write("pytest", {"left out": "pytest is not installed"})
        return
    record.attempt("pytest", lambda: outcomes(record.left() - 2, tiny))


def outcomes(seconds: float, tiny: bool) -> dict[str, object]:
    """Counts of the outcomes, and which failed, of as many tests as end within `seconds`."""
    places = ["tests/test_devices.py", *([] if tiny else ["tests/kernels"])]
    options = ["-v", "-x" if tiny else "--maxfail=50", "--tb=line", "-o", "addopts="]
    chosen = ["-m", "gpu", *(["-k", TINY] if tiny else [])]
    quiet = ["-p", "no:cacheprovider", "--color=no"]
    # a plugin of a library that is not whole would end pytest
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", *places, *options, *chosen, *quiet]
    with tempfile.TemporaryFile("w+") as output:
        try:
            code = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=seconds,
            ).returncode
        except subprocess.TimeoutExpired:
            code = None
        output.seek(0)
        printed = output.read()
    found = OUTCOME.findall(printed)
    counts = {
        kind.lower(): sum(one == kind for _, one in found)
        for kind in ("PASSED", "FAILED", "ERROR", "SKIPPED")
    }
    failed = [name for name, one in found if one in ("FAILED", "ERROR")]
    reasons = [line[:200] for line in printed.splitlines() if re.match(r"(/|E  ).*Error", line)]
    ended = "cut by the time limit" if code is None else f"exit code {code}"
    about: dict[str, object] = {**counts, "ended": ended, "failed tests": failed}
    if failed or code not in (0, None):
        about["reasons"] = reasons[:20] or printed.strip().splitlines()[-3:]
    return about
