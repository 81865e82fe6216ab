"""Mixtures fitted to codes: against the law they were drawn from, stored, and fitted again."""

import dataclasses
import json

import pytest
import torch

import monge
from monge.builders import build, settled
from monge.config import Config, NetworkConfig
from monge.draws import generator
from monge.evaluation import figures
from monge.evaluation.figures import by_sampler
from monge.evaluation.samplers import draw_codes, fit_mixture
from monge.priors import Mixture
from monge.show import card, report


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
    single = {name: run.evaluate(200, name, seeds=2) for name in ("prior", "mixture")}
    result = run.evaluate(200, "all", seeds=2)
    assert list(result["samplers"]) == run.samplers == ["prior", "mixture"]
    assert result["protocol"]["sampler"] == "prior"
    assert result["figures"] == by_sampler(result)["prior"]["figures"]
    for name, one in single.items():
        for part in ("figures", "columns"):
            assert result["samplers"][name][part].keys() <= one[part].keys()
            for figure, values in one[part].items():  # up to the last digits of products
                assert by_sampler(result)[name][part][figure] == pytest.approx(values)
        assert one["protocol"]["sampler"] == name
    assert run.evaluation() == result == json.loads((run.path / "evaluation.json").read_text())
    first = {name: one["figures"]["FD"]["value"] for name, one in single.items()}
    assert result["best"] == {"sampler": min(first, key=first.__getitem__), "figure": "FD"}


def test_the_table_has_a_column_for_each_sampler_and_the_best(rings):
    run = rings["swae"]
    result = run.evaluate(200, "all", metrics=["neighbours"])
    head, _, precision, *_ = figures.lines(result)
    assert head == "| figure | prior | ± | mixture | ± | floor |"
    values = [one["figures"]["precision"]["value"] for one in result["samplers"].values()]
    assert [f"{value:.4g}" for value in values] == precision.split(" | ")[1:4:2]
    best = run.samplers[values.index(max(values))]  # of precision, more is better
    assert figures.verdict(result) == f"best sampler by precision: {best}"
    page = report.write(run).read_text()
    assert "<td>mixture</td>" in page
    assert f"best sampler by precision: {best}" in page
    assert "sampler: prior, mixture" in page
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


def test_no_sampler_is_refused(rings):
    run = rings["swae"]
    with pytest.raises(ValueError, match="`samplers` is empty"):
        figures.evaluate_samplers(run.model, run.source, {})
    with pytest.raises(ValueError, match="`sampler` must be one of prior, mixture, all, got 'po"):
        run.evaluate(sampler="posterior")


def test_draws_of_codes_have_a_seed():
    config = small("vae", 1)
    model = build(config, settled(config, "image", (1, 8, 8), samples=100))
    x = torch.rand(10, 1, 8, 8)
    assert torch.equal(draw_codes(model, x, 1), draw_codes(model, x, 1))
    assert not torch.equal(draw_codes(model, x, 1), draw_codes(model, x, 2))
