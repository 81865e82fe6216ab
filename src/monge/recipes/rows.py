"""What recipes and presets set: literal tables of settings, by their dotted names in a config."""

from typing import Any

RECIPES = {
    "wae-mmd": "WAE, MMD of codes with seven inverse multiquadratics (Tolstikhin et al. 2018)",
    "wae-gan": "WAE, latent critic, Jensen-Shannon (Tolstikhin et al. 2018; Makhzani et al. 2015)",
    "wae-wgan-gp": "WAE, W_1 of codes by a critic with a penalty (Gulrajani et al. 2017)",
    "swae": "WAE, sliced W_2² of codes (Kolouri et al. 2019)",
    "max-swae": "WAE, W_2² of codes on a learned worst slice (Deshpande et al. 2019)",
    "gswae": "WAE, sliced W_2² of codes along circles (Kolouri et al. 2019, generalized)",
    "max-gswae": "WAE, W_2² of codes on learned worst circles (Kolouri et al. 2019, generalized)",
    "sinkhorn-ae": "WAE, Sinkhorn divergence of codes (Patrini et al. 2019)",
    "energy-ae": "WAE, energy distance of codes (Székely, Rizzo 2013)",
    "vae": "VAE: E KL + Gaussian likelihood, σ learned or given (Kingma, Welling 2014)",
    "vae-bernoulli": "VAE: E KL + cross-entropy, data in [0, 1] (Kingma, Welling 2014)",
    "pointcloud-wae": "WAE of clouds of points, MMD of codes, Chamfer (Achlioptas et al. 2018)",
    "conditional-wae": "WAE of images given a part, critic of joint codes (Makhzani et al. 2015)",
    "gan": "generator, Jensen-Shannon by a critic, non-saturating (Goodfellow et al. 2014)",
    "wgan": "generator, W_1 by a critic with clipped weights (Arjovsky et al. 2017)",
    "wgan-gp": "generator, W_1 by a critic with a gradient penalty (Gulrajani et al. 2017)",
    "swg": "generator, sliced W_2² of the data themselves (Deshpande et al. 2018)",
    "swgan": "generator, sliced W_2² of a discriminator's features (Deshpande et al. 2018)",
    "max-swg": "generator, W_2² on a learned worst slice (Deshpande et al. 2019)",
    "mmd-generator": "generator, MMD with seven inverse multiquadratics (Li et al. 2015)",
    "sinkhorn-generator": "generator, Sinkhorn divergence (Genevay et al. 2018)",
}
ALIASES = {"aae": "wae-gan"}

GENERATORS = ("gan", "wgan", "wgan-gp", "swg", "swgan", "max-swg", "mmd-generator",
              "sinkhorn-generator")  # fmt: skip

# What a recipe sets where its source does; everything else is common to all.
OWN: dict[str, dict[str, Any]] = {
    "gan": {"training.lr": 2e-4, "training.inner_lr": 2e-4},
    "wgan": {
        "training.optimiser": "rmsprop", "training.lr": 5e-5, "training.inner_lr": 5e-5,
        "training.inner_steps": 5, "training.inner_first": (25, 100), "training.batch": 64,
    },
    "wgan-gp": {
        "training.lr": 1e-4, "training.inner_lr": 1e-4, "training.betas": (0.5, 0.9),
        "training.inner_steps": 5,
    },
    "wae-wgan-gp": {"training.inner_steps": 5},
    "pointcloud-wae": {"training.lr": 5e-4, "training.batch": 50, "training.schedule": "smooth"},
    "swg": {"directions": 1000},
    "swgan": {"training.lr": 2e-4, "training.inner_lr": 2e-4},
    # a slice that turns slowly is behind the model: MMD² of MNIST codes 0.25 at (1e-2, 1 step)
    "max-swg": {"training.inner_lr": 0.1, "training.inner_steps": 5},
    "max-swae": {"training.inner_lr": 0.1, "training.inner_steps": 5},
    "max-gswae": {"training.inner_lr": 0.1},
}  # fmt: skip

# λ = relative · √d for data of d elements, in units of c = Σ squared error on [0, 1].
RELATIVE_WEIGHTS = {
    "wae-mmd": 7.0, "wae-gan": 0.18, "wae-wgan-gp": 0.36, "swae": 3.6, "max-swae": 1.0,
    "gswae": 3.6, "max-gswae": 1.0,
    "sinkhorn-ae": 0.45, "energy-ae": 2.0, "conditional-wae": 0.36,
    "pointcloud-wae": 1.3,
}  # fmt: skip

# What the preset `small` sets for MNIST and Fashion-MNIST: the best of eleven trials a recipe on a
# validation part of MNIST, by the Fréchet distance of prior samples (benchmarks/tuning.py); of
# conditional-wae eight trials, by the classes of completions (benchmarks/completion.py).
TUNED: dict[str, dict[str, Any]] = {
    recipe: {
        "latent": latent, "training.lr": rate, "training.inner_lr": rate / 2, strength: value,
        "training.schedule": "smooth",
    }
    for recipe, latent, rate, strength, value in (
        ("vae-bernoulli", 13, 4.8e-3, "beta", 1.6),
        ("wae-mmd", 10, 5.8e-3, "weight", 192.08),
        ("wae-gan", 13, 4.8e-3, "weight", 8.064),
        ("swae", 10, 5.8e-3, "weight", 98.784),
        ("sinkhorn-ae", 15, 2.6e-3, "weight", 3.78),
    )
} | {
    "conditional-wae": {
        "latent": 8, "training.lr": 3e-3, "training.inner_lr": 3e-3, "weight": 30.0,
        "training.schedule": "smooth",
    },
}  # fmt: skip

# What the preset `paper` sets beside the published networks, for MNIST and for CelebA. The
# published cost is 0.05 Σ (x - x')² and the noise 0.01, on CelebA in [-1, 1]; here both are on
# the scale of images in [0, 1].
NETWORKS: dict[str, dict[str, Any]] = {
    "mnist": {"latent": 8, "network.critic": (512,) * 4},
    "celeba": {
        "latent": 64, "network.critic": (1024,) * 4, "data.size": 64, "data.channels": "colour",
    },
}  # fmt: skip
AUTOENCODERS: dict[str, dict[str, Any]] = {
    "mnist": {"training.epochs": 100, "training.schedule": "drops"},
    "celeba": {
        "training.epochs": 50, "training.schedule": "smooth", "training.inner_lr": 1e-3,
    },
}  # fmt: skip
PENALISED: dict[str, dict[str, Any]] = {
    "mnist": {
        "scale": 0.05, "noise": 0.01, "training.pretrain": 200, "training.pretrain_batch": 1000,
    },
    "celeba": {
        "scale": 0.2, "noise": 0.005, "training.pretrain": 200, "training.pretrain_batch": 256,
    },
}  # fmt: skip
ONE_RECIPE: dict[str, dict[str, Any]] = {
    "swae": {
        "latent": 2, "directions": 50, "training.batch": 500, "training.optimiser": "rmsprop",
        "training.schedule": "constant", "noise": 0.0, "training.pretrain": 0,
    },
    **{recipe: {
        "prior": "uniform", "latent": 100, "directions": 10_000, "training.batch": 64,
        "training.lr": 1e-4, "training.inner_lr": 1e-4,
    } for recipe in ("swg", "swgan", "max-swg")},
    "wgan-gp": {"training.batch": 64},
}  # fmt: skip
ONE_CASE: dict[tuple[str, str], dict[str, Any]] = {
    ("wae-mmd", "mnist"): {"weight": 10.0},
    ("wae-gan", "mnist"): {"weight": 10.0},
    ("wae-mmd", "celeba"): {"weight": 100.0},
    ("wae-gan", "celeba"): {"weight": 100.0, "training.lr": 3e-4},
}


def paper(recipe: str, images: str) -> dict[str, Any]:
    """The settings of the preset `paper` for a recipe on `images`, mnist or celeba."""
    return {
        **NETWORKS[images],
        **({} if recipe in GENERATORS else AUTOENCODERS[images]),
        **(PENALISED[images] if recipe in RELATIVE_WEIGHTS else {}),
        **OWN.get(recipe, {}),
        **ONE_RECIPE.get(recipe, {}),
        **ONE_CASE.get((recipe, images), {}),
    }
