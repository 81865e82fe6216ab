"""Transport maps: scikit-learn's own checks, POT and closed forms as oracles, and their edges."""

import pickle

import numpy as np
import ot
import pytest
import torch
from frames import Frame
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from monge.maps import EntropicMap, ExactMap, LinearMap, SlicedMap, TransportMap
from monge.maps.estimator import DTYPES
from monge.transport import gaussian_map, sinkhorn, wasserstein, wasserstein_1d

MAPS = [ExactMap(), EntropicMap(), LinearMap(), SlicedMap()]
each_map = pytest.mark.parametrize("made", MAPS, ids=lambda made: type(made).__name__)


def samples(n: int = 60, m: int = 50, d: int = 2, seed: int = 0):
    """Samples of two distributions that differ in mean, scale and shape."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y = torch.randn(m, d, generator=generator, dtype=torch.float64).sinh() * 0.5 + 3
    return x, y


# scikit-learn


def second_sample(X):
    """scikit-learn's checks give a label for each row of X, where a map takes a second sample: it
    is made of X."""
    return X[::-1] if isinstance(X, np.ndarray) and X.ndim == 2 else X


class Labelled:
    """A map whose fit and score take labels, for which a second sample stands in."""

    def fit(self, X, y):
        return super().fit(X, None if y is None else second_sample(X))

    def score(self, X, y):
        return super().score(X, second_sample(X))


class LabelledExact(Labelled, ExactMap):
    pass


class LabelledEntropic(Labelled, EntropicMap):
    pass


class LabelledLinear(Labelled, LinearMap):
    pass


class LabelledSliced(Labelled, SlicedMap):
    pass


@parametrize_with_checks(
    [LabelledExact(), LabelledEntropic(), LabelledLinear(), LabelledSliced(iterations=5)]
)
def test_scikit_learns_checks(estimator, check):
    """All of them; none is expected to fail, the one of array libraries skips without them."""
    check(estimator)


@each_map
def test_in_a_pipeline_and_a_search(made):
    x, y = (z.numpy() for z in samples(40, 40))
    line = make_pipeline(StandardScaler(), clone(made)).fit(x, y)
    assert line.score(x, y) > 0.9
    parameter, values = next(iter(made.get_params().items()), (None, None))
    if parameter is not None:
        grid = {parameter: [values, 2]}
        search = GridSearchCV(clone(made), grid, cv=2).fit(x, y)
        assert search.best_score_ > 0.5


@each_map
def test_names_of_columns_and_frames(made):
    polars = pytest.importorskip("polars")
    x, y = (z.numpy() for z in samples())
    frame = polars.DataFrame(x, schema=["one", "two"], orient="row")
    fitted = clone(made).fit(frame, y).set_output(transform="polars")
    assert fitted.transform(frame).columns == ["one", "two"]
    assert list(fitted.get_feature_names_out()) == ["one", "two"]
    fitted.fit(torch.from_numpy(x), torch.from_numpy(y))
    assert not hasattr(fitted, "feature_names_in_")


@each_map
def test_columns_of_the_target_in_another_order_are_refused(made):
    polars = pytest.importorskip("polars")
    x, y = (z.numpy() for z in samples())
    source, target = (polars.DataFrame(z, schema=["one", "two"], orient="row") for z in (x, y))
    fitted, turned = clone(made).fit(source, target), target[["two", "one"]]
    for call in (
        lambda: clone(made).fit(source, turned),
        lambda: fitted.inverse_transform(turned),
        lambda: fitted.score(source, turned),
    ):
        with pytest.raises(ValueError, match=r"`Y` has the columns \['two', 'one'\] where `X`"):
            call()
    named = target.rename({"one": "1", "two": "2"})  # of another instrument
    assert fitted.score(source, named) == fitted.score(source, target)


@each_map
def test_columns_called_by_numbers_have_an_order_too(made):
    x, y = (z.numpy() for z in samples())
    source, target = (Frame({0: z[:, 0], 1: z[:, 1]}) for z in (x, y))
    turned = Frame({1: y[:, 1], 0: y[:, 0]})
    with pytest.raises(ValueError, match=r"`Y` has the columns \[1, 0\] .* Y\[\[0, 1\]\]"):
        clone(made).fit(source, turned)
    fitted, moved = clone(made).fit(source, target), Frame({1: x[:, 1], 0: x[:, 0]})
    for call, name in (
        (lambda: fitted.transform(moved), "X"),
        (lambda: fitted.inverse_transform(turned), "Y"),
        (lambda: fitted.score(moved, target), "X"),
        (lambda: fitted.score(source, turned), "Y"),
    ):
        with pytest.raises(ValueError, match=rf"`{name}` has the columns \[1, 0\] .* {name}\[\["):
            call()
    fitted.fit(x, y).transform(moved)  # of an array nothing is known
    polars = pytest.importorskip("polars")
    named = polars.DataFrame(x, schema=["0", "1"], orient="row")
    np.testing.assert_array_equal(  # the same names, as numbers and texts
        clone(made).fit(named, target).transform(named), clone(made).fit(x, y).transform(x)
    )


@each_map
def test_integers_that_a_frame_would_round_beside_fractions_are_refused(made):
    x, y = (z.numpy() for z in samples())
    counts = 2**60 + np.arange(len(y))
    for column in (counts, counts.astype(object)):
        with pytest.raises(ValueError, match="`Y` holds integers beyond 2⁵³"):
            clone(made).fit(x, Frame({"time": column, "value": y[:, 1]}))


@each_map
def test_what_scikit_learn_would_lose_is_refused(made):
    x, y = (z.numpy() for z in samples())
    masked = np.ma.masked_array(y, mask=y > 1)
    count = int((y > 1).sum())
    nanoseconds = 1_700_000_000_000_000_000 + np.arange(40).reshape(20, 2)
    for bad, words in (
        (masked, f"{count} masked values"),
        (nanoseconds, "integers beyond 2⁵³"),
        ([[1.0], [1.0, 2.0]], "must have shape"),
        (x + 1j, "must hold real numbers, got complex ones$"),
        ((x + 1j).tolist(), "must hold real numbers, got complex ones$"),
    ):
        with pytest.raises(ValueError, match=f"`Y` .*{words}"):
            clone(made).fit(x, bad)
        with pytest.raises(ValueError, match=f"`X` .*{words}"):
            clone(made).fit(bad, y)


# Laws of all maps


@each_map
@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_target_is_reached_and_left_again(made, d):
    x, y = samples(80, 80, d)
    fitted = clone(made).fit(x, y)
    assert fitted.score(x, y) > 0.9
    assert wasserstein(fitted.transform(x), y) < wasserstein(x, y) / 2
    assert wasserstein(fitted.inverse_transform(y), x) < wasserstein(x, y) / 2


@each_map
def test_held_out_points(made):
    x, y = samples(300, 300)
    new_x, new_y = samples(300, 300, seed=1)
    assert clone(made).fit(x, y).score(new_x, new_y) > 0.9


@each_map
def test_a_sample_onto_itself_is_left_where_it_is(made):
    x, _ = samples()
    fitted = clone(made)
    if isinstance(made, EntropicMap):
        fitted.epsilon = 1e-3
    moved = fitted.fit(x, x).transform(x)
    assert torch.allclose(moved, x, atol=1e-3 if isinstance(made, EntropicMap) else 1e-10)


@each_map
def test_a_translation_is_found(made):
    x, _ = samples()
    shift = torch.tensor([3.0, -100.0])
    fitted = clone(made).fit(x, x + shift)
    error = (fitted.transform(x) - x - shift).abs().max()
    assert error < (0.5 * x.std() if isinstance(made, EntropicMap) else 1e-9)
    if not isinstance(made, EntropicMap):
        new = torch.randn(20, 2, dtype=torch.float64)
        assert torch.allclose(fitted.transform(new), new + shift, atol=1e-9)
        assert torch.allclose(fitted.inverse_transform(new + shift), new, atol=1e-9)


@each_map
def test_a_common_translation_changes_nothing(made):
    """Also far from the origin: two far clusters keep their structure."""
    x, y = samples()
    new, _ = samples(30, 1, seed=2)
    here = clone(made).fit(x, y).transform(new)
    there = clone(made).fit(x + 1e4, y + 1e4).transform(new + 1e4)
    assert torch.allclose(there - 1e4, here, atol=1e-6)


@each_map
def test_a_far_point_hides_nothing(made):
    x, y = samples()
    far = torch.tensor([[1e6, 1e6]], dtype=torch.float64)
    if isinstance(made, EntropicMap):
        made = EntropicMap(epsilon=0.5)
    if isinstance(made, LinearMap):
        pytest.skip("its moments are those of the far point")
    moved = clone(made).fit(torch.cat([x[:50], far]), torch.cat([y[:50], far])).transform(x[:50])
    assert wasserstein(moved, y[:50]) < 1.0


@each_map
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes_are_kept(made, dtype):
    x, y = samples()
    wide = clone(made).fit(x.to(dtype).double(), y.to(dtype).double())
    fitted = clone(made).fit(x.to(dtype), y.to(dtype))
    moved = fitted.transform(x.to(dtype))
    assert moved.dtype is dtype
    assert torch.equal(moved, wide.transform(x.to(dtype).double()).to(dtype))
    if dtype is not torch.bfloat16:
        array = x.to(dtype).numpy()
        assert fitted.transform(array).dtype == array.dtype
        assert array.dtype in DTYPES


@each_map
def test_a_result_beyond_its_dtype_is_refused(made):
    x, y = samples()
    fitted = clone(made).fit(x, y * 1e6)
    with pytest.raises(ValueError, match=r"`X` has images of up to .* beyond torch.float16"):
        fitted.transform(x.half())


@each_map
def test_arrays_give_arrays_of_the_same_numbers(made):
    x, y = samples()
    of_tensors, of_arrays = clone(made).fit(x, y), clone(made).fit(x.numpy(), y.tolist())
    moved = of_arrays.transform(x.numpy())
    assert isinstance(moved, np.ndarray)
    assert np.array_equal(moved, of_tensors.transform(x).numpy())
    assert np.array_equal(of_arrays.transform(x), of_tensors.transform(x))


@each_map
def test_the_gradient_in_the_points(made):
    """By finite differences, away from the places where the exact map jumps."""
    x, y = samples(30, 25)
    fitted = clone(made).fit(x, y)
    new = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fitted.transform, (new,))
    assert torch.autograd.gradcheck(
        fitted.inverse_transform, ((new + 3).detach().requires_grad_(),)
    )


@each_map
def test_weights_are_repetitions(made):
    x, y = samples(12, 10)
    made = EntropicMap(tolerance=1e-8) if isinstance(made, EntropicMap) else made
    counts = torch.tensor([1, 2, 3] * 4), torch.tensor([2, 1] * 5)
    weighted = clone(made).fit(x, y, a=counts[0] / counts[0].sum(), b=counts[1] / counts[1].sum())
    repeated = clone(made).fit(
        x.repeat_interleave(counts[0], 0), y.repeat_interleave(counts[1], 0)
    )
    assert torch.allclose(weighted.transform(x), repeated.transform(x), atol=1e-4)


@each_map
def test_points_without_weight_are_not_there(made):
    x, y = samples(40, 30)
    a, b = torch.full((40,), 1 / 30), torch.full((30,), 1 / 20)
    a[:10], b[20:] = 0, 0
    weighted, fewer = clone(made).fit(x, y, a=a, b=b), clone(made).fit(x[10:], y[:20])
    new, _ = samples(20, 1, seed=3)
    assert torch.allclose(weighted.transform(new), fewer.transform(new), atol=1e-3)


@each_map
def test_points_that_coincide_have_one_image(made):
    x, y = samples(20, 40)
    twice = torch.cat([x, x])
    moved = clone(made).fit(twice, y).transform(twice)
    assert torch.equal(moved[:20], moved[20:])


@each_map
def test_it_is_pickled_with_what_it_has_found(made):
    x, y = samples()
    fitted = clone(made).fit(x, y)
    again = pickle.loads(pickle.dumps(fitted))
    assert torch.equal(again.transform(x), fitted.transform(x))


@each_map
def test_bad_input_is_named(made):
    x, y = samples()
    with pytest.raises(ValueError, match=r"`X` and `Y` must have the same columns"):
        clone(made).fit(x, y[:, :1])
    with pytest.raises(ValueError, match=r"`Y` must be finite"):
        clone(made).fit(x, y / 0)
    with pytest.raises(ValueError, match=r"Input Y contains infinity"):
        clone(made).fit(x.numpy(), (y / 0).numpy())
    with pytest.raises(ValueError, match=r"`X` must have shape \(n, d\), got \(60,\)"):
        clone(made).fit(x[:, 0], y)
    with pytest.raises(ValueError, match=r"`a` must be at least 0 and sum to 1"):
        clone(made).fit(x, y, a=torch.ones(60))
    with pytest.raises(ValueError, match=r"`b` must have shape|`b` must hold a weight for each"):
        clone(made).fit(x, y, b=torch.ones(60))
    fitted = clone(made).fit(x, y)
    with pytest.raises(ValueError, match=r"`X` has 3 features, but .* was fitted to 2"):
        fitted.transform(torch.randn(4, 3))
    with pytest.raises(ValueError, match=r"`Y` has 3 features, but .* was fitted to 2"):
        fitted.inverse_transform(np.zeros((4, 3)))


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (EntropicMap(epsilon=0.0), "epsilon"),
        (EntropicMap(tolerance=-1), "tolerance"),
        (LinearMap(regularisation=-1), "regularisation"),
        (SlicedMap(iterations=0), "iterations"),
        (SlicedMap(quantiles=0.5), "quantiles"),
    ],
)
def test_bad_settings_are_named(made, name):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        made.fit(*samples())


def test_the_score_is_the_share_of_the_distance_removed():
    x, y = samples(50, 50, 1)
    fitted = LinearMap().fit(x, y)
    moved = fitted.transform(x)
    share = 1 - (wasserstein_1d(moved.T, y.T) / wasserstein_1d(x.T, y.T)) ** 2
    assert fitted.score(x, y) == pytest.approx(float(share), abs=1e-6)
    assert ExactMap().fit(x, x).score(x, x) == 1
    assert ExactMap().fit(x, y).score(x, x) == 0


# Exact


@pytest.mark.parametrize("sizes", [(40, 40), (40, 25), (25, 40)])
def test_exact_as_pot(sizes):
    x, y = (z.numpy() for z in samples(*sizes))
    pot = ot.da.EMDTransport(norm=None).fit(Xs=x, Xt=y)
    ours = ExactMap().fit(x, y)
    assert np.allclose(ours.transform(x), pot.transform(Xs=x), atol=1e-9)
    assert np.allclose(ours.inverse_transform(y), pot.inverse_transform(Xt=y), atol=1e-9)
    new = samples(30, 1, seed=4)[0].numpy()
    assert np.allclose(ours.transform(new), pot.transform(Xs=new), atol=1e-9)


def test_exact_on_the_line_is_the_monotone_map():
    x, y = samples(40, 40, 1)
    moved = ExactMap().fit(x, y).transform(x)
    assert torch.allclose(moved[x[:, 0].argsort()], y.sort(0).values)


# Entropic


def test_entropic_at_the_points_of_the_fit_is_the_barycentric_projection():
    x, y = samples()
    plan = sinkhorn(x, y, epsilon=0.3, tolerance=1e-9).plan
    fitted = EntropicMap(epsilon=0.3, tolerance=1e-9).fit(x, y)
    assert torch.allclose(fitted.transform(x), plan @ y * 60, atol=1e-6)
    assert torch.allclose(fitted.inverse_transform(y), plan.T @ x * 50, atol=1e-6)


def test_entropic_as_pot():
    x, y = (z.numpy() for z in samples())
    settings = {"reg_e": 0.5, "norm": None, "tol": 1e-10, "max_iter": 10_000}
    pot = ot.da.SinkhornTransport(**settings).fit(Xs=x, Xt=y)
    ours = EntropicMap(epsilon=0.5, tolerance=1e-9).fit(x, y)
    assert np.allclose(ours.transform(x), pot.transform(Xs=x), atol=1e-6)


def test_entropic_between_gaussians_is_the_linear_map_of_the_closed_form():
    """Mallasto, Gerolin, Minh 2021: from N(0, s²) to N(0, t²) on the line the entropic plan has
    the covariance c = √(s²t² + ε²/16) - ε/4, so that E[y | x] = (c/s²) x."""
    s, t, epsilon = 1.0, 2.0, 1.0
    levels = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    normal = torch.special.ndtri(levels)[:, None]
    fitted = EntropicMap(epsilon=epsilon, tolerance=1e-7).fit(s * normal, t * normal)
    slope = ((s * t) ** 2 + epsilon**2 / 16) ** 0.5 - epsilon / 4
    x = torch.linspace(-1.5, 1.5, 9, dtype=torch.float64)[:, None]
    assert torch.allclose(fitted.transform(x), slope * x, atol=0.02)


def test_entropic_blocks_do_not_show(monkeypatch):
    x, y = samples(300, 50)
    fitted = EntropicMap().fit(x, y)
    whole = fitted.transform(x)
    from dataclasses import replace

    from monge._core import tuning
    from monge.transport import projections

    few = replace(tuning.CPU, cost_entries=700)
    monkeypatch.setattr(projections, "tuning", lambda device: few)
    assert torch.allclose(fitted.transform(x), whole, atol=1e-12)


@pytest.mark.parametrize("shift", [1e3, 1e6, 1e9])
@pytest.mark.parametrize("size", [20, 30])
@pytest.mark.parametrize("made", [ExactMap(), EntropicMap(), LinearMap(), SlicedMap(5)], ids=repr)
def test_a_far_shift_changes_no_map(made, size, shift):
    """It is a translation of the map, whose squared distances are 10²⁰ of those within samples."""
    random = np.random.default_rng(0)
    # numbers that a shift does not round
    x, y = (np.round(random.normal(size=(n, 3)) * 2**10) / 2**10 for n in (30, size))
    near = made.fit(x, y).transform(x)
    far = made.fit(x + shift, y - shift).transform(x + shift) + shift
    assert np.abs(far - near).max() < 1e-5 + 1e-15 * shift * 1e3
    labels = np.arange(30) % 2
    if isinstance(made, EntropicMap):
        near = made.fit(x, y, labels=labels).transform(x)
        far = made.fit(x + shift, y - shift, labels=labels).transform(x + shift) + shift
        assert np.abs(far - near).max() < 1e-2


def test_points_that_all_coincide():
    x = torch.ones(5, 2)
    assert torch.equal(EntropicMap().fit(x, x).transform(x), x)


# Labels


def moons(degrees: float, n: int = 120):
    """Two moons with their labels, and others turned by an angle."""
    from sklearn.datasets import make_moons

    x, labels = make_moons(n, noise=0.05, random_state=0)
    y, others = make_moons(n, noise=0.05, random_state=1)
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return x, labels, y @ np.array([[c, s], [-s, c]]), others


def test_class_regularisation_as_pot():
    """POT regularises masses where we regularise shares, so that its η is ours over √m."""
    x, labels, y, _ = moons(30, 60)
    a = np.full(60, 1 / 60)
    cost = ((x[:, None] - y) ** 2).sum(-1)
    epsilon, eta = 0.2, 0.3
    plan = ot.da.sinkhorn_lpl1_mm(
        *(a, labels, a, cost, epsilon, eta / 60**0.5),
        numItermax=100,
        numInnerItermax=10_000,
        stopInnerThr=1e-10,
    )
    fitted = EntropicMap(epsilon, class_penalty=eta, tolerance=1e-8).fit(x, y, labels=labels)
    # POT adds 10⁻³ to masses of at most 1/60, we to shares of at most 1
    assert np.abs(fitted.transform(x) - plan @ y * 60).mean() < 0.05


def test_the_objective_of_classes_falls_to_a_stationary_plan():
    """The plan is that of its own tangent, and below that of no regularisation."""
    x, labels, y, _ = moons(30, 60)
    epsilon, eta = 0.1, 0.3
    fitted = EntropicMap(epsilon, class_penalty=eta, tolerance=1e-8).fit(x, y, labels=labels)
    plain = EntropicMap(epsilon, tolerance=1e-8).fit(x, y)
    cost = ((x[:, None] - y) ** 2).sum(-1)

    def plan_of(fitted, penalty):
        f, g = (z.numpy() for z in fitted.potentials_)
        return np.exp((f[:, None] + g - cost - penalty) / epsilon) / 3600

    def objective(plan):
        shares = np.stack([plan[labels == c].sum(0) for c in (0, 1)]) * 60
        entropy = (plan * np.log(plan * 3600)).sum()
        return (cost * plan).sum() + epsilon * entropy + eta * np.sqrt(shares + 1e-3).sum() / 60

    penalty = fitted.penalty_.numpy()
    plan = plan_of(fitted, penalty[labels])
    assert plan.sum() == pytest.approx(1, abs=1e-6)
    assert objective(plan) < objective(plan_of(plain, 0.0)) - 1e-3
    shares = np.stack([plan[labels == c].sum(0) for c in (0, 1)]) * 60
    assert np.allclose(penalty, eta / 2 / np.sqrt(shares + 1e-3), atol=1e-3)


def test_labels_keep_classes_together():
    """Each point of the target takes more of its mass from one class."""
    x, labels, y, _ = moons(40)

    def purity(fitted):
        cost = ((x[:, None] - y) ** 2).sum(-1)
        penalty = 0 if fitted.penalty_ is None else fitted.penalty_.numpy()[labels]
        f, g = (z.numpy() for z in fitted.potentials_)
        plan = np.exp((f[:, None] + g - cost - penalty) / fitted.epsilon_)
        shares = np.stack([plan[labels == c].sum(0) for c in (0, 1)]) / plan.sum(0)
        return shares.max(0).mean()

    plain = EntropicMap(0.3).fit(x, y)
    regularised = EntropicMap(0.3, class_penalty=1.0).fit(x, y, labels=labels)
    assert purity(regularised) > purity(plain) + 0.02


def test_known_labels_of_the_target_are_followed():
    x, labels, y, others = moons(80)
    known = np.where(np.arange(120) < 60, others, -1)

    def accuracy(fitted):
        nearest = ((fitted.transform(x)[:, None] - y) ** 2).sum(-1).argmin(0)
        return (labels[nearest] == others).mean()

    without = EntropicMap(0.05).fit(x, y, labels=labels)
    some = EntropicMap(0.05).fit(x, y, labels=labels, target_labels=known)
    every = EntropicMap(0.05).fit(x, y, labels=labels, target_labels=others)
    assert accuracy(without) < 0.8
    assert accuracy(some) > accuracy(without) + 0.1
    assert accuracy(every) > 0.95
    texts = np.array(["left", "right"])
    named = EntropicMap(0.05).fit(x, y, labels=texts[labels], target_labels=texts[others])
    assert np.allclose(named.transform(x), every.transform(x))


def test_labels_go_with_their_points():
    """Points without weight take their labels with them."""
    x, labels, y, _ = moons(30, 60)
    a = np.r_[np.zeros(20), np.full(40, 1 / 40)]
    fitted = EntropicMap(0.1).fit(x, y, a=a, labels=labels)
    fewer = EntropicMap(0.1).fit(x[20:], y, labels=labels[20:])
    assert np.allclose(fitted.transform(x), fewer.transform(x), atol=1e-6)


@pytest.mark.parametrize("scale", [1e155, 1e300])
@pytest.mark.parametrize("fitted", [ExactMap, EntropicMap, LinearMap, SlicedMap])
def test_squares_beyond_float64_are_refused_by_the_names_of_the_samples(fitted, scale):
    x, y = samples(20, 25, 2)
    with pytest.raises(ValueError, match="`X` and `Y` have squared distances beyond float64"):
        fitted().fit(scale * x, scale * y)


def test_bad_labels_are_named():
    x, labels, y, _ = moons(30, 60)
    with pytest.raises(ValueError, match=r"`labels` must hold a label for each of the 60 points"):
        EntropicMap().fit(x, y, labels=labels[:-1])
    with pytest.raises(ValueError, match=r"`target_labels` needs `labels`"):
        EntropicMap().fit(x, y, target_labels=labels)
    with pytest.raises(ValueError, match=r"`class_penalty` must be at least 0"):
        EntropicMap(class_penalty=-1.0).fit(x, y, labels=labels)


# Linear


def test_linear_is_the_map_between_gaussians():
    x, y = samples(200, 150, 3)
    fitted = LinearMap(regularisation=0).fit(x, y)
    matrix, shift = gaussian_map(
        x.mean(0), x.T.cov(correction=0), y.mean(0), y.T.cov(correction=0)
    )
    assert torch.allclose(fitted.matrix_, matrix)
    assert torch.allclose(fitted.shift_, shift)
    moved = fitted.transform(x)
    assert torch.allclose(moved.mean(0), y.mean(0))
    assert torch.allclose(moved.T.cov(correction=0), y.T.cov(correction=0))
    assert torch.allclose(fitted.inverse_transform(moved), x)


def test_linear_as_pot():
    x, y = (z.numpy() for z in samples(60, 50, 3))
    ours = LinearMap(regularisation=0).fit(x, y)
    matrix, shift = ot.gaussian.empirical_bures_wasserstein_mapping(x, y, reg=0)
    assert np.allclose(ours.matrix_.numpy(), matrix, atol=1e-8)
    assert np.allclose(ours.shift_.numpy(), shift, atol=1e-8)


def test_linear_with_few_points_in_many_columns():
    x, y = samples(5, 6, 20)
    fitted = LinearMap(regularisation=1e-3).fit(x, y)
    assert torch.allclose(fitted.transform(x).mean(0), y.mean(0), atol=1e-8)
    with pytest.raises(ValueError, match=r"singular and its range does not hold"):
        LinearMap(regularisation=0).fit(x, y)


def test_linear_with_one_point():
    x, y = samples(20, 1)
    fitted = LinearMap().fit(x, y)
    assert torch.allclose(fitted.transform(x), y.expand(20, 2))
    assert torch.allclose(fitted.inverse_transform(y), x.mean(0))
    assert torch.allclose(LinearMap().fit(y, x).transform(y), x.mean(0))


# Sliced


def test_sliced_in_one_dimension_is_the_monotone_map():
    x, y = samples(40, 40, 1)
    fitted = SlicedMap().fit(x, y)
    assert len(fitted.steps_) == 1
    assert torch.allclose(fitted.transform(x)[x[:, 0].argsort()], y.sort(0).values)
    new = torch.linspace(float(x.min()), float(x.max()), 50, dtype=torch.float64)
    between = np.interp(new, x[:, 0].sort().values, y[:, 0].sort().values)
    assert np.allclose(fitted.transform(new[:, None])[:, 0], between)


def test_sliced_has_an_inverse():
    """Where no projections coincide the inverse is exact, beyond the sample too. Each iteration
    adds to its rounding."""
    x, y = samples(200, 200)
    fitted = SlicedMap(iterations=5).fit(x, y)
    new = 3 * torch.randn(100, 2, dtype=torch.float64)
    assert torch.allclose(fitted.inverse_transform(fitted.transform(new)), new, atol=1e-6)
    assert torch.allclose(fitted.transform(fitted.inverse_transform(new)), new, atol=1e-6)


def test_sliced_moves_the_sample_as_in_the_fit():
    """Steps at the points of the fit are exact transports of their projections."""
    x, y = samples(100, 100, 3)
    fitted = SlicedMap(iterations=3).fit(x, y)
    x, y = x - fitted.centre_, y - fitted.centre_
    for step in fitted.steps_:
        x = step.moved(x)
        along, goal = x @ step.basis.T, y @ step.basis.T
        assert torch.allclose(along.sort(0).values, goal.sort(0).values)
    assert fitted.displacements_ == sorted(fitted.displacements_, reverse=True)


def test_sliced_knows_atoms():
    """Masses at points, as of bytes of images: half of them at each of two values."""
    x = torch.tensor([0.0, 0.0, 1.0, 1.0])[:, None]
    y = torch.tensor([5.0, 7.0])[:, None]
    assert torch.allclose(SlicedMap().fit(x, y).transform(x)[:, 0], 2 * x[:, 0] + 5)
    rare = SlicedMap().fit(x, y, b=[0.125, 0.875]).transform(x)[:, 0]
    assert torch.allclose(rare, torch.tensor([6.5, 6.5, 7.0, 7.0]))


def test_sliced_with_fewer_quantiles_is_near():
    x, y = samples(2000, 2000)
    full, few = SlicedMap(quantiles=2000).fit(x, y), SlicedMap(quantiles=100).fit(x, y)
    assert few.score(x, y) > full.score(x, y) - 0.01


def test_the_seed_draws_the_bases():
    x, y = samples()
    one, same, other = (SlicedMap(seed=s).fit(x, y).transform(x) for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_maps_are_those_of_the_package():
    import monge

    assert all(isinstance(made, TransportMap) for made in MAPS)
    assert monge.maps.ExactMap is ExactMap


def test_labels_without_a_meaning_are_refused():
    x, y = np.random.default_rng(0).normal(size=(2, 30, 2))
    labels = np.arange(30) % 3
    with pytest.raises(ValueError, match=r"`labels` has NaN"):
        EntropicMap().fit(x, y, labels=np.full(30, np.nan))
    with pytest.raises(ValueError, match=r"`target_labels` has none of the classes"):
        EntropicMap().fit(x, y, labels=labels, target_labels=np.full(30, 7))


@pytest.mark.parametrize(("size", "where"), [(1e-200, "below"), (1e200, "beyond")])
@pytest.mark.parametrize("made", [EntropicMap, LinearMap])
def test_squares_out_of_the_range_of_float64_are_refused(made, size, where):
    x, y = (size * torch.randn(9, 2, dtype=torch.float64) for _ in range(2))
    with pytest.raises(ValueError, match=f"`X` and `Y` have squared distances {where} float64"):
        made().fit(x, y)
