"""monge: train generative models by optimal transport, and measure how far apart two samples are.

A *model* is a decoder G and a prior P_Z, fitted by making two samples indistinguishable for a
*divergence* D. Names are loaded when first used, so that importing monge, and the command line's
help, need not wait for torch.
"""

import importlib

from monge._core.version import __version__

# every public name, by the module that has it; the reference of the docs lists the same
_NAMES = {
    name: module
    for module, names in {
        "api": "fit load Run",
        "_core.errors": "FailedRun Interrupted",
        "config": "Config DataConfig NetworkConfig TrainingConfig",
        "draws": "Draws",
        "recipes": "Recipe",
        "kernels": "IMQ RBF Energy Laplace RationalQuadratic multiscale_imq",
        "costs": "L1 L2 Bernoulli Chamfer EarthMover GaussianLikelihood SinkhornSets SlicedSets "
        "SquaredL2",
        "priors": "Disk Gaussian Mixture Ring Sphere SwissRoll Uniform",
        "divergences": "MMD Divergence EnergyDistance ExactWasserstein "
        "GeneralizedSlicedWasserstein MomentMatching SinkhornDivergence SlicedWasserstein",
        "adversarial": "FeatureSliced GradientPenalty JensenShannon KantorovichRubinstein Learned "
        "MaxGeneralizedSliced MaxSliced SpectralNorm WeightClipping",
        "models": "VAE WAE ConditionalWAE ImplicitGenerator Matching Model Pass",
        "data": "Kind Source",
        "training": "Trainer",
    }.items()
    for name in names.split()
}
_MODULES = (
    "adversarial",
    "builders",
    "config",
    "costs",
    "data",
    "divergences",
    "draws",
    "evaluation",
    "inference",
    "kernels",
    "models",
    "networks",
    "priors",
    "recipes",
    "runs",
    "show",
    "training",
    "transport",
)

__all__ = ["__version__", *_NAMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name in _NAMES:
        return getattr(importlib.import_module(f"monge.{_NAMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"monge.{name}")
    raise AttributeError(f"module 'monge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_MODULES})
