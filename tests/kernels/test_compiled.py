"""Every kernel compiles for the GPUs it is meant for, without spilling much; no GPU is needed.

    python tests/kernels/test_compiled.py    # a table: registers, spilled bytes, shared memory

A kernel's row gives the types of its arguments and its compile-time constants. In Triton's
interpreter there is nothing to compile, and these tests are skipped.
"""

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("kernels are interpreted", allow_module_level=True)

CAPABILITIES = {"A100": 80, "RTX 4090": 89, "H100": 90}
SHARED = {"A100": 163 * 1024, "RTX 4090": 99 * 1024, "H100": 227 * 1024}
"""The most shared memory of a block."""


class Case(NamedTuple):
    kernel: str
    """module:function below monge.gpu."""
    types: dict[str, str]
    constants: dict[str, object]
    warps: int = 4
    stages: int = 3
    cards: tuple[str, ...] = tuple(CAPABILITIES)


POINTS = dict.fromkeys(("left", "right", "u", "v", "settings", "values"), "*fp64")
SIZES = dict.fromkeys(("n", "m", "d", "stride_i", "stride_k", "stride_j", "width"), "i32")
TILE = {"ROWS": 64, "COLUMNS": 64, "DEPTH": 32}


def _exponents(kernel: str, single: bool, ground: int, p: int, **constants: int) -> Case:
    out = "*fp32" if kernel == "gibbs_kernel" and single else "*fp64"
    return Case(
        f"soft_minimum:{kernel}",
        {**POINTS, **SIZES, "out": out},
        {"GROUND": ground, "P": p, "SINGLE": single, **TILE, **constants},
        warps=8,
    )


CASES: dict[str, Case] = {
    f"{kernel} {ground} p={p} {'float32' if single else 'float64'}": _exponents(
        kernel, single, number, p, **constants
    )
    for kernel, constants in (
        ("log_sum_exp_kernel", {}),
        ("gibbs_kernel", {}),
        ("weighted_sums_kernel", {"FACTOR": 0, "WIDTH": 64}),
    )
    for ground, number, p in (("product", 0, 2), ("differences", 1, 1), ("differences", 1, 0))
    for single in (True, False)
}
VECTORS = dict.fromkeys(
    ("weights", "g", "g0", "f0", "f", "epsilon", "least", "totals", "moved"), "*fp64"
)
for dtype in ("fp32", "fp64"):
    types = {**VECTORS, "n": "i32", "m": "i32", "blocks": "i32", "outside": "*i32"}
    types |= {"scaled": f"*{dtype}", "sums": f"*{dtype}"}
    CASES[f"scale_kernel {dtype}"] = Case("gibbs_product:scale_kernel", types, {"BLOCK": 1024})
    CASES[f"potential_kernel {dtype}"] = Case(
        "gibbs_product:potential_kernel", types, {"BLOCK": 1024, "BLOCKS": 16}
    )

VECTORS |= dict.fromkeys(
    ("cost", "transposed", "log_a", "log_b", "b", "numbers", "start", "images", "residuals"),
    "*fp64",
)
for size in (64, 512):
    for single in (True, False):
        types = {**VECTORS, **SIZES, "memory": "i32", "most": "i32", "report": "*fp64"}
        constants = {"SYMMETRIC": False, "SINGLE": single, "MEMORY": 8, "N": size, "M": size}
        rows = {"ROWS_N": 4096 // size, "ROWS_M": 4096 // size}
        CASES[f"sinkhorn_kernel {size} {'float32' if single else 'float64'}"] = Case(
            "small_sinkhorn:sinkhorn_kernel",
            types,
            {**constants, **rows},
            warps=8,
        )

for size in (256, 1024):
    CASES[f"matched_kernel {size}"] = Case(
        "short_rows:matched_kernel",
        {**dict.fromkeys(("u", "v", "of_u", "of_v"), "*fp32"), "powers": "*fp64", "n": "i32"}
        | {"p": "fp32"},
        {"P": 2, "U": True, "V": False, "N": size},
    )

POINTERS = {"float32": "*fp32", "float64": "*fp64"}


def tiled(kernel: str, dtype: str, others: dict[str, str], **constants: object) -> Case:
    """A kernel over the tiles of two samples; `others`: arguments that are not of their dtype."""
    from monge.gpu.distances import thresholds

    shared = dict.fromkeys(("x", "y", "near_x", "near_y", "norms_x", "norms_y"), POINTERS[dtype])
    sizes = dict.fromkeys(("n", "m", "d", "k", "share"), "i32")
    bounds = thresholds(getattr(torch, dtype))
    return Case(kernel, shared | sizes | others, {"BK": 16} | constants | bounds, warps=8)


def summed(dtype: str, **constants: object) -> Case:
    """The sum over pairs of seven scales, or of each term once."""
    counts = {"GAUSSIANS": 0, "INVERSES": 7, "EXPONENTIALS": 0, "RATIONALS": 0, "DISTANCES": 0}
    tiles = {"SAME": False, "BM": 64, "BN": 32, "BD": 64, "GROUP": 32, "FEW": 16}
    others = {"table": POINTERS[dtype], "gradients": POINTERS[dtype]}
    others |= {"wide_table": "*fp64", "values": "*fp64"}
    return tiled("pair_sums:sum_pairs", dtype, others, **(counts | tiles | constants))


def searched(dtype: str, **constants: object) -> Case:
    others = {"distances": POINTERS[dtype], "indices": "*i32"}
    return tiled("search:search_tiles", dtype, others, BM=64, BN=64, **constants)


ALL_TERMS = dict.fromkeys(("GAUSSIANS", "INVERSES", "EXPONENTIALS", "RATIONALS", "DISTANCES"), 1)
AMPERE = {"BM": 128, "BN": 32, "BK": 16}
HOPPER = {"BM": 64, "BN": 64, "BK": 16}
CASES |= {
    f"pair sum, {name}, {generation}": summed("float32", **(tiles | constants))._replace(
        cards=cards, stages=1
    )
    for generation, cards, tiles in (
        ("Ampere", ("A100", "RTX 4090"), AMPERE),
        ("Hopper", ("H100",), HOPPER),
    )
    for name, constants in {
        "gradient": {"MOVING": True, "PRODUCT": True},
        "gradient, within": {"MOVING": True, "PRODUCT": True, "SAME": True},
        "value, within": {"MOVING": False, "PRODUCT": True, "SAME": True},
        "few dimensions": {"MOVING": True, "PRODUCT": False, "BD": 16},
        "all terms": {"MOVING": True, "PRODUCT": True} | ALL_TERMS,
    }.items()
} | {
    "pair sum, gradient, float64": summed("float64", MOVING=True, PRODUCT=True),
    "pair sum, few dimensions, float64": summed("float64", MOVING=True, PRODUCT=False, BD=16),
    "nearest, k = 1": searched("float32", PRODUCT=True, K=1),
    "nearest, k = 16": searched("float32", PRODUCT=True, K=16),
    "nearest, sets": searched("float32", PRODUCT=False, K=1),
    "nearest, k = 16, float64": searched("float64", PRODUCT=True, K=16),
}


class Resources(NamedTuple):
    registers: int
    spilled: int
    shared: int


def resources(case: Case, capability: int) -> Resources:
    from importlib import import_module

    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, name = case.kernel.split(":")
    kernel = getattr(import_module(f"monge.gpu.{module}"), name)
    signature = {
        argument: "constexpr" if argument in case.constants else case.types[argument]
        for argument in kernel.arg_names
    }
    compiled = triton.compile(
        ASTSource(kernel, signature=signature, constexprs=case.constants),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": case.warps, "num_stages": case.stages},
    )
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(compiled.asm["cubin"])
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        command = [tool, "--dump-resource-usage", binary]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {k: int(v) for k, v in re.findall(r"(REG|STACK|SHARED):(\d+)", usage)}
    return Resources(found["REG"], found["STACK"], compiled.metadata.shared)


@pytest.mark.filterwarnings("ignore::UserWarning:triton")
@pytest.mark.parametrize(("name", "card"), [(n, card) for n in CASES for card in CASES[n].cards])
def test_a_kernel_compiles_and_fits(name, card):
    used = resources(CASES[name], CAPABILITIES[card])
    assert used.shared <= SHARED[card]
    assert used.spilled <= 256


if __name__ == "__main__":
    for name, case in CASES.items():
        for card in case.cards:
            print(f"{name:40s} {card:8s}  {resources(case, CAPABILITIES[card])}")
