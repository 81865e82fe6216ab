"""Training: the step, the checkpoints, and the loop around them."""

from monge.training.trainer import Trainer

__all__ = ["Trainer"]
