"""monge: train generative models by optimal transport, and measure how far apart two samples are.

A *model* is a decoder G and a prior P_Z, fitted by making two samples indistinguishable for a
*divergence* D. The names below are loaded when first used, so that importing monge, and the
command line's help, need not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING

from monge._core.version import __version__

if TYPE_CHECKING:
    from monge.config import Config
    from monge.runs import load
    from monge.training.fit import fit

_HOMES = {"fit": "monge.training.fit", "load": "monge.runs", "Config": "monge.config"}
_MODULES = (
    "adversarial", "builders", "config", "costs", "data", "divergences", "draws", "evaluation", "inference",
    "kernels", "models", "networks", "priors", "recipes", "runs", "show",
    "training", "transport",
)  # fmt: skip

__all__ = ["Config", "__version__", "fit", "load"]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"monge.{name}")
    raise AttributeError(f"module 'monge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, *_MODULES])
