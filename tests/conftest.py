"""What every test stands on: fixed seeds, one place for real data."""

from pathlib import Path

import pytest
import torch

try:
    from hypothesis import settings
except ModuleNotFoundError:
    pass  # a machine with a GPU that benchmarks/gpu.py runs a part of the tests on
else:
    settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=50)
    settings.load_profile("fixed")

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory):
    """Classifiers are trained once a session, and the user's own and their key are left alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _short_flows():
    """Flows of codes are fitted in a few steps."""
    try:
        from monge.runs import Run
    except ModuleNotFoundError:  # a machine with a GPU that has torch alone fits no flows
        yield
        return

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run.flow, "__defaults__", (5,))
        yield


@pytest.fixture(params=["cpu", "cuda"])
def device(request) -> str:
    """Each device in turn; those that this machine does not have are skipped."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return request.param


@pytest.fixture
def kernel_device() -> torch.device:
    """Where Triton's kernels run: a GPU, or the CPU under TRITON_INTERPRET=1."""
    from monge.gpu.launch import is_usable

    if torch.cuda.is_available() and is_usable(torch.device("cuda")):
        return torch.device("cuda")
    if not is_usable(torch.device("cpu")):
        pytest.skip("neither a GPU nor Triton's interpreter: `make test-kernels`")
    return torch.device("cpu")


MARKS = [
    ("device", "gpu"),
    ("kernel_device", "gpu"),
    ("kernel_device", "kernels"),
    ("real_data", "data"),
]


def pytest_collection_modifyitems(items):
    """Tests that use a device or real data are marked by it, so that nobody can forget to."""
    for item in items:
        for fixture, mark in MARKS:
            if fixture in item.fixturenames:
                item.add_marker(mark)


@pytest.fixture
def real_data() -> Path:
    """A folder with mnist/ and fashion-mnist/ in idx form."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real data in {REAL_DATA}")
    return REAL_DATA


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Runs of every kind, hardly trained."""
    from explored import make_runs

    return make_runs(tmp_path_factory.mktemp("explored"))


@pytest.fixture(scope="session")
def explorers(runs):
    """The same, opened, by identifier."""
    from monge.show.explore.server import opened

    return opened(runs)


@pytest.fixture(scope="session")
def address(explorers):
    """Of a server that explores them."""
    from explored import serving

    with serving(explorers) as address:
        yield address
