"""The samplers of a run: the distributions of codes that its model decodes to samples."""

from typing import Literal

SamplerName = Literal["prior", "mixture"]
"""The model's own prior, or a distribution that is fitted to the codes of the training part."""
