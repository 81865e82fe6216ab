"""Models take samples and codes of any floating dtype in their own, and refuse all else by name;
labels of tables and names on the command line are read as they are meant."""

import sys
import warnings

import numpy as np
import pytest
import torch

from monge.cli import main
from monge.config import DataConfig
from monge.costs import SquaredL2
from monge.data.readers.cells import one_spelling
from monge.data.readers.tables import read
from monge.divergences import EnergyDistance
from monge.models import WAE
from monge.networks import mlp
from monge.networks.mlp import Standardise, Unstandardise
from monge.priors import Gaussian

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
DOORS = {
    "encode": (lambda model, x: model.encode(x).mean, 3, "x"),
    "reconstruct": (lambda model, x: model.reconstruct(x), 3, "x"),
    "decode": (lambda model, z: model.decode(z), 2, "z"),
}


@pytest.fixture(params=[torch.float32, torch.float64])
def model(request):
    torch.manual_seed(0)
    made = WAE(
        mlp([3, 8, 2]), mlp([2, 8, 3]), Gaussian(2), EnergyDistance(), cost=SquaredL2(), weight=1.0
    )
    return made.to(request.param).eval()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("door", DOORS)
def test_a_model_computes_in_the_dtype_of_its_parameters(model, door, dtype):
    function, dim, _ = DOORS[door]
    own = next(model.parameters()).dtype
    given = torch.randn(5, dim, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = function(model, given)
    assert found.dtype == own
    assert torch.equal(found, function(model, given.to(own)))


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64, torch.bool])
@pytest.mark.parametrize("door", DOORS)
def test_what_are_no_floating_point_numbers_is_refused(model, door, kind):
    function, dim, name = DOORS[door]
    with pytest.raises(ValueError, match=f"^`{name}` must be a tensor of floating point numbers"):
        function(model, torch.ones(5, dim).to(kind))
    with pytest.raises(ValueError, match=f"^`{name}` must be .* got ndarray"):
        function(model, np.ones((5, dim)))


LABELS = {
    "equal numbers": (["1", "01", "1.0", "2", "+2"], ["1", "1", "1", "2", "2"], 2),
    "numbers of one spelling": (["1.0", "2.0", "1.0"], ["1.0", "2.0", "1.0"], 0),
    "codes beside names": (["1", "01", "a"], ["1", "01", "a"], 0),
    "large numbers": (["9007199254740993", "9007199254740992"], None, 0),
    "exponents": (["1e2", "100"], ["100", "100"], 1),
    "not numbers": (["nan", "inf", "1_0"], None, 0),
}


@pytest.mark.parametrize("case", LABELS)
def test_equal_numbers_are_one_class_where_all_labels_are_numbers(case):
    given, expected, notes = LABELS[case]
    found, told = one_spelling(np.array(given))
    assert found.tolist() == (expected or given)
    assert len(told) == notes


def test_a_table_says_which_labels_are_one_class(tmp_path):
    path = tmp_path / "t.csv"
    labels = ["1", "01", "2"] * 10
    rows = (f"{i},{i + 1}.5,{label}\n" for i, label in enumerate(labels))
    path.write_text("u,v,label\n" + "".join(rows))
    with pytest.warns(UserWarning, match="labels 1, 01 are one class"):
        table = read(path, DataConfig())
    assert sorted(set(table.labels)) == ["1", "2"]


@pytest.mark.parametrize(("data", "near"), [("mnsit", True), ("digits", False), ("qqq", False)])
def test_a_missing_recipe_hides_no_mistyped_data(capsys, monkeypatch, data, near):
    monkeypatch.setattr(sys, "argv", ["monge", "train", "--data", data])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("monge: error: `recipe` is missing")
    assert said.count("\n") == 1
    assert ("did you mean mnist?" in said) == near


@pytest.mark.parametrize("door", ["encode", "reconstruct"])
def test_units_of_a_table_keep_the_digits_of_its_numbers(door):
    """Numbers about an offset that float32 does not hold beside them."""
    table = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    codes = []
    for offset in (0.0, 1e9):
        torch.manual_seed(0)
        moments = torch.full((3,), offset, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
        encoder = torch.nn.Sequential(Standardise(*moments), mlp([3, 8, 2]))
        decoder = torch.nn.Sequential(mlp([2, 8, 3]), Unstandardise(*moments))
        made = WAE(
            encoder, decoder, Gaussian(2), EnergyDistance(), cost=SquaredL2(), weight=1.0
        ).eval()
        found = DOORS[door][0](made, table + offset)
        codes.append(found - offset if door == "reconstruct" else found)
    torch.testing.assert_close(*codes, rtol=1e-5, atol=1e-6)


def test_a_constant_of_another_dtype_widens_no_samples(model):
    """The encoder's own dtype is that of its parameters, whatever else it holds."""
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).to(
        next(model.parameters()).dtype
    )
    expected = model.encode(x).mean
    model.encoder.register_buffer("constant", torch.ones(2, dtype=torch.float64))
    assert torch.equal(model.encode(x).mean, expected)
    assert torch.equal(model.encode(x.bfloat16()).mean, model.encode(x.bfloat16().to(x)).mean)
