"""From an fp32 bundle to an int8 one, calibrated on the user's own training frames."""

from quantization.base import Quantizer
from quantization.calibration import choose_calibration
from quantization.registry import QUANTIZERS

__all__ = ["QUANTIZERS", "Quantizer", "choose_calibration"]
