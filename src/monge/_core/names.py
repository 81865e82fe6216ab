"""Names that flags, settings and pages share: samplers of a run, and writers of its log."""

from typing import Literal

SamplerName = Literal["prior", "mixture", "flow"]
"""The model's own prior, or a distribution of codes that is fitted to those of the training
part."""
WriterName = Literal["tensorboard", "wandb", "mlflow"]
"""What a log is written to besides `metrics.jsonl`."""
