"""Two processes are one: gathered samples, batch moments and gradients of the global batch."""

import itertools
import json
import os
import socket
import subprocess
import sys
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import zoo
from safetensors.torch import load_file, save_file
from test_matchings import SIZE, TwoMatchings
from torch.distributed.tensor import DTensor

from monge import fit
from monge._core.processes import gather
from monge.adversarial import JensenShannon
from monge.config import Config, TrainingConfig, override, read_config
from monge.costs import SquaredL2
from monge.divergences import MMD
from monge.draws import Draws
from monge.kernels import multiscale_imq
from monge.labels import Labelled
from monge.models import WAE
from monge.networks import BatchNorm, mlp
from monge.priors import Gaussian
from monge.runs import Run
from monge.training import Trainer, distributed
from monge.training.sharding import shard

TOTAL = 7  # uneven over two processes


def steps(count: int) -> Config:
    return override(Config(recipe="swae"), "training.steps", count)


def problem():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), BatchNorm(4), torch.nn.Linear(4, 2))
    return network.double(), torch.randn(TOTAL, 3, dtype=torch.float64)


def trained(rank: int, world: int):
    """Every weight and buffer after three steps with an additive divergence and with a gathered
    one, and those of their averages, and after three with both in one model."""
    x = torch.randn(TOTAL, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    tensors = []
    for divergence in (JensenShannon(mlp([2, 8, 1])), MMD(multiscale_imq(4.0))):
        # a bias before the normalisation has gradient 0, and Adam would scale its rounding up
        first = torch.nn.Linear(3, 4, bias=False)
        encoder = torch.nn.Sequential(first, BatchNorm(4), torch.nn.Linear(4, 2))
        wae = WAE(
            encoder, torch.nn.Linear(2, 3), Gaussian(2), divergence, cost=SquaredL2(), weight=2.0
        )
        with torch.no_grad():
            for i, p in enumerate(wae.parameters()):
                p.copy_(torch.sin(torch.arange(p.numel()) + i).view_as(p))
        trainer = Trainer(wae.double(), TrainingConfig(ema=0.5))
        for _ in range(3):
            trainer.step([x[rank::world]])
        trainer.finish_average([x[rank::world], 2 * x[rank::world]])
        tensors += [*wae.state_dict().values(), *trainer.trained.state_dict().values()]
    torch.manual_seed(0)
    model = TwoMatchings().double()
    trainer, batches = Trainer(model), torch.randn(9, TOTAL, SIZE).double()
    for step in range(3):
        trainer.step(list(batches[3 * step : 3 * step + 3, rank::world]), done=step / 3)
    return tensors + list(model.state_dict().values())


def gradients(rank: int, world: int):
    """The gradient of MMD²(codes, prior draws) of the global batch, by this process's rows."""
    network, x = problem()
    x = x[rank::world]
    z = network(x)
    target = Draws(0, 0, TOTAL, rank=rank, world=world).normal("prior", z)
    value = MMD(multiscale_imq(4.0))(gather(z, TOTAL), gather(target, TOTAL))
    value.backward()
    parameters = [p.grad for p in network.parameters()]
    if world > 1:
        for g in parameters:
            dist.all_reduce(g)
            g /= world
    return [value.detach(), network[1].running_mean, network[1].running_var, *parameters]


def halves(rank: int, world: int):
    """The moments of rows in bfloat16, which cannot count to 601."""
    layer = BatchNorm(3)
    x = torch.randn(601, 3, generator=torch.Generator().manual_seed(1)).bfloat16()
    assert layer(x[rank::world]).dtype == torch.bfloat16
    return {"half mean": layer.running_mean, "half variance": layer.running_var}


def recipe_gradients(rank: int, world: int, how: str = ""):
    """The gradients of one step of every recipe, on images (with batch normalisation) and tables
    (without, and also class-conditional), by name."""
    config, found = TrainingConfig(micro_batch=2 if how == "micro-batches" else None), {}
    cases = (("image", (1, 8, 8), 0), ("vector", (5,), 0), ("vector", (5,), 3))
    for recipe in zoo.RECIPES:
        for kind, shape, classes in cases:
            if kind == "vector" and recipe in ("vae-bernoulli", *zoo.CONDITIONAL):
                continue
            torch.manual_seed(0)
            model = zoo.model(recipe, kind, shape, classes).double()
            x = torch.rand(TOTAL, *shape, generator=torch.Generator().manual_seed(1)).double()
            x = Labelled(x, torch.arange(TOTAL) % classes) if classes else x
            if how == "sharded":
                shard(model, "cpu")
            Trainer(model, config).step([x[rank::world]])
            for name, p in model.named_parameters():
                if p.grad is not None:
                    sharded = isinstance(p.grad, DTensor)
                    found[f"{recipe} {kind} {classes} {name}"] = (
                        p.grad.full_tensor() if sharded else p.grad
                    )
            networks = [n for name, n in model.named_children() if name in ("encoder", "decoder")]
            held = [isinstance(p, DTensor) for n in networks for p in n.parameters()]
            assert all(held) if how == "sharded" else not any(held)
    return found


def named(tensors):
    return {str(i): t.contiguous() for i, t in enumerate(tensors)}


def work(rank: int, world: int, port: int, file: str):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=world)
    found = named(gradients(rank, world) + trained(rank, world))
    found |= halves(rank, world)
    for how in ("", "micro-batches" if world == 3 else "sharded"):
        recipes = recipe_gradients(rank, world, how)
        found |= {f"{name} {how}": gradient for name, gradient in recipes.items()}
    save_file(found, f"{file}{rank}")
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)


def spawned(world: int, tmp_path):
    """What each of several processes found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (world, port, str(tmp_path / "rank")), nprocs=world)
    return [load_file(tmp_path / f"rank{rank}") for rank in range(world)]


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_have_the_gradients_and_the_training_of_one(world, tmp_path):
    """Of seven rows, so that the processes have different numbers of them: divergence, moments of
    batch normalisation, three steps of training, averages, and the gradients of every recipe; of
    two also where each holds a shard of the networks, of three where rows pass in micro-batches of
    two."""
    expected, half = named(gradients(0, 1) + trained(0, 1)), halves(0, 1)
    recipes = recipe_gradients(0, 1)
    for ours in spawned(world, tmp_path):
        torch.testing.assert_close({name: ours[name] for name in half}, half)
        torch.testing.assert_close(
            {name: ours[name] for name in expected}, expected, rtol=1e-10, atol=1e-12
        )
        for name, how in itertools.product(
            recipes, ("", "micro-batches" if world == 3 else "sharded")
        ):
            size = recipes[name].abs().max().clamp_min(1e-6)  # below is rounding, of what has none
            worst = (ours[f"{name} {how}"] - recipes[name]).abs().max() / size
            assert worst < 1e-6, (name, how, float(worst))


@pytest.mark.slow
def test_torchrun_trains_the_run_of_one_process(tmp_path):
    """The same terms in metrics.jsonl, one report, one line on stdout; and it can be resumed by
    one process."""
    argv = ["-m", "monge", "train", "wae-gan", "--batch", "7", "--seed", "3"]
    argv += ["--set", "network.filters=4,8", "training.log_every=1", "--out"]
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(*argv, str(tmp_path / "one"), "--steps", "6")
    out = run(*several, *argv, str(tmp_path / "two"), "--steps", "4")
    assert out.count("report: ") == 1
    run(*argv, str(tmp_path / "two"), "--steps", "6", "--resume")
    one, two = (Run(tmp_path / name).metrics() for name in ("one", "two"))
    assert len(one) == len(two) == 6
    for ours, theirs in zip(two, one):
        for term in ("reconstruction", "divergence", "inner", "loss"):
            assert ours[term] == pytest.approx(theirs[term], rel=1e-4)


def test_sharded_networks_train_as_whole_ones(tmp_path):
    """The same terms; the checkpoint is that of whole networks, from which either goes on."""
    argv = ["--batch", "7", "--set", "network.filters=4,8", "training.log_every=1"]
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

    def train(*more: str) -> None:
        done = subprocess.run(
            [sys.executable, *several, "-m", "monge", "train", "vae", *argv, *more],
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr

    out = tmp_path / "several"
    train("training.shard=true", "--out", str(out), "--steps", "3")
    config, _ = read_config(out)
    fit("vae", config=override(config, "training.steps", 4), out=out, resume=True, quiet=True)
    train("training.shard=true", "--out", str(out), "--steps", "6", "--resume")
    whole = override(override(config, "training.shard", False), "training.steps", 6)
    one = fit("vae", config=whole, out=tmp_path / "one", quiet=True)
    rows = Run(out).metrics()
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for ours, theirs in zip(rows, one.metrics()):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    torch.testing.assert_close(
        Run(out).model.state_dict(), one.model.state_dict(), rtol=1e-3, atol=1e-4
    )


def test_a_batch_is_not_smaller_than_the_number_of_processes(tmp_path):
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    argv = ["-m", "monge", "train", "swae", "--batch", "2", "--out", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, *several, *argv], capture_output=True, text=True)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("monge: ")]
    assert lines == [
        "monge: error: `batch` is 2, fewer samples than the 3 processes: raise it or start fewer"
    ]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("device", "cards", "backend"), [("cuda", [1], "cpu:gloo,cuda:nccl"), ("cpu", [], "gloo")]
)
def test_each_process_has_the_gpu_of_its_local_rank(device, cards, backend, monkeypatch):
    """Tensors of GPUs go by NCCL, those of the host by gloo."""
    store, used, made = dist.HashStore(), [], {}
    dist.PrefixStore("attempt 0", store).set("here 0", "")
    for name, value in {"WORLD_SIZE": 2, "LOCAL_RANK": 1, "RANK": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    monkeypatch.setattr(dist, "rendezvous", lambda *args, **named: iter([(store, 1, 2)]))
    monkeypatch.setattr(
        dist, "init_process_group", lambda name, **named: made.update(named, backend=name)
    )
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    with distributed.group(device):
        assert (used, made["backend"], made["rank"]) == (cards, backend, 1)


def test_processes_that_do_not_meet_are_named(monkeypatch, tmp_path):
    """Their port is another program's; or one of them was not started."""
    monkeypatch.setattr(distributed, "MEETING", timedelta(seconds=2))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        for name, value in (place | {"WORLD_SIZE": "2", "RANK": "0"}).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ValueError, match=r"`WORLD_SIZE` is 2, .* did not meet at 127.0.0.1"):
            fit("swae", steps(2), out=tmp_path / "run", quiet=True)
    with pytest.raises(ValueError, match=r"`WORLD_SIZE` is 2, .*: start all of them"):
        fit("swae", steps(2), out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def evaluated(*launcher: str, run) -> dict:
    argv = ["-m", "monge", "evaluate", str(run), "-n", "100", "--seeds", "2", "--metrics"]
    subprocess.run(
        [sys.executable, *launcher, *argv, "sliced", "sharpness"],
        check=True,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    found = json.loads((run / "evaluation.json").read_text())
    return {name: figure["value"] for name, figure in found["figures"].items()}


@pytest.mark.slow
def test_an_evaluation_shared_by_processes_finds_what_one_does(tmp_path):
    """To the digits that the order of sums leaves."""
    run = fit("swae", "digits", steps(5), out=tmp_path / "run", quiet=True).path
    one = evaluated(run=run)
    two = evaluated("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", run=run)
    assert two == pytest.approx(one, rel=1e-5)
