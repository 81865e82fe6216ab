"""Figures of single columns of a table, against independent computations."""

import json
import time

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

import monge
from monge.config import Column, Config, NetworkConfig, Schema, TrainingConfig
from monge.data import Source
from monge.data.readers.arrays import from_array
from monge.evaluation.figures import lines
from monge.evaluation.marginals import Marginals, as_outside
from monge.evaluation.vector_measures import VectorMeasures

SCHEMA = Schema(
    (
        Column("age", "integer"),
        Column("sex", "category", ("f", "m", "x")),
        Column("income", "float", decimals=2, fill=3.0),
        Column("wave", "integer", constant=7),
        Column("height", "float"),
    )
)


def elements(n: int, seed: int, share: float) -> torch.Tensor:
    """Noisy elements of n rows, as a decoder makes them; `share` of sex is x."""
    g = np.random.default_rng(seed)
    sex = np.eye(3)[g.choice(3, n, p=[0.5 - share, 0.5, share])] + g.normal(0, 0.1, (n, 3))
    age, height = g.normal(40, 10, n), g.normal(170, 8, n)
    income, missing = g.normal(3, 1, n) + 0.05 * age, g.random(n)
    columns = [age, *sex.T, income, missing, np.full(n, 7.2), height]
    return torch.from_numpy(np.stack(columns, 1)).float()


@pytest.fixture(scope="module")
def source():
    train, test = (as_outside(SCHEMA, elements(n, n, 0.1)) for n in (500, 200))
    return Source("people", "vector", train, test, schema=SCHEMA)


def test_elements_as_outside_are_those_of_the_decoded_table():
    x = elements(300, 0, 0.2)
    expected = SCHEMA.encode(SCHEMA.decode(x))
    found = as_outside(SCHEMA, x)
    np.testing.assert_allclose(found, expected, rtol=1e-7)
    assert torch.equal(as_outside(SCHEMA, found), found)


def test_marginals_are_those_of_the_decoded_tables(source):
    drawn = elements(150, 5, 0.3)
    figures = Marginals(source, source.test)(drawn)
    x, y = SCHEMA.decode(drawn), SCHEMA.decode(source.test)
    deviation = dict(zip(SCHEMA.elements, source.train.double().std(0, correction=0).tolist()))
    w1 = {
        name: wasserstein_distance(x[name].fill_null(3.0), y[name].fill_null(3.0))
        / (deviation[name] or 1.0)
        for name in ("age", "income", "wave", "height")
    }
    for name, value in w1.items():
        assert figures[f"W1 of {name}"] == pytest.approx(value, rel=1e-4, abs=1e-6)
    shares = [abs((x["sex"] == v).mean() - (y["sex"] == v).mean()) for v in "fmx"]
    assert figures["TV of sex"] == pytest.approx(sum(shares) / 2, rel=1e-5)
    missing = abs(x["income"].null_count() / 150 - y["income"].null_count() / 200)
    assert figures["TV of income missing"] == pytest.approx(missing, rel=1e-5)
    assert figures["mean W1 of columns"] == pytest.approx(np.mean([*w1.values()]), rel=1e-4)
    assert figures["mean TV of columns"] == pytest.approx((sum(shares) / 2 + missing) / 2)


def test_the_correlation_gap_is_the_worst_of_pairs_of_columns(source):
    drawn = elements(150, 5, 0.3)
    x, y = (SCHEMA.encode(SCHEMA.decode(z)) for z in (drawn, source.test))
    with np.errstate(invalid="ignore"):
        gaps = np.abs(np.corrcoef(x.T) - np.corrcoef(y.T))
    for block in SCHEMA.blocks:
        gaps[block, block] = 0.0
    figures = Marginals(source, source.test)(drawn)
    assert figures["worst correlation gap"] == pytest.approx(np.nanmax(gaps), rel=1e-4)


def test_a_perfect_model_has_the_floor_and_a_broken_one_has_not(source):
    """Labels are compared, not shares: half of a category is not a label."""
    measure = VectorMeasures(source, source.test, ["columns", "exact"])
    right = measure([source.test], 200)
    assert right["mean W1 of columns"] == pytest.approx(0, abs=1e-6)
    assert right["worst correlation gap"] == pytest.approx(0, abs=1e-5)
    soft = source.test.clone()
    soft[:, 1:4] = 0.4 * soft[:, 1:4] + 0.2
    assert measure([soft], 200) == right
    soft[:, 1:4] = soft[:, [2, 3, 1]]
    assert measure([soft], 200)["TV of sex"] > 0.3


def test_arrays_are_named_by_their_columns_and_the_worst_are_printed(tmp_path):
    x = np.random.default_rng(0).normal(size=(300, 8))
    config = Config(network=NetworkConfig(hidden=(16,)), training=TrainingConfig(steps=5))
    run = monge.fit("vae", x, config, tmp_path / "run", quiet=True)
    result = run.evaluate(seeds=2)
    assert set(result["columns"]) == {f"W1 of column {i}" for i in range(8)}
    assert all(f["floor"] > 0 and f["deviation"] > 0 for f in result["columns"].values())
    assert not any(name.startswith("W1 of ") for name in result["figures"])
    shown = "\n".join(lines(result))
    worst = max(result["columns"], key=lambda name: result["columns"][name]["value"])
    assert f"| {worst} |" in shown
    assert shown.count("| W1 of column") == 5
    assert "| 3 more of single columns, in evaluation.json |" in shown
    assert json.loads((run.path / "evaluation.json").read_text()) == result


def test_names_do_not_break_the_table():
    figure = {"value": 1.0, "deviation": None, "floor": 0.5}
    rows = lines({"figures": {}, "columns": {"W1 of a|b\nc": figure}})
    assert rows[2] == "| W1 of a\\|b c | 1 | – | 0.5 |"


def test_five_thousand_columns_take_seconds():
    g = torch.Generator().manual_seed(0)
    source = from_array(torch.randn(4000, 5000, generator=g).numpy())
    began = time.process_time()
    measure = Marginals(source, source.test)
    for part in (source.train[:2000], source.train[2000:]):
        assert measure(part)["worst correlation gap"] > 0
    assert time.process_time() - began < 30
