"""From an fp32 bundle to an int8 one, calibrated on the user's own training frames."""

from quantization.base import Int8Writer, Quantizer
from quantization.calibration import choose_calibration
from quantization.plan import Int8Plan
from quantization.registry import QUANTIZERS

__all__ = ["QUANTIZERS", "Int8Plan", "Int8Writer", "Quantizer", "choose_calibration"]
