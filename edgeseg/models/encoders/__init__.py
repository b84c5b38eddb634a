"""Encoders that U-Net, FCN, Mask R-CNN and EffNet-Lite stand on: one architecture, one paper, one file."""

from edgeseg.models.encoders.base import Encoder
from edgeseg.models.encoders.registry import ENCODERS, EncoderSpec, build_encoder
from edgeseg.models.encoders.weights import load_encoder_weights

__all__ = ["ENCODERS", "Encoder", "EncoderSpec", "build_encoder", "load_encoder_weights"]
