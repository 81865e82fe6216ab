"""Several trainings in one process give the bits of each alone, and change nothing global."""

import errno
import hashlib
import json
import locale
import logging
import os
import random
import shutil
import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import sklearn.mixture  # noqa: F401  (its import sets variables of OpenMP)
import torch
from PIL import Image, ImageFile
from torch import nn
from torch.utils.checkpoint import checkpoint

import monge
from monge._core.errors import silence
from monge._core.files import write_whole
from monge._core.tuning import using_threads
from monge.config import override
from monge.draws import generator, global_stream, stream
from monge.models import Pass
from monge.recipes import RECIPES
from monge.runs import export
from monge.show import report

DATA = {"vae-bernoulli": "digits", "conditional-wae": "digits"}
QUICK = ("wae-gan", "vae-bernoulli", "swgan", "conditional-wae")


def clouds() -> torch.Tensor:
    return torch.randn(60, 32, 3, generator=generator("clouds of threads"))


def bits(model: nn.Module) -> str:
    content = hashlib.sha256()
    for value in model.state_dict().values():
        content.update(value.numpy().tobytes())
    return content.hexdigest()


def trained(recipe: str, place: Path, steps: int = 3) -> str:
    """The bits of a short training."""
    config = override(monge.Config.of(recipe), "training.steps", steps)
    config = override(config, "training.batch", 32)
    data = clouds() if recipe == "pointcloud-wae" else DATA.get(recipe, "rings")
    return bits(monge.fit(recipe, data, config, place / recipe, quiet=True).model)


def at_once(calls) -> list:
    """The results of calls that begin together, each in a thread of its own."""
    ready = threading.Barrier(len(calls))

    def call(function):
        ready.wait()
        return function()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


class Disturbed:
    """Another thread that reseeds and draws from the global generators meanwhile."""

    def __enter__(self):
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        while not self.ended.is_set():
            torch.manual_seed(1)
            torch.rand(3)

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


@pytest.mark.parametrize(
    "recipes", [QUICK, pytest.param(tuple(RECIPES), marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_trainings_in_threads_have_the_bits_of_each_alone(recipes, tmp_path):
    alone = {name: trained(name, tmp_path / "alone") for name in recipes}
    names = list(recipes)
    for i in range(0, len(names), 3):
        some = names[i : i + 3]
        with Disturbed():  # what others do with the global generators does not matter either
            found = at_once([lambda name=n: trained(name, tmp_path / "threads") for n in some])
        assert dict(zip(some, found)) == {name: alone[name] for name in some}


class Dropping(nn.Module):
    """A model of one's own that draws from the global generators, forward and backward."""

    def __init__(self, recomputed: bool):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))
        self.recomputed = recomputed

    def forward(self, x, draws):
        if self.recomputed:
            y = checkpoint(self.network, x, use_reentrant=False)
        else:
            y = self.network(x)
        return Pass({"error": (x - y).square().mean()})

    def sample(self, n, generator=None):
        return self.network(torch.randn(n, 2, generator=generator))


def dropped(seed: int, recomputed: bool, place: Path) -> str:
    with stream(seed, "model"):
        model = Dropping(recomputed)
    config = override(monge.Config(), "training.steps", 15)
    config = override(override(config, "seed", seed), "training.batch", 16)
    return bits(monge.fit(model, "rings", config, place / str(seed), quiet=True).model)


def test_models_of_ones_own_with_dropout_have_the_bits_of_each_alone(tmp_path):
    """Also where a backward pass draws again, which must be what the forward pass drew."""
    for recomputed in (False, True):
        name = str(recomputed)
        alone = [dropped(i, recomputed, tmp_path / f"alone {name}") for i in range(3)]
        place = tmp_path / f"threads {name}"
        calls = [lambda i=i, r=recomputed, p=place: dropped(i, r, p) for i in range(3)]
        assert at_once(calls) == alone
    assert dropped(0, False, tmp_path / "a") == dropped(0, True, tmp_path / "b")


X = torch.linspace(0.1, 1, 12).view(3, 4)
RANDOM = {
    "rand": lambda: torch.rand(3),
    "rand out": lambda: torch.rand(3, out=torch.empty(3)),
    "randn": lambda: torch.randn(3),
    "randint": lambda: torch.randint(9, (3,)),
    "randint from": lambda: torch.randint(2, 9, (3,)),
    "randperm": lambda: torch.randperm(9),
    "rand_like": lambda: torch.rand_like(X),
    "randn_like": lambda: torch.randn_like(X),
    "randint_like": lambda: torch.randint_like(X, 9),
    "randint_like from": lambda: torch.randint_like(X, 2, 9),
    "normal": lambda: torch.normal(X, 1.0),
    "bernoulli": lambda: torch.bernoulli(X),
    "multinomial": lambda: torch.multinomial(X, 2),
    "poisson": lambda: torch.poisson(X),
    "dropout": lambda: nn.Dropout()(X),
    "alpha dropout": lambda: nn.AlphaDropout()(X),
    "feature dropout": lambda: nn.Dropout2d()(X[None, :, :, None]),
    "rrelu": lambda: nn.RReLU()(X - 0.5),
    "gumbel": lambda: nn.functional.gumbel_softmax(X),
    "attention": lambda: nn.functional.scaled_dot_product_attention(X, X, X, dropout_p=0.5),
    "gamma": lambda: torch.distributions.Gamma(X, X).sample(),
    "dirichlet": lambda: torch.distributions.Dirichlet(X).sample(),
    "linear": lambda: nn.Linear(3, 3).weight.detach(),
    "orthogonal": lambda: nn.init.orthogonal_(torch.empty(3, 3)),
    "truncated": lambda: nn.init.trunc_normal_(torch.empty(3, 3)),
    "embedding": lambda: nn.Embedding(3, 3).weight.detach(),
    "pooling": lambda: nn.FractionalMaxPool2d(2, output_size=2)(X[None].repeat(1, 2, 1)),
    "lstm": lambda: nn.LSTM(4, 4, 2, dropout=0.5)(X[None])[0].detach(),
    "dropout of LSTM": lambda: nn.LSTM(4, 4, 2, dropout=0.5).train()(X[None])[1][0].detach(),
}


@pytest.mark.parametrize("name", RANDOM)
def test_a_stream_draws_what_a_seed_gives_and_touches_no_global_generator(name):
    with global_stream(0, name):
        expected = RANDOM[name]()
    before = torch.get_rng_state()
    with stream(0, name), Disturbed():
        found = RANDOM[name]()
    torch.set_rng_state(before)
    with stream(0, name):
        again = RANDOM[name]()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found, expected)
    assert torch.equal(again, expected)


def test_recipes_draw_nothing_from_the_global_generators(tmp_path, monkeypatch):
    """Therefore their steps seed none."""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    monkeypatch.setattr(torch, "manual_seed", None)
    for name in QUICK:
        trained(name, tmp_path)
        assert torch.equal(torch.get_rng_state(), before), name


def global_state() -> dict[str, object]:
    """All that is common to the threads of a process and that a library might set."""
    backends = torch.backends
    # threads that begin start with a number of their own
    with ThreadPoolExecutor(1) as fresh:
        of_new = fresh.submit(torch.get_num_threads).result()
    state: dict[str, object] = {
        "threads": (torch.get_num_threads(), of_new, torch.get_num_interop_threads()),
        "dtype": torch.get_default_dtype(),
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),
        "random": random.getstate(),
        "cudnn": (
            backends.cudnn.enabled,
            backends.cudnn.benchmark,
            backends.cudnn.deterministic,
        ),
        "products": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "denormal": float(torch.tensor([1e-40]) * 1),
        "filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "errors": np.geterr(),
        "matplotlib": dict(matplotlib.rcParams),
        "signals": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)],
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "locale": locale.setlocale(locale.LC_ALL),
        "umask": (os.umask(0o022), os.umask(0o022))[1],
        "pillow": (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES),
        "levels": {
            name: logging.getLogger(name).level for name in ("torch.onnx", "huggingface_hub", "")
        },
    }
    return state


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fitted(tmp_path_factory.mktemp("run") / "run")


def fitted(out: Path, **changes: object):
    config = override(monge.Config.of("wae-mmd"), "training.steps", 2)
    config = override(config, "threads", 2)
    for name, value in changes.items():
        config = override(config, name, value)
    return monge.fit("wae-mmd", "digits", config, out, quiet=True)


DOORS = {
    "fit": lambda run, out: fitted(out / "run"),
    "fit that fails": lambda run, out: fitted(out / "run", **{"training.lr": 1e30}),
    "fit of bad input": lambda run, out: fitted(run.path),
    "load": lambda run, out: monge.load(run.path),
    "load of nothing": lambda run, out: monge.load(out / "none"),
    "sample": lambda run, out: monge.Run(run.path).sample(3, generator(0)),
    "report": lambda run, out: report.write(run),
    "export": lambda run, out: export.export(run, out / "x.pt2"),
    "evaluate": lambda run, out: monge.Run(run.path).evaluate(),
    "mixture": lambda run, out: monge.Run(run.path).mixture(),
    "distance": lambda run, out: monge.transport.sinkhorn(X, X + 1, epsilon=1.0),
    "sliced": lambda run, out: monge.transport.sliced_wasserstein(
        X, X + 1, generator=generator(1)
    ),
    "distance of NaN": lambda run, out: monge.transport.sinkhorn(X / 0, X, epsilon=1.0),
}


@pytest.mark.parametrize("door", DOORS)
def test_no_global_state_is_changed(door, run, tmp_path):
    before = global_state()
    try:
        DOORS[door](run, tmp_path)
    except (ValueError, FileNotFoundError, monge.FailedRun):
        assert any(word in door for word in ("fails", "bad", "nothing", "NaN")), door
    else:
        assert not any(word in door for word in ("fails", "bad", "nothing", "NaN")), door
    after = global_state()
    assert [name for name in before if before[name] != after[name]] == []


def test_silence_ends_with_the_last_thread_inside():
    filters, ready = list(warnings.filters), threading.Barrier(2)
    thread = threading.Thread(target=lambda: (silence.__enter__(), ready.wait(), ready.wait()))
    thread.start()
    ready.wait()
    with silence:
        ready.wait()
        thread.join()
        silence.__exit__()
        assert warnings.filters[0][0] == "ignore"
    assert warnings.filters == filters


DIVERGING = [
    (recipe, changes)
    for recipe in ("wae-mmd", "vae-bernoulli", "wae-gan", "swg", "pointcloud-wae")
    for changes in (
        {"training.lr": 1e10},
        {"training.lr": 1e30},
        {"training.lr": 1.0, "training.precision": "fp16"},
    )
]


@pytest.mark.parametrize("steps", [1, 2, 20])
@pytest.mark.parametrize(("recipe", "changes"), DIVERGING)
def test_a_training_that_diverges_ends_in_one_line(recipe, changes, steps, tmp_path):
    """Also one whose last weights are finite, and what they make is not."""
    config = override(monge.Config.of(recipe), "training.steps", steps)
    for name, value in ({"training.batch": 32} | changes).items():
        config = override(config, name, value)
    data = clouds() if recipe == "pointcloud-wae" else "digits"
    try:
        run = monge.fit(recipe, data, config, tmp_path / "run", quiet=True)
    except monge.FailedRun as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert "not finite" in str(error) or "lower the learning rate" in str(error)  # noqa: PT017
    else:
        assert run.report.exists()
    assert not list(tmp_path.rglob(".*.part"))


def test_a_resume_under_another_torch_or_processor_says_so(tmp_path):
    run = fitted(tmp_path / "run")
    text = (run.path / "config.json").read_text()
    assert f'"torch": "{torch.__version__}"' in text
    for now, was in ((torch.__version__, "1.0"), (run.settled.processor, "NONE")):
        (run.path / "config.json").write_text(text.replace(json.dumps(now), json.dumps(was)))
        config = override(run.config, "training.steps", 3)
        with pytest.warns(UserWarning, match=rf"resumed with .* after {was}: the bits may"):
            monge.fit("wae-mmd", "digits", config, run.path, resume=True, quiet=True)
        shutil.rmtree(run.path)
        fitted(tmp_path / "run")


def test_each_thread_computes_in_its_own_number_of_threads():
    def count(number):
        with using_threads(number):
            ready.wait()
            found = torch.get_num_threads()
            ready.wait()
        return found

    before, ready = torch.get_num_threads(), threading.Barrier(3)
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(count, (1, 2, 3))) == [1, 2, 3]
        assert list(pool.map(lambda _: torch.get_num_threads(), range(3))) == [before] * 3
    assert torch.get_num_threads() == before


def test_starts_in_threads_do_not_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = override(monge.Config.of("swg"), "training.steps", 2)
    runs = at_once([lambda: monge.fit("swg", "rings", config, quiet=True).path] * 4)
    assert len(set(runs)) == 4
    for path in runs:
        assert (path / "metrics.jsonl").read_text().count('"step": 2,') == 1


def test_writers_of_one_file_leave_the_whole_of_one(tmp_path):
    file = tmp_path / "file"
    contents = [bytes([65 + i]) * 100_000 for i in range(4)]
    write_whole(file, contents[0])
    ended, torn = threading.Event(), []

    def read():
        while not ended.is_set():
            if (content := file.read_bytes()) not in contents:
                torn.append(len(content))

    reader = threading.Thread(target=read)
    reader.start()
    at_once([lambda c=c: [write_whole(file, c) for _ in range(25)] for c in contents])
    ended.set()
    reader.join()
    assert torn == []
    assert os.listdir(tmp_path) == ["file"]


def test_links_are_replaced_and_not_followed(tmp_path):
    kept, file = tmp_path / "kept", tmp_path / "file"
    kept.write_text("kept")
    (tmp_path / ".file.part").symlink_to(kept)
    file.symlink_to(kept)
    write_whole(file, "new")
    assert kept.read_text() == "kept"
    assert not file.is_symlink()
    assert file.read_text() == "new"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_written_file_has_the_permissions_of_any_other(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "file", "a")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask
    (tmp_path / "file").chmod(0o640)
    write_whole(tmp_path / "file", "b")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path):
    def pieces():
        yield b"one"
        raise KeyError("two")

    with pytest.raises(KeyError):
        write_whole(tmp_path / "file", pieces())
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_written_is_named(tmp_path, monkeypatch):
    """The file that was wanted, and not the one beside it under which it is made."""

    def full(_):
        raise OSError(errno.EFBIG, "File too large")

    with pytest.raises(FileNotFoundError, match=r"'\S+none.file'$"):
        write_whole(tmp_path / "none" / "file", "a")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"File too large: '\S+wanted'$"):
        write_whole(tmp_path / "wanted", "a")
    assert os.listdir(tmp_path) == []
