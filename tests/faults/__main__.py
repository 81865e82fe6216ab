"""Faults injected into trainings and data, and how many are survived.

    python tests/faults [--short] [--out FILE.json] [KIND …]

Prints a line a kind: faults survived of faults injected. Each kind runs in a process of its own.
The exit code is 1 if any fault is not survived.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch._dynamo  # optimisers import it at first use: here once, not in every child

# the package that the tests import too, and not its folder
sys.path[0] = str(Path(__file__).parents[1])
from faults import changed, corrupt, disks, killed, nonfinite, writers  # noqa: E402
from faults.common import child, ended  # noqa: E402

KINDS = {
    "kills": killed.kills,
    "torn": disks.torn,
    "flips": disks.flips,
    "full": disks.full,
    "signals": killed.signals,
    "nonfinite": nonfinite.run,
    "corrupt": corrupt.run,
    "elastic": killed.elastic,
    "writers": writers.run,
    "changed": changed.run,
}
SHOWN = ("survived", "faults", "failures", "means", "short")


def measured(kind: str, short: bool) -> dict:
    """What a kind's process counts."""
    with tempfile.TemporaryDirectory() as folder:
        work, result = Path(folder) / "work", Path(folder) / "result.json"
        work.mkdir()
        code = ended(child(count, kind, short, work, result))
        if code:
            failure = f"the process that injects them ended with exit code {code}"
            return {"survived": 0, "faults": 1, "failures": [failure]}
        return json.loads(result.read_text())


def count(kind: str, short: bool, work: Path, result: Path) -> None:
    began = time.monotonic()
    tally = KINDS[kind](work, short)
    found = {"survived": tally.survived, "faults": tally.faults, "short": short}
    found |= {"seconds": round(time.monotonic() - began)} | tally.notes
    result.write_text(json.dumps(found | {"failures": tally.failures}))


def meaning(kind: str) -> str:
    """What counts as survived, from the docstring."""
    text = KINDS[kind].__doc__ or sys.modules[KINDS[kind].__module__].__doc__ or ""
    return " ".join(text.partition("Survived: ")[2].partition("\n\n")[0].split())


def main() -> None:
    parser = argparse.ArgumentParser(prog="faults", description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--short", action="store_true", help="fewer faults of each kind")
    parser.add_argument("--out", type=Path, help="JSON in which these counts replace earlier ones")
    given = parser.parse_args()
    if unknown := set(given.kinds) - set(KINDS):
        parser.error(f"no kind {', '.join(sorted(unknown))}: one of {', '.join(KINDS)}")
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of processes that are started anew
    total = [0, 0]
    for kind in given.kinds or KINDS:
        found = {"means": meaning(kind)} | measured(kind, given.short)
        total = [total[0] + found["survived"], total[1] + found["faults"]]
        show(kind, found)
        if given.out:
            before = json.loads(given.out.read_text()) if given.out.exists() else {}
            given.out.write_text(json.dumps(before | {kind: found}, indent=1) + "\n")
    print(f"{'total':10} {total[0]:6,} of {total[1]:6,}")
    sys.exit(total[0] < total[1])


def show(kind: str, found: dict) -> None:
    notes = {k: v for k, v in found.items() if k not in SHOWN}
    told = ", ".join(f"{name} {value}" for name, value in notes.items())
    print(f"{kind:10} {found['survived']:6,} of {found['faults']:6,}  ({told})")
    print(f"{'':10} survived: {found['means']}", flush=True)
    for failure in found["failures"][:20]:
        print(f"{'':10} NOT SURVIVED: {failure}", flush=True)


if __name__ == "__main__":
    main()
