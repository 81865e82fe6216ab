"""Values that float32, or even float64, does not resolve: timestamps and map coordinates.

Each path from a file or an array to a distance, a model or a file of samples keeps them apart, or
says in a line that it cannot.
"""

import json
import sys

import numpy as np
import pytest
import torch

import monge
from monge import cli
from monge.config import Config, override
from monge.data.readers.arrays import from_array, load
from monge.data.source import Source

NANOSECONDS = 1_700_000_000_000_000_000


def command(monkeypatch, capsys, *argv):
    """The exit code, stdout and stderr of `monge` with arguments."""
    monkeypatch.setattr(sys, "argv", ["monge", *map(str, argv)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return (stop.value.code, *capsys.readouterr())


def hour(n=450):
    """Every eighth second of an hour, a map coordinate, and an ordinary column."""
    rng = np.random.default_rng(0)
    place = 48.8566 + 1e-5 * rng.permutation(n)
    return np.stack([1.7e9 + 8 * np.arange(n), place, rng.normal(size=n)], 1)


def written(table, folder, suffix):
    path = folder / f"table{suffix}"
    if suffix == ".npy":
        np.save(path, table)
    elif suffix == ".npz":
        np.savez(path, x=table)
    else:
        np.savetxt(path, table, delimiter=",", fmt="%.10g" if table.dtype.kind == "f" else "%d")
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv"])
@pytest.mark.parametrize("method", ["exact", "w1", "sliced", "sinkhorn", "energy", "gromov"])
def test_distances_of_nanoseconds_are_those_of_the_offsets(
    method, suffix, tmp_path, monkeypatch, capsys
):
    """W_p of a shift by 40 is 40; the others are those of the same integers without the offset."""
    values = []
    for offset in (0, NANOSECONDS):
        x = offset + np.arange(100)[:, None]
        paths = []
        for name, table in (("a", x), ("b", x + 40)):
            (folder := tmp_path / f"{offset} {name}").mkdir()
            paths.append(written(table, folder, suffix))
        argv = ("distance", *paths, "--method", method, "--json")
        code, out, err = command(monkeypatch, capsys, *argv)
        assert (code, err) == (0, "")
        values.append(json.loads(out)["value"])
    assert values[0] == pytest.approx(values[1], rel=1e-9, abs=1e-9)
    if method in ("exact", "w1", "sliced"):
        assert values[1] == pytest.approx(40, rel=1e-12)


def test_distances_that_see_the_origin_refuse_nanoseconds(tmp_path, monkeypatch, capsys):
    path = written(NANOSECONDS + np.arange(100)[:, None], tmp_path, ".npy")
    floats = tmp_path / "floats.npy"
    np.save(floats, np.arange(100.0)[:, None])
    for argv in ((path, path, "--method", "gsliced"), (floats, path)):
        code, out, err = command(monkeypatch, capsys, "distance", *argv)
        assert (code, out) == (2, "")
        assert "integers beyond 2^53" in err
        assert "subtract one offset" in err


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv"])
def test_a_table_of_timestamps_keeps_them_apart(suffix, tmp_path):
    source = load(written(hour(), tmp_path, suffix), Config().data)
    assert source.train.dtype == source.test.dtype == torch.float64
    both = torch.cat([source.train, source.test])
    assert [len(both[:, k].unique()) for k in range(2)] == [450, 450]
    integers = load(written(hour()[:, :1].astype(np.int64), tmp_path, suffix), Config().data)
    assert len(torch.cat([integers.train, integers.test]).unique()) == 450


def test_a_table_that_float32_resolves_has_the_bits_it_had():
    """Among them integers that are exact in float32, whatever their offset."""
    rng = np.random.default_rng(0)
    table = np.stack([100 + 10 * rng.normal(size=50), rng.integers(2000, 2025, 50)], 1)
    for array in (table, table.astype(np.float32), table.astype(np.float32).astype(np.float64)):
        source = from_array(array)
        assert source.train.dtype == torch.float32
        both = torch.cat([source.train, source.test]).numpy()
        assert {r.tobytes() for r in both} == {r.tobytes() for r in array.astype(np.float32)}
    offset = (2.0**20 + rng.normal(size=(50, 1))).astype(np.float32)
    assert from_array(offset).train.dtype == torch.float32


def test_integers_that_float64_does_not_resolve_are_refused(tmp_path):
    table = NANOSECONDS + np.arange(450)[:, None]
    mixed = tmp_path / "mixed.csv"
    mixed.write_text("".join(f"{row[0]},0.5\n" for row in table))
    for refused in (lambda: from_array(table), lambda: load(mixed, Config().data)):
        with pytest.raises(ValueError, match=r"column 0 .* float64 can resolve: subtract"):
            refused()
    spread = from_array(NANOSECONDS + 8_000_000_000 * np.arange(450)[:, None])
    assert len(torch.cat([spread.train, spread.test]).unique()) == 450
    clouds = NANOSECONDS + np.arange(10 * 20 * 3).reshape(10, 20, 3)
    with pytest.raises(ValueError, match=r"integers beyond 2\^53"):
        from_array(clouds)


@pytest.mark.parametrize("recipe", ["wae-mmd", "vae", "swg"])
def test_a_model_of_timestamps_samples_and_reconstructs_in_float64(
    recipe, tmp_path, monkeypatch, capsys
):
    """The run is of the standard units: the samples' deviation is of the column's order."""
    path = written(hour(), tmp_path, ".csv")
    config = override(override(Config.of(recipe), "training.steps", 60), "network.hidden", (16,))
    run = monge.fit(recipe, path, config, out=tmp_path / "run", quiet=True)
    assert run.settled.float64
    verbs = [("sample", "-n", 100)] + [("reconstruct", "-n", 40)] * (recipe != "swg")
    for verb, *more in verbs:
        out = tmp_path / f"{verb}.npy"
        code, _, err = command(monkeypatch, capsys, verb, tmp_path / "run", "--out", out, *more)
        assert (code, err) == (0, "")
        made = np.load(out)
        assert made.dtype == np.float64
        assert len(np.unique(made[:, 0])) == len(made)
        assert abs(made[:, 0].mean() - 1.7e9) < 4000
        assert made[:, 0].std() < 4000
    again = monge.load(tmp_path / "run")
    first, second = (m.sample(5, torch.Generator().manual_seed(0)) for m in (run.model, again))
    assert torch.equal(first, second)


def test_the_losses_of_a_shifted_table_are_those_of_the_table(tmp_path):
    """Standard units do not see an offset."""
    table = np.random.default_rng(0).normal(size=(200, 3)).round(3)
    losses = []
    for name, offset in (("plain", 0.0), ("shifted", 1e7)):
        config = override(Config.of("wae-mmd"), "training.steps", 20)
        config = override(config, "data.split", "position")  # their contents are others
        run = monge.fit("wae-mmd", table + offset, config, out=tmp_path / name, quiet=True)
        losses.append(run.metrics()[-1]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_run_that_was_started_in_float32_keeps_it():
    x = torch.rand(5, 2, dtype=torch.float64)
    source = Source("x", "vector", x, x).single()
    assert source.train.dtype == source.test.dtype == torch.float32
    assert source.single() is source


@pytest.mark.parametrize("offset", [0.0, 1.7e9])
def test_a_model_of_a_table_is_exported_to_torch(offset, tmp_path, monkeypatch, capsys):
    """Its encoder and decoder have moments of their own, which torch.export tells apart."""
    table = offset + np.random.default_rng(0).normal(size=(200, 2))
    path = written(table, tmp_path, ".npy")
    config = override(Config.of("wae-mmd"), "training.steps", 3)
    run = monge.fit("wae-mmd", path, config, out=tmp_path / "run", quiet=True)
    out = tmp_path / "model.pt2"
    code, _, err = command(monkeypatch, capsys, "export", tmp_path / "run", "--out", out)
    assert (code, err) == (0, "")
    decoder = torch.export.load(tmp_path / "model.decoder.pt2").module()
    code = torch.zeros(5, run.settled.latent)
    assert torch.equal(decoder(code=code)[0], run.model.eval().decode(code))
