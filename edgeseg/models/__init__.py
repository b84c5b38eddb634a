"""Networks: one architecture, one paper, one file; shared blocks that fold and export."""

from edgeseg.models.blocks import Network, count_parameters, fold
from edgeseg.models.decision import MEAN_RGB, STD_RGB, ContractModule, decide, normalise, upsample_logits
from edgeseg.models.registry import MODELS, ModelSpec, build

__all__ = [
    "MEAN_RGB", "MODELS", "STD_RGB", "ContractModule", "ModelSpec", "Network", "build", "count_parameters", "decide", "fold",
    "normalise", "upsample_logits",
]
