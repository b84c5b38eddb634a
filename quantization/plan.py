"""What a quantizer is told to do: which calibrator, which layers stay float, which ranges are given, how weights are cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgeseg.core.errors import ConfigError

WEIGHT_SCHEMES: Final = ("per-channel", "per-tensor")
_LARGEST: Final = 3.0e38
"""Just below the largest float32."""
ACTIVATION_SCHEMES: Final = ("asymmetric", "symmetric")


@dataclass(frozen=True, kw_only=True)
class Int8Plan:
    """One way to make int8 of a bundle. The same plan, bundle and frames give the same bytes."""

    calibrator: str = "auto"
    """Name in `quantization.calibrators.CALIBRATORS`; `auto` = the first plan of the format's `offers`."""
    float_layers: tuple[str, ...] = ()
    """Names of layers of that format's float graph (`tensors.layers`) that stay fp32 besides the head."""
    ranges: Mapping[str, tuple[float, float]] | None = None
    """Tensor of that format's float graph -> (low, high), in place of what calibration finds for it."""
    weights: str = "per-channel"
    """One of `WEIGHT_SCHEMES`: one scale an output channel, or one a layer. Always symmetric."""
    activations: str = "asymmetric"
    """One of `ACTIVATION_SCHEMES`: the zero point where it falls, or in the middle for every tensor that has negative values."""
    bias_correction: bool = False
    """Take the mean error that 8-bit weights give each output channel out of its bias (Nagel et al. 2019, arXiv:1906.04721, 4.2).
    Where a format's tools do not offer it (`Quantizer.offers`) it is refused."""

    def __post_init__(self) -> None:
        """Refuse what means nothing.

        Raises:
            ConfigError: an unknown scheme, or a range that is not finite or whose ends are not in order.
        """
        if self.activations not in ACTIVATION_SCHEMES:
            raise ConfigError(f"activations '{self.activations}' is unknown; one of {', '.join(ACTIVATION_SCHEMES)}")
        if self.weights not in WEIGHT_SCHEMES:
            raise ConfigError(f"weights '{self.weights}' is unknown; one of {', '.join(WEIGHT_SCHEMES)}")
        for tensor, (low, high) in (self.ranges or {}).items():
            if not -_LARGEST < low <= high < _LARGEST:
                raise ConfigError(f"the range of {tensor} is ({low:g}, {high:g}); it must be finite and its ends in order")

AUTO: Final = Int8Plan()
"""What a format does when nobody says anything."""
