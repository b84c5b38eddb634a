"""What a quantizer is, and the checks all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

from edgeseg.core.bundle import Bundle, ModelFiles
from edgeseg.core.errors import ConfigError, DataError
from edgeseg.core.images import Frame
from quantization.plan import AUTO, Int8Plan
from quantization.tensors import LayerFacts

FLOAT_REASON: Final = "class layer and decision head: 8-bit scores tie, and the head is no faster in 8 bits"
"""Why the end of the graph stays float, for the manifest; OpenVINO, whose class layer is int8, has a reason of its own."""


class Int8Writer(Protocol):
    """Writes int8 models of one fp32 bundle. What calibration sees is looked at once, so that another plan costs little."""

    layers: tuple[LayerFacts, ...]
    """Layers that become int8 unless a plan says otherwise, in the order of the graph."""

    def write(self, plan: Int8Plan, workdir: Path) -> ModelFiles:
        """Write the model of a plan into `workdir`, an existing folder. The same plan gives the same bytes.

        Its precision is `int8`, or `mixed` where the plan keeps layers float.

        Raises:
            ConfigError: the plan asks for what this format has not.
            RuntimeFailure: the vendor's quantizer failed; its own error is the cause.
        """
        ...


class Quantizer(Protocol):
    """Turn an fp32 bundle of one format into int8 model files (post-training, static)."""

    format: str
    offers: tuple[Int8Plan, ...]
    """Plans worth trying for this format; the first is the default (what `auto` stands for)."""

    def prepare(self, bundle: Bundle, frames: Sequence[Frame]) -> Int8Writer:
        """Make ready to write int8 models of `bundle`, calibrated on `frames`.

        Args:
            bundle: fp32, of this format; it is not changed.
            frames: uint8 [h, w, 3] at the bundle's model size, from the training split.

        Raises:
            ConfigError: the bundle is of another format or not fp32.
            DataError: no frames, or frames of another size.
            MissingExtraError: the vendor's quantizer is not installed.
        """
        ...

    def __call__(self, bundle: Bundle, frames: Sequence[Frame], workdir: Path, *, plan: Int8Plan = AUTO) -> ModelFiles:
        """Calibrate on `frames` and write the int8 model of one plan: `prepare(bundle, frames).write(plan, workdir)`."""
        ...


def check_request(bundle: Bundle, frames: Sequence[Frame], format: str) -> None:
    """Refuse what cannot be quantized, in words; see `Quantizer.prepare`."""
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


def resolve(plan: Int8Plan, offers: Sequence[Int8Plan]) -> Int8Plan:
    """Put the format's default in place of `auto`.

    Raises:
        ConfigError: bias correction is asked for where no plan of the format has it.
    """
    if plan.calibrator == "auto":
        first = offers[0]
        plan = replace(plan, calibrator=first.calibrator, bias_correction=plan.bias_correction or first.bias_correction)
    if plan.bias_correction and not any(offer.bias_correction for offer in offers):
        raise ConfigError("bias correction is not offered for this format; leave bias_correction out of the plan")
    return plan


def plan_facts(plan: Int8Plan, floats: Sequence[str], *, used: Sequence[str]) -> dict[str, Any]:
    """What the manifest's `scheme` says of a plan; `floats` = layers it keeps float, `used` = names of all calibrated tensors."""
    facts: dict[str, Any] = {
        "method": "post-training, static", "calibrator": plan.calibrator, "float_layers": list(floats),
        "weights": "int8, per output channel, symmetric" if plan.weights == "per-channel" else "int8, per tensor, symmetric",
        "bias_correction": plan.bias_correction,
    }
    if plan.ranges:
        facts["ranges_given"] = sum(name in plan.ranges for name in used)
        facts["ranges_calibrated"] = len(used) - facts["ranges_given"]
    return facts
