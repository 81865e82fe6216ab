"""The pictures of the book's chapters, each a function; one thread, half a minute in all.

    python examples/book.py [NAME ...] [--out docs/book]

Pictures that need trained models are made by the other examples.
"""

import argparse
import io
import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from PIL import Image
from torch import Tensor

from monge.draws import generator
from monge.inference import (
    VariationalLinearRegression,
    clutter_ep,
    fit_gaussian,
    game_value,
    mean_field,
    moment_matched,
    optimal_discriminator,
)
from monge.priors import Mixture
from monge.transport import (
    gaussian_kl,
    gaussian_wasserstein,
    gromov_wasserstein,
    jensen_shannon,
    kantorovich_potential,
    kullback_leibler,
    max_sliced_wasserstein,
    monge_map,
    sinkhorn,
    sinkhorn_divergence,
    sliced_wasserstein,
    total_variation,
    wasserstein,
    wasserstein_1d,
)

BLUE, RED, GREY = "#3b5ba5", "#c8553d", "#9a9a9a"


def normal(*shape: int, key: str) -> Tensor:
    return torch.randn(*shape, generator=generator("book", key)).double()


def panels(count: int, height: float = 3.2) -> tuple[Figure, list]:
    figure = Figure(figsize=(9.6, height), layout="constrained")
    found = figure.subplots(1, count, squeeze=False)[0]
    for panel in found:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, list(found)


def ellipse(panel, mean, covariance, **style) -> None:
    """Two deviations of a Gaussian in the plane."""
    values, vectors = torch.linalg.eigh(covariance)
    angle = math.degrees(math.atan2(float(vectors[1, 1]), float(vectors[0, 1])))
    width, height = (4 * values.sqrt()).flip(0).tolist()
    panel.add_patch(Ellipse(mean.tolist(), width, height, angle=angle, fill=False, **style))


def monge() -> Figure:
    """A plan that splits a point where no map exists, and a map between clouds."""
    figure, (left, right) = panels(2)
    left.plot([0, 1], [0, 1], "-", [0, 1], [0, -1], "-", color=GREY, lw=5, alpha=0.5)
    left.scatter([0], [0], s=300, color=BLUE, zorder=3)
    left.scatter([1, 1], [1, -1], s=150, color=RED, zorder=3)
    left.set(title="a plan may split a point; a map may not", xticks=[], yticks=[])
    left.margins(0.2)
    x = normal(60, 2, key="monge") * 0.6
    angle = torch.linspace(0, 2 * math.pi, 61)[:-1].double()
    y = torch.stack([angle.cos(), angle.sin()], 1) * 2.2 + torch.tensor([1.5, 0])
    to = y[monge_map(x, y)]
    for a, b in zip(x, to):
        right.plot(*zip(a.tolist(), b.tolist()), color=GREY, lw=0.7)
    right.scatter(*x.T, s=12, color=BLUE, zorder=3)
    right.scatter(*y.T, s=12, color=RED, zorder=3)
    right.set(title="with equal numbers the best plan is a map", aspect="equal", xticks=[])
    right.set(yticks=[])
    return figure


def duality() -> Figure:
    """The potential of W_1 between two clouds, over the plane and along a line."""
    figure, (left, right) = panels(2)
    x, y = normal(80, 2, key="dual x") * 0.5, normal(80, 2, key="dual y") * 0.5
    y = y + torch.tensor([2.5, 0.5])
    f, g = kantorovich_potential(x, y)
    points, values = torch.cat([x, y]), torch.cat([f, g])
    line = torch.linspace(-1.6, 4.2, 240).double()
    grid = torch.stack(torch.meshgrid(line, line - 1, indexing="xy"), -1).view(-1, 2)
    # the least 1-Lipschitz function above no value, which extends the potential
    extended = (values + torch.cdist(grid, points)).min(1).values.view(240, 240)
    left.contourf(line, line - 1, extended, 24, cmap="coolwarm")
    left.scatter(*x.T, s=8, color="black", label="μ")
    left.scatter(*y.T, s=8, color="white", edgecolors="black", linewidths=0.6, label="ν")
    left.set(title="the potential φ of W₁", xticks=[], yticks=[], aspect="equal")
    pairs = (values[:, None] - values).abs().flatten()
    right.scatter(torch.cdist(points, points).flatten(), pairs, s=1, color=BLUE, linewidths=0)
    right.plot([0, 5], [0, 5], color=RED, lw=1)
    right.set(title="no pair above slope 1", xlabel="‖u - v‖", ylabel="|φ(u) - φ(v)|")
    return figure


def line() -> Figure:
    """Transport on the line, between quantiles."""
    figure, (left, right) = panels(2)
    u = torch.linspace(0.002, 0.998, 400).double()
    x, y = torch.special.ndtri(u), 3 + 0.5 * torch.special.ndtri(u)
    left.plot(x, u, color=BLUE, label="F of N(0, 1)")
    left.plot(y, u, color=RED, label="F of N(3, ½²)")
    for k in range(20, 400, 40):
        left.annotate(
            "", (y[k], u[k]), (x[k], u[k]), arrowprops={"arrowstyle": "->", "color": GREY}
        )
    left.set(title="each level of mass goes straight across", xlabel="x", ylabel="F(x)")
    left.legend(frameon=False)
    right.plot(x, y, color=BLUE, label="quantiles of N(3, ½²) against N(0, 1)")
    right.plot(x, 3 + 0.5 * x, "--", color=RED, label="T(x) = 3 + ½ x")
    right.set(title="the monotone map", xlabel="x", ylabel="T(x)")
    right.legend(frameon=False)
    return figure


def slices() -> Figure:
    """Two far means in growing dimension: the mean slice fades, the best one does not."""
    figure, (panel,) = panels(1)
    dimensions, shift = [2**k for k in range(1, 10)], 10.0
    mean, best = [], []
    for d in dimensions:
        random = generator("book slices", d)
        x, y = torch.randn(2, 1000, d, generator=random)
        y[:, 0] += shift
        mean.append(sliced_wasserstein(x, y, directions=1000, generator=random))
        best.append(max_sliced_wasserstein(x, y, generator=random)[0])
    panel.plot(dimensions, best, "o-", color=RED, label="max-sliced, 1,000 points")
    panel.axhline(shift, color=RED, ls="--", lw=1, label="‖v‖")
    panel.plot(dimensions, mean, "o-", color=BLUE, label="sliced, 1,000 points")
    panel.plot(
        dimensions, [shift / d**0.5 for d in dimensions], "--", color=BLUE, lw=1, label="‖v‖ / √d"
    )
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set(xlabel="dimension d", title="N(0, I) against N(v, I), ‖v‖ = 10")
    panel.legend(frameon=False)
    return figure


def entropic() -> Figure:
    """Plans for three ε, and the divergence between its limits."""
    figure, found = panels(4, 2.8)
    x = torch.linspace(-2, 2, 80).double()[:, None]
    a = torch.exp(-2 * (x[:, 0] + 0.8) ** 2)
    b = torch.exp(-3 * (x[:, 0] - 1) ** 2) + 0.6 * torch.exp(-9 * (x[:, 0] + 1) ** 2)
    a, b = a / a.sum(), b / b.sum()
    for panel, epsilon in zip(found, (0.01, 0.1, 1.0)):
        plan = sinkhorn(x, x, a, b, epsilon=epsilon).plan
        panel.imshow(plan.sqrt().numpy(), origin="lower", cmap="Blues", extent=(-2, 2, -2, 2))
        panel.set(title=f"ε = {epsilon}", xticks=[], yticks=[])
    x, y = normal(200, 2, key="entropic x"), normal(200, 2, key="entropic y") * 0.5
    y = y + 1
    epsilons = torch.logspace(-2, 3, 16).tolist()
    values = [sinkhorn_divergence(x, y, epsilon=e) for e in epsilons]
    found[3].plot(epsilons, values, "o-", ms=3, color=BLUE)
    found[3].axhline(wasserstein(x, y) ** 2, color=RED, ls="--", lw=1, label="W₂²")
    apart = (x.mean(0) - y.mean(0)).square().sum()
    found[3].axhline(apart, color=GREY, ls="--", lw=1, label="‖m₁ - m₂‖²")
    found[3].set(xscale="log", xlabel="ε", title="Sinkhorn divergence")
    found[3].legend(frameon=False)
    return figure


def gromov() -> Figure:
    """A shape matched with its turned and mirrored copy."""
    figure, (left, right) = panels(2)
    t = torch.linspace(0, 1, 60).double()
    x = torch.stack([(1 + 3 * t) * (5 * t).cos(), (1 + 3 * t) * (5 * t).sin()], 1)
    turn = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double()
    order = torch.randperm(60, generator=generator("book", "gromov"))
    y = (x @ turn)[order]
    plan = gromov_wasserstein(torch.cdist(x, x), torch.cdist(y, y)).plan
    left.scatter(*x.T, c=t, cmap="viridis", s=20)
    left.set(title="a shape, coloured along it", aspect="equal", xticks=[], yticks=[])
    right.scatter(*y.T, c=t[plan.argmax(0)], cmap="viridis", s=20)
    right.set(title="mirrored, shuffled; coloured by the plan", aspect="equal", xticks=[])
    right.set(yticks=[])
    return figure


def vae() -> Figure:
    """The bound of a linear Gaussian model against the posterior's width."""
    figure, (panel,) = panels(1)
    # x = 2 z + 0.5 ε, at x = 1
    evidence = float(torch.distributions.Normal(0.0, math.sqrt(4.25)).log_prob(torch.ones(())))
    precision = 1 + 4 / 0.25
    mean, variance = torch.tensor([2 / 0.25 / precision]), torch.tensor([[1 / precision]])
    deviations = torch.linspace(0.03, 1.2, 200)
    gaps = [gaussian_kl(mean, (s**2).view(1, 1), mean, variance) for s in deviations]
    panel.plot(deviations, [evidence - float(gap) for gap in gaps], color=BLUE, label="ELBO")
    panel.axhline(evidence, color=RED, ls="--", lw=1, label="log p(x)")
    panel.axvline(variance.sqrt(), color=GREY, lw=1, label="the posterior's deviation")
    panel.set(xlabel="deviation of q(z|x)", ylabel="nats", title="log p(x) = ELBO + KL")
    panel.legend(frameon=False)
    return figure


def gan() -> Figure:
    """The optimal discriminator, and the value of the game as two normal laws part."""
    figure, (left, right) = panels(2)

    def law(shift: float):
        centre = torch.tensor(shift, dtype=torch.float64)
        return lambda x: torch.distributions.Normal(centre, 1.0).log_prob(x).exp()

    x = torch.linspace(-4, 6, 300).double()
    f, f_g = law(0.0)(x), law(2.0)(x)
    left.plot(x, f, color=BLUE, label="data f")
    left.plot(x, f_g, color=RED, label="generator f_g")
    left.plot(x, optimal_discriminator(f, f_g), color="black", label="D* = f / (f + f_g)")
    left.legend(frameon=False)
    left.set(title="the optimal discriminator")
    shifts = torch.linspace(0, 6, 25).tolist()
    right.plot(shifts, [game_value(law(0.0), law(s), support=(-12, 18)) for s in shifts])
    right.axhline(-math.log(4), color=RED, ls="--", lw=1, label="-log 4")
    right.axhline(0, color=GREY, ls="--", lw=1, label="disjoint supports")
    right.set(title="V(D*, G): flat where the laws are far apart", xlabel="shift")
    right.legend(frameon=False)
    return figure


def critics() -> Figure:
    """A point against a moved one, by four measures."""
    figure, (panel,) = panels(1)
    thetas = torch.arange(-100, 101).double() / 100
    point, away = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    found = {"W₁": [], "TV": [], "JS": []}
    for theta in thetas:
        q = point if theta == 0 else away
        support = torch.stack([torch.zeros(()).double(), theta])
        found["W₁"].append(wasserstein_1d(support, support, point, q, p=1))
        found["TV"].append(total_variation(point, q))
        found["JS"].append(jensen_shannon(point, q))
    for (name, values), colour in zip(found.items(), (RED, GREY, BLUE)):
        # all are 0 at θ = 0, where two of them jump
        broken = [math.nan if theta == 0 else float(v) for theta, v in zip(thetas, values)]
        panel.plot(thetas, broken, color=colour, label=name)
    panel.plot(0, 0, "o", color="black", label="all, at θ = 0")
    assert torch.isinf(kullback_leibler(point, away))
    panel.set(xlabel="θ", title="(0, U) against (θ, U): KL is infinite but at 0")
    panel.legend(frameon=False)
    return figure


def wae() -> Figure:
    """The cost of every encoder with Q_Z = P_Z that is a rotation, and the least transport."""
    figure, (panel,) = panels(1)
    covariance = torch.tensor([[2.0, 0.6], [0.6, 0.5]]).double()
    decoder = torch.tensor([[1.0, 0.0], [0.8, 0.7]]).double()
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.sqrt() @ vectors.T
    angles, costs = torch.linspace(-math.pi, math.pi, 400).double(), {1: [], -1: []}
    for sign in costs:
        for angle in angles:
            c, s = angle.cos(), angle.sin()
            turn = torch.stack([torch.stack([c, -sign * s]), torch.stack([s, sign * c])])
            # E‖X - A Z‖² with X = root ε, Z = turn ε
            costs[sign].append((root - decoder @ turn).square().sum())
        panel.plot(angles, costs[sign], label="rotations" if sign > 0 else "reflections")
    zero = torch.zeros(2).double()
    exact = gaussian_wasserstein(zero, covariance, zero, decoder @ decoder.T) ** 2
    panel.axhline(exact, color=RED, ls="--", lw=1, label="W₂²(P_X, P_G)")
    panel.set(xlabel="angle of the encoder", title="E‖X - G(Z)‖² under encoders with Q_Z = P_Z")
    panel.legend(frameon=False)
    return figure


def random() -> Figure:
    """The random decoder's bound against the exact cost."""
    figure, (panel,) = panels(1)
    sigma, s, a = torch.linspace(0, 1.2, 200), 1.0, 0.8
    panel.plot(sigma, sigma**2 + (s - a) ** 2, color=BLUE, label="bound: σ² + (s - a)²")
    panel.plot(sigma, (s - (a**2 + sigma**2).sqrt()) ** 2, color=RED, label="W₂²")
    panel.set(xlabel="σ of the decoder", title="X ~ N(0, 1), G(z) = 0.8 z: equal at σ = 0 alone")
    panel.legend(frameon=False)
    return figure


def kl() -> Figure:
    """Products for a correlated Gaussian, and single Gaussians for two modes."""
    figure, (left, right) = panels(2)
    mean = torch.tensor([0.0, 1.0]).double()
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]]).double()
    precision = torch.linalg.inv(covariance)
    ellipse(left, mean, covariance, color=GREY, lw=2, label="p, correlation 0.9")
    for solve, colour, name in (
        (mean_field, BLUE, "KL(q ‖ p): variance 0.19"),
        (moment_matched, RED, "KL(p ‖ q): variance 1"),
    ):
        ellipse(left, mean, solve(mean, precision)[1].diag(), color=colour, lw=1.6, label=name)
    left.set(xlim=(-3, 3), ylim=(-2.4, 4.4), aspect="equal", title="the best products")
    left.legend(frameon=False, fontsize=7, loc="upper left")
    mixture = Mixture(
        torch.tensor([[-3.0], [3.0]]), torch.tensor([[[0.8]], [[0.8]]]), torch.tensor([0.55, 0.45])
    )
    x = torch.linspace(-8, 8, 400)[:, None]
    right.fill_between(x[:, 0], mixture.log_prob(x).exp(), color=GREY, alpha=0.4, label="p")
    cases = {
        "KL(q ‖ p)": (fit_gaussian(mixture, "mode-seeking"), BLUE, "-"),
        "KL(q ‖ p), the other minimum": (
            fit_gaussian(mixture, "mode-seeking", start=torch.tensor([3.0])),
            BLUE,
            ":",
        ),
        "KL(p ‖ q)": (fit_gaussian(mixture, "mass-covering"), RED, "-"),
    }
    for name, ((m, c), colour, style) in cases.items():
        density = torch.exp(-0.5 * (x[:, 0] - m) ** 2 / c[0, 0]) / (2 * math.pi * c[0, 0]).sqrt()
        right.plot(x[:, 0], density, style, color=colour, label=name)
    right.set(title="the best single Gaussians", ylim=(0, 0.66))
    right.legend(frameon=False, fontsize=7, loc="upper right")
    return figure


def bayes() -> Figure:
    """The bound while it rises, and a predictive distribution."""
    figure, (left, right) = panels(2)
    draws = np.random.default_rng(0)
    x = np.sort(draws.uniform(-3, 3, 25))
    centres = np.linspace(-4, 4, 9)

    def features(values: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * (values[:, None] - centres) ** 2)

    y = np.sin(1.5 * x) + 0.3 * draws.normal(size=25)
    model = VariationalLinearRegression().fit(features(x), y)
    left.plot(np.arange(1, model.n_iter_ + 1), model.elbo_, color=BLUE)
    left.set(xscale="log", xlabel="update", ylabel="nats", title="the bound never falls")
    new = np.linspace(-6, 6, 300)
    mean, deviation = model.predict(features(new), return_std=True)
    right.fill_between(new, mean - 2 * deviation, mean + 2 * deviation, color=BLUE, alpha=0.2)
    right.plot(new, mean, color=BLUE)
    right.plot(new, np.sin(1.5 * new), color=GREY, lw=1)
    right.scatter(x, y, s=10, color=RED, zorder=3)
    right.set(title="two predictive deviations, nine bumps", ylim=(-3, 3))
    return figure


def clutter(count: int, key: str) -> Tensor:
    """Half of the points around 2, half around 0 with variance 10."""
    noise, kind = normal(count, 1, key=key), normal(count, 1, key=f"{key} kind")
    return torch.where(kind < 0, 2 + noise, math.sqrt(10) * noise)


def propagation() -> Figure:
    """A point seen through clutter: the exact posterior and what propagation makes of it."""
    figure, found = panels(2)
    for panel, count in zip(found, (6, 40)):
        x = clutter(count, "clutter")
        theta = torch.linspace(-4, 8, 2001).double()
        log_p = -0.5 * theta**2 / 100
        for value in x[:, 0]:
            signal = torch.exp(-0.5 * (value - theta) ** 2)
            background = math.exp(-0.5 * float(value) ** 2 / 10) / math.sqrt(10)
            log_p = log_p + torch.log(signal + background)
        p = torch.exp(log_p - log_p.max())
        p = p / (p.sum() * (theta[1] - theta[0]))
        panel.fill_between(theta, p, color=GREY, alpha=0.4, label="exact")
        q = clutter_ep(x)
        density = torch.exp(-0.5 * (theta - q.mean) ** 2 / q.variance)
        panel.plot(theta, density / math.sqrt(2 * math.pi * q.variance), color=RED, label="EP")
        panel.plot(x[:, 0], torch.zeros(count), "|", color="black")
        told = "converged" if q.converged else "not converged"
        panel.set(title=f"n = {count}: {told}, error {q.error:.1%}", xlim=(-4, 8))
        panel.legend(frameon=False)
    return figure


CHAPTERS = {
    make.__name__: make
    for make in (
        monge,
        duality,
        line,
        slices,
        entropic,
        gromov,
        vae,
        gan,
        critics,
        wae,
        random,
        kl,
        bayes,
        propagation,
    )
}


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*CHAPTERS, []], metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("docs/book"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.names or CHAPTERS:
        content = io.BytesIO()
        CHAPTERS[name]().savefig(content, dpi=100)
        path = given.out / f"{name}.png"
        Image.open(content).convert("RGB").quantize(128).save(path, optimize=True)
        print(path, f"{path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
