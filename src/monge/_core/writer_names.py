"""The names of what a log is written to besides `metrics.jsonl`."""

from typing import Literal

WriterName = Literal["tensorboard", "wandb", "mlflow"]
