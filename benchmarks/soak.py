"""A long training keeps its memory, file handles, threads and child processes: records them.

    OMP_NUM_THREADS=1 python benchmarks/soak.py [--steps 50000] [--out benchmarks/soak.json]

Trains wae-mmd on rings with a small network, saves checkpoints every two seconds, and reads
/proc every 250 steps, so it takes Linux. Flat is less than 2 % of growth after the first fifth.
"""

import argparse
import gc
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import monge
from monge.config import override
from monge.training.trainer import Trainer

EVERY = 250


def state(step: int) -> dict[str, float]:
    """What this process holds: MB of memory, handles, threads, children, Python objects."""
    page = os.sysconf("SC_PAGE_SIZE")
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * page / 1e6
    tasks = list(Path("/proc/self/task").iterdir())
    children = [pid for task in tasks for pid in (task / "children").read_text().split()]
    return {
        "step": step,
        "memory MB": round(resident, 2),
        "handles": len(os.listdir("/proc/self/fd")),
        "threads": len(tasks),
        "children": len(children),
        "objects": len(gc.get_objects()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows, step_of = [], Trainer.step

    def counted(self, *args, **kwargs):
        terms = step_of(self, *args, **kwargs)
        if self.position % EVERY == 0:
            rows.append(state(self.position))
        return terms

    config = monge.Config.of("wae-mmd")
    for name, value in {
        "training.steps": given.steps,
        "training.batch": 32,
        "training.checkpoint_seconds": 2.0,
        "network.hidden": (16, 16),
    }.items():
        config = override(config, name, value)
    Trainer.step = counted
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        monge.fit("wae-mmd", "rings", config, Path(folder) / "run", quiet=True)
    kept = [row for row in rows if row["step"] > given.steps / 5]
    slope = np.polyfit([row["step"] for row in kept], [row["memory MB"] for row in kept], 1)[0]
    growth = {
        name: round(max(row[name] for row in kept) / kept[0][name] - 1, 4)
        for name in ("memory MB", "handles", "threads")
    }
    found = {
        "torch": torch.__version__,
        "steps": given.steps,
        "seconds": round(time.monotonic() - began, 1),
        "start": rows[0],
        "after warm-up": kept[0],
        "middle": rows[len(rows) // 2],
        "end": rows[-1],
        "MB per 10,000 steps": round(1e4 * slope, 4),
        "growth after warm-up": growth,
        "flat": max(growth["memory MB"], rows[-1]["handles"] / kept[0]["handles"] - 1) < 0.02,
    }
    print(json.dumps(found, indent=1))
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
