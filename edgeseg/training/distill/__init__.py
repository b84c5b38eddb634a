"""Learning from another network's scores beside the labels."""

from edgeseg.training.distill.base import Distiller
from edgeseg.training.distill.registry import DISTILLERS
from edgeseg.training.distill.total import check_teacher, frozen, scores_of, taught_loss

__all__ = ["DISTILLERS", "Distiller", "check_teacher", "frozen", "scores_of", "taught_loss"]
