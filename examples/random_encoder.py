"""Data of one dimension in a latent space of two: why the encoder should then be random.

python examples/random_encoder.py
"""

import torch
from common import save, trained
from matplotlib.figure import Figure

from monge.draws import generator
from monge.evaluation.samplers import draw_codes
from monge.transport import wasserstein_1d


def main() -> None:
    torch.set_num_threads(1)
    figure = Figure(figsize=(10, 6.6))
    rows = figure.subplots(2, 3)
    for panels, encoder in zip(rows, ("deterministic", "random")):
        run = trained("wae-mmd", "line", f"line-{encoder}", latent=2, encoder=encoder, weight=10.0)
        test = run.source.test[:2000]
        codes = draw_codes(run.model, test)
        prior = run.model.prior.sample(2000, generator(0, "prior"))
        panels[0].scatter(*prior.T, s=3, color="#b8b8b8", linewidths=0, label="prior")
        panels[0].scatter(*codes.T, s=3, c=test[:, 0], cmap="coolwarm", linewidths=0)
        panels[0].set_title(f"{encoder} encoder: codes, coloured by x", fontsize=9)
        panels[0].set_aspect("equal")
        line = torch.linspace(-3, 3, 200)
        plane = torch.cartesian_prod(line, line)
        with torch.no_grad():
            decoded = run.model.decode(plane).view(200, 200).T
        panels[1].imshow(decoded, origin="lower", extent=(-3, 3, -3, 3), cmap="coolwarm")
        panels[1].set_title("G(z) over the plane", fontsize=9)
        drawn = run.model.sample(2000, generator(0, "line"))
        distance = float(wasserstein_1d(drawn[:, 0], test[:, 0], p=1))
        bins = torch.linspace(float(test.min()), float(test.max()), 60).tolist()
        panels[2].hist(test[:, 0], bins, density=True, color="#b8b8b8", label="data")
        panels[2].hist(drawn[:, 0], bins, density=True, histtype="step", label="samples")
        panels[2].set_title(f"samples: W_1 {distance:.3f}", fontsize=9)
        panels[2].legend(frameon=False, fontsize=8)
        figures = run.summary()
        print(encoder, {**figures, "W_1 of samples": distance})
    save(figure, "random_encoder")


if __name__ == "__main__":
    main()
