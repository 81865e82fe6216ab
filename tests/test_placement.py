"""Where a training runs: the device, its precision, its data, and what the host waits for.

Without a GPU the accelerator's behaviour is forced on the CPU, or torch.cuda is replaced by one
that answers for cards that are not there.
"""

import contextlib
import traceback
import types
from collections import Counter

import numpy as np
import pytest
import torch
import zoo
from test_cli import TINY, run
from torch import Tensor, nn

from monge import fit, load
from monge._core import devices
from monge._core.devices import chosen_device
from monge._core.errors import FailedRun
from monge._core.processes import read
from monge._core.products import true_products
from monge._core.promotion import ANY, promoted
from monge.builders import settle
from monge.cli.train import Train, recipe_name
from monge.config import Config, TrainingConfig, override, read_config
from monge.data import Batches, given
from monge.divergences import Divergence
from monge.draws import Draws
from monge.models import Matching
from monge.networks import mlp
from monge.training import Trainer, loop, memory
from monge.training import fit as fitting
from monge.training import prepared as preparing
from monge.training.loading import Prefetcher
from monge.training.memory import is_resident, running_out
from monge.training.objective import Objective
from monge.training.optimisers import load_state
from monge.training.passes import Batch, Network
from monge.training.precision import chosen_precision


def images(n: int = 16) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(n))


def table() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)


def config(steps: int = 4, **training) -> Config:
    made = override(Config.of("wae-mmd", data="array", latent=2), "network.hidden", (8,))
    for name, value in {"steps": steps, "batch": 20, **training}.items():
        made = override(made, f"training.{name}", value)
    return made


class Pretended(Tensor):
    """A tensor of the CPU that says it is on a GPU."""

    is_cuda = True


def pretended(x: Tensor) -> Tensor:
    return x.as_subclass(Pretended)


@pytest.fixture
def cards(monkeypatch):
    """A machine with some GPUs, as far as torch.cuda tells."""

    def put(count: int, capability: tuple[int, int] = (8, 0)) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)

    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return put


# Devices


def test_auto_is_a_gpu_for_each_process_or_the_cpu(cards, monkeypatch):
    cards(0)
    assert chosen_device("auto") == "cpu"
    cards(2)
    assert chosen_device("auto") == "cuda"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert chosen_device("auto") == "cuda"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert chosen_device("auto") == "cpu"


def test_a_device_that_is_given_is_used(cards, monkeypatch):
    cards(2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for device in ("cpu", "mps", "cuda", "cuda:0", "cuda:1"):
        assert chosen_device(device) == device


@pytest.mark.parametrize(
    ("device", "count", "processes", "words"),
    [
        ("cuda", 0, 1, "the only device here is cpu: give cpu or auto"),
        ("cuda:1", 0, 1, "the only device here is cpu: give cpu or auto"),
        ("mps", 0, 1, "not on this machine: give cpu or auto"),
        ("cuda:2", 2, 1, r"this machine has cpu, cuda:0 \(NVIDIA A100\), cuda:1"),
        ("cuda:1", 2, 2, "each of 2 processes uses a GPU of its own: give cuda"),
        ("cuda", 1, 2, r"2 processes for cuda:0 \(NVIDIA A100\): start one process for each"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused(device, count, processes, words, cards, monkeypatch):
    cards(count)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    with pytest.raises(ValueError, match=f"`device` is '{device}'.*{words}"):
        chosen_device(device)


def test_the_command_line_refuses_it_in_one_line(capsys, monkeypatch, tmp_path):
    out = tmp_path / "run"
    code, text, err = run(capsys, monkeypatch, "train", "vae", "--device", "cuda:99", "--out", out)
    assert (code, text, err.count("\n")) == (2, "", 1)
    assert err.startswith("monge: error: `device` is 'cuda:99', but ")
    assert not out.exists()


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:-1", "cpu:0", "automatic", ""])
def test_words_that_are_no_device_are_refused(device):
    with pytest.raises(ValueError, match=r"`device` must be auto, cpu, cuda, cuda:1, … or mps"):
        Config(device=device).check()


def test_the_device_is_told_at_the_start_and_kept_in_the_run(tmp_path, capsys, cards):
    cards(0)
    fit(data=table(), config=config(), out=tmp_path / "run")
    assert capsys.readouterr().out.splitlines()[0] == "device: cpu"
    asked, settled = read_config(tmp_path / "run")
    assert (asked.device, asked.training.precision) == ("auto", "auto")
    assert (settled.device, settled.precision) == ("cpu", "fp32")


def test_the_line_at_the_start_tells_card_data_and_precision(cards):
    cards(1)
    training = types.SimpleNamespace(
        device=torch.device("cuda"), precision="bf16", config=TrainingConfig(compile=True)
    )
    samples = torch.zeros(1000, 1000)
    assert fitting._opening(training, samples, True) == (  # pyright: ignore[reportArgumentType]
        "device: cuda (NVIDIA A100); data: on the device, 4 MB; networks: in bf16; "
        "compiling: seconds to minutes before the first steps"
    )
    host = fitting._opening(training, samples, False)  # pyright: ignore[reportArgumentType]
    assert "data: on the host, loaded a batch ahead, 4 MB" in host
    training.device, training.precision = torch.device("cpu"), "fp32"
    assert fitting._opening(training, samples, True) == (  # pyright: ignore[reportArgumentType]
        "device: cpu; compiling: seconds to minutes before the first steps, and on a CPU seldom "
        "faster steps"
    )


def test_what_was_left_to_the_machine_may_be_given_when_a_run_is_resumed(tmp_path, cards):
    cards(0)
    fit(data=table(), config=config(2), out=tmp_path / "run", quiet=True)
    given = override(config(4, precision="fp32"), "device", "cpu")
    run = fit(data=table(), config=given, out=tmp_path / "run", resume=True, quiet=True)
    assert run.metrics()[-1]["step"] == 4
    assert run.config.device == "cpu"


def test_what_was_given_stays_and_may_not_change(tmp_path, cards):
    """Older runs have a device and a precision, and a configuration by default leaves both."""
    cards(0)
    given = override(config(2, precision="fp32"), "device", "cpu")
    fit(data=table(), config=given, out=tmp_path / "run", quiet=True)
    run = fit(data=table(), config=config(4), out=tmp_path / "run", resume=True, quiet=True)
    assert (run.config.device, run.config.training.precision) == ("cpu", "fp32")
    with pytest.raises(ValueError, match=r"other settings of training\.precision"):
        fit(data=table(), config=config(precision="bf16"), out=tmp_path / "run", resume=True)


def test_compile_is_a_flag():
    assert Train(recipe="vae", compile=True)._config().training.compile
    assert not Train(recipe="vae")._config().training.compile
    assert recipe_name(["--compile", "vae"]) == "vae"


# Precision


@pytest.mark.parametrize(
    ("make", "capability", "expected"),
    [
        (lambda: nn.Conv2d(1, 1, 3), (8, 0), "bf16"),
        (lambda: nn.ConvTranspose2d(1, 1, 3), (9, 0), "bf16"),
        (lambda: nn.Conv2d(1, 1, 3), (7, 5), "fp32"),
        (lambda: nn.Conv2d(1, 1, 3).double(), (9, 0), "fp32"),
        (lambda: mlp([3, 4, 2]), (9, 0), "fp32"),
    ],
)
def test_auto_is_bf16_for_convolutions_on_ampere_and_newer(make, capability, expected, cards):
    cards(1, capability)
    cuda = torch.device("cuda")
    assert chosen_precision("auto", make(), cuda) == expected
    assert chosen_precision("auto", make(), torch.device("cpu")) == "fp32"
    assert chosen_precision("fp16", make(), cuda) == "fp16"


def by_legacy(precision: str):
    return lambda: torch.set_float32_matmul_precision(precision)


def by_flag():
    torch.backends.cuda.matmul.allow_tf32 = True


def by_new_name():
    torch.backends.cuda.matmul.fp32_precision = "tf32"


SWITCHES = pytest.mark.parametrize(
    "switch", [by_legacy("high"), by_legacy("medium"), by_flag, by_new_name]
)


@pytest.fixture
def products():
    """The setting of float32 products, which is put back."""
    matmul = torch.backends.cuda.matmul
    assert matmul.fp32_precision == "none"
    yield matmul
    torch.set_float32_matmul_precision("highest")
    matmul.fp32_precision = "none"


def settings(matmul) -> tuple:
    """What both of torch's interfaces say, None where one refuses."""
    try:
        return matmul.fp32_precision, matmul.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:
        return matmul.fp32_precision, None, None


@SWITCHES
def test_products_are_true_inside_and_the_setting_is_put_back(switch, products):
    switch()
    before = settings(products)
    assert before[0] == "tf32"
    with true_products():
        assert settings(products) == ("ieee", False, "highest")
    assert settings(products) == before
    with pytest.raises(ZeroDivisionError), true_products():
        _ = 1 / 0
    assert settings(products) == before


def test_products_are_true_until_the_last_thread_leaves(products):
    by_flag()
    one, two = true_products(), true_products()
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert products.fp32_precision == "ieee"
    two.__exit__(None, None, None)
    assert products.fp32_precision == "tf32"


def test_products_that_inherit_a_setting_go_on_inheriting_it(products):
    before = torch.backends.fp32_precision
    try:
        torch.backends.fp32_precision = "tf32"
        with true_products():
            assert products.fp32_precision == "ieee"
        assert products.fp32_precision == "tf32"
        torch.backends.fp32_precision = "ieee"
        assert products.fp32_precision == "ieee"
    finally:
        torch.backends.fp32_precision = before


def test_where_tf32_is_not_allowed_nothing_is_set(products):
    with true_products():
        assert products.fp32_precision == "none"
    assert products.fp32_precision == "none"


@SWITCHES
def test_distances_of_tensors_on_a_gpu_have_true_products(switch, products):
    seen = []

    @promoted(x=ANY)
    def distance(x: Tensor) -> Tensor:
        seen.append(products.fp32_precision)
        return x.sum()

    switch()
    distance(pretended(torch.ones(3)))
    distance(torch.ones(3))
    assert seen == ["ieee", "tf32"]
    assert products.fp32_precision == "tf32"


class Recording(Divergence):
    """A mean whose backward pass notes the setting of products."""

    def __init__(self, products, additive: bool):
        super().__init__()
        self.products, self.additive, self.seen = products, additive, []

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = x * 1
        x.register_hook(lambda gradient: self.seen.append(self.products.fp32_precision))
        return x.mean() - y.mean()


@pytest.mark.parametrize(("additive", "expected"), [(False, "ieee"), (True, "tf32")])
def test_gradients_of_distances_have_true_products_and_critics_what_the_user_set(
    additive, expected, products
):
    by_flag()
    divergence = Recording(products, additive)
    objective = Objective(Matching("divergence", divergence), only=True)
    x, y = pretended(torch.ones(4, 2)).requires_grad_(), pretended(torch.zeros(4, 2))
    _, (gradient, _) = objective.gradient((x, y), Batch(x, Draws(0, 0, 4)), 3.0)
    assert divergence.seen == [expected]
    torch.testing.assert_close(Tensor(gradient), torch.full((4, 2), 3 / 8))
    assert products.fp32_precision == "tf32"


@pytest.mark.parametrize("recipe", zoo.RECIPES)
def test_every_recipe_trains_in_bf16_as_in_float32(recipe):
    """To a hundredth of its loss, in the order of memory that goes with it on a GPU."""
    losses = []
    for precision, order in (
        ("fp32", torch.contiguous_format),
        ("bf16", torch.channels_last),
    ):
        torch.manual_seed(0)
        model = zoo.model(recipe).train().to(memory_format=order)
        trainer = Trainer(model, TrainingConfig(precision=precision))
        losses.append([trainer.step([images()])["loss"] for _ in range(3)])
    torch.testing.assert_close(losses[1], losses[0], rtol=0.01, atol=1e-4, check_dtype=False)


# What the host waits for

READS = ("item", "__float__", "__bool__", "__int__", "__index__", "cpu", "numpy", "tolist")
BY_DIVERGENCES = {
    "wae-mmd": 7,
    "energy-ae": 7,
    "mmd-generator": 7,
    "swae": 5,
    "swg": 5,
    "swgan": 5,
    "max-swae": 10,
    "max-swg": 10,
    "gswae": 15,
    "max-gswae": 30,
    "sinkhorn-ae": 136,
    "sinkhorn-generator": 91,
    "flow-matching": 10,
}
"""Most reads that divergences make in a step, on the paths of a CPU: checks whether products
resolve the distances and whether slices are finite, sorts by NumPy; Sinkhorn also reads its error
as it iterates, and an exact coupling is an assignment on the host. The pass, the critics, the
optimisers and the trainer make none."""
BY_COSTS = {"vae-bernoulli": 1}
"""The range of probabilities."""
OF_DIVERGENCES = ("/transport/", "/monge/kernels", "/monge/divergences.py", "/promotion.py")


@pytest.fixture
def count_reads(monkeypatch):
    """Counts the reads of tensors by who makes them: `divergence`, `cost`, or the file's name."""

    def count() -> Counter[str]:
        counts: Counter[str] = Counter()

        def wrapped(original):
            def call(self, *args, **kwargs):
                files = [frame.filename for frame in traceback.extract_stack()]
                if any(file.endswith("/monge/costs.py") for file in files):
                    counts["cost"] += 1
                elif any(name in file for file in files for name in OF_DIVERGENCES):
                    counts["divergence"] += 1
                else:
                    ours = [file for file in files if "/monge/" in file]
                    counts[ours[-1] if ours else "test"] += 1
                return original(self, *args, **kwargs)

            return call

        for name in READS:
            monkeypatch.setattr(Tensor, name, wrapped(getattr(Tensor, name)))
        return counts

    return count


def stepped(recipe: str, device: str = "cpu") -> tuple[Trainer, Tensor]:
    """A trainer that treats its device as an accelerator, between two logged steps."""
    model = zoo.model(recipe).to(device).train()
    trainer = Trainer(model, TrainingConfig(log_every=1000), device=device)
    trainer.checks_every_step = False
    x = images().to(device)
    for _ in range(2):
        trainer.step([x])
    return trainer, x


@pytest.mark.parametrize("recipe", zoo.RECIPES)
def test_a_step_between_logged_ones_reads_nothing_of_the_device(recipe, device, count_reads):
    """On a GPU by torch's own watch over synchronisation, where divergences read nothing either;
    on a CPU by counting."""
    trainer, x = stepped(recipe, device)
    if device == "cuda":
        if recipe in BY_DIVERGENCES or recipe in BY_COSTS:
            pytest.skip("its divergence or its cost reads")
        torch.cuda.set_sync_debug_mode("error")
        try:
            trainer.step([x])
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return
    counts = count_reads()
    trainer.step([x])
    assert counts.pop("divergence", 0) <= BY_DIVERGENCES.get(recipe, 0)
    assert counts.pop("cost", 0) == BY_COSTS.get(recipe, 0)
    assert not counts


LOUD = BY_DIVERGENCES.keys() | BY_COSTS.keys()
SILENT = [name for name in zoo.RECIPES if name not in LOUD or name in zoo.BY_SAMPLE]
OPTIONS = pytest.mark.parametrize("options", [{}, {"micro_batch": 5}, {"ema": 0.9, "clip": 1.0}])


def copies_that_wait(monkeypatch) -> list[str]:
    """Who copies from the host to a device otherwise than by `to_device`, which does not wait."""
    files, to, copy = [], Tensor.to, Tensor.copy_

    def noted(source: Tensor, made: Tensor) -> Tensor:
        caller = traceback.extract_stack()[-3].filename
        if source.device.type == "cpu" and made.is_meta and caller != devices.__file__:
            files.append(caller)
        return made

    monkeypatch.setattr(Tensor, "to", lambda x, *args, **named: noted(x, to(x, *args, **named)))
    monkeypatch.setattr(Tensor, "copy_", lambda x, source: noted(source, copy(x, source)))
    return files


@OPTIONS
@pytest.mark.parametrize("recipe", SILENT)
def test_a_step_stays_on_a_device_whose_tensors_cannot_be_read(recipe, options, monkeypatch):
    """On torch's meta device, which has neither autocast nor fused optimisers."""
    adam = torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda *args, fused, **named: adam(*args, **named))
    monkeypatch.setattr(torch, "autocast", lambda *args, **named: contextlib.nullcontext())
    model = zoo.model(recipe, **zoo.BY_SAMPLE.get(recipe, {})).to("meta").train()
    trainer = Trainer(model, TrainingConfig(log_every=1000, **options), device="meta")
    x, waited = images().to("meta"), copies_that_wait(monkeypatch)
    for _ in range(2):
        terms = trainer.step([x, x])
    assert not waited
    assert all(value.is_meta for value in terms.values())
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        read(terms)


def test_a_logged_step_reads_its_terms_once(count_reads):
    trainer, x = stepped("vae")
    trainer.position = 999
    counts = count_reads()
    terms = trainer.step([x])
    assert sum(counts.values()) == 1
    read(terms)
    assert sum(counts.values()) == 2


def test_reads_on_a_cpu_stay_at_every_step(count_reads):
    trainer, x = stepped("vae")
    trainer.checks_every_step = Trainer(zoo.model("vae")).checks_every_step
    counts = count_reads()
    trainer.step([x])
    assert sum(counts.values()) == 1


def test_an_accelerator_notices_terms_that_are_not_finite_at_the_next_logged_step():
    trainer = Trainer(zoo.model("vae"), TrainingConfig(log_every=3))
    x = images()
    x[0] = float("inf")
    trainer.checks_every_step = False
    trainer.step([x])
    trainer.step([x])
    with pytest.raises(FailedRun, match=r"step 3: the term 'reconstruction' is (nan|inf)"):
        trainer.step([x])


# Data


@pytest.mark.parametrize("options", [{}, {"inner_steps": 3}, {"inner_first": (2, 4)}])
def test_batches_loaded_ahead_are_those_that_are_fetched(options, device):
    model = zoo.model("gan").to(device)
    trainer = Trainer(model, TrainingConfig(batch=4, **options), device=device)
    samples, batches = images(18), Batches(18, 4, 0)
    prefetcher = Prefetcher(trainer, samples, batches)
    for position in (0, 1, 2, 3, 4, 5, 9, 10, 2):  # also after a jump
        trainer.position = position
        expected = loop.fetch(trainer, samples, batches)
        found = prefetcher.fetch()
        assert len(found) == len(expected)
        assert all(map(torch.equal, found, expected))
        assert all(x.device.type == device for x in found)
    prefetcher.close()


def test_an_error_while_loading_ahead_ends_the_step():
    trainer, batches = Trainer(zoo.model("gan"), TrainingConfig(batch=4)), Batches(18, 4, 0)
    prefetcher = Prefetcher(trainer, images(1), batches)
    with pytest.raises(IndexError):
        prefetcher.fetch()
    prefetcher.close()


def test_a_training_from_data_on_the_host_has_the_same_bits(tmp_path, monkeypatch):
    options = {"ema": 0.9, "patience": 50, "pretrain": 2, "pretrain_batch": 30}
    runs = [fit(data=table(), config=config(12, **options), out=tmp_path / "a", quiet=True)]
    used = []

    def ahead(trainer, samples, batches):
        used.append(Prefetcher(trainer, samples, batches))
        return contextlib.nullcontext(used[-1].fetch)

    monkeypatch.setattr(loop, "batches_of", ahead)
    runs.append(fit(data=table(), config=config(12, **options), out=tmp_path / "b", quiet=True))
    used[0].close()
    one, two = (run.model.state_dict() for run in runs)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_data_stay_on_a_device_where_they_take_at_most_half_of_what_is_free(monkeypatch):
    samples, cuda = torch.zeros(1000), torch.device("cuda")
    for free, expected in ((8000, True), (7999, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10**9))
        assert is_resident(samples, cuda) is expected
    assert is_resident(samples, torch.device("cpu"))


# Memory


def failing_at(call: int, error: Exception, monkeypatch) -> None:
    """Makes a pass through the networks fail."""
    original, calls = Network.__call__, []

    def passed(self, *given):
        calls.append(0)
        if len(calls) == call:
            raise error
        return original(self, *given)

    monkeypatch.setattr(Network, "__call__", passed)


OUT = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    MemoryError("Unable to allocate 9 GiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT)
def test_memory_that_runs_out_ends_the_run_which_goes_on_with_parts(error, tmp_path, monkeypatch):
    whole = fit(data=table(), config=config(6), out=tmp_path / "whole", quiet=True)
    options = {"checkpoint_seconds": 1e-9, "log_every": 1}
    with monkeypatch.context() as patch:
        failing_at(5, error, patch)
        with pytest.raises(FailedRun) as stop:
            fit(data=table(), config=config(6, **options), out=tmp_path / "run", quiet=True)
    message = str(stop.value)
    assert message.startswith("step 5: out of memory with 20 of a batch of 20 samples at once")
    assert "()" not in message
    assert "--micro-batch 5 computes the same gradient" in message
    assert "\n" not in message
    given = config(6, micro_batch=5, **options)
    run = fit(data=table(), config=given, out=tmp_path / "run", resume=True, quiet=True)
    rows = run.metrics()
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["loss"] == pytest.approx(whole.metrics()[-1]["loss"], rel=1e-4)


def test_the_command_line_ends_with_one_line_and_code_1(capsys, monkeypatch, tmp_path):
    failing_at(3, OUT[0], monkeypatch)
    arguments = ["--steps", 5, "--out", tmp_path / "run", *TINY]
    code, _, err = run(capsys, monkeypatch, "train", "vae", *arguments)
    assert code == 1
    assert err.count("\n") == 1
    assert err.startswith(
        "monge: error: step 3: out of memory with 300 of a batch of 300 samples at once "
        "(CUDA out of memory): --micro-batch 75 "
    )


def test_memory_that_runs_out_outside_a_training_is_told_in_one_line(
    capsys, monkeypatch, tmp_path
):
    def full(*_):
        raise OUT[0]

    fit(data=table(), config=config(2), out=tmp_path / "run", quiet=True)
    monkeypatch.setattr(type(load(tmp_path / "run")), "decode", full)
    arguments = ["sample", tmp_path / "run", "-n", 4, "--out", tmp_path / "z.npy"]
    code, _, err = run(capsys, monkeypatch, *arguments)
    assert (code, err) == (
        1,
        "monge: error: out of memory (CUDA out of memory): ask for fewer samples at a time\n",
    )


def test_memory_that_runs_out_before_the_first_step_is_told_as_well(tmp_path, monkeypatch):
    def full(*args, **named):
        raise OUT[0]

    monkeypatch.setattr(preparing, "Trainer", full)
    with pytest.raises(FailedRun, match=r"^step 0: out of memory with 20 of a batch of 20"):
        fit(data=table(), config=config(), out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("processes", "micro_batch", "words"),
    [
        (1, None, "with 100 of a batch of 100 .*--micro-batch 25 "),
        (1, 8, "with 8 of a batch of 100 .*--micro-batch 2 "),
        (4, None, "with 25 of a batch of 100 .*--micro-batch 6 "),
        (1, 1, "with 1 of a batch of 100 .*: start a run with a smaller --batch or smaller net"),
    ],
)
def test_the_way_out_is_a_quarter_of_what_a_process_passes(
    processes, micro_batch, words, monkeypatch
):
    monkeypatch.setattr(memory, "world", lambda: (0, processes))
    with pytest.raises(FailedRun, match=words), running_out(3, 100, micro_batch):
        raise OUT[0]


def test_an_error_that_quotes_it_is_left_as_it_is():
    quoting = FailedRun("step 3: out of memory (can't allocate memory)")
    with pytest.raises(FailedRun) as stop, running_out(4, 10, None):
        raise quoting
    assert stop.value is quoting


def test_other_errors_are_not_taken_for_it():
    with pytest.raises(RuntimeError, match=r"^shapes$"), running_out(1, 10, None):
        raise RuntimeError("shapes")


# Channels-last


@pytest.mark.parametrize("recipe", zoo.RECIPES)
def test_channels_last_networks_train_as_others(recipe):
    """In float64, where a sum in another order differs by little."""
    found = []
    for order in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model = zoo.model(recipe).double().train().to(memory_format=order)
        trainer = Trainer(model, TrainingConfig())
        found.append([trainer.step([images().double()])["loss"] for _ in range(3)])
        if order is torch.channels_last and hasattr(model, "decoder"):
            kept = [p for p in model.decoder.parameters() if p.ndim == 4]
            assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kept)
    torch.testing.assert_close(found[1], found[0], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("recipe", "last"), [("wae-mmd", True), ("flow-matching", False)])
def test_a_cpu_takes_channels_last_where_no_group_is_normalised(recipe, last):
    asked = Config.of(recipe)
    source = given(images().numpy(), asked.data)
    model = preparing.model_of(None, asked, settle(asked, source), "cpu")
    wide = [p for p in model.parameters() if p.ndim == 4 and min(p.shape) > 1]
    assert wide
    assert all(p.is_contiguous(memory_format=torch.channels_last) == last for p in wide)


def test_checkpoints_pass_between_orders_of_memory():
    """The optimiser's state takes the strides of the parameters, as fused optimisers need."""
    orders = torch.contiguous_format, torch.channels_last
    trainers = []
    for order in orders:
        torch.manual_seed(0)
        model = zoo.model("wae-mmd").double().train().to(memory_format=order)
        trainers.append(Trainer(model, TrainingConfig()))
    plain, last = trainers
    plain.step([images().double()])
    weights = {name: z.clone() for name, z in plain.model.state_dict().items()}
    last.restore(weights, {name: z.clone() for name, z in plain.state().items()}, 1)
    for parameter in last.outer.param_groups[0]["params"]:
        for name in ("exp_avg", "exp_avg_sq"):
            assert last.outer.state[parameter][name].stride() == parameter.stride()
    one, two = (trainer.step([images().double()])["loss"] for trainer in trainers)
    torch.testing.assert_close(two, one, rtol=1e-10, atol=0)
    load_state(plain.optimisers, last.state())
    for parameter in plain.outer.param_groups[0]["params"]:
        assert plain.outer.state[parameter]["exp_avg"].stride() == parameter.stride()


# Copies


def test_copies_within_the_host_are_none():
    x = torch.ones(3)
    assert devices.to_device(x, torch.device("cpu")) is x
