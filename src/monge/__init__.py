"""monge: train generative models by optimal transport, and measure how far apart two samples are.

A *model* is a decoder G and a prior P_Z, fitted by making two samples indistinguishable for a
*divergence* D. Names are loaded when first used, so that importing monge, and the command line's
help, need not wait for torch; `__init__.pyi` lists them for this and for type checkers.
"""

from monge._core.lazy import attach
from monge._core.version import __version__ as __version__

__getattr__, __dir__, __all__ = attach(__name__, __file__)
