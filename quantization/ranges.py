"""The ranges of a plan: those that are given, and for the rest what the plan's calibrator makes of the calibration frames."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

import numpy as np

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import ConfigError
from edgeseg.core.images import Frame
from quantization.calibrators import CALIBRATORS, Ranges
from quantization.plan import Int8Plan
from quantization.statistics import TensorStatistics, collect
from quantization.tensors import LayerFacts


class RangeFinder:
    """Ranges of the tensors `names` of a float bundle. The frames are looked at once, whatever is asked afterwards."""

    def __init__(
        self, bundle: Bundle, frames: Sequence[Frame], names: Sequence[str], channels: Mapping[str, int] | None = None
    ) -> None:
        self.bundle, self.frames, self.names, self.channels = bundle, frames, tuple(names), dict(channels or {})

    @cached_property
    def seen(self) -> dict[str, TensorStatistics]:
        """Statistics of all tensors."""
        return collect(self.bundle, self.frames, self.names, self.channels)

    def find(self, plan: Int8Plan) -> dict[str, Ranges]:
        """Lowest and highest value of each tensor, a row each (several rows = by channel); a given range is one row.

        Raises:
            ConfigError: an unknown calibrator, or ranges are given and none of them is of a tensor that becomes 8 bit here.
        """
        if plan.calibrator not in CALIBRATORS:
            raise ConfigError(f"calibrator '{plan.calibrator}' is unknown; one of {', '.join(CALIBRATORS)}")
        given = {name: ends for name, ends in (plan.ranges or {}).items() if name in self.names}
        if plan.ranges and not given:
            raise ConfigError(f"none of the {len(plan.ranges)} ranges given is of a tensor that becomes 8 bit in {self.bundle.folder.name}")
        calibrate, found = CALIBRATORS[plan.calibrator], dict[str, Ranges]()
        for name in self.names:
            ends = given.get(name)
            low_K, high_K = calibrate(self.seen[name]) if ends is None else (np.array([float(ends[0])]), np.array([float(ends[1])]))
            if plan.activations == "symmetric":
                largest = np.maximum(-low_K, high_K)
                low_K, high_K = np.where(low_K < 0, -largest, low_K), np.where(low_K < 0, largest, high_K)
            found[name] = (np.minimum(low_K, 0.0), np.maximum(high_K, 0.0))  # 0 is a value of its own: padding has it
        return found


def check_float_layers(plan: Int8Plan, layers: Sequence[LayerFacts], always: Collection[str]) -> tuple[str, ...]:
    """Layers of the plan that stay float, in the order of the graph, without those that always do.

    Raises:
        ConfigError: the graph has no such layer.
    """
    known = [layer.name for layer in layers]
    for name in plan.float_layers:
        if name not in known:
            raise ConfigError(f"float layer {name!r} is not in the graph; its layers with weights are named by quantization.tensors")
    return tuple(name for name in known if name in plan.float_layers and name not in always)
