"""A VAE matches each Q(Z|x) to the prior, a WAE their mixture: both in a plane of codes.

MONGE_DATA=DIR python examples/latent_space.py
"""

import torch
from common import codes_by_class, save, trained
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse

from monge.data import as_floats
from monge.networks import Normal

CASES = {
    "VAE": ("vae", {}),
    "VAE, σ = 1": ("vae", {"sigma": 1.0}),
    "WAE-MMD": ("wae-mmd", {}),
    "WAE-GAN": ("wae-gan", {}),
}


def main() -> None:
    torch.set_num_threads(1)
    figure = Figure(figsize=(15, 4.2))
    for axes, (title, (recipe, settings)) in zip(figure.subplots(1, 4), CASES.items()):
        name = "plane-" + "-".join([recipe, *(f"{k}-{v}" for k, v in settings.items())])
        run = trained(recipe, "mnist", name, latent=2, training__epochs=3, **settings)
        codes_by_class(axes, run)
        with torch.no_grad():
            law = run.model.encode(as_floats(run.source.test[:25]))
        if isinstance(law, Normal):
            for (a, b), (s, t) in zip(law.mean, 2 * (law.log_variance / 2).exp()):
                axes.add_patch(Ellipse((a, b), 2 * s, 2 * t, fill=False, linewidth=0.7))
        axes.add_patch(Circle((0, 0), 2, fill=False, linestyle="--", color="grey"))
        axes.set(xlim=(-4, 4), ylim=(-4, 4))
        figures = run.summary()
        error, matched = figures["test reconstruction"], figures["MMD² of codes"]
        axes.set_title(f"{title}: error {error:.1f}, MMD² {matched:.3f}", fontsize=10)
        print(title, figures)
    save(figure, "latent_space")


if __name__ == "__main__":
    main()
