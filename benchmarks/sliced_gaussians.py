"""How well √d · SW_2 of samples stands for W_2 between Gaussian laws, against d and the slices L.

    python benchmarks/sliced_gaussians.py [--out docs/distances/sliced.png]

Two laws N(m, S) with random means and random covariances are drawn, 1,000 points from each, and
√d · SW_2 of the points with L drawn directions is divided by the closed form of W_2 between the
laws; 40 repetitions. With equal covariances the expectation of the ratio over directions is 1.

After: Kolouri, Pope, Martin, Rohde, "Sliced Wasserstein auto-encoders", 2019, figure 2.
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure

from monge.draws import generator
from monge.transport import gaussian_wasserstein, sliced_wasserstein

DIMENSIONS = [2**k for k in range(1, 11)]
SLICES = (1, 10, 50, 100, 500, 1000)
REPEATS, POINTS = 40, 1000


def ratios(d: int, equal: bool, key: str) -> torch.Tensor:
    """√d · SW_2 / W_2 for each repetition and number of slices, (REPEATS, len(SLICES))."""
    random = generator(key, d, equal)
    rows = []
    for _ in range(REPEATS):
        means = torch.randn(2, d, generator=random)
        # Wishart matrices of d + 8 degrees of freedom, of mean trace d
        factors = torch.randn(2, d, d + 8, generator=random) / (d + 8) ** 0.5
        covariances = factors @ factors.mT
        if equal:
            covariances = torch.eye(d).expand(2, d, d)
        roots = torch.linalg.cholesky(covariances)
        z = torch.randn(2, POINTS, d, generator=random)
        x, y = means[:, None] + z @ roots.mT
        exact = gaussian_wasserstein(means[0], covariances[0], means[1], covariances[1])
        rows.append(
            [
                d**0.5 * sliced_wasserstein(x, y, directions=count, generator=random) / exact
                for count in SLICES
            ]
        )
    return torch.tensor(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/distances/sliced.png"))
    out = parser.parse_args().out
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, equal in zip(panels, (True, False)):
        found = {d: ratios(d, equal, "sliced gaussians") for d in DIMENSIONS}
        for i, count in enumerate(SLICES):
            mean = torch.stack([found[d][:, i].mean() for d in DIMENSIONS])
            spread = torch.stack([found[d][:, i].std() for d in DIMENSIONS])
            # side by side, so that the bars of one dimension can be told apart
            at = [d * 1.07 ** (i - 2.5) for d in DIMENSIONS]
            panel.errorbar(at, mean, spread, label=f"L = {count:,}", marker="o", ms=3, lw=0.8)
            text = ", ".join(f"{m:.2f} ± {s:.2f}" for m, s in zip(mean, spread))
            print(f"equal covariances {equal}, L = {count}: {text}")
        panel.axhline(1, color="black", lw=0.8)
        panel.set_xscale("log", base=2)
        panel.set_xlabel("dimension d")
        panel.set_title("equal covariances" if equal else "random covariances")
    panels[0].set_ylabel("√d · SW₂ / W₂")
    panels[1].legend(frameon=False, ncols=2)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120, metadata={"Software": None})
    print(out)


if __name__ == "__main__":
    main()
