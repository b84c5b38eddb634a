"""What a quantizer is, and the checks all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from edgeseg.core.bundle import Bundle, ModelFiles
from edgeseg.core.errors import ConfigError, DataError
from edgeseg.core.images import Frame

FLOAT_REASON: Final = "class layer and decision head: 8-bit scores tie, and the head is no faster in 8 bits"
"""Why the end of the graph stays float, for the manifest."""


class Quantizer(Protocol):
    """Turn an fp32 bundle of one format into int8 model files (post-training, static)."""

    format: str

    def __call__(self, bundle: Bundle, frames: Sequence[Frame], workdir: Path) -> ModelFiles:
        """Calibrate on `frames` and write the int8 model into `workdir`; same frames, same bytes.

        Args:
            bundle: fp32, of this format; it is not changed.
            frames: uint8 [h, w, 3] at the bundle's model size, from the training split.
            workdir: an existing folder.

        Raises:
            ConfigError: the bundle is of another format or not fp32.
            DataError: no frames, or frames of another size.
            RuntimeFailure: the vendor's quantizer failed; its own error is the cause.
            MissingExtraError: it is not installed.
        """
        ...


def check_request(bundle: Bundle, frames: Sequence[Frame], format: str) -> None:
    """Refuse what cannot be quantized, in words; see `Quantizer.__call__`."""
    manifest = bundle.manifest
    if manifest.format != format:
        raise ConfigError(f"{bundle.folder} is an {manifest.format} bundle; this quantizer reads {format}")
    if manifest.precision != "fp32":
        raise ConfigError(f"{bundle.folder} is {manifest.precision}; only an fp32 bundle can be quantized; make one with: edgeseg export")
    if not frames:
        raise DataError("no frames to calibrate on; int8 needs the training frames: check [data] dir and its train split")
    expected = (manifest.contract.height, manifest.contract.width, 3)
    for index, frame in enumerate(frames):
        if frame.shape != expected or frame.dtype != "uint8":
            raise DataError(f"calibration frame {index} is {frame.dtype} {frame.shape}; the bundle takes uint8 {expected}")
