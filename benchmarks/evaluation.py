"""Neighbours and Fréchet distances: values beside the `prdc` package's, seconds and memory.

    .venv-peers/bin/python benchmarks/evaluation.py

Each subject runs in a process of its own, whose peak memory above that of its imports is printed.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch

N, D = 10_000, 64


def peak() -> float:
    """Peak memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ours() -> dict:
    from monge.evaluation import precision_recall_density_coverage

    return precision_recall_density_coverage(*samples())._asdict()


def theirs() -> dict:
    from prdc import compute_prdc

    model, real = samples()
    return compute_prdc(real.numpy(), model.numpy(), nearest_k=5)


def frechet() -> dict:
    from monge.evaluation import frechet_distance

    x, y = torch.randn(2, N, 2048, generator=torch.Generator().manual_seed(0))
    return {"FD": frechet_distance(x, y), "bias law": 2048 * 2053 / (2 * N)}


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    model, real = torch.randn(2, N, D, generator=torch.Generator().manual_seed(0))
    return 0.95 * model, real


SUBJECTS = {"monge": ours, "prdc": theirs, "FD of 10,000 × 2,048": frechet}


def alone(name: str) -> dict:
    """One subject in this process."""
    samples()
    if name == "prdc":
        import prdc  # noqa: F401
    import monge.evaluation  # noqa: F401

    before, began = peak(), time.perf_counter()
    found = SUBJECTS[name]()
    return {"seconds": time.perf_counter() - began, "MB": peak() - before, **found}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alone")
    given = parser.parse_args()
    if given.alone:
        print(json.dumps({k: float(v) for k, v in alone(given.alone).items()}))
        sys.exit()
    rows = {}
    for name in SUBJECTS:
        made = subprocess.run(
            [sys.executable, __file__, "--alone", name], check=True, capture_output=True, text=True
        )
        rows[name] = json.loads(made.stdout.splitlines()[-1])
        print(name, {k: round(v, 4) for k, v in rows[name].items()}, flush=True)
    a, b = rows["monge"], rows["prdc"]
    print(
        f"prdc / monge: {b['seconds'] / a['seconds']:.2f} × the time, "
        f"{b['MB'] / a['MB']:.1f} × the memory"
    )
