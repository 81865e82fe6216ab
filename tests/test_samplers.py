"""Mixtures and flows fitted to codes: against the law they were drawn from, stored, and fitted
again."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save

import monge
from monge import cli
from monge.builders import build, settled
from monge.cli.draw import Sample, _npy
from monge.config import Config, NetworkConfig
from monge.draws import generator
from monge.evaluation import figures, memorisation
from monge.evaluation.figures import by_sampler
from monge.evaluation.samplers import (
    best_components,
    draw_codes,
    fit_flow,
    fit_mixture,
    tempered,
)
from monge.models.flow import with_steps
from monge.priors import Gaussian, Mixture, Sphere
from monge.runs import fitted
from monge.show import card, report
from monge.transport import wasserstein


def test_a_fitted_mixture_is_the_law_of_its_codes():
    means = torch.tensor([[4.0, 0.0, 0.0], [-4.0, 0.0, 1.0]])
    covariances = torch.stack([torch.eye(3), torch.diag(torch.tensor([0.25, 1.0, 4.0]))])
    law = Mixture(means, covariances, torch.tensor([0.3, 0.7]))
    found = fit_mixture(law.sample(20_000, generator(0)), 2)
    order = found.weights.argsort()
    torch.testing.assert_close(found.weights[order], law.weights, atol=0.02, rtol=0)
    torch.testing.assert_close(found.means[order], means, atol=0.1, rtol=0)
    ours = found.factors[order] @ found.factors[order].mT
    torch.testing.assert_close(ours, covariances, atol=0.15, rtol=0)
    z = law.sample(5000, generator(1))
    assert (law.log_prob(z) - found.log_prob(z)).mean().abs() < 0.01


@pytest.mark.parametrize("components", [0, 21])
def test_more_components_than_codes_are_refused(components):
    with pytest.raises(ValueError, match="`components` must be from 1 to the 20 codes"):
        fit_mixture(torch.randn(20, 2), components)


def four_blobs(n: int, dim: int, seed: int) -> torch.Tensor:
    """Codes at the corners of a square in the first two of `dim` axes."""
    corner = torch.randint(4, (n,), generator=torch.Generator().manual_seed(seed))
    z = torch.randn(n, dim, generator=generator(seed))
    z[:, 0] += 8.0 * (corner % 2)
    z[:, 1] += 8.0 * (corner // 2)
    return z


def test_held_out_codes_choose_the_number_of_components():
    """One Gaussian asks for one component; four clusters for five, the next number on the grid."""
    assert best_components(torch.randn(3000, 3, generator=generator(0))) == 1
    codes = four_blobs(3000, 3, 0)
    assert best_components(codes) == 5
    chosen, seed = fit_mixture(codes), fit_mixture(codes, 5)
    torch.testing.assert_close(chosen.state_dict(), seed.state_dict(), atol=0, rtol=0)


@pytest.mark.parametrize(("n", "dim"), [(300, 10), (60, 40), (2, 3)])
def test_few_codes_have_a_regular_mixture(n, dim):
    """Few components, and a law of the codes' size whose held-out density is that of one Gaussian
    or better."""
    found = fit_mixture(torch.randn(n, dim, generator=generator(0)))
    assert len(found.means) <= max(1, n // 100)
    held = torch.randn(1000, dim, generator=generator(1))
    assert torch.isfinite(found.log_prob(held)).all()
    if n > 2:
        assert found.spread == pytest.approx(2 * dim, rel=0.1)
        assert found.log_prob(held).mean() > 1.2 * Gaussian(dim).log_prob(held).mean()


def test_codes_without_variance_or_of_any_size_have_a_regular_mixture():
    z = torch.randn(300, 3, generator=generator(0))
    for codes in (torch.ones(300, 3), z * torch.tensor([1.0, 1.0, 0.0]), 1e6 * z, 1e-6 * z):
        found = fit_mixture(codes, 2)
        assert torch.isfinite(found.log_prob(codes)).all()
        assert (found.factors.diagonal(dim1=1, dim2=2) > 0).all()
    with pytest.raises(ValueError, match="`codes` must be at least two, got 1"):
        fit_mixture(torch.zeros(1, 2))


def test_a_chosen_mixture_repeats_no_codes():
    """Of its draws as few as of fresh codes are as near to a training code as the nearest
    hundredth of these; of a mixture with a component for three codes many more are."""
    train, held, fresh = (four_blobs(n, 6, seed) for n, seed in ((900, 0), (4000, 1), (4000, 2)))

    def near(x: torch.Tensor) -> float:
        return memorisation(x, train, held, 0.01)

    def draws(components: int | None) -> torch.Tensor:
        return fit_mixture(train, components).sample(4000, generator(3))

    assert near(draws(None)) < near(fresh) + 0.01 < 0.03
    assert near(draws(300)) > 0.1


def small(recipe: str, steps: int) -> Config:
    config, network = Config.of(recipe), NetworkConfig(filters=(4, 8))
    training = dataclasses.replace(config.training, batch=300, steps=steps)
    return dataclasses.replace(config, latent=3, network=network, training=training)


def test_the_sampler_of_a_run_is_kept_until_the_run_goes_on(tmp_path):
    out = tmp_path / "run"
    run = monge.fit("wae-mmd", "digits", small("wae-mmd", 3), out, quiet=True)
    first, kept = run.mixture(), out / "sampler-mixture.safetensors"
    made = kept.stat().st_mtime_ns
    again = monge.runs.Run(out).mixture()
    assert kept.stat().st_mtime_ns == made
    torch.testing.assert_close(again.state_dict(), first.state_dict(), atol=0, rtol=0)
    codes = draw_codes(run.model, run.source.train)
    assert first.log_prob(codes).mean() > run.model.prior.log_prob(codes).mean()

    more = monge.fit("wae-mmd", "digits", small("wae-mmd", 6), out, resume=True, quiet=True)
    assert not torch.equal(more.mixture().means, first.means)
    assert kept.stat().st_mtime_ns != made
    kept.write_bytes(b"not tensors")
    with pytest.raises(ValueError, match="is damaged"):
        more.mixture()


def test_the_sampler_is_that_of_the_weights_that_are_loaded(tmp_path):
    """A model loaded before training went on keeps its own mixture; the newest has another."""
    out = tmp_path / "run"
    monge.fit("wae-mmd", "digits", small("wae-mmd", 3), out, quiet=True)
    early = monge.runs.Run(out)
    assert early.model is not None
    monge.fit("wae-mmd", "digits", small("wae-mmd", 6), out, resume=True, quiet=True)
    means = early.mixture().means
    late = monge.runs.Run(out)
    assert not torch.equal(late.mixture().means, means)
    assert torch.equal(early.mixture().means, means)


def test_a_folder_of_the_hub_has_a_sampler(tmp_path):
    """It has no checkpoints."""
    run = monge.fit("wae-mmd", "digits", small("wae-mmd", 3), tmp_path / "run", quiet=True)
    card.write(run, tmp_path / "hub")
    published = monge.runs.Run(tmp_path / "hub")
    assert torch.equal(published.mixture().means, run.mixture().means)
    kept = tmp_path / "hub" / "sampler-mixture.safetensors"
    made = kept.stat().st_mtime_ns
    published.mixture()
    assert kept.stat().st_mtime_ns == made


def test_a_generator_has_no_codes_to_fit(tmp_path):
    run = monge.fit("swg", "digits", small("swg", 1), tmp_path / "run", quiet=True)
    with pytest.raises(ValueError, match="no method `encode`, which the mixture sampler needs"):
        run.mixture()


@pytest.fixture(scope="module")
def rings(tmp_path_factory):
    """An auto-encoder of a table, and a generator of the same."""
    place = tmp_path_factory.mktemp("samplers")
    return {
        recipe: monge.fit(recipe, "rings", small(recipe, 20), place / recipe, quiet=True)
        for recipe in ("swae", "swg")
    }


def test_all_samplers_are_measured_as_each_is(rings):
    """With the same floors; the file says of which sampler each figure is."""
    run = rings["swae"]
    single = {name: run.evaluate(200, name, seeds=2) for name in ("prior", "mixture", "flow")}
    result = run.evaluate(200, "all", seeds=2)
    assert list(result["samplers"]) == run.samplers == ["prior", "mixture", "flow"]
    assert result["protocol"]["sampler"] == "prior"
    assert result["figures"] == by_sampler(result)["prior"]["figures"]
    for name, one in single.items():
        for part, shown in (("figures", "figures"), ("columns", "single")):
            assert result["samplers"][name][part].keys() <= one[part].keys()
            for figure, values in one[part].items():  # up to the last digits of products
                assert by_sampler(result)[name][shown][figure] == pytest.approx(values)
        assert one["protocol"]["sampler"] == name
    assert run.evaluation() == result == json.loads((run.path / "evaluation.json").read_text())
    first = {name: one["figures"]["FD"]["value"] for name, one in single.items()}
    assert result["best"] == {"sampler": min(first, key=first.__getitem__), "figure": "FD"}


def test_the_table_has_a_column_for_each_sampler_and_the_best(rings):
    run = rings["swae"]
    result = run.evaluate(200, "all", metrics=["neighbours"])
    head, _, precision, *_ = figures.lines(result)
    assert head == "| figure | prior | ± | mixture | ± | flow | ± | floor |"
    values = [one["figures"]["precision"]["value"] for one in result["samplers"].values()]
    assert [f"{value:.4g}" for value in values] == precision.split(" | ")[1:6:2]
    best = run.samplers[values.index(max(values))]  # of precision, more is better
    assert figures.verdict(result) == f"best sampler by precision: {best}"
    page = report.write(run).read_text()
    assert "<td>mixture</td>" in page
    assert f"best sampler by precision: {best}" in page
    assert "sampler: prior, mixture, flow" in page
    assert f"best sampler by precision: {best}" in card.card(run)


def test_figures_without_a_best_value_name_no_best_sampler(rings):
    result = rings["swae"].evaluate(200, "all", metrics=["tests"])
    assert result["best"] is figures.verdict(result) is None


def test_a_generator_has_its_prior_only(rings):
    run = rings["swg"]
    assert run.samplers == ["prior"]
    result = run.evaluate(200, "all", metrics=["sliced"])
    assert result == run.evaluate(200, metrics=["sliced"])


def test_an_evaluation_with_other_samplers_is_damaged(rings):
    run = rings["swae"]
    result = run.evaluate(200, "all", metrics=["sliced"])
    kept = run.path / "evaluation.json"
    for part in ({"samplers": {"prior": 3}}, {"best": {"sampler": "prior"}}):
        kept.write_text(json.dumps(result | part))
        with pytest.warns(UserWarning, match="is damaged and left out"):
            assert run.evaluation() is None


def test_components_are_those_asked_for_and_part_of_the_protocol(rings, tmp_path):
    run, file = rings["swae"], tmp_path / "drawn.npy"
    result = run.evaluate(200, "all", components=3, metrics=["sliced"])
    assert result["protocol"]["components"] == 3 == len(run.mixture(3).means)
    chosen = run.evaluate(200, "mixture", metrics=["sliced"])["protocol"]["components"]
    assert chosen == len(run.mixture().means)
    command = ["sample", str(run.path), "-n", "5", "--out", str(file), "--components", "3"]
    cli.parse([*command, "--sampler", "mixture"]).run()
    expected = run.sample(5, generator(0, "sample"), run.mixture(3))
    torch.testing.assert_close(torch.from_numpy(np.load(file)), expected)
    with pytest.raises(ValueError, match=r"`components` is 3, and the sampler prior has no"):
        cli.parse(command).run()
    with pytest.raises(ValueError, match=r"`components` is 3, and the sampler flow has no"):
        run.sampler("flow", components=3)
    with pytest.raises(ValueError, match=r"`components` is 3, and the sampler all has no"):
        rings["swg"].evaluate(200, "all", components=3)


def test_no_sampler_is_refused(rings):
    run = rings["swae"]
    with pytest.raises(ValueError, match="`samplers` is empty"):
        figures.evaluate_samplers(run.model, run.source, {})
    with pytest.raises(
        ValueError, match="`sampler` must be one of prior, mixture, flow, all, got"
    ):
        run.evaluate(sampler="posterior")


@pytest.mark.parametrize(
    "wrong",
    [{"metrics": ["pixels"]}, {"n": 1}, {"seeds": 0}, {"temperature": 1e-30}, {"extractor": abs}],
)
def test_nothing_is_fitted_for_an_evaluation_that_is_refused(tmp_path, wrong):
    """An unknown metric was named after a minute of fits, which were kept."""
    run = monge.fit("wae-mmd", "rings", small("wae-mmd", 3), tmp_path / "run", quiet=True)
    before = sorted(run.path.iterdir())
    with pytest.raises(ValueError, match=f"^`{next(iter(wrong))}` "):
        run.evaluate(**{"sampler": "all", "n": 100, **wrong})
    assert sorted(run.path.iterdir()) == before


def test_draws_of_codes_have_a_seed():
    config = small("vae", 1)
    model = build(config, settled(config, "image", (1, 8, 8), samples=100))
    x = torch.rand(10, 1, 8, 8)
    assert torch.equal(draw_codes(model, x, 1), draw_codes(model, x, 1))
    assert not torch.equal(draw_codes(model, x, 1), draw_codes(model, x, 2))


# Flows of codes


def test_a_fitted_flow_is_the_law_of_its_codes():
    """Of codes on a bent line, which no Gaussian is: nearer than the Gaussian of their moments,
    and in their units."""
    u = torch.randn(6000, generator=generator(0))
    bent = torch.stack([10 * u, u.square() + 0.1 * torch.randn(6000, generator=generator(1))], 1)
    flow = fit_flow(bent[:4000], steps=400)
    drawn, held = flow.sample(1000, generator(2)), bent[4000:5000]
    scale = bent.std(0)
    gaussian = bent.mean(0) + torch.randn(1000, 2, generator=generator(3)) * scale
    errors = [wasserstein(z / scale, held / scale) for z in (drawn, gaussian, bent[5000:])]
    assert errors[0] < 0.5 * errors[1]
    assert errors[0] < 2 * errors[2]
    assert flow.spread == pytest.approx(2 * float(bent[:4000].var(0).sum()), rel=0.01)
    assert flow.log_prob(held).mean() > flow.log_prob(gaussian).mean()


def test_draws_of_a_flow_of_codes_do_not_depend_on_how_many_are_drawn():
    flow = fit_flow(torch.randn(50, 3, generator=generator(0)), steps=3)
    whole, parts = flow.sample(9, generator(1)), generator(1)
    assert whole.dtype == torch.float32
    torch.testing.assert_close(
        torch.cat([flow.sample(4, parts), flow.sample(5, parts)]), whole, atol=1e-6, rtol=1e-6
    )


def test_the_seed_decides_a_fitted_flow_and_nothing_else_is_changed():
    codes, before = torch.randn(50, 3, generator=generator(0)), torch.get_rng_state()
    first, again, other = (fit_flow(codes, steps=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(again.state_dict(), first.state_dict(), atol=0, rtol=0)
    assert not torch.equal(first.sample(2, generator(0)), other.sample(2, generator(0)))


def test_codes_that_a_flow_cannot_be_fitted_to_are_refused():
    with pytest.raises(ValueError, match="`codes` must be at least two, got 1"):
        fit_flow(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="`codes` must be finite"):
        fit_flow(torch.full((5, 2), torch.nan))
    constant = fit_flow(torch.ones(5, 2), steps=2)  # a column without deviation is shifted
    assert torch.isfinite(constant.sample(3, generator(0))).all()


def test_the_flow_of_a_run_is_kept_and_used_by_its_name(tmp_path):
    out = tmp_path / "run"
    run = monge.fit("wae-mmd", "digits", small("wae-mmd", 3), out, quiet=True)
    first, kept = run.flow(), out / "sampler-flow.safetensors"
    made = kept.stat().st_mtime_ns
    again = monge.runs.Run(out).sampler("flow")
    assert kept.stat().st_mtime_ns == made
    torch.testing.assert_close(again.state_dict(), first.state_dict(), atol=0, rtol=0)
    assert run.samplers == ["prior", "mixture", "flow"]

    file = out / "drawn.npy"
    cli.parse(["sample", str(out), "--sampler", "flow", "-n", "5", "--out", str(file)]).run()
    expected = run.sample(5, generator(0, "sample"), first)
    torch.testing.assert_close(torch.from_numpy(np.load(file)), expected)
    command = ["sample", str(out), "-n", "5", "--out", str(file), "--ode-steps", "1"]
    cli.parse([*command, "--sampler", "flow"]).run()
    assert not np.allclose(np.load(file), expected.numpy())
    with pytest.raises(ValueError, match="`ode_steps` is 1, but Mixture integrates no flow"):
        cli.parse([*command, "--sampler", "mixture"]).run()
    with pytest.raises(ValueError, match="`ode_steps` is 1, but WAE integrates no flow"):
        cli.parse(command).run()

    kept.write_bytes(b"not tensors")
    with pytest.raises(ValueError, match="is damaged"):
        run.flow()
    monge.fit("wae-mmd", "digits", small("wae-mmd", 6), out, resume=True, quiet=True)
    kept.unlink()
    late = monge.runs.Run(out)
    assert not torch.equal(late.flow().flow.units.mean, first.flow.units.mean)


def test_a_kept_flow_of_other_codes_is_damaged(tmp_path):
    out, made_for = tmp_path, {"weights": "x"}
    flow = fit_flow(torch.randn(20, 3, generator=generator(0)), steps=1)
    fitted.write(out, "flow", flow, made_for)
    torch.testing.assert_close(
        fitted.read(out, "flow", made_for, 3).state_dict(), flow.state_dict(), atol=0, rtol=0
    )
    assert fitted.read(out, "flow", {"weights": "y"}, 3) is None
    tensors = flow.state_dict()
    bad = {name: x for name, x in tensors.items() if not name.endswith("body.0.weight")}
    for changed, dim in (
        (tensors, 4),
        (bad, 3),
        (tensors | {"flow.units.mean": torch.zeros(2, 2)}, None),
        (tensors | {"flow.units.mean": torch.full((3,), torch.inf)}, 3),
    ):
        file = fitted.path(out, "flow")
        file.write_bytes(save({k: v.contiguous() for k, v in changed.items()}, made_for))
        with pytest.raises(ValueError, match="is damaged"):
            fitted.read(out, "flow", made_for, dim)


# Temperatures


def test_a_temperature_scales_deviations():
    """Draws of a prior around 0, those of a mixture around its means; the noise of a flow, whose
    draws at a temperature near 0 are where it carries 0."""
    prior = tempered(Gaussian(3), 0.5)
    torch.testing.assert_close(
        prior.sample(9, generator(0)), Gaussian(3).sample(9, generator(0)) / 2
    )
    assert prior.spread == pytest.approx(Gaussian(3, 0.5).spread)
    means, eye = torch.tensor([[-5.0, 0.0], [5.0, 1.0]]), torch.eye(2).expand(2, 2, 2)
    cold = tempered(Mixture(means, eye, [0.25, 0.75]), 0.5)
    torch.testing.assert_close(
        cold.state_dict(), Mixture(means, eye / 4, [0.25, 0.75]).state_dict()
    )
    codes = 3 + 2 * torch.randn(500, 2, generator=generator(1))
    flow = fit_flow(codes, steps=30)
    colder, coldest = tempered(flow, 0.5), tempered(flow, 1e-4)
    assert coldest.spread < 1e-3 < colder.spread < 0.5 * tempered(flow, 1.1).spread
    away = (coldest.sample(5, generator(0)) - codes.mean(0)).abs().max()
    assert away < 0.5 * codes.std()
    assert tempered(flow, 1) is flow


def test_temperatures_that_mean_nothing_are_refused():
    for bad in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`temperature` must be positive and finite"):
            tempered(Gaussian(2), bad)
    for bad in (1e-11, 1e200):
        with pytest.raises(ValueError, match="`temperature` must be from 1e-10 to 1e\\+10, got"):
            tempered(Gaussian(2), bad)
    mixture = Mixture([[1.0, 2.0]], torch.eye(2)[None], [1.0])
    for far in (1e-10, 1e10):
        drawn = (tempered(mixture, far).sample(9) - mixture.means).abs() / max(far, 1e-6)
        assert drawn.max() < 5
    with pytest.raises(ValueError, match=r"`temperature` is 0\.5, but draws of a sphere"):
        tempered(Sphere(3), 0.5)


@pytest.mark.parametrize("recipe", ["swae", "swg"])
def test_samples_at_a_temperature_are_those_of_the_tempered_prior(rings, tmp_path, recipe):
    run, file = rings[recipe], tmp_path / "drawn.npy"
    command = ["sample", str(run.path), "-n", "5", "--out", str(file), "--temperature", "0.5"]
    for name in run.samplers:
        cli.parse([*command, "--sampler", name]).run()
        prior = tempered(run.sampler(name) or run.model.prior, 0.5)
        expected = run.sample(5, generator(0, "sample"), prior)
        torch.testing.assert_close(torch.from_numpy(np.load(file)), expected)
    cold = run.evaluate(200, temperature=0.2, metrics=["neighbours"])
    warm = run.evaluate(200, metrics=["neighbours"])
    assert cold["protocol"]["temperature"] == 0.2
    assert "temperature" not in warm["protocol"]
    assert cold["figures"]["recall"]["value"] < warm["figures"]["recall"]["value"]
    with pytest.raises(ValueError, match="`temperature` must be positive and finite, got -1"):
        cli.parse([*command[:-1], "-1"]).run()


def test_steps_and_temperature_of_a_flow_of_codes_go_together(rings, tmp_path):
    run, file = rings["swae"], tmp_path / "drawn.npy"
    given = ["--sampler", "flow", "--temperature", "0.5", "--ode-steps", "1"]
    cli.parse(["sample", str(run.path), "-n", "5", "--out", str(file), *given]).run()
    flow = run.flow()
    with_steps(flow, 1)
    expected = run.sample(5, generator(0, "sample"), tempered(flow, 0.5))
    torch.testing.assert_close(torch.from_numpy(np.load(file)), expected)


def test_a_flow_without_prior_has_no_temperature(tmp_path):
    config = Config.of("flow-matching")
    config = dataclasses.replace(
        config, training=dataclasses.replace(config.training, batch=100, steps=1)
    )
    run = monge.fit("flow-matching", "rings", config, tmp_path / "run", quiet=True)
    with pytest.raises(ValueError, match=r"FlowMatching has no `prior`, which a temperature of 0"):
        run.sampler("prior", temperature=0.5)


@pytest.mark.parametrize("seed", [-1, 2**32 + 5, 2**63 - 1])
def test_every_seed_of_a_run_fits_a_mixture(seed):
    """scikit-learn takes those of 32 bits only."""
    codes = torch.randn(60, 2, generator=generator(0))
    assert torch.equal(fit_mixture(codes, 2, seed).means, fit_mixture(codes, 2, seed).means)


def test_a_file_of_more_samples_than_there_is_room_for_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`out` would be a file of .* ask for fewer samples"):
        list(_npy([torch.zeros(2, 3)], 2**60, tmp_path))


@pytest.mark.parametrize(
    ("name", "message"),
    [("x.npy", "`out` would be a file of"), ("x.csv", "`n` 1,000,000,000,000 rows")],
)
def test_more_samples_than_there_is_room_for_are_refused_before_a_fit(
    rings, tmp_path, name, message
):
    out = tmp_path / "new" / name
    verb = Sample(path=rings["swae"].path, out=out, n=10**12, sampler="flow")
    with pytest.raises(ValueError, match=message):
        verb.run()
    assert not out.parent.exists()
