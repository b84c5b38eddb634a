"""Proof of what is executed, by runtime. To add one: a file with a `base.Reader`, and a line in `EXECUTED`."""

from __future__ import annotations

from typing import Any, Final

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import EdgesegError, TargetError, vendor_errors
from targets.executed import onnxruntime, openvino, tflite
from targets.executed.base import ExecutedLayer, ExecutedPrecision, Reader
from targets.executed.gains import without_gain
from targets.runtimes.base import RuntimeOptions

__all__ = ["EXECUTED", "ExecutedLayer", "ExecutedPrecision", "Reader", "executed", "executed_facts"]

EXECUTED: Final[dict[str, Reader]] = {
    "onnxruntime": onnxruntime.executed,
    "openvino": openvino.executed,
    "litert": tflite.reader("litert"),
    "tflite_runtime": tflite.reader("tflite_runtime"),
}


def executed(bundle: Bundle, runtime: str, options: RuntimeOptions) -> ExecutedPrecision | None:
    """Read back what a runtime executes of a bundle, with the options it would be run with; `None` where the runtime has nothing to show.

    Raises:
        TargetError: the runtime executes no such format, or does not show its operators.
        EdgesegError: whatever opening the bundle raises.
    """
    from targets.runtimes import RUNTIMES

    if runtime not in EXECUTED:
        return None
    if bundle.manifest.format not in RUNTIMES[runtime].formats:
        raise TargetError(f"{runtime} does not run {bundle.manifest.format}; choose a runtime that does (edgeseg targets)")
    return EXECUTED[runtime](bundle, options)


def executed_facts(bundle: Bundle, runtime: str, options: RuntimeOptions) -> dict[str, Any] | None:
    """`ExecutedPrecision.to_json()` for a record, with the kinds that gain nothing by int8 (`gains.without_gain`).

    Where it cannot be read back there is no share, and the reason stands in `source`:
    readers look at what an SDK's next version may change, and a measurement that is finished is not lost with them.
    """
    try:
        with vendor_errors(f"reading back what {runtime} executes"):
            found = executed(bundle, runtime, options)
    except (EdgesegError, OSError) as error:
        return {"share_int8": None, "source": f"not known: {error}", "macs": 0, "macs_head": 0, "not_int8": [], "layers": [], "head": []}
    return None if found is None else {**found.to_json(), "without_gain": without_gain(found, runtime)}
