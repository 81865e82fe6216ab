"""Every object of the mathematics prints its parameters on one line."""

import pytest
import torch
from explored import small
from torch import nn
from zoo import DIVERGENCES

from monge import adversarial, costs, divergences, priors
from monge.divergences import Divergence
from monge.evaluation.figures import Evaluation
from monge.kernels import IMQ, RBF, Energy, Kernel, Laplace, RationalQuadratic
from monge.transport import (
    Circular,
    Geodesic,
    Horospherical,
    Linear,
    Neural,
    Polynomial,
    Slicer,
    sinkhorn,
    solve,
)

CRITIC = nn.Linear(2, 1)
MIXTURE = priors.Mixture(torch.zeros(3, 2), torch.eye(2).expand(3, 2, 2), torch.full((3,), 1 / 3))

SHOWN = {
    "Gaussian(8)": priors.Gaussian(8),
    "Gaussian(8, scale=2.0)": priors.Gaussian(8, 2.0),
    "Uniform(3)": priors.Uniform(3),
    "Sphere(3)": priors.Sphere(3),
    "Mixture(components=3, dim=2)": MIXTURE,
    "Ring()": priors.Ring(),
    "Disk()": priors.Disk(),
    "SwissRoll(noise=0.1)": priors.SwissRoll(0.1),
    "RBF(1.5)": RBF(1.5),
    "IMQ(2.0)": IMQ(2.0),
    "Laplace(2.0)": Laplace(2.0),
    "Energy()": Energy(),
    "RationalQuadratic(1.0, 0.7)": RationalQuadratic(1.0, 0.7),
    "IMQ(0.4) + IMQ(2.0)": IMQ(0.4) + IMQ(2.0),
    "0.5 * RBF(1.0) * IMQ(2.0)": 0.5 * RBF(1.0) * IMQ(2.0),
    "3.0 * (RBF(1.0) + Energy())": (RBF(1.0) + Energy()) * 3.0,
    "Linear(3, slices=5)": Linear(3, 5),
    "Circular(3, slices=5, radius=2.0)": Circular(3, 5),
    "Polynomial(3, degree=3, slices=5)": Polynomial(3, slices=5),
    "Geodesic(3, slices=5)": Geodesic(3, 5),
    "Horospherical(3, slices=5)": Horospherical(3, 5),
    "Neural(3, slices=5, hidden=4)": Neural(3, 5, 4),
    "MMD(IMQ(0.4) + IMQ(2.0), unbiased=True, paired=False)": divergences.MMD(IMQ(0.4) + IMQ(2.0)),
    "SlicedWasserstein(directions=128, p=2)": divergences.SlicedWasserstein(),
    "GeneralizedSlicedWasserstein(Linear(3, slices=5), p=2)": (
        divergences.GeneralizedSlicedWasserstein(Linear(3, 5))
    ),
    "CramerWold(gamma=None)": divergences.CramerWold(),
    "CramerWold(gamma=0.5)": divergences.CramerWold(0.5),
    "EnergyDistance()": divergences.EnergyDistance(),
    "SinkhornDivergence(0.5, p=2, tolerance=0.001, reach=None)": divergences.SinkhornDivergence(
        0.5
    ),
    "ExactWasserstein(p=1)": divergences.ExactWasserstein(1),
    "MomentMatching()": divergences.MomentMatching(),
    "JensenShannon(Linear(…), saturating=False, constraint=Constraint())": (
        adversarial.JensenShannon(CRITIC)
    ),
    "Relativistic(Linear(…), ZeroCentredPenalty(weight=1.0))": (
        adversarial.Relativistic(CRITIC, adversarial.ZeroCentredPenalty())
    ),
    "KantorovichRubinstein(Linear(…), GradientPenalty(weight=10.0, one_sided=False))": (
        adversarial.KantorovichRubinstein(CRITIC, adversarial.GradientPenalty())
    ),
    "WeightClipping(c=0.01)": adversarial.WeightClipping(),
    "SpectralNorm()": adversarial.SpectralNorm(),
    "MaxSliced(3, p=2)": adversarial.MaxSliced(3),
    "FeatureSliced(Linear(…), Linear(…), directions=9, p=2)": (
        adversarial.FeatureSliced(CRITIC, CRITIC, 9)
    ),
    "SquaredL2(scale=0.05)": costs.SquaredL2(0.05),
    "L1()": costs.L1(),
    "ElasticNet(share=0.3, scale=2.0)": costs.ElasticNet(scale=2.0),
    "GaussianLikelihood(sigma=0.5, learned=True)": costs.GaussianLikelihood(0.5, True),
    "Scaled(L2(), Tensor(4,))": costs.Scaled(costs.L2(), torch.ones(4)),
    "EarthMover(p=1, scale=1.0)": costs.EarthMover(),
    "SinkhornSets(0.1, scale=1.0)": costs.SinkhornSets(0.1),
    "SlicedSets(directions=64, p=2, scale=1.0)": costs.SlicedSets(),
}


@pytest.mark.parametrize("text", SHOWN)
def test_it_prints_as_the_call_that_makes_it(text):
    assert repr(SHOWN[text]) == text


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_divergence_of_the_zoo_prints_on_one_line(name):
    text = repr(DIVERGENCES[name].make())
    assert "\n" not in text
    assert text.endswith(")")


TABLED = tuple(
    f"monge.{name}"
    for name in ("divergences", "adversarial", "priors", "kernels", "costs", "transport.slicers")
)


def concrete(base):
    below = [kind for sub in base.__subclasses__() for kind in concrete(sub)]
    mine = base.__module__ in TABLED and not base.__name__.startswith("_")
    return [*below, *([base] if mine and not base.__abstractmethods__ else [])]


@pytest.mark.parametrize("base", [Divergence, priors.Prior, Kernel, costs.Cost, Slicer])
def test_the_table_holds_every_class(base):
    """But for those that are made by another one of it."""
    left_out = {
        "Compiled",
        "MaxGeneralizedSliced",
        "Sum",
        "Product",
        "Constant",
        "Bernoulli",
        "L2",
    }
    names = {type(made).__name__ for made in SHOWN.values()}
    assert {kind.__name__ for kind in concrete(base)} <= names | left_out


def test_a_plan_says_how_it_was_solved():
    cost = torch.tensor([[0.0, 1.0], [1.0, 0.25]])
    assert repr(solve(cost)) == (
        "Plan(value=0.125, marginal_error=0.0, iterations=None, converged=True)"
    )
    x = torch.randn(5, 2)
    plan = sinkhorn(x, x + 1, epsilon=1.0)
    assert f"iterations={plan.iterations}, converged=True)" in repr(plan)


def test_a_batch_of_plans_shows_both_ends_of_its_values():
    x = torch.arange(20.0)[:, None, None] * torch.tensor([[0.0], [1.0]])
    plan = sinkhorn(torch.zeros(20, 2, 1), x, epsilon=1.0)
    assert repr(plan).startswith("Plan(value=[0.0, ")
    assert "…, " in repr(plan)
    assert len(repr(plan)) < 160
    assert "…, " in plan._repr_html_()
    assert "…" not in repr(sinkhorn(x[:3], x[:3], epsilon=1.0))


def test_a_kernel_of_ones_own_shows_what_it_keeps():
    class Cosine(Kernel):
        def __init__(self, s: float, unused: int = 0):
            super().__init__()
            self.s = s

        def of_squared(self, squared):
            return squared

        def with_slope(self, squared):
            return squared, squared

    assert repr(Cosine(1 / 3)) == "Cosine(0.333333)"


@pytest.mark.parametrize("prior", [one for one in SHOWN.values() if isinstance(one, priors.Prior)])
def test_a_notebook_shows_priors_with_draws_that_move_no_generator(prior):
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    html = prior._repr_html_()
    assert torch.equal(torch.rand(2), expected)
    assert repr(prior) in html
    assert html.count("<circle") == (300 if prior.dim > 1 else 0)


def test_a_notebook_shows_plans():
    """A matrix of a permutation has as many cells as points; a large plan and a batch are not
    drawn, and a plan is not made for it."""
    x = torch.rand(5, 2)
    plan = solve(torch.cdist(x, x))
    html = plan._repr_html_()
    assert html.count("<rect") == 5 + 1
    assert "converged" in html
    for one in (sinkhorn(torch.rand(100, 2), torch.rand(90, 2), epsilon=1.0),):
        assert "<svg" not in one._repr_html_()
        assert "plan" not in one.__dict__
    batch = sinkhorn(torch.rand(3, 4, 2), torch.rand(3, 4, 2), epsilon=1.0)
    assert "<svg" not in batch._repr_html_()


def test_a_notebook_shows_runs_and_evaluations(tmp_path):
    """A table of every figure; of a run its name, steps and picture, and nobody's markup."""
    run = small("swae", "digits", tmp_path / "a <b>run", latent=3, **{"training.steps": 3})
    assert "&lt;b&gt;run" in run._repr_html_()
    assert "data:image/png;base64," in run._repr_html_()
    evaluation = run.evaluate(60, metrics=["neighbours"])
    html = evaluation._repr_html_()
    assert html.count("<tr>") == 1 + len(evaluation["figures"])
    assert "<td>precision</td>" in html
    assert run.evaluation() == evaluation
    assert "precision" in run._repr_html_()
    samplers = {name: {"figures": evaluation["figures"]} for name in ("prior", "<b>")}
    several = {"samplers": samplers, "best": {"sampler": "<b>", "figure": "precision"}}
    html = Evaluation(evaluation | several)._repr_html_()
    assert html.count("&lt;b&gt;") == 2
    assert "best sampler by precision" in html
