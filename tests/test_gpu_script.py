"""benchmarks/gpu.py runs whole on a machine without a GPU, so that it does where there is one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.py"
ENTRIES = {
    "device": ("versions", "card", "copy", "product float32", "product float64", "product bf16"),
    "tests": ("pytest",),
    "transport": ("fixed, n = 200, monge", "divergence, n = 200, monge"),
    "sums": ("SW2 small", "SW2", "SW2, shares", "MMD, n = 256", "nearest, n = 300, k = 10"),
    "training": tuple(
        f"small MNIST, {recipe}, {variant}"
        for recipe in ("wae-mmd", "vae", "wgan-gp")
        for variant in ("bare", "fp32")
    ),
    "memory": ("SW2", "nearest", "MMD", "Sinkhorn, 2 iterations"),
}
MISSING = ("ot", "tyro", "rich", "hypothesis", "jinja2")
"""What a machine with torch need not have."""


def measured(folder: Path, *options: str, environment: dict[str, str] | None = None) -> dict:
    out = folder / "figures.json"
    subprocess.run(
        [sys.executable, SCRIPT, "--tiny", "--out", out, *options],
        check=True,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {}),
    )
    return json.loads(out.read_text())


@pytest.mark.slow
def test_every_section_runs_where_only_torch_is_installed(tmp_path):
    for name in MISSING:
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('no {name}')\n")
    found = measured(tmp_path, environment={"PYTHONPATH": str(tmp_path)})
    for section, names in ENTRIES.items():
        assert found[section]["ended"] == "whole"
        failed = [k for k, v in found[section].items() if "error" in v and k != "pytest"]
        assert not failed, {name: found[section][name] for name in failed}
        assert set(names) <= found[section].keys()
    assert found["tests"]["pytest"]["passed"] >= 1
    assert not found["tests"]["pytest"]["failed tests"]
    assert found["transport"]["divergence, n = 200, monge"]["reached"]


def test_a_section_keeps_the_figures_of_others(tmp_path):
    (tmp_path / "figures.json").write_text('{"sums": {"SW2": 1}, "device": {"old": 2}}')
    found = measured(tmp_path, "--section", "device")
    assert found["sums"] == {"SW2": 1}
    assert "old" not in found["device"]
    assert found["device"]["product float32"]["TFLOP/s"] > 0


def test_without_a_gpu_it_asks_for_a_trial(tmp_path):
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, SCRIPT, "--out", tmp_path / "figures.json"]
    done = subprocess.run(command, capture_output=True, text=True, env=hidden)
    assert done.returncode == 2
    assert "--tiny" in done.stderr
    assert not (tmp_path / "figures.json").exists()


def test_the_page_holds_the_roofline_that_the_script_computes():
    printed = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "roofline.py"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert f"<!-- roofline -->\n{printed.strip()}\n<!-- end of roofline -->" in page


def test_a_product_with_a_stored_kernel_is_bound_by_memory(monkeypatch):
    """10⁸ entries of 4 bytes at 2,039 GB/s; 2 · 64 · 10⁸ operations at 19.5 TFLOP/s."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import roofline

    a100 = roofline.CARDS[0]
    seconds, limit = roofline.bound(roofline.stored_product(10_000), a100)
    assert (limit, seconds) == ("memory", pytest.approx(4e8 / 2.039e12, rel=1e-3))
    seconds, limit = roofline.bound(roofline.soft_minimum(10_000, 64, wide=False), a100)
    assert (limit, seconds) == ("float64 products", pytest.approx(1.28e10 / 19.5e12))
