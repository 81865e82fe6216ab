"""The recipes of monge, a row each.

Every fact about a recipe stands in its row; help texts, `monge recipes`, docs tables, presets and
tests are made from the rows. Settings are literal, by their dotted names in a configuration.
"""

from collections.abc import Mapping
from typing import Any

from monge.recipes.options import (
    ConditionalOptions,
    CriticOptions,
    DriftingOptions,
    FlowOptions,
    GaussianVAEOptions,
    GeneralizedSlicedOptions,
    MaxGeneralizedSlicedOptions,
    MMDGeneratorOptions,
    MMDOptions,
    SinkhornOptions,
    SlicedGeneratorOptions,
    SlicedOptions,
    VAEOptions,
    WAEOptions,
)
from monge.recipes.recipe import Recipe, Settings

AUTO, GENERATORS = "monge.builders.autoencoders", "monge.builders.generators"

# What the preset `paper` sets beside the published networks, for MNIST and for CelebA. The
# published cost is 0.05 Σ (x - x')² and the noise 0.01, on CelebA in [-1, 1]; here both are on
# the scale of images in [0, 1].
NETWORKS: dict[str, Settings] = {
    "mnist": {"network.published": True, "latent": 8, "network.critic": (512,) * 4},
    "celeba": {
        "network.published": True,
        "latent": 64,
        "network.critic": (1024,) * 4,
        "data.size": 64,
        "data.channels": "colour",
    },
}
TRAINING: dict[str, Settings] = {
    "mnist": {"training.epochs": 100, "training.schedule": "drops"},
    "celeba": {
        "training.epochs": 50,
        "training.schedule": "smooth",
        "training.inner_lr": 1e-3,
    },
}
PENALISED: dict[str, Settings] = {
    "mnist": {
        "scale": 0.05,
        "noise": 0.01,
        "training.pretrain": 200,
        "training.pretrain_batch": 1000,
    },
    "celeba": {
        "scale": 0.2,
        "noise": 0.005,
        "training.pretrain": 200,
        "training.pretrain_batch": 256,
    },
}


def paper(
    *layers: Mapping[str, Settings], every: Settings | None = None, **images: Settings
) -> dict[str, dict[str, Settings]]:
    """The preset `paper`: layers of settings by images, then what is for all, then for some.

    Other images take the settings of CelebA.
    """
    merged: dict[str, dict[str, Any]] = {}
    for name in NETWORKS:
        merged[name] = {}
        for layer in (NETWORKS, *layers, {name: every or {}}, images):
            merged[name] |= layer.get(name, {})
    mnist, celeba = merged["mnist"], merged["celeba"]
    return {"paper": {"mnist": mnist, "fashion-mnist": mnist, "images": celeba}}


def tuned(
    latent: int, rate: float, strength: str, value: float, schedule: str = "smooth"
) -> dict[str, Any]:
    """The best of eleven trials on a validation part of MNIST, by the Fréchet distance of prior
    samples (benchmarks/tuning.py)."""
    return {
        "latent": latent,
        "training.lr": rate,
        "training.inner_lr": rate / 2,
        strength: value,
        "training.schedule": schedule,
    }


WAE_PAPER = paper(TRAINING, PENALISED)
WAE_GAN: dict[str, Settings] = {
    "mnist": {"weight": 10.0},
    "celeba": {"weight": 100.0, "training.lr": 3e-4},
}
WAE_GAN_PAPER = paper(TRAINING, PENALISED, WAE_GAN)
ALPHA_GAN_PAPER = paper(TRAINING, PENALISED, WAE_GAN, every={"condition": None})
# the cost was tried after the eleven, and so was the penalty of alpha-gan (docs/evaluate.md)
WAE_GAN_TUNED = tuned(13, 4.8e-3, "weight", 8.064) | {"cost": "elastic-net"}
SLICED_PAPER = {
    "prior": "uniform",
    "latent": 100,
    "training.batch": 64,
    "training.lr": 1e-4,
    "training.inner_lr": 1e-4,
}

ROWS = (
    Recipe(
        name="wae-mmd",
        build=f"{AUTO}:wae_mmd",
        line="WAE, MMD of codes with seven inverse multiquadratics (Tolstikhin et al. 2018)",
        paper="Tolstikhin, Bousquet, Gelly, Schölkopf, Wasserstein auto-encoders, 2018",
        options=MMDOptions,
        weight=7.0,
        # a cosine, a third of λ, kernel and cost were tried after the eleven (docs/evaluate.md)
        tuned=tuned(10, 5.8e-3, "weight", 64.0, "cosine")
        | {"kernel": "imq-near", "cost": "elastic-net"},
        presets=paper(TRAINING, PENALISED, mnist={"weight": 10.0}, celeba={"weight": 100.0}),
    ),
    Recipe(
        name="wae-gan",
        build=f"{AUTO}:wae_gan",
        line="WAE, latent critic, Jensen-Shannon (Tolstikhin et al. 2018; Makhzani et al. 2015)",
        paper="Tolstikhin, Bousquet, Gelly, Schölkopf, Wasserstein auto-encoders, 2018; with a "
        "squared cost the adversarial auto-encoder of Makhzani, Shlens, Jaitly, Goodfellow, Frey, "
        "Adversarial autoencoders, 2015",
        options=CriticOptions,
        weight=0.18,
        tuned=WAE_GAN_TUNED,
        presets=WAE_GAN_PAPER,
        aliases=("aae",),
    ),
    Recipe(
        name="alpha-gan",
        build=f"{AUTO}:wae_gan",
        line="WAE, critics of codes and of samples, by clusters (Rosca et al. 2017)",
        paper="Rosca, Lakshminarayanan, Warde-Farley, Mohamed, Variational approaches for "
        "auto-encoding generative adversarial networks, 2017; samples are matched in the second "
        "half of the training; conditioned on clusters as in Liu, Wang, Bau, Zhu, Torralba, "
        "Diverse image generation via self-conditioned GANs, 2020",
        options=CriticOptions,
        settings={
            "condition": "clusters",
            "sharpen": "jensen-shannon",
            "sharpen_from": 0.5,
            "training.ema": 0.998,
        },
        weight=0.18,
        # a critic of samples at a rate of 0.0005 may stay at chance (docs/evaluate.md)
        tuned=WAE_GAN_TUNED | {"penalty": 0.1, "sharpen_lr": 2e-3, "network.details": 4.0},
        presets=ALPHA_GAN_PAPER,
        needs=("ordered",),
    ),
    Recipe(
        name="wae-wgan-gp",
        build=f"{AUTO}:wae_wgan_gp",
        line="WAE, W_1 of codes by a critic with a penalty (Gulrajani et al. 2017)",
        paper="Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville, Improved training of Wasserstein "
        "GANs, 2017, on codes",
        options=WAEOptions,
        settings={"training.inner_steps": 5},
        weight=0.36,
        presets=paper(TRAINING, PENALISED, every={"training.inner_steps": 5}),
    ),
    Recipe(
        name="swae",
        build=f"{AUTO}:swae",
        line="WAE, sliced W_2² of codes (Kolouri et al. 2019)",
        paper="Kolouri, Pope, Martin, Rohde, Sliced Wasserstein auto-encoders, 2019",
        options=SlicedOptions,
        weight=3.6,
        # the cost was tried after the eleven (docs/evaluate.md)
        tuned=tuned(10, 5.8e-3, "weight", 98.784) | {"cost": "elastic-net"},
        presets=paper(
            TRAINING,
            PENALISED,
            every={
                "latent": 2,
                "directions": 50,
                "training.batch": 500,
                "training.optimiser": "rmsprop",
                "training.schedule": "constant",
                "noise": 0.0,
                "training.pretrain": 0,
            },
        ),
    ),
    # a slice that turns slowly is behind the model: MMD² of MNIST codes 0.25 at (1e-2, 1 step)
    Recipe(
        name="max-swae",
        build=f"{AUTO}:max_swae",
        line="WAE, W_2² of codes on a learned worst slice (Deshpande et al. 2019)",
        paper="Deshpande et al., Max-sliced Wasserstein distance and its use for GANs, 2019, on "
        "codes",
        options=WAEOptions,
        settings={"training.inner_lr": 0.1, "training.inner_steps": 5},
        weight=1.0,
        presets=paper(
            TRAINING, PENALISED, every={"training.inner_lr": 0.1, "training.inner_steps": 5}
        ),
    ),
    Recipe(
        name="gswae",
        build=f"{AUTO}:gswae",
        line="WAE, sliced W_2² of codes along circles (Kolouri et al. 2019, generalized)",
        paper="Kolouri, Nadjahi, Simsekli, Badeau, Rohde, Generalized sliced Wasserstein "
        "distances, 2019",
        options=GeneralizedSlicedOptions,
        weight=3.6,
        presets=WAE_PAPER,
    ),
    Recipe(
        name="max-gswae",
        build=f"{AUTO}:max_gswae",
        line="WAE, W_2² of codes on learned worst circles (Kolouri et al. 2019, generalized)",
        paper="Kolouri, Nadjahi, Simsekli, Badeau, Rohde, Generalized sliced Wasserstein "
        "distances, 2019",
        options=MaxGeneralizedSlicedOptions,
        settings={"training.inner_lr": 0.1},
        weight=1.0,
        presets=paper(TRAINING, PENALISED, every={"training.inner_lr": 0.1}),
    ),
    Recipe(
        name="sinkhorn-ae",
        build=f"{AUTO}:sinkhorn_ae",
        line="WAE, Sinkhorn divergence of codes (Patrini et al. 2019)",
        paper="Patrini et al., Sinkhorn autoencoders, 2019",
        options=SinkhornOptions,
        weight=0.45,
        tuned=tuned(15, 2.6e-3, "weight", 3.78),
        presets=WAE_PAPER,
    ),
    Recipe(
        name="energy-ae",
        build=f"{AUTO}:energy_ae",
        line="WAE, energy distance of codes (Székely, Rizzo 2013)",
        paper="Székely, Rizzo, Energy statistics, 2013, on codes",
        options=WAEOptions,
        weight=2.0,
        presets=WAE_PAPER,
    ),
    Recipe(
        name="vae",
        build=f"{AUTO}:vae",
        line="VAE: E KL + Gaussian likelihood, σ learned or given (Kingma, Welling 2014)",
        paper="Kingma, Welling, Auto-encoding variational Bayes, 2014",
        options=GaussianVAEOptions,
        presets=paper(TRAINING),
        needs=("ordered",),
    ),
    Recipe(
        name="vae-bernoulli",
        build=f"{AUTO}:vae_bernoulli",
        line="VAE: E KL + cross-entropy, data in [0, 1] (Kingma, Welling 2014)",
        paper="Kingma, Welling, Auto-encoding variational Bayes, 2014",
        options=VAEOptions,
        # a cosine was tried after the eleven (docs/evaluate.md)
        tuned=tuned(13, 4.8e-3, "beta", 1.6, "cosine"),
        presets=paper(TRAINING),
        needs=("bounded",),
    ),
    Recipe(
        name="pointcloud-wae",
        build=f"{AUTO}:wae_mmd",
        line="WAE of point clouds, MMD of codes, Chamfer (Achlioptas et al. 2018)",
        paper="Achlioptas, Diamanti, Mitliagkas, Guibas, Learning representations and generative "
        "models for 3D point clouds, 2018, with the penalty of wae-mmd on the codes",
        options=MMDOptions,
        settings={"training.lr": 5e-4, "training.batch": 50, "training.schedule": "smooth"},
        weight=1.3,
        needs=("unordered",),
    ),
    Recipe(
        name="conditional-wae",
        build=f"{AUTO}:conditional_wae",
        line="WAE of images given a part, critic of joint codes (Makhzani et al. 2015)",
        paper="Tolstikhin, Bousquet, Gelly, Schölkopf, Wasserstein auto-encoders, 2018; joint "
        "matching: Makhzani et al., Adversarial autoencoders, 2015",
        options=ConditionalOptions,
        weight=0.36,
        # the best of eight trials, by the classes of completions (benchmarks/completion.py)
        tuned={
            "latent": 8,
            "training.lr": 3e-3,
            "training.inner_lr": 3e-3,
            "weight": 30.0,
            "training.schedule": "smooth",
        },
        needs=("grid",),
    ),
    Recipe(
        name="gan",
        build=f"{GENERATORS}:gan",
        line="generator, Jensen-Shannon by a critic, non-saturating (Goodfellow et al. 2014)",
        paper="Goodfellow et al., Generative adversarial nets, 2014; the critic of images is "
        "normalised as in Radford, Metz, Chintala, Deep convolutional GANs, 2016",
        family="generator",
        settings={"training.lr": 2e-4, "training.inner_lr": 2e-4},
        presets=paper(every={"training.lr": 2e-4, "training.inner_lr": 2e-4}),
        needs=("ordered",),
    ),
    Recipe(
        name="wgan",
        build=f"{GENERATORS}:wgan",
        line="generator, W_1 by a critic with clipped weights (Arjovsky et al. 2017)",
        paper="Arjovsky, Chintala, Bottou, Wasserstein generative adversarial networks, 2017",
        family="generator",
        settings=(
            WGAN := {
                "training.optimiser": "rmsprop",
                "training.lr": 5e-5,
                "training.inner_lr": 5e-5,
                "training.inner_steps": 5,
                "training.inner_first": (25, 100),
                "training.batch": 64,
            }
        ),
        presets=paper(every=WGAN),
        needs=("ordered",),
    ),
    Recipe(
        name="wgan-gp",
        build=f"{GENERATORS}:wgan_gp",
        line="generator, W_1 by a critic with a gradient penalty (Gulrajani et al. 2017)",
        paper="Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville, Improved training of Wasserstein "
        "GANs, 2017",
        family="generator",
        settings=(
            WGAN_GP := {
                "training.lr": 1e-4,
                "training.inner_lr": 1e-4,
                "training.betas": (0.5, 0.9),
                "training.inner_steps": 5,
            }
        ),
        presets=paper(every={**WGAN_GP, "training.batch": 64}),
        needs=("ordered",),
    ),
    Recipe(
        name="swg",
        build=f"{GENERATORS}:swg",
        line="generator, sliced W_2² of the data themselves (Deshpande et al. 2018)",
        paper="Deshpande, Zhang, Schwing, Generative modeling using the sliced Wasserstein "
        "distance, 2018",
        family="generator",
        options=SlicedGeneratorOptions,
        settings={"directions": 1000},
        presets=paper(every={"directions": 10_000, **SLICED_PAPER}),
        needs=("ordered",),
    ),
    Recipe(
        name="swgan",
        build=f"{GENERATORS}:swgan",
        line="generator, sliced W_2² of a discriminator's features (Deshpande et al. 2018)",
        paper="Deshpande, Zhang, Schwing, Generative modeling using the sliced Wasserstein "
        "distance, 2018",
        family="generator",
        options=SlicedGeneratorOptions,
        settings={"training.lr": 2e-4, "training.inner_lr": 2e-4},
        presets=paper(every={"directions": 10_000, **SLICED_PAPER}),
        needs=("ordered",),
    ),
    Recipe(
        name="max-swg",
        build=f"{GENERATORS}:max_swg",
        line="generator, W_2² on a learned worst slice (Deshpande et al. 2019)",
        paper="Deshpande et al., Max-sliced Wasserstein distance and its use for GANs, 2019",
        family="generator",
        settings={"training.inner_lr": 0.1, "training.inner_steps": 5},
        presets=paper(every={"training.inner_steps": 5, **SLICED_PAPER}),
        needs=("ordered",),
    ),
    Recipe(
        name="mmd-generator",
        build=f"{GENERATORS}:mmd_generator",
        line="generator, MMD with seven inverse multiquadratics (Li et al. 2015)",
        paper="Li, Swersky, Zemel, Generative moment matching networks, 2015",
        family="generator",
        options=MMDGeneratorOptions,
        presets=paper(),
        needs=("ordered",),
    ),
    Recipe(
        name="sinkhorn-generator",
        build=f"{GENERATORS}:sinkhorn_generator",
        line="generator, Sinkhorn divergence (Genevay et al. 2018)",
        paper="Genevay, Peyré, Cuturi, Learning generative models with Sinkhorn divergences, 2018",
        family="generator",
        presets=paper(),
        needs=("ordered",),
    ),
    Recipe(
        name="flow-matching",
        build=f"{GENERATORS}:flow_matching",
        line="flow from noise to data, optimal-transport pairs (Lipman et al. 2023)",
        paper="Lipman, Chen, Ben-Hamu, Nickel, Le, Flow matching for generative modeling, 2023; "
        "Tong et al., Improving and generalizing flow-based generative models with minibatch "
        "optimal transport, 2024",
        family="flow",
        options=FlowOptions,
        settings={
            "training.batch": 128,
            "training.betas": (0.9, 0.999),
            "training.ema": 0.999,
        },
    ),
    Recipe(
        name="drifting",
        build=f"{GENERATORS}:drifting",
        line="generator, regressed on where its samples drift (Deng et al. 2026)",
        paper="Deng, Li, Li, Du, He, Generative modeling via drifting, 2026; along the gradient "
        "flow of a divergence: Gretton et al., On the Wasserstein gradient flow interpretation of "
        "drifting models, 2026; He et al., Sinkhorn-drifting generative models, 2026",
        family="generator",
        options=DriftingOptions,
        presets=paper(),
        needs=("ordered",),
    ),
)
