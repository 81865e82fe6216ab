"""Malformed input of every kind by the thousand.

    python tests/attacks [--cases N] [--out FILE.json] [KIND …]

Prints what became of the cases of each kind, which run in a process of their own. The exit code
is 1 if any case is neither accepted nor refused in one line.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

# the package that the tests import too, and not its folder
sys.path[0] = str(Path(__file__).parents[1])
from attacks.fuzzing import Tally, attacked  # noqa: E402
from attacks.kinds import KINDS  # noqa: E402


def measured(kind: str, count: int) -> Tally:
    with tempfile.TemporaryDirectory() as folder:
        return attacked(KINDS[kind], Path(folder) / "work", count)


def main() -> None:
    parser = argparse.ArgumentParser(prog="attacks", description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--cases", type=int, default=1000, help="of each kind; 1,000 by default")
    parser.add_argument("--out", type=Path, help="JSON in which these counts replace earlier ones")
    given = parser.parse_args()
    if unknown := set(given.kinds) - set(KINDS):
        parser.error(f"no kind {', '.join(sorted(unknown))}: one of {', '.join(KINDS)}")
    faults = 0
    for kind in given.kinds or KINDS:
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
            found = pool.submit(measured, kind, given.cases).result()
        faults += len(found.faults)
        print(
            f"{kind:10} {found.cases:,} cases: {found.accepted:,} accepted, {found.refused:,} "
            f"refused, {len(found.faults)} faults; longest {found.longest:.2f} s, memory grew by "
            f"{found.memory:.0f} MiB",
            flush=True,
        )
        for fault in found.faults[:20]:
            print(f"{'':10} {fault}", flush=True)
        if given.out:
            before = json.loads(given.out.read_text()) if given.out.exists() else {}
            shown = vars(found) | {"refusals": dict(found.refusals.most_common(20))}
            given.out.write_text(json.dumps(before | {kind: shown}, indent=1) + "\n")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
