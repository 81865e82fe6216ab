"""POT's own test files, with monge in the place of the functions that exist in both.

    OMP_NUM_THREADS=1 python benchmarks/pot_tests.py PATH_OF_POT [FILE ...]

PATH_OF_POT is an unpacked source of POT, of the version that is installed. Its tests run with
the stand-ins of `pot_shims.py`, for arrays of NumPy and tensors of torch. A test counts if it
calls one of them. A stand-in skips the test where monge has no counterpart of an argument; it
never falls back to POT. Tests that fail since both libraries promise different things are listed
below with what differs; any other failure makes the script fail. Counts go to `pot_tests.json`.
"""

import collections
import functools
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ot
import pot_more_shims  # noqa: F401
import pytest
from pot_shims import CALLED, SHIMS, put_in_place

OUT = Path(__file__).with_suffix(".json")
FILES = (
    *("test_1d_solver", "test_bregman", "test_circle_solver", "test_da", "test_gaussian"),
    *("test_gmm", "test_lowrank", "test_ot", "test_partial", "test_solvers", "test_utils"),
)
CONVENTIONS = {
    "test_nan_warning": "an epsilon of 0 is a ValueError, in POT a warning and NaN",
    "test_barycenter_assymetric_cost": "a cost between points of one support must be symmetric",
    "test_empirical_bures_wasserstein_mapping_numerical_error_warning": (
        "the test asks for NaN and a warning; monge's map is finite"
    ),
    "test_bures_wasserstein_distance_batch": (
        "all values agree; one Gaussian against several is no error, but broadcast"
    ),
    "test_wasserstein_circle_bad_shape": "samples are broadcast over their leading dimensions",
    "test_emd_dimension_and_mass_mismatch": "the error is a ValueError, in POT an AssertionError",
    "test_emd2_num_threads_compatibility": "asks for POT's warning about its own argument",
    "test_emd_num_threads_deprecation_warning": "asks for POT's warning about its own argument",
}
"""What differs where a test cannot pass, by the name of the test."""


def skip_arg(arg: Any, value: Any, reason: str | None = None, getter: Any = lambda x: x) -> Any:
    """POT's decorator of tests, which its source package lacks."""
    names, values, getters = (
        list(z) if isinstance(z, (tuple, list)) else [z] for z in (arg, value, getter)
    )
    getters *= len(names) // len(getters)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def test(*args: Any, **kwargs: Any) -> Any:
            rows = zip(names, values, getters)
            if all(n in kwargs and get(kwargs[n]) == wanted for n, wanted, get in rows):
                pytest.skip(f"POT: {reason or 'not for this backend'}")
            return function(*args, **kwargs)

        return test

    return decorate


def skip_backend(backend: str, reason: str | None = None) -> Any:
    return skip_arg("nx", backend, reason, str)


class Plugin:
    """The fixtures of POT's tests, and the outcome of each test that called a stand-in."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, str, str, str]] = []

    @pytest.fixture(params=["numpy", "torch"])
    def nx(self, request: pytest.FixtureRequest) -> Any:
        made = {"numpy": ot.backend.NumpyBackend, "torch": ot.backend.TorchBackend}
        return made[request.param]()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        CALLED.clear()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> Any:
        report = yield
        if report.when == "call" and CALLED:
            why = str(call.excinfo.value) if call.excinfo else ""
            why = why.strip().splitlines()[0] if why.strip() else ""
            name = call.excinfo.typename if report.failed else ""
            self.outcomes.append(
                (
                    item.path.stem,
                    item.nodeid.split("::")[-1],
                    report.outcome,
                    f"{name}: {why}" if name else why,
                )
            )
        return report


def quiet(why: str) -> str:
    """A reason without addresses of objects, which change from run to run."""
    return re.sub(r"'?\(<function.*", "functions", why)


def summary(outcomes: list[tuple[str, str, str, str]]) -> dict[str, Any]:
    """Counts a file, with the reasons of what did not pass."""
    made: dict[str, Any] = {}
    for file, test, outcome, why in outcomes:
        name = re.sub(r"\[.*", "", test)
        row = made.setdefault(file, {"passed": 0, "failed": {}, "differs": {}, "skipped": {}})
        if outcome == "passed":
            row["passed"] += 1
            continue
        differs = CONVENTIONS.get(test, CONVENTIONS.get(name))
        if outcome == "failed" and differs is None:
            row["failed"][test] = why
            continue
        kind, why = ("skipped", why) if outcome == "skipped" else ("differs", str(differs))
        reasons = row[kind].setdefault(quiet(why), {"tests": 0, "names": []})
        reasons["tests"] += 1
        if name not in reasons["names"]:
            reasons["names"].append(name)
    return made


def totals(files: dict[str, Any]) -> dict[str, int]:
    count: collections.Counter[str] = collections.Counter()
    for row in files.values():
        count["passed"] += row["passed"]
        count["failed"] += len(row["failed"])
        for kind in ("differs", "skipped"):
            count[kind] += sum(reason["tests"] for reason in row[kind].values())
    return dict(count)


def main(source: str, *names: str) -> int:
    pytest.skip_arg, pytest.skip_backend = skip_arg, skip_backend  # pyright: ignore
    plugin, folder = Plugin(), Path(source) / "test"
    files = [str(folder / f"{name}.py") for name in names or FILES]
    options = ["-q", "-p", "no:cacheprovider", "-n0", "--no-header", "--tb=short", "--color=no"]
    with put_in_place():
        options += ["--rootdir", str(folder), "-c", "/dev/null", "--confcutdir", str(folder)]
        pytest.main([*options, *files], plugins=[plugin])
    rows = summary(plugin.outcomes)
    record = {
        "pot": ot.__version__,
        "functions": sorted(SHIMS),
        "total": totals(rows),
        "files": rows,
    }
    if not names:
        OUT.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for file, row in rows.items():
        counts = totals({file: row})
        print(f"{file:18}", *(f"{key} {number:4}" for key, number in counts.items()))
        for test, why in row["failed"].items():
            print(f"    {test}: {why[:150]}")
    print("total             ", *(f"{key} {number:4}" for key, number in record["total"].items()))
    return int(record["total"]["failed"] > 0)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} PATH_OF_POT [FILE ...]")
    sys.exit(main(*sys.argv[1:]))
