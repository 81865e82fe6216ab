"""Section `device` of gpu.py: versions, the card, its bandwidth and its rates of products."""

import importlib.metadata
import platform

import torch
from gpu_measured import Record, milliseconds

LIBRARIES = (
    *("torch", "triton", "numpy", "scipy", "scikit-learn", "safetensors", "pillow", "POT"),
    *("tyro", "rich", "hypothesis", "flash-sinkhorn", "geomloss", "pykeops", "jax", "ott-jax"),
    "pythae",
)


def run(record: Record, device: torch.device, tiny: bool) -> None:
    record.attempt("versions", versions)
    record.attempt("card", lambda: card(device))
    record.attempt("copy", lambda: copy(device, 2**20 if tiny else 2**30))
    size = 128 if tiny else 8192
    for name, dtype, tf32 in (
        ("float32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("float64", torch.float64, False),
        ("bf16", torch.bfloat16, False),
    ):
        record.attempt(
            f"product {name}", lambda d=dtype, t=tf32: product(device, size, d, t), needs=1.0
        )


def versions() -> dict[str, str]:
    """Those of Python and of each library that is installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def card(device: torch.device) -> dict[str, str | int | float]:
    if device.type != "cuda":
        return {"name": platform.processor() or platform.machine(), "kind": device.type}
    about = torch.cuda.get_device_properties(device)
    return {
        "name": about.name,
        "kind": "cuda",
        "compute capability": f"{about.major}.{about.minor}",
        "GiB": round(about.total_memory / 2**30, 1),
        "multiprocessors": about.multi_processor_count,
        "CUDA of torch": torch.version.cuda or "none",
    }


def copy(device: torch.device, size: int) -> dict[str, float]:
    """Gigabytes a second that are read and written by a copy of `size` bytes."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    taken = milliseconds(lambda: target.copy_(source), device, 0.3)
    return {"GB/s": round(2 * size / taken / 1e6, 1)}


def product(device: torch.device, size: int, dtype: torch.dtype, tf32: bool) -> dict[str, float]:
    """10¹² operations a second of a product of square matrices."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        taken = milliseconds(lambda: a @ b, device, 0.3)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return {"TFLOP/s": round(2 * size**3 / taken / 1e9, 2)}
