"""Losses: one family a file, one registry, and their weighted sum."""

from edgeseg.training.losses.base import Loss
from edgeseg.training.losses.registry import LOSSES
from edgeseg.training.losses.total import total_loss
from edgeseg.training.losses.weights import class_weights

__all__ = ["LOSSES", "Loss", "class_weights", "total_loss"]
