"""Networks: one architecture, one paper, one file; shared blocks that fold and export."""

from edgeseg.models.blocks import Network, count_parameters, fold
from edgeseg.models.decision import MEAN_RGB, STD_RGB, ContractModule, decide, normalise, upsample_logits
from edgeseg.models.encoders import ENCODERS
from edgeseg.models.macs import count_macs
from edgeseg.models.registry import MODELS, ModelSpec, build
from edgeseg.models.shapes import ChannelShapes, apply_channel_shapes, channel_shapes
from edgeseg.models.start import start

__all__ = [
    "ENCODERS", "MEAN_RGB", "MODELS", "STD_RGB", "ChannelShapes", "ContractModule", "ModelSpec", "Network", "apply_channel_shapes",
    "build", "channel_shapes", "count_macs", "count_parameters", "decide", "fold", "normalise", "start", "upsample_logits",
]
