"""Laws that every distance between samples obeys, whatever its estimator: one table, many laws."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from zoo import DISTANCES, seeded

ALL = pytest.mark.parametrize("name", DISTANCES)


def pair(n, m, d, seed, dtype=torch.float64):
    random = seeded(seed)
    x = torch.randn(n, d, dtype=torch.float64, generator=random)
    y = 1.3 * torch.randn(m, d, dtype=torch.float64, generator=random) + 0.4
    return x.to(dtype), y.to(dtype)


SIZES = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(0, 10**6))


def as_if_unscaled(law, scale, dtype):
    """The value at scaled samples in units of the scale, and the value at the samples."""
    x, y = pair(6, 5, 3, 0, dtype)
    ours = law.value(scale * x, scale * y, scale).detach()
    # in parts, since a power of the scale may be no number
    for _ in range(int(law.degree)):
        ours = ours / scale
    return float(ours), float(law.value(x, y, 1.0).detach())


@ALL
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e30])
def test_scales_in_float64(name, scale):
    ours, expected = as_if_unscaled(DISTANCES[name], scale, torch.float64)
    assert ours == pytest.approx(expected, rel=1e-6)


@ALL
@pytest.mark.parametrize("scale", [1e-15, 1e-4, 1e4, 1e15])
def test_scales_in_float32(name, scale):
    if DISTANCES[name].degree > 2 and scale in (1e-15, 1e15):
        pytest.skip("the value itself is beyond float32")
    ours, expected = as_if_unscaled(DISTANCES[name], scale, torch.float32)
    assert ours == pytest.approx(expected, rel=1e-3)


@ALL
@given(SIZES)
def test_never_negative_symmetric_and_blind_to_order(name, sizes):
    n, m, d, seed = sizes
    law = DISTANCES[name]
    x, y = pair(n, m, d, seed)
    ours = float(law.value(x, y, 1.0).detach())
    assert ours >= -1e-6
    if law.symmetric:
        assert float(law.value(y, x, 1.0).detach()) == pytest.approx(ours, rel=1e-3, abs=1e-6)
    if law.exchangeable:
        assert float(law.value(x.flip(0), y.flip(0), 1.0).detach()) == pytest.approx(
            ours, rel=1e-3, abs=1e-6
        )


@ALL
@given(SIZES)
def test_zero_with_gradient_zero_between_a_sample_and_itself(name, sizes):
    n, _, d, seed = sizes
    law = DISTANCES[name]
    if not law.zero:
        pytest.skip("entropic transport is biased, and Gromov-Wasserstein a local optimum")
    x, _ = pair(n, n, d, seed)
    x = torch.cat([x, x[:1]]).requires_grad_()
    value = law.value(x, x.detach().clone(), 1.0)
    (gradient,) = torch.autograd.grad(value, x)
    assert abs(float(value.detach())) < 1e-5
    assert torch.isfinite(gradient).all()


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_point_or_one_place_has_finite_gradients(name, dtype):
    for x, y in (
        (torch.zeros(1, 2, dtype=dtype), torch.ones(1, 2, dtype=dtype)),
        (torch.zeros(4, 2, dtype=dtype), torch.ones(3, 2, dtype=dtype)),
        (torch.zeros(4, 1, dtype=dtype), torch.zeros(3, 1, dtype=dtype)),
    ):
        value = DISTANCES[name].value(x.requires_grad_(), y, 1.0)
        (gradient,) = torch.autograd.grad(value, x, allow_unused=True)
        assert torch.isfinite(value)
        assert gradient is None or torch.isfinite(gradient).all()


@ALL
def test_translation_of_both_changes_nothing(name):
    x, y = pair(6, 6, 3, 1)
    value = DISTANCES[name].value
    moved, expected = value(x + 1e3, y + 1e3, 1.0), value(x, y, 1.0)
    assert float(moved.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


@ALL
@pytest.mark.parametrize("bad", ["empty", "nan", "infinite", "dimension", "complex", "device"])
def test_bad_samples_are_named(name, bad):
    x, y = pair(4, 4, 2, 0)
    y = {
        "empty": y[:0],
        "nan": y.index_fill(0, torch.tensor(1), float("nan")),
        "infinite": y.index_fill(0, torch.tensor(1), float("inf")),
        "dimension": y[:, :1],
        "complex": torch.zeros(4, 2, dtype=torch.complex64),
        "device": y.to("meta"),
    }[bad]
    if name.startswith(("line", "gromov")) and bad in ("dimension", "complex", "device", "empty"):
        pytest.skip("not between points: its own tests say what it refuses")
    if "weighted" in name and bad in ("complex", "empty"):
        pytest.skip("the weights of this table are refused first")
    if name in ("sliced-gromov",) and bad == "dimension":
        pytest.skip("its spaces may have unlike dimensions")
    if name == "energy" and bad in ("nan", "infinite"):
        pytest.skip("divergences meet them in training, where they are told with the step")
    with pytest.raises(ValueError, match=r"`(x|y|u|v|cx|cy)`"):
        DISTANCES[name].value(x, y, 1.0)
