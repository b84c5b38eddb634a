"""What makes fp16 of an fp32 bundle, and what all of them share.

For ONNX, OpenVINO and TFLite only weights are stored in fp16, each followed by a conversion to float32, so the file runs wherever the fp32
file runs, at about half its size. OpenVINO on a GPU computes in fp16 where that is asked for; ONNX Runtime, OpenVINO and LiteRT on a CPU
convert the weights once when they load and compute in float32, as fast as before. For TensorRT all tensors are fp16. What fp16 cannot hold
stays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.bundle import Bundle, ModelFiles
from edgeseg.core.errors import ConfigError

LARGEST: Final = 65504.0
"""Largest finite fp16 value."""
FEWEST: Final = 64
"""Constants with fewer elements stay: they save nothing."""
SCHEME: Final[dict[str, Any]] = {"method": "weights-only", "weights": "fp16, converted to fp32 when loaded", "activations": "fp32"}


class Halver(Protocol):
    """Turn an fp32 bundle of one format into model files with fp16 weights."""

    format: str

    def __call__(self, bundle: Bundle, workdir: Path) -> ModelFiles:
        """Write the fp16 model into `workdir`, an existing folder; same bundle, same bytes.

        Raises:
            ConfigError: the bundle is of another format, or not fp32.
            RuntimeFailure: the vendor's tool failed; its own error is the cause.
            MissingExtraError: it is not installed.
        """
        ...


def check_fp32(bundle: Bundle, format: str) -> None:
    """Refuse what cannot be halved, in words; see `Halver.__call__`."""
    manifest = bundle.manifest
    if manifest.format != format:
        raise ConfigError(f"{bundle.folder} is an {manifest.format} bundle; this makes fp16 of {format}")
    if manifest.precision != "fp32":
        raise ConfigError(f"{bundle.folder} is {manifest.precision}; fp16 is made of an fp32 bundle; make one with: edgeseg export")


def fits(values: NDArray[Any]) -> bool:
    """Whether all values are in fp16's range (what is below its smallest one becomes 0)."""
    return bool(np.isfinite(values).all()) and float(np.abs(values).max(initial=0.0)) <= LARGEST
