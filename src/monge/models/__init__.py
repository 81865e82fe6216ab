"""Models: a decoder and a prior, fitted by making two samples indistinguishable."""

from monge.models.base import (
    AutoEncoder,
    Inner,
    Matching,
    Model,
    Pass,
    checked,
    evaluating,
    matchings,
    pairs,
)
from monge.models.conditional import ConditionalWAE
from monge.models.flow import FlowMatching
from monge.models.flow_paths import BridgePath, LinearPath, VariancePreservingPath
from monge.models.generator import ImplicitGenerator
from monge.models.masks import Mask, RandomBox, mask
from monge.models.paths import spherical
from monge.models.vae import VAE
from monge.models.wae import WAE, EncoderPretraining

__all__ = [
    "VAE",
    "WAE",
    "AutoEncoder",
    "BridgePath",
    "ConditionalWAE",
    "EncoderPretraining",
    "FlowMatching",
    "ImplicitGenerator",
    "Inner",
    "LinearPath",
    "Mask",
    "Matching",
    "Model",
    "Pass",
    "RandomBox",
    "VariancePreservingPath",
    "checked",
    "evaluating",
    "mask",
    "matchings",
    "pairs",
    "spherical",
]
