"""Quantization-aware training: a network that computes as its int8 bundles will, so that its weights can get used to it."""

from quantization.qat.network import FakeQuantized, Value
from quantization.qat.ranges import settle, watched
from quantization.qat.unfold import check_unfolds, unfold

__all__ = ["FakeQuantized", "Value", "check_unfolds", "settle", "unfold", "watched"]
